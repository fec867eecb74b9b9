"""``on-source-error: skip``: a bad sector costs its page, is never forgotten, and never passes for whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed, VolumeError
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.jobs import MOST_SALVAGED, WHOLE, Checkpoint, JobSpec, OnError, Salvaged
from blockjobs.registry import codec
from blockjobs.registry.attempts import Claim, pack_checkpoint, unpack_checkpoint
from blockworker.attempt.error_policy import Action, action_on_error
from blockworker.copy.digests import chunk_digest
from blockworker.copy.engine import Copy
from blockworker.copy.salvage import PAGE, read_around
from blockworker.copy.throttle import Throttle
from blockworker.drivers.backup import Backup
from blockworker.drivers.mirror import Mirror
from blockworker.volumes import NullTarget
from blockworker.volumes.base import request_error
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.null import NullSource

KIB, MIB = 1 << 10, 1 << 20
BAD = {3 * MIB + 5 * PAGE: 1, 6 * MIB - PAGE: 2}  # offset -> pages


class Bad:
    """A reader whose requests fail where they meet a bad byte."""

    def __init__(self, bad, code=errno.EIO):
        self.bad, self.code, self.reads = bad, code, 0

    def read(self, view, offset):
        self.reads += 1
        if any(offset <= byte < offset + len(view) for byte in self.bad):
            raise request_error("read", "disk", offset, len(view), self.code)
        view[:] = b"x" * len(view)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 5 * PAGE), st.integers(1, 64 * PAGE), st.lists(st.integers(0, 70 * PAGE), max_size=5))
def test_all_that_can_be_read_is_read_and_the_pages_that_cannot_are_named(offset, length, bad):
    view = bytearray(b"#" * length)
    reader = Bad(bad)
    lost = read_around(reader.read, memoryview(view), offset, lambda: None)
    expected = RangeSet()
    for byte in bad:
        if offset <= byte < offset + length:
            page = byte - byte % PAGE
            expected.add(max(page, offset), min(page + PAGE, offset + length))
    assert RangeSet(lost) == expected
    read = bytearray(b"x" * length)
    for start, end in expected.to_tuple():
        read[start - offset : end - offset] = bytes(end - start)
    assert view == read
    assert reader.reads <= 1 + 2 * 8 * max(1, len(bad)), "a bad sector costs a few reads, and no sweep"


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENXIO, errno.ECONNABORTED, errno.ENOTCONN, errno.ETIMEDOUT])
def test_a_disk_that_is_gone_is_no_bad_sector(code):
    with pytest.raises(VolumeError):
        read_around(Bad([0], code).read, memoryview(bytearray(MIB)), 0, lambda: None)


def test_whoever_reads_around_can_be_stopped_between_two_tries():
    class Stop(Exception):
        pass

    tries = []

    def step():
        tries.append(1)
        if len(tries) == 3:
            raise Stop

    with pytest.raises(Stop):
        read_around(Bad([0]).read, memoryview(bytearray(MIB)), 0, step)


def test_what_was_salvaged_is_bounded_and_counted():
    ranges = [(n * 2 * PAGE, n * 2 * PAGE + PAGE) for n in range(MOST_SALVAGED + 7)]
    first = WHOLE.having(ranges)
    assert (len(first.ranges), first.more, first.bytes) == (MOST_SALVAGED, 7, len(ranges) * PAGE)
    again = first.having([*first.ranges, (1 << 40, (1 << 40) + PAGE)])
    assert (len(again.ranges), again.more, again.bytes) == (MOST_SALVAGED, 8, (len(ranges) + 1) * PAGE)
    assert not WHOLE
    assert WHOLE.to_dict() == {}


def test_a_checkpoint_is_read_back_and_one_of_an_earlier_release_too():
    lost = Salvaged(((0, PAGE),), 3, 4 * PAGE)
    for point in (Checkpoint("u", ((0, MIB),)), Checkpoint("u", ((0, MIB),), lost)):
        assert unpack_checkpoint(pack_checkpoint(point)) == point
    assert unpack_checkpoint(codec.pack_value(["u", [[0, MIB]]])) == Checkpoint("u", ((0, MIB),))
    assert codec.unpack_value(pack_checkpoint(Checkpoint("u", ((0, MIB),)))) == ["u", [[0, MIB]]], (
        "as earlier releases read"
    )


# --- a whole attempt ------------------------------------------------------------------------------------


class Line:
    """A claimed job whose registry always answers; ``points`` are the checkpoints that it has."""

    def __init__(self, claim):
        self.spec, self.claim, self.points = claim.spec, claim, []
        self._news = threading.Event()

    def point(self):
        pass

    def wait(self, seconds):
        self._news.wait(min(seconds, 0.02))
        self._news.clear()

    def wake(self):
        self._news.set()

    def judge(self, failed):
        policy = self.spec.on_source_error if failed.operation == "read" else self.spec.on_target_error
        if failed.operation == "internal" or action_on_error(policy, failed.errno)[0] is Action.REPORT:
            raise failed

    def checkpoint(self, durable):
        self.points.append(durable)


def bad_image(site, sectors, **changes):
    """A job whose source cannot be read at some sectors."""
    rules = [{"event": "read_aio", "iotype": "read", "errno": 5, "sector": sector} for sector in sectors]
    for rule in rules:
        del rule["event"]
    image = {"driver": "file", "filename": str(site.images / "root.img")}
    source = {"host": "web1", "driver": "blkdebug", "image": image, "inject-error": rules}
    changes = {"on_source_error": OnError.SKIP, "snapshot": "none", **changes}
    return site.spec(source=volumespec.parse_volume(source), **changes)


def attempt(site, spec, opened, number=1, durable=Checkpoint()):  # noqa: B008 - it is frozen
    found = {"size": opened.size, "identity": opened.identity.to_list()}
    line = Line(Claim(number, f"a{number}", spec, found, durable, 0, number, 0, {}))
    work = Backup().attached(site.roots, line)
    work.set_speed(0)
    return line, work, found


def committed(site, spec, work, found):
    """Prepare and commit what an attempt has copied; the manifest."""
    result = {"attempts": 1, "token": 1, "started": time.time(), "finished": time.time(), "counts": {}, **work.result()}
    Backup().prepare(site.roots, spec, work.durable, found, result)
    Backup().commit(site.roots, spec, 1)
    return json.loads((site.backup / "R/root.img.manifest.json").read_text())


def test_a_bad_sector_costs_its_page_and_is_in_the_manifest_and_the_result(site):
    content = os.urandom(8 * MIB)
    site.image(content)
    sectors = [offset // 512 + 8 * page for offset, pages in BAD.items() for page in range(pages)]
    spec = bad_image(site, sectors)
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, found = attempt(site, spec, opened)
    with closing(work):
        work.start(line)
    expected = bytearray(content)
    for offset, pages in BAD.items():
        expected[offset : offset + pages * PAGE] = bytes(pages * PAGE)
    ranges = [[offset, offset + pages * PAGE] for offset, pages in BAD.items()]
    record = committed(site, spec, work, found)
    assert (site.backup / "R/root.img").read_bytes() == bytes(expected)
    assert (record["salvaged"], record["salvaged-bytes"]) == (ranges, 3 * PAGE)
    assert work.result()["salvaged"] == ranges
    digests = (site.backup / "R/root.img.blake3").read_bytes()
    assert digests[3 * 32 : 4 * 32] == chunk_digest(memoryview(expected)[3 * MIB : 4 * MIB]), "it verifies as it is"


@pytest.mark.parametrize("policy", [OnError.REPORT, OnError.AUTO])
def test_no_other_policy_skips_anything(site, policy):
    site.image(os.urandom(4 * MIB))
    spec = bad_image(site, [3 * MIB // 512], on_source_error=policy)
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, _ = attempt(site, spec, opened)
    with closing(work), pytest.raises(VolumeError):
        work.start(line)
    assert "salvaged" not in work.result()


def test_a_whole_backup_says_nothing_of_salvage(site):
    site.image(os.urandom(MIB))
    spec = site.spec(on_source_error=OnError.SKIP, snapshot="none")
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, found = attempt(site, spec, opened)
    with closing(work):
        work.start(line)
    assert not {name for name in committed(site, spec, work, found) if "salvaged" in name}


def test_what_an_attempt_that_was_killed_had_skipped_is_still_known(site):
    """The range counts as done by the very record that says that it was skipped."""
    content = os.urandom(8 * MIB)
    site.image(content)
    spec = bad_image(site, [MIB // 512, 7 * MIB // 512])
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, _ = attempt(site, spec, opened)
    with closing(work):
        work.start(line)
    # The first checkpoint of an attempt that had come to 4 MiB, as the registry would have it.
    (lost, _) = work.durable.salvaged.ranges
    early = Checkpoint(work.durable.staging, ((0, 4 * MIB),), Salvaged((lost,), 0, PAGE))
    again = unpack_checkpoint(pack_checkpoint(early))
    second, rest, found = attempt(site, spec, opened, 2, again)
    with closing(rest):
        rest.start(second)
    ranges = [[MIB, MIB + PAGE], [7 * MIB, 7 * MIB + PAGE]]
    assert rest.progress().counts["read"] == 4 * MIB, "what was done is not read again"
    assert committed(site, spec, rest, found)["salvaged"] == ranges


def test_every_checkpoint_names_what_was_skipped_of_what_it_calls_done(site):
    site.image(os.urandom(16 * MIB))
    sectors = [(n * MIB + 9 * PAGE) // 512 for n in range(16)]
    spec = bad_image(site, sectors)
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, _ = attempt(site, spec, opened)
    work.set_speed(64 * MIB)
    with closing(work):
        copy = work._made.copy
        runner = threading.Thread(target=work.start, args=(line,))
        runner.start()
        points = []
        while runner.is_alive():
            if copy.started:
                ranges = copy.flush()
                points.append((ranges, copy.salvaged_durable.ranges))
            runner.join(0.01)
    assert len(points) > 3
    for ranges, lost in points:
        done = RangeSet(ranges)
        for number in range(16):
            page = number * MIB + 9 * PAGE
            if done.covers(number * MIB, (number + 1) * MIB):
                assert (page, page + PAGE) in lost
            else:
                assert (page, page + PAGE) not in lost


def test_a_mirror_does_not_skip(site):
    site.image()
    spec = bad_image(site, [0], type="mirror")
    with pytest.raises(JobFailed, match="'on-source-error: skip' is for a backup"):
        Mirror().open(site.roots, spec, lambda: True)
    assert site.tree() == []


@pytest.mark.parametrize("before", ["whole", "foreign", "salvaged"])
def test_a_salvaged_image_replaces_no_whole_one(site_at, tmp_path, before):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    site.image(os.urandom(2 * MIB))
    old = site.backup / "R" / "root.img"
    if before == "foreign":
        old.parent.mkdir()
        old.write_bytes(b"precious")
    else:
        first = bad_image(site, [] if before == "whole" else [8], id=JobId("Q.root"), transaction=TxnId("Q"))
        opened = Backup().open(site.roots, first, lambda: True)
        line, work, found = attempt(site, first, opened)
        with closing(work):
            work.start(line)
        committed(site, first, work, found)
    content = old.read_bytes()
    spec = bad_image(site, [16], overwrite=True)
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, found = attempt(site, spec, opened)
    with closing(work):
        work.start(line)
    if before == "salvaged":
        assert committed(site, spec, work, found)["salvaged"] == [[2 * PAGE, 3 * PAGE]]
        return
    with pytest.raises(JobFailed, match="is whole, and a salvaged image does not replace it"):
        committed(site, spec, work, found)
    Backup().abort(site.roots, spec, 1, opened=True)
    assert old.read_bytes() == content


# --- a real bad disk --------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A device of 8 MiB, of which one sector of 512 bytes cannot be read."""
    if os.geteuid() != 0 or not shutil.which("dmsetup"):
        pytest.skip("a device-mapper device needs root and dmsetup")
    (tmp_path / "disk").write_bytes(os.urandom(8 * MIB))
    loop = subprocess.check_output(["losetup", "-f", "--show", tmp_path / "disk"], text=True).strip()
    name, bad = f"blockjobs-{os.getpid()}-{threading.get_native_id()}", 3 * MIB // 512 + 3
    rest = 8 * MIB // 512 - bad - 1
    table = f"0 {bad} linear {loop} 0\n{bad} 1 error\n{bad + 1} {rest} linear {loop} {bad + 1}\n"
    made = subprocess.run(["dmsetup", "create", name], input=table, text=True, capture_output=True, check=False)
    try:
        if made.returncode:
            pytest.skip(f"this kernel has no device-mapper: {made.stderr.splitlines()[0]}")
        yield f"/dev/mapper/{name}", (tmp_path / "disk").read_bytes()
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", name], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", loop], check=False)


