"""Devices on record: undefined from before the first byte until a commit, whatever dies between."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blockjobs.cli.main import cli, run_command_guarded
from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed, LeaseLost, VolumeError
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import Checkpoint, JobSpec
from blockworker.host.config import HostConfig, host_config_text
from blockworker.host.roots import Roots
from blockworker.records import devices
from blockworker.records.devices import DeviceState
from blockworker.records.folder import LockBusy
from blockworker.targets import inplace
from blockworker.targets.inplace import DeviceTarget
from blockworker.targets.written import Written
from blockworker.volumes import Identity

MIB = 1 << 20
SOURCE = Identity("none", size=2 * MIB)
DONE = ((0, 2 * MIB),)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@dataclass(frozen=True)
class Site:
    """A host with one loop device of 4 MiB, full of ``x``."""

    roots: Roots
    device: str

    def spec(self, job: str = "R.a", **changes: object) -> JobSpec:
        target = volumespec.parse_volume({"driver": "host_device", "host": "h", "filename": self.device})
        spec = JobSpec(id=JobId(job), transaction=TxnId("R"), run=RunId("R"), source=volumespec.parse_volume("h:/s"),
                       target=target, in_place=True)  # fmt: skip
        return replace(spec, **changes)  # type: ignore[arg-type]

    def open(self, spec: JobSpec, size: int = 2 * MIB) -> devices.DeviceRecord:
        return inplace.open_target(self.roots, spec, size=size, source=SOURCE, wanted=lambda: True)[0]

    def written(self, spec: JobSpec) -> devices.DeviceRecord:
        """Opened, and all of it written."""
        record = self.open(spec)
        target = DeviceTarget.take(self.roots, spec, 1)
        target.pwrite(memoryview(b"a" * MIB), 0)
        target.zero(MIB, MIB)
        target.flush()
        target.close()
        return record

    def prepared(self, spec: JobSpec) -> devices.DeviceRecord:
        record = self.written(spec)
        inplace.prepare_device(self.roots, record, Checkpoint(record.uuid, DONE), {"version": 1})
        return record

    @property
    def record(self) -> devices.DeviceRecord | None:
        return next(iter(devices.device_records(self.roots)), None)

    def left(self) -> list[str]:
        return [record.left_by for record in devices.undefined_devices(self.roots)]

    def content(self) -> bytes:
        return Path(self.device).read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "root").mkdir()
    (tmp_path / "disk").write_bytes(b"x" * 4 * MIB)
    attach = ["losetup", "-f", "--show", str(tmp_path / "disk")]
    done = subprocess.run(attach, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    root = str(tmp_path / "root")
    config = HostConfig(name=Host("h"), read_roots=(root,), write_roots=(root,), allow_in_place=True, devices=(device,))
    yield Site(Roots(config), device)
    subprocess.run(["losetup", "-d", device], check=True)


def test_opening_writes_nothing_and_an_abort_of_it_leaves_no_trace(site):
    site.open(site.spec())
    assert (site.left(), site.content()) == ([], b"x" * 4 * MIB)
    assert inplace.abort_device(site.roots, "R.a", 1) == ""
    assert site.record is None


def test_a_commit_ends_what_a_claim_began(site):
    record = site.prepared(site.spec())
    assert site.left() == ["R.a"]
    for _ in range(2):
        inplace.commit_device(site.roots, record, 7)
    assert (site.left(), site.record.state) == ([], DeviceState.VALID)
    assert site.record.manifest["in_place"] == {"device_size": 4 * MIB, "offset": 0, "untouched": 2 * MIB}
    assert site.content() == b"a" * MIB + bytes(MIB) + b"x" * 2 * MIB
    with pytest.raises(JobFailed, match="is committed on this host"):
        inplace.abort_device(site.roots, "R.a", 7)
    assert inplace.abort_device(site.roots, "R.a", 8) == "", "the registry has lost decision 7, and the commit stands"
    assert (site.left(), site.record.state) == ([], DeviceState.VALID)


def test_a_device_that_has_become_smaller_than_what_was_opened_is_not_written(site, tmp_path):
    site.open(site.spec(), size=3 * MIB)
    os.truncate(tmp_path / "disk", 2 * MIB)
    subprocess.run(["losetup", "-c", site.device], check=True)
    with pytest.raises(JobFailed, match="has become smaller than what was opened"):
        DeviceTarget.take(site.roots, site.spec(), 1)
    assert site.content() == b"x" * 2 * MIB


@pytest.mark.parametrize("way", ["commit", "abort"])
def test_no_attempt_writes_to_a_device_whose_job_is_decided(site, way):
    record = site.prepared(site.spec())
    if way == "commit":
        inplace.commit_device(site.roots, record, 7)
    else:
        inplace.abort_device(site.roots, "R.a", 7)
    before = site.record
    with pytest.raises(JobFailed, match="is decided: nothing is written"):
        DeviceTarget.take(site.roots, site.spec(), 9)
    assert site.record == before


def test_an_aborted_job_leaves_it_undefined_until_another_one_commits(site):
    site.written(site.spec())
    for _ in range(2):
        assert "is undefined: job 'R.a' has written to it since" in inplace.abort_device(site.roots, "R.a", 1)
    with pytest.raises(JobFailed, match=r"is undefined: job 'R\.a'"):
        devices.open_source(site.roots, site.device)
    site.open(site.spec("R.b"))
    assert site.left() == ["R.a"]
    assert inplace.abort_device(site.roots, "R.b", 2) == ""
    assert (site.left(), site.record.state) == (["R.a"], DeviceState.UNDEFINED)
    inplace.commit_device(site.roots, site.prepared(site.spec("R.c")), 3)
    assert site.left() == []
    os.close(devices.open_source(site.roots, site.device))


@pytest.fixture
def clear(site, tmp_path, capfd):
    """``devices clear``: exit code, stdout, stderr."""
    (tmp_path / "host.toml").write_text(host_config_text(site.roots.config))

    def call(device):
        words = ["devices", "clear", device, "--config", str(tmp_path / "host.toml")]
        return run_command_guarded(lambda: cli.main(words, standalone_mode=False)), *capfd.readouterr()

    return call


def test_a_user_who_knows_what_is_on_it_clears_it_once_no_job_has_it(site, clear):
    nothing = (2, "", f"blockjobs: device {site.device} is not on record as undefined on host h\n")
    assert clear(site.device) == nothing
    site.written(site.spec())
    busy = f"blockjobs: job 'R.a' has device {site.device}: one of no job was expected\n"
    assert clear(site.device) == (2, "", busy), "between two attempts of the job"
    inplace.abort_device(site.roots, "R.a", 1)
    site.open(site.spec("R.b"))
    assert "job 'R.b' has device" in clear(site.device)[2]
    inplace.abort_device(site.roots, "R.b", 2)
    with devices.take_device_lock(site.roots, site.record.identity):
        assert "another process has the device" in clear(site.device)[2]
    before = site.content()
    assert clear(site.device) == (0, f"{site.device}: no longer undefined by job 'R.a'\n", "")
    assert (site.record, site.content()) == (None, before)
    os.close(devices.open_source(site.roots, site.device))
    assert inplace.abort_device(site.roots, "R.a", 1) == "", "a late bell does not bring it back"
    assert clear(site.device) == nothing


def test_a_device_that_is_gone_is_cleared_by_its_path(site, clear):
    site.written(site.spec())
    inplace.abort_device(site.roots, "R.a", 1)
    with devices.take_device_lock(site.roots, site.record.identity) as held:
        gone = held.write(replace(held.record, path="/dev/vg0/gone"))
    assert clear("/dev/vg0/gone") == (0, f"{gone.path}: no longer undefined by job 'R.a'\n", "")


def test_what_one_has_committed_is_still_on_record_after_another_was_only_opened(site):
    inplace.commit_device(site.roots, site.prepared(site.spec()), 1)
    site.open(site.spec("R.b"))
    assert inplace.abort_device(site.roots, "R.b", 2) == ""
    assert (site.record.state, site.record.manifest["version"]) == (DeviceState.VALID, 1)


@pytest.mark.parametrize("far", ["opened", "written", "prepared"])
def test_no_other_job_is_let_to_a_device_before_the_first_one_is_over(site, far):
    first = getattr(site, {"opened": "open"}.get(far, far))(site.spec())
    before = site.record
    with pytest.raises(JobFailed, match=r"is in use: job 'R\.a' has the device") as refused:
        site.open(site.spec("R.b"))
    assert refused.value.errno == errno.EBUSY
    assert inplace.abort_device(site.roots, "R.b", 1) == ""
    assert site.record == before
    if far == "opened":
        return
    if far == "written":
        inplace.prepare_device(site.roots, first, Checkpoint(first.uuid, DONE), {"version": 1})
    inplace.commit_device(site.roots, first, 2)
    assert (site.record.state, site.record.job) == (DeviceState.VALID, "R.a")
    site.open(site.spec("R.b"))


def test_another_name_of_the_device_leads_to_the_same_record(site, tmp_path):
    alias = f"/dev/blockjobs-test-{os.getpid()}"
    os.symlink(site.device, alias)
    try:
        first = site.prepared(site.spec())
        config = replace(site.roots.config, devices=(site.device, alias))
        other = replace(site, roots=Roots(config), device=alias)
        with pytest.raises(JobFailed, match=f"job 'R.a' has the device, as {site.device}"):
            other.open(other.spec("R.b"))
        inplace.abort_device(other.roots, "R.b", 1)
        inplace.commit_device(site.roots, first, 2)
    finally:
        os.unlink(alias)


def test_another_file_behind_the_same_loop_device_is_another_device(site, tmp_path):
    mine = site.written(site.spec())
    disk = tmp_path / "disk"
    subprocess.run(["losetup", "-d", site.device], check=True)
    disk.rename(tmp_path / "away")
    disk.write_bytes(b"y" * 4 * MIB)
    subprocess.run(["losetup", site.device, disk], check=True)
    for again in (lambda: DeviceTarget.take(site.roots, site.spec(), 2), lambda: site.open(site.spec())):
        with pytest.raises(JobFailed, match="is another device than the one that was opened"):
            again()
    assert site.content() == b"y" * 4 * MIB
    assert site.record == mine or site.record.uuid == mine.uuid
    assert "is undefined" in inplace.abort_device(site.roots, "R.a", 1)


def test_keys_of_a_later_release_stay_in_a_record(site):
    record = site.written(site.spec())
    (path,) = [
        path for path in Path(site.roots.config.write_roots[0]).rglob("*.json") if record.uuid in path.read_text()
    ]
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": [1]}))
    inplace.prepare_device(site.roots, site.record, Checkpoint(record.uuid, DONE), {"version": 1})
    assert json.loads(path.read_text())["later"] == [1]


def test_a_job_whose_record_is_gone_can_do_nothing_more(site):
    mine = site.written(site.spec())
    with devices.take_device_lock(site.roots, mine.identity) as held:
        held.remove()
    site.open(site.spec("R.b"))
    with pytest.raises(JobFailed, match="was never opened, or another job has it now"):
        DeviceTarget.take(site.roots, site.spec(), 2)
    with pytest.raises(JobFailed, match=r"job 'R\.b' has it"):
        inplace.commit_device(site.roots, mine, 1)
    assert inplace.abort_device(site.roots, "R.a", 1) == ""
    assert site.record.job == "R.b"


def test_one_writer_at_a_time_and_never_an_older_one(site):
    site.open(site.spec())
    first = DeviceTarget.take(site.roots, site.spec(), 5)
    identity = site.record.identity
    with pytest.raises(LockBusy):
        devices.take_device_lock(site.roots, identity, patience=0)
    with pytest.raises(OSError, match="busy"):
        os.open(site.device, os.O_RDWR | os.O_EXCL)
    first.close()
    with pytest.raises(LeaseLost):
        DeviceTarget.take(site.roots, site.spec(), 4)
    DeviceTarget.take(site.roots, site.spec(), 6).close()
    assert site.record.token == 6


def test_what_is_not_all_durable_or_of_another_uuid_is_not_prepared(site):
    record = site.written(site.spec())
    for point in (Checkpoint(record.uuid, ((0, MIB),)), Checkpoint("other", DONE), Checkpoint()):
        with pytest.raises(JobFailed, match="not all of it is known to be durable"):
            inplace.prepare_device(site.roots, record, point, {})
    with pytest.raises(JobFailed, match="was never prepared"):
        inplace.commit_device(site.roots, record, 1)


def test_a_device_that_is_too_small_is_refused_and_nothing_is_noted(site):
    for spec, size in ((site.spec(), 4 * MIB + 1), (site.spec(offset=3 * MIB), 2 * MIB)):
        with pytest.raises(JobFailed, match=rf"has {4 * MIB} bytes, {spec.offset + size} are needed") as refused:
            site.open(spec, size=size)
        assert refused.value.errno == errno.ENOSPC
        assert site.record is None


def test_an_open_that_nobody_waits_for_any_more_notes_nothing(site):
    with pytest.raises(JobFailed, match="already decided"):
        inplace.open_target(site.roots, site.spec(), size=MIB, source=SOURCE, wanted=lambda: False)
    assert site.record is None


def attach(device, disk):
    """Another test may have taken the number meanwhile, for as long as it lasts."""
    give_up = time.monotonic() + 60
    while subprocess.run(["losetup", device, disk], check=False).returncode:
        assert time.monotonic() < give_up, f"{device} is not free"
        select.select((), (), (), 0.1)


def test_another_disk_under_the_same_number_is_another_device(site, tmp_path):
    site.written(site.spec())
    (tmp_path / "disk").rename(tmp_path / "old")
    subprocess.run(["losetup", "-d", site.device], check=True)
    (tmp_path / "new").write_bytes(b"y" * 4 * MIB)
    attach(site.device, tmp_path / "new")
    os.close(devices.open_source(site.roots, site.device))
    with pytest.raises(JobFailed, match="is another device than the one that was opened"):
        DeviceTarget.take(site.roots, site.spec(), 2)
    assert site.content() == b"y" * 4 * MIB


@pytest.mark.parametrize("way", ["commit", "abort"])
def test_killed_at_any_instant_the_record_is_never_behind_the_device(site, killed_at_every_change, way):
    """A whole life of a job, killed before each change and then gone through again."""

    def live(_=None) -> None:
        spec = site.spec()
        record = site.prepared(spec)
        if way == "commit":
            inplace.commit_device(site.roots, record, 1)
        else:
            inplace.abort_device(site.roots, spec.id, 1)

    def check(_, died) -> None:
        record = site.record
        if site.content() != b"x" * 4 * MIB:
            assert record is not None
            assert record.left_by == "R.a" or record.state is DeviceState.VALID
        if died and (record is None or record.state in (DeviceState.OPENED, DeviceState.INVALID)):
            live()
        final = site.record
        assert final is not None
        assert (final.state, final.left_by) == {
            "commit": (DeviceState.VALID, ""),
            "abort": (DeviceState.UNDEFINED, "R.a"),
        }[way]

    killed_at_every_change(lambda: reset(site), live, check, at_least=20)


def reset(site: Site) -> None:
    for path in Path(site.roots.config.write_roots[0]).rglob("*.json"):
        path.unlink()
    with open(site.device, "r+b") as device:
        device.write(b"x" * 4 * MIB)
        device.flush()
        os.fsync(device.fileno())


def test_a_record_that_cannot_be_read_does_not_hide_the_others(site, caplog):
    site.written(site.spec())
    folder = Path(site.roots.config.write_roots[0]) / ".blockjobs" / "devices"
    (folder / "0000.json").write_text("{")
    (folder / "0001.json").write_text(json.dumps({"version": 2}))
    assert site.left() == ["R.a"]
    assert "0000.json is not one of version 1" in caplog.text


def test_a_flush_tells_of_what_was_lost_long_before_it(tmp_path):
    """The kernel tells each open file of a failed writeback once; who starts the writeback must not be told first."""
    memory, stride, strides = tmp_path / "memory", 8 * MIB, 10
    memory.mkdir()
    with ExitStack() as stack:

        def run(*argv, behind):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{argv[0]}: {done.stderr.strip()}")
            stack.callback(subprocess.run, [*behind, done.stdout.strip() or str(memory)], check=True)
            return done.stdout.strip()

        size = f"size={(strides - 1) * stride}"
        run("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(memory), behind=["umount"])
        with (memory / "disk").open("wb") as disk:
            disk.truncate(strides * stride)
            os.posix_fallocate(disk.fileno(), stride, (strides - 1) * stride)  # and the first stride has no room
        device = run("losetup", "-f", "--show", str(memory / "disk"), behind=["losetup", "-d"])
        fd = os.open(device, os.O_RDWR)
        stack.callback(os.close, fd)
        target = Written(fd, strides * stride, device)
        stack.callback(target._writeback.close)
        for number in range(strides):
            target.pwrite(memoryview(b"d" * stride), number * stride)
        with pytest.raises(VolumeError, match="flush of"):
            target.flush()


@pytest.mark.parametrize(("start", "length"), [(0, MIB), (1, 5000), (4095, 2), (100, 8192), (3 * MIB - 1, MIB)])
def test_zeros_are_written_exactly_where_they_belong(site, start, length):
    site.open(site.spec(), size=4 * MIB)
    target = DeviceTarget.take(site.roots, site.spec(), 1)
    for punches in (True, False):
        target.pwrite(memoryview(b"z" * 4 * MIB), 0)
        target._punches = punches
        for here, till in target.zero(start, length):  # the parts that only data can make zeros
            target.pwrite(memoryview(bytes(till - here)), here)
        target.flush()
        assert site.content() == b"z" * start + bytes(length) + b"z" * (4 * MIB - start - length)
    target.close()
