"""The copy: identical, sparse, stopped by its gate, bounded by its interval, and never silent about an error."""

from __future__ import annotations

import errno
import os
import threading
import time
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockworker.copy.engine import Copy
from blockworker.copy.plan import pieces_of_ranges
from blockworker.copy.throttle import Throttle
from blockworker.targets.manifest import verify_image
from blockworker.targets.prepare import prepare_member
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import Extent, NullTarget, filter_target, open_source
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.null import NullSource

MIB = 1 << 20
BLOCK = 4096


class Driven:
    """A copy and what it runs on; ``finish`` does what the worker does, flush and record until it is done."""

    def __init__(self, source, target, *, done=(), throttle=None, **options):
        self.woken = threading.Event()
        self.source, self.target = source, target
        self.throttle = throttle or Throttle()
        self.copy = Copy(
            source,
            target,
            size=source.size,
            done=RangeSet(done),
            throttle=self.throttle,
            wake=self.woken.set,
            **options,
        )

    def until(self, what):
        """Wait for ``what`` to be true, at most 10 s."""
        deadline = time.monotonic() + 10
        while not what():
            assert time.monotonic() < deadline, "it never came"
            self.woken.wait(0.001)

    def finish(self):
        self.copy.start()
        while True:
            self.until(lambda: self.copy.finished or self.copy.flush_due or self.copy.troubles)
            if self.copy.troubles:
                raise self.copy.troubles[0]
            finished = self.copy.finished
            ranges = self.copy.flush()
            self.copy.recorded(ranges)
            if finished:
                self.copy.stop()
                return ranges


@pytest.fixture
def drive(site):
    """Copies of files and of anything else, stopped and closed at the end."""
    running, tokens = [], count(1)

    def start(source=None, target=None, member=None, **options):
        if source is None:
            source = open_source(site.spec().source.volume, site.roots)
        if target is None:
            target = StagedTarget.take(site.roots, member or site.opened(site.spec()), next(tokens))
            options.setdefault("digests", target.digests)
        if not isinstance(source, NullSource) and "chunk" in options:
            options["digests"] = None
        running.append(Driven(source, target, **options))
        return running[-1]

    yield start
    for driven in running:
        driven.copy.stop()
        driven.target.close()
        driven.source.close()


def garbage(size=8 * MIB):
    return open_source(volumespec.NullVolume(size=size), None)


def failing(site, side, **rule):
    rules = [{"errno": 5, **rule}]
    image = {"driver": "file", "filename": str(site.images / "root.img")}
    keys = {"host": "web1", "driver": "blkdebug", "image": image, "inject-error": rules}
    volume = volumespec.parse_volume(keys).volume
    return open_source(volume, site.roots) if side == "source" else volume


def part(site, driven):
    return site.backup / "R" / driven.target.member.staging


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_the_target_is_the_source_and_its_digests_prove_it(site, drive, lanes):
    content = os.urandom(5 * MIB) + bytes(3 * MIB) + os.urandom(MIB + 77)
    site.image(content)
    spec = site.spec()
    member = site.opened(spec)
    driven = drive(member=member, lanes=lanes)
    ranges = driven.finish()
    driven.target.close()
    assert part(site, driven).read_bytes() == content
    assert ranges == ((0, len(content)),)
    record = site.manifest(spec, member.size)
    prepare_member(site.roots, member, ranges, record)
    record["digests"].update(file=member.digests, root=_root(site, member))
    assert not verify_image(str(part(site, driven)), record).bad
    assert driven.copy.bytes_read == len(content)
    assert driven.copy.bytes_zero == 3 * MIB
    assert driven.copy.bytes_written == 6 * MIB + 77


def _root(site, member):
    from blake3 import blake3  # noqa: PLC0415

    return blake3((site.backup / "R" / member.digests).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "drawn",
    ["A", "-", "AAAA----BBBB", "A-A-A-A-", "----A", "A----", "000A-0-B--------------C", "0000", "-A--------------B"],
)
def test_holes_stay_holes_and_zeros_become_holes(site, drive, drawn):
    """Each letter is a block of 4 KiB; a dash a hole, 0 written zeros; a chunk has four blocks."""
    content = draw(site, drawn)
    driven = drive(chunk=4 * BLOCK)
    driven.finish()
    driven.target.close()
    assert part(site, driven).read_bytes() == content
    source, target = (site.images / "root.img").stat(), part(site, driven).stat()
    assert target.st_blocks <= source.st_blocks
    assert driven.copy.bytes_read + driven.copy.bytes_skipped == len(content)
    assert driven.copy.offset == len(content)