def test_a_bad_sector_of_a_real_device_costs_its_page(disk):
    path, content = disk
    fd = os.open(path, os.O_RDONLY)

    def read(view, offset):
        try:
            done = os.preadv(fd, [view], offset)
        except OSError as error:
            raise request_error("read", path, offset, len(view), error.errno) from None
        if done < len(view):
            raise request_error("read", path, offset, len(view), errno.EIO)

    try:
        view = bytearray(8 * MIB)
        lost = read_around(read, memoryview(view), 0, lambda: None)
    finally:
        os.close(fd)
    assert lost == [(3 * MIB, 3 * MIB + PAGE)]
    assert view == content[: 3 * MIB] + bytes(PAGE) + content[3 * MIB + PAGE :]


# --- ignore has an end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "sector"), [("read", 2 * MIB // 512), ("write", 3 * MIB // 512)])
def test_an_error_that_is_ignored_ends_the_job_after_the_stall_limit(site, side, sector):
    site.image(os.urandom(4 * MIB))
    rule = {"iotype": side, "errno": 5, "sector": sector}
    image = {"driver": "file", "filename": f"{site.images}/root.img"}
    policies = {"on_source_error": OnError.IGNORE, "on_target_error": OnError.IGNORE, "stall_limit": 1}
    changes = {"snapshot": "none", **policies}
    if side == "read":
        keys = {"host": "web1", "driver": "blkdebug", "image": image, "inject-error": [rule]}
        spec = site.spec(source=volumespec.parse_volume(keys), **changes)
    else:
        image = {"driver": "file", "filename": f"{site.backup}/R/root.img"}
        keys = {"host": "web1", "driver": "blkdebug", "image": image, "inject-error": [rule]}
        spec = site.spec(target=volumespec.parse_volume(keys), **changes)
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, _ = attempt(site, spec, opened)
    began = time.monotonic()
    with closing(work), pytest.raises(VolumeError) as failed:
        work.start(line)
    assert 1 <= time.monotonic() - began < 20
    start = sector * 512 // MIB * MIB
    assert f"bytes {start} to {start + MIB} were tried for 1 s, and no other byte came through" in failed.value.text
    assert work.progress().offset >= 2 * MIB


