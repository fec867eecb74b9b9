"""Staging files: one writer ever, sparse, and only the file that was opened."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace

import pytest

from blockjobs.model.errors import JobFailed, LeaseLost, VolumeError
from blockworker.copy.digests import DigestFile, chunk_digest, digest_size
from blockworker.host.roots import Root
from blockworker.records import journal
from blockworker.targets.opening import find_member, open_member
from blockworker.targets.settle import abort_member
from blockworker.targets.staged import StagedTarget, StagingBusy

MIB = 1 << 20


@pytest.fixture
def member(site):
    site.image(b"x" * 4 * MIB)
    return site.opened(site.spec())


def part(site, member):
    return site.backup / "R" / member.staging


def test_only_one_process_ever_has_it(site, member):
    """A stopped writer keeps its lock; only its death gives it up."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        StagedTarget.take(site.roots, member, 1)
        os.write(tell, b"!")
        signal.pause()
    assert os.read(ready, 1) == b"!"
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(StagingBusy):
        StagedTarget.take(site.roots, member, 2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    StagedTarget.take(site.roots, member, 2).close()
    os.close(ready)
    os.close(tell)


def test_without_the_lock_two_would_write(site, member):
    """The negative control: it is the flock that refuses, not something before it."""
    first = StagedTarget.take(site.roots, member, 1)
    other = os.open(part(site, member), os.O_RDWR)
    os.pwrite(other, b"zombie", 0)
    assert part(site, member).read_bytes()[:6] == b"zombie"
    os.close(other)
    first.close()


def test_a_lower_token_than_was_seen_is_refused(site, member):
    StagedTarget.take(site.roots, member, 5).close()
    with pytest.raises(LeaseLost):
        StagedTarget.take(site.roots, member, 4)
    StagedTarget.take(site.roots, member, 5).close()
    assert find_member(site.roots, site.spec()).token == 5


def test_a_refused_token_gives_the_lock_back(site, member):
    StagedTarget.take(site.roots, member, 5).close()
    with pytest.raises(LeaseLost):
        StagedTarget.take(site.roots, member, 1)
    StagedTarget.take(site.roots, member, 6).close()


def test_another_file_under_its_name_is_not_written(site, member):
    path = part(site, member)
    path.rename(path.with_suffix(".old"))  # gone for good its inode could be the new one's
    path.write_bytes(b"y" * 4 * MIB)
    with pytest.raises(JobFailed, match="not the one that was opened"):
        StagedTarget.take(site.roots, member, 1)


@pytest.mark.parametrize("what", ["replaced", "gone"])
def test_an_open_that_is_repeated_takes_no_other_file_for_its_own(site, member, what):
    path = part(site, member)
    path.rename(path.with_suffix(".old"))
    if what == "replaced":
        path.write_bytes(b"y" * 4 * MIB)
    before = site.tree()
    with pytest.raises(JobFailed, match="is gone or replaced"):
        open_member(site.roots, site.spec(), size=4 * MIB)
    assert site.tree() == before


def test_a_file_that_was_cut_is_not_written(site, member):
    os.truncate(part(site, member), MIB)
    with pytest.raises(JobFailed, match="not the one that was opened"):
        StagedTarget.take(site.roots, member, 1)


def test_a_symlink_in_place_of_the_digests_is_not_followed(site, member):
    precious = site.backup / "precious"
    precious.write_text("precious")
    digests = site.backup / "R" / member.digests
    digests.unlink()
    digests.symlink_to(precious)
    with pytest.raises(JobFailed, match="Too many levels of symbolic links"):
        StagedTarget.take(site.roots, member, 1)
    assert precious.read_text() == "precious"


def test_a_source_of_another_size_is_not_opened_again_once_an_attempt_has_begun(site, member):
    assert open_member(site.roots, site.spec(), size=MIB).size == MIB  # nobody has written yet
    StagedTarget.take(site.roots, find_member(site.roots, site.spec()), 1).close()
    with pytest.raises(JobFailed, match=f"changed its size from {MIB} to {2 * MIB}"):
        open_member(site.roots, site.spec(), size=2 * MIB)
    assert find_member(site.roots, site.spec()).size == MIB


def test_nothing_is_written_after_an_abort_or_for_another_uuid(site, member):
    with pytest.raises(JobFailed, match="no journal"):
        StagedTarget.take(site.roots, replace(member, uuid="other"), 1)
    abort_member(site.roots, member, 1)
    with pytest.raises(JobFailed, match="does not exist"):
        StagedTarget.take(site.roots, member, 1)


def test_nothing_is_written_once_a_decision_is_noted_although_the_files_are_still_there(site, member):
    with journal.locked_open_journal(site.roots, Root(str(site.backup)), "R") as noted:
        noted.decide("commit", 1)
    with pytest.raises(JobFailed, match="already decided"):
        StagedTarget.take(site.roots, member, 2)


def test_zeros_stay_holes_and_old_data_becomes_one(site, member):
    path = part(site, member)
    first = StagedTarget.take(site.roots, member, 1)
    first.zero(0, 4 * MIB)
    first.pwrite(memoryview(b"d" * MIB), MIB)
    first.flush()
    first.close()
    assert path.stat().st_blocks * 512 <= MIB + 65536
    second = StagedTarget.take(site.roots, member, 2)  # it cannot know what the first one wrote
    second.zero(0, 4 * MIB)
    second.flush()
    second.close()
    assert path.read_bytes() == bytes(4 * MIB)
    assert path.stat().st_blocks == 0


def test_a_flush_that_failed_once_has_failed_for_ever(site, member, monkeypatch):
    """The kernel tells of a failed writeback once: what is asked again would hear that all is well."""

    def failing(_):
        raise OSError(errno.EIO, "Input/output error")

    target = StagedTarget.take(site.roots, member, 1)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", failing)
        with pytest.raises(VolumeError, match="Input/output error"):
            target.flush()
    for _ in range(2):
        with pytest.raises(VolumeError, match="Input/output error"):
            target.flush()
    target.close()
    again = StagedTarget.take(site.roots, member, 2)  # the control: the disk takes it
    again.flush()
    again.close()


def test_digests_end_exactly_and_zeros_are_holes(site, tmp_path):
    path = tmp_path / "digests"
    size = 5000 * MIB + 1
    path.touch()
    os.truncate(path, digest_size(size))
    file = DigestFile(os.open(path, os.O_RDWR), size, label="digests", fresh=True)
    value = chunk_digest(memoryview(b"A" * MIB))
    file.zero(0, 5000)
    file.put(5000, value)
    file.flush()
    root = file.root()
    file.close()
    assert path.stat().st_size == 5001 * 32
    assert path.stat().st_blocks * 512 <= 4096
    assert path.read_bytes()[-32:] == value
    again = DigestFile(os.open(path, os.O_RDWR), size, label="digests", fresh=False)
    again.zero(4990, 5001)
    assert again.root() != root
    again.close()
    assert path.read_bytes() == bytes(5001 * 32)


def test_a_taking_that_was_killed_anywhere_can_be_repeated(sites, killed_at_every_change):
    def set_up():
        site = sites()
        site.image(b"x")
        site.opened(site.spec())
        return site

    def take(site):
        return StagedTarget.take(site.roots, find_member(site.roots, site.spec()), 3)

    def check(site, _):
        take(site).close()
        assert find_member(site.roots, site.spec()).token == 3

    killed_at_every_change(set_up, take, check, at_least=4)


def test_a_descriptor_that_cannot_be_closed_keeps_nobody_from_the_staging_file(site):
    site.image()
    member = site.opened(site.spec())
    target = StagedTarget.take(site.roots, member, 1)
    path = str(site.backup / "R" / member.digests)
    (digests,) = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == path]
    os.close(digests)
    with pytest.raises(OSError, match="Bad file descriptor"):
        target.close()
    StagedTarget.take(site.roots, member, 2).close()