def draw(site, drawn):
    path = site.image(b"")
    with path.open("r+b") as file:
        file.truncate(len(drawn) * BLOCK)
        for index, letter in enumerate(drawn):
            if letter != "-":
                file.seek(index * BLOCK)
                file.write((b"\0" if letter == "0" else letter.encode()) * BLOCK)
    return path.read_bytes()


class Drawn(NullSource):
    """Extents as drawn, one letter a byte; a dot lies in a layer below."""

    def __init__(self, drawn):
        super().__init__(volumespec.NullVolume(size=len(drawn)))
        self.drawn = drawn

    def extents(self, start, length):
        for at in range(start, start + length):
            yield Extent(at, 1, self.drawn[at] == "A", self.drawn[at] != ".")


@settings(max_examples=300)
@given(st.text("A-.", max_size=40), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=4))
def test_the_plan_covers_all_that_is_missing_once_and_reads_all_data(drawn, chunk, done):
    have = RangeSet((n * chunk, min((n + 1) * chunk, len(drawn))) for n in done if n * chunk < len(drawn))
    planned = list(pieces_of_ranges(Drawn(drawn), list(have.missing(0, len(drawn))), chunk))
    covered = [n for piece in planned for n in range(piece.start, piece.end)]
    assert covered == [n for n in range(len(drawn)) if not have.covers(n, n + 1)]
    data = {n for piece in planned for start, end in piece.data for n in range(start, end)}
    assert data == {n for n in covered if drawn[n] == "A"}
    holes = {n for piece in planned for start, end in piece.holes for n in range(start, end)}
    assert holes == {n for n in covered if drawn[n] == "-"}, "what lies in a layer below does not become zeros"
    for piece in planned:
        assert piece.start % chunk == 0
        assert piece.end % chunk == 0 or piece.end == len(drawn)
        assert not piece.data or piece.end - piece.start <= chunk


def test_a_terabyte_of_hole_takes_no_time_and_no_space(site, drive):
    path = site.image(b"")
    os.truncate(path, 1 << 40)
    driven = drive()
    assert driven.finish() == ((0, 1 << 40),)
    assert driven.copy.bytes_skipped == 1 << 40
    assert part(site, driven).stat().st_blocks == 0


def test_an_empty_volume_is_finished_at_once(site, drive):
    site.image(b"")
    driven = drive()
    assert driven.finish() == ()
    assert driven.woken.is_set()


def test_only_what_is_missing_is_read_again(site, drive):
    site.image(os.urandom(8 * MIB))
    driven = drive(done=[(0, 3 * MIB), (5 * MIB, 8 * MIB)])
    assert driven.copy.offset == driven.copy.done_before == 6 * MIB
    assert driven.finish() == ((0, 8 * MIB),)
    assert driven.copy.bytes_read == 2 * MIB


def test_a_takeover_makes_holes_where_the_one_before_it_wrote(site, drive):
    content = draw(site, "-" * 512)
    member = site.opened(site.spec())
    first = StagedTarget.take(site.roots, member, 1)
    first.pwrite(memoryview(b"not recorded" * 1000), 0)
    first.close()
    driven = drive(target=StagedTarget.take(site.roots, member, 2))
    driven.finish()
    assert part(site, driven).read_bytes() == content


def test_nothing_is_written_while_it_is_held(site, drive):
    site.image(os.urandom(64 * MIB))
    driven = drive(throttle=Throttle(200 * MIB))
    driven.copy.start()
    driven.until(lambda: driven.copy.offset)
    for _ in range(5):
        driven.copy.hold()
        offset, changed = driven.copy.offset, part(site, driven).stat().st_mtime_ns
        driven.throttle.speed = 0  # wakes every sleeper: none of them may pass the gate
        driven.woken.clear()
        assert not driven.woken.wait(0.02)
        assert (driven.copy.offset, part(site, driven).stat().st_mtime_ns) == (offset, changed)
        driven.throttle.speed = 200 * MIB
        driven.copy.release()
        driven.until(lambda offset=offset: driven.copy.offset > offset or driven.copy.finished)
    driven.throttle.speed = 0
    while not driven.copy.finished:
        driven.copy.recorded(driven.copy.flush())
    assert part(site, driven).read_bytes() == (site.images / "root.img").read_bytes()


class SlowZeros(NullTarget):
    """A target that needs for ever to make a range zeros, and says so now and then."""

    def __init__(self, size):
        super().__init__(size)
        self.begun, self.over, self.steps = threading.Event(), threading.Event(), 0

    def zero(self, offset, length):
        while not self.over.is_set():
            self.steps += 1
            yield offset, offset
            self.begun.set()