def test_an_error_that_goes_away_in_time_is_ignored(site):
    site.image(os.urandom(4 * MIB))
    rules = [{"iotype": "read", "errno": 5, "sector": 4096, "once": True} for _ in range(3)]
    image = {"driver": "file", "filename": f"{site.images}/root.img"}
    source = volumespec.parse_volume({"host": "web1", "driver": "blkdebug", "image": image, "inject-error": rules})
    spec = site.spec(source=source, on_source_error=OnError.IGNORE, stall_limit=10, snapshot="none")
    opened = Backup().open(site.roots, spec, lambda: True)
    line, work, _ = attempt(site, spec, opened)
    with closing(work):
        work.start(line)
    assert work.progress().offset == 4 * MIB


def test_a_spec_that_skips_is_read_back(site):
    spec = site.spec(on_source_error=OnError.SKIP)
    assert JobSpec.from_dict(spec.to_dict()) == spec


def test_a_disk_of_which_every_page_is_bad_moves_and_can_be_held():
    source = NullSource(volumespec.NullVolume(size=8 * MIB))
    source.pread_into = Bad(range(0, 8 * MIB, PAGE)).read
    woken = threading.Event()
    copy = Copy(source, NullTarget(8 * MIB), size=8 * MIB, done=RangeSet(), throttle=Throttle(), wake=woken.set,
                salvage=True, lanes=1)  # fmt: skip
    copy.start()
    deadline = time.monotonic() + 10
    while not copy.tries:
        assert time.monotonic() < deadline
        woken.wait(0.001)
    began = time.monotonic()
    copy.hold()
    assert time.monotonic() - began < 1
    tries = copy.tries
    assert not woken.wait(0.1)
    assert copy.tries == tries
    copy.stop()
