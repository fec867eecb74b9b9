"""A transaction on a full disk ends: the room for what has to be noted is there before it is needed."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from itertools import count

import pytest
from disks import Disk
from recorded import lay_out

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host
from blockjobs.model.jobs import OnError
from blockworker.host.config import HostConfig
from blockworker.host.roots import Root
from blockworker.records import journal
from blockworker.records.highest_decision import Highest
from blockworker.steps.steps import _take_room
from blockworker.system.sparefile import read_text, replace_file
from blockworker.targets import settle
from blockworker.targets.prepare import prepare_member
from blockworker.targets.room import Room
from blockworker.watch import abandoned

KINDS = ["tmpfs", "ext4", "xfs"]


@pytest.fixture(params=KINDS)
def disk(request, tmp_path):
    """The directory of a small file system."""
    if request.param != "tmpfs":
        made = Disk(tmp_path / "disk", request.param, 320 if request.param == "xfs" else 24)
        made.mount()
        yield made.top
        made.close()
        return
    if os.geteuid():
        pytest.skip("only root can mount")
    top = tmp_path / "disk"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(top)], check=True)
    yield top
    subprocess.run(["umount", "--lazy", str(top)], check=True)


def fill(top):
    """Leave not one block."""
    with (top / "filled").open("wb", buffering=0) as file, suppress(OSError):
        for length in count(1 << 20, 1 << 20):
            os.posix_fallocate(file.fileno(), 0, length)
    for size in (64, 4):  # what is left in smaller pieces
        with suppress(OSError), (top / f"filled-{size}").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(size << 10))
    with pytest.raises(OSError, match="No space left"):
        (top / "more").write_bytes(bytes(8192))
    with suppress(FileNotFoundError):
        (top / "more").unlink()


def prepared(site, jobs):
    """A transaction of so many jobs, all of them prepared, on a disk that is full then."""
    site.image(b"A" * 5000)
    specs = [site.spec(f"R.j{n}", f"R/j{n}.img") for n in range(jobs)]
    for spec in specs:
        site.prepared(spec)
    fill(site.base.parent)
    return specs


@pytest.mark.parametrize("jobs", [1, 7], ids=["in one file", "in files of their own"])
def test_what_is_prepared_is_committed_on_a_full_disk(disk, site_at, jobs):
    site = site_at(disk / "site")
    for spec in prepared(site, jobs):
        settle.commit_job(site.roots, spec, 7)
        target = site.backup / f"R/{spec.id.removeprefix('R.')}.img"
        assert target.read_bytes() == b"A" * 5000
    assert all(member.published for member in journal.read_members(site.roots, Root(str(site.backup)), "R"))


@pytest.mark.parametrize("jobs", [1, 7], ids=["in one file", "in files of their own"])
def test_what_is_prepared_is_aborted_on_a_full_disk_and_leaves_nothing(disk, site_at, jobs):
    site = site_at(disk / "site")
    specs = prepared(site, jobs)
    settle.abort_job(site.roots, specs[0], 7, opened=True)
    fill(disk)  # somebody else takes the room of what was removed
    for spec in specs[1:]:
        settle.abort_job(site.roots, spec, 7, opened=True)
    assert not (site.backup / "R").exists()
    assert journal.read_journal(site.roots, Root(str(site.backup)), "R").decision == "abort"


def test_what_version_1_prepared_is_committed_on_a_disk_that_is_full_since(disk, site_at):
    site = site_at(disk / "site")
    image = b"A" * (1 << 20) + b"B" * (1 << 20) + b"tail"
    site.image(image)
    lay_out("prepared", site.base, image)
    os.sync()  # it was durable
    abandoned.sweep_root(site.roots, str(site.backup))  # as at each start of a worker
    fill(disk)
    for name in ("root", "data"):
        spec = site.spec(f"R.{name}", f"R/{name}.img")
        try:
            settle.commit_job(site.roots, spec, 7)
        except JobFailed as full:  # XFS may have to make a small directory larger for a name
            if full.errno != errno.ENOSPC:
                raise
            for path in disk.glob("filled*"):
                path.unlink()
            settle.commit_job(site.roots, spec, 7)
        assert (site.backup / f"R/{name}.img").read_bytes() == image


def test_a_second_prepare_on_a_full_disk_changes_nothing(disk, site_at):
    site = site_at(disk / "site")
    (spec,) = prepared(site, 1)
    before = {path: path.read_bytes() for path in site.backup.rglob("*") if path.is_file()}
    member = journal.read_member(site.roots, Root(str(site.backup)), "R", spec.id)
    prepare_member(site.roots, member, ((0, member.size),), site.manifest(spec, member.size))
    assert {path: path.read_bytes() for path in site.backup.rglob("*") if path.is_file()} == before


def test_decisions_are_noted_on_a_full_disk(disk):
    config = HostConfig(name=Host("h"), read_roots=(), write_roots=(str(disk),), state=str(disk / "state"))
    highest = Highest(config)
    highest.keep_room()
    fill(disk)
    for number in (7, 8, 123_456_789):
        highest.raise_to("here", number)
        assert Highest(config).number == number


def test_a_decision_that_could_not_be_noted_is_not_remembered_either(disk):
    config = HostConfig(name=Host("h"), read_roots=(), write_roots=(str(disk),), state=str(disk / "state"))
    highest = Highest(config)
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        highest.raise_to("here", 7)
    assert (highest.incarnation, highest.number, Highest(config).number) == ("", 0, 0)
    for path in disk.glob("filled*"):
        path.unlink()
    highest.raise_to("here", 7)
    assert (highest.number, Highest(config).number) == (7, 7)


def test_a_file_is_replaced_on_a_full_disk_again_and_again_and_never_half(disk):
    folder = os.open(disk, os.O_RDONLY)
    try:
        replace_file(folder, "it", b"first")
        fill(disk)
        for n in range(20):
            text = b"%d" % n * (n + 1)
            replace_file(folder, "it", text)
            assert read_text(folder, "it").rstrip() == text
        with pytest.raises(OSError, match="No space left"):
            replace_file(folder, "it", b"x" * 100_000)
        assert read_text(folder, "it").rstrip() == text, "what could not be replaced stays as it was"
    finally:
        os.close(folder)


WAITING = {"report": False, "ignore": False, "stop": True, "enospc": True, "auto": True}


@pytest.mark.parametrize(("policy", "waits"), WAITING.items(), ids=WAITING)
def test_too_little_room_at_open_fails_a_job_or_lets_it_wait_as_its_policy_has_it_later(site, policy, waits):
    spec = replace(site.spec(), on_target_error=OnError(policy))
    if waits:
        _take_room(Room(site.roots), spec, 1 << 62)
    else:
        with pytest.raises(JobFailed, match="are free") as refused:
            _take_room(Room(site.roots), spec, 1 << 62)
        assert refused.value.errno == errno.ENOSPC