def test_a_pause_comes_between_two_steps_of_a_long_zero(drive):
    target = SlowZeros(4 * MIB)
    driven = drive(Drawn([(0, 4 * MIB, False)]), target)
    driven.copy.start()
    try:
        assert target.begun.wait(10)
        driven.copy.hold()  # it would wait for ever for the end of the piece
        steps = target.steps
        driven.copy.release()
        driven.until(lambda: target.steps > steps)
    finally:
        target.over.set()
    driven.until(lambda: driven.copy.finished)


@pytest.mark.parametrize("end", ["hold", "stop"])
def test_a_throttled_sleeper_is_not_waited_for(drive, end):
    driven = drive(garbage(), NullTarget(8 * MIB), throttle=Throttle(1))  # 12 days a chunk
    driven.copy.start()
    driven.until(lambda: driven.copy.offset == MIB)
    began = time.monotonic()
    getattr(driven.copy, end)()
    assert time.monotonic() - began < 0.05


def test_lanes_wait_when_an_interval_is_not_on_record(drive):
    driven = drive(garbage(64 * MIB), NullTarget(64 * MIB), interval=8 * MIB)
    driven.copy.start()
    driven.until(lambda: driven.copy.bytes_read == 8 * MIB)
    ranges = driven.copy.flush()
    driven.woken.clear()
    assert not driven.woken.wait(0.02)
    assert driven.copy.bytes_read == 8 * MIB  # durable is not enough
    driven.copy.recorded(ranges)
    driven.until(lambda: driven.copy.bytes_read == 16 * MIB)
    assert driven.copy.flush_due


def test_an_interval_smaller_than_a_chunk_still_moves(drive):
    driven = drive(garbage(), NullTarget(8 * MIB), interval=1)
    assert driven.finish() == ((0, 8 * MIB),)


def test_a_read_error_keeps_its_chunk_and_a_retry_completes_it(site, drive):
    content = os.urandom(8 * MIB)
    site.image(content)
    driven = drive(failing(site, "source", iotype="read", sector=3 * MIB // 512, once=True))
    with pytest.raises(VolumeError) as failed:
        driven.finish()
    assert (failed.value.operation, failed.value.errno, failed.value.offset) == ("read", errno.EIO, 3 * MIB)
    assert not driven.copy.finished
    driven.copy.retry()
    driven.until(lambda: driven.copy.finished)
    assert driven.copy.troubles == []
    driven.copy.flush()
    assert part(site, driven).read_bytes() == content


def test_a_write_error_closes_the_gate_until_somebody_decides(site, drive):
    site.image(os.urandom(8 * MIB))
    staged = StagedTarget.take(site.roots, site.opened(site.spec()), 1)
    target = filter_target(failing(site, "target", iotype="write", sector=4 * MIB // 512, errno=28), staged)
    driven = drive(target=target, digests=staged.digests)
    for _ in range(3):
        with pytest.raises(VolumeError) as failed:
            driven.finish() if not driven.copy.started else driven.until(driven_troubles(driven))
        assert failed.value.errno == errno.ENOSPC
        driven.copy.hold()
        driven.copy.release()  # does not open what an error closed
        assert driven.copy.troubles
        driven.copy.retry()
    driven.copy.stop()
    driven.copy.stop()
    assert not driven.copy.finished


def driven_troubles(driven):
    def look():
        if driven.copy.troubles:
            raise driven.copy.troubles[0]
        return False

    return look


def test_a_failed_flush_makes_nothing_durable(site, drive):
    site.image(os.urandom(MIB))
    staged = StagedTarget.take(site.roots, site.opened(site.spec()), 1)
    target = filter_target(failing(site, "target", iotype="flush"), staged)
    driven = drive(target=target, digests=None)
    with pytest.raises(VolumeError) as failed:
        driven.finish()
    assert failed.value.operation == "flush"


def test_a_bug_in_a_lane_is_a_trouble_and_not_a_silence(drive, caplog):
    class Broken(NullSource):
        def pread_into(self, view, offset):
            raise ZeroDivisionError

    driven = drive(Broken(volumespec.NullVolume(size=MIB)), NullTarget(MIB))
    with pytest.raises(VolumeError, match="internal error: ZeroDivisionError") as failed:
        driven.finish()
    assert failed.value.operation == "internal"


def test_digests_and_another_chunk_do_not_go_together(site, drive):
    site.image(b"x")
    driven = drive()
    with pytest.raises(ValueError, match="one chunk"):
        Copy(
            driven.source, driven.target, size=1, done=RangeSet(), throttle=Throttle(), wake=driven.woken.set,
            digests=driven.target.digests, chunk=BLOCK,
        )  # fmt: skip
