"""What a transaction has made is found wherever its file system and its write root have gone meanwhile."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest
from disks import Disk

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Roots
from blockworker.records import journal
from blockworker.targets import settle
from blockworker.targets.opening import find_member
from blockworker.targets.staged import StagedTarget

IMAGE = b"A" * (1 << 20) + b"tail"


@pytest.mark.parametrize("how", ["commit", "abort", "resume"])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_that_is_mounted_again_in_the_same_boot_keeps_its_transactions(tmp_path, site_at, kind, how):
    disk, taken = Disk(tmp_path / "disk", kind), []
    try:
        disk.mount()
        site = site_at(disk.top / "site")
        site.image(IMAGE)
        spec = site.spec()
        site.opened(spec) if how == "resume" else site.prepared(spec)
        before = disk.top.stat().st_dev
        disk.umount()
        while not os.path.exists(f"/sys/block/loop{os.minor(before)}/loop"):  # somebody takes the number of the device
            assert len(taken) < 16, "sixteen loop devices were free before the one that had just been in use"
            taken.append(_loop(tmp_path))
        disk.mount()
        assert disk.top.stat().st_dev != before, "the control: it has another number"
        if how == "resume":
            StagedTarget.take(site.roots, find_member(site.roots, spec), 1).close()
            site.prepared(spec)
        if how == "abort":
            settle.abort_job(site.roots, spec, 7, opened=True)
        else:
            settle.commit_job(site.roots, spec, 7)
            assert (site.backup / "R/root.img").read_bytes() == IMAGE
        assert settle.clean_transaction(
            site.roots, "R", journal.journal_root(site.roots, str(site.backup), "R", "R.root")
        )
        left = [name for name in site.tree() if not name.startswith(".blockjobs")]
        assert left == ([] if how == "abort" else ["R", *(f"R/root.img{end}" for end in ENDS)])
    finally:
        disk.close()
        for loop in taken:
            subprocess.run(["losetup", "-d", loop], check=False)


def _loop(place):
    """A loop device with nothing in it."""
    (place / "empty").write_bytes(bytes(1 << 20))
    found = subprocess.run(["losetup", "-f", "--show", place / "empty"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


ENDS = ("", ".blake3", ".manifest.json")
# Write roots, beneath the backup directory, at OPEN and after it; the target lies in ``sub``.
MOVES = {
    "the inner one is added": (["."], [".", "sub"]),
    "the inner one is removed": ([".", "sub"], ["."]),
    "one between is added": ([".", "sub/R"], [".", "sub", "sub/R"]),
    "another order": (["sub", "."], [".", "sub"]),
    "a neighbour is added": (["sub"], ["other", "sub"]),
}


def beneath(site, roots):
    places = tuple(os.path.normpath(site.backup / root) for root in roots)
    return Roots(replace(site.roots.config, write_roots=places))


@pytest.fixture
def moved(site, request):
    """A host with a prepared job, whose write roots are other ones now; its roots at OPEN, and now."""
    before, after = request.param
    for name in ("sub/R", "other"):
        (site.backup / name).mkdir(parents=True)
    site.image(IMAGE)
    spec = site.spec(name="sub/R/root.img", target_base=str(site.backup / "sub/R"))
    earlier, now = beneath(site, before), beneath(site, after)
    earlier_site = replace_roots(site, earlier)
    earlier_site.prepared(spec)
    return site, spec, now


def replace_roots(site, roots):
    class Moved(type(site)):
        @property
        def roots(self):
            return roots

    return Moved(site.base)


def files(site):
    return sorted(name for name in os.listdir(site.backup / "sub/R") if name != ".blockjobs")


@pytest.mark.parametrize("moved", MOVES.values(), ids=MOVES, indirect=True)
def test_it_is_committed_whatever_write_roots_there_are_now(moved):
    site, spec, now = moved
    settle.commit_job(now, spec, 7)
    settle.commit_job(now, spec, 7)  # rung again
    assert files(site) == sorted(f"root.img{end}" for end in ENDS)
    assert settle.clean_transaction(now, "R", journal.journal_root(now, publish_path(spec), "R", spec.id))
    settle.commit_job(now, spec, 7)  # long after


@pytest.mark.parametrize("moved", MOVES.values(), ids=MOVES, indirect=True)
def test_it_is_aborted_and_leaves_nothing_whatever_write_roots_there_are_now(moved):
    site, spec, now = moved
    settle.abort_job(now, spec, 7, opened=True)
    assert files(site) == []
    assert settle.clean_transaction(now, "R", journal.journal_root(now, publish_path(spec), "R", spec.id))
    settle.abort_job(now, spec, 7, opened=True)  # long after


@pytest.mark.parametrize("moved", MOVES.values(), ids=MOVES, indirect=True)
def test_another_attempt_and_another_open_find_it_whatever_write_roots_there_are_now(moved):
    site, spec, now = moved
    before = files(site)
    member = replace_roots(site, now).opened(spec)
    StagedTarget.take(now, member, 5).close()
    assert files(site) == before


def publish_path(spec):
    return spec.target.volume.filename


@pytest.mark.parametrize("moved", [(["."], ["sub"]), (["."], ["other"]), (["sub"], ["other"])], indirect=True)
def test_where_its_write_root_is_gone_it_is_said_and_nothing_is_forgotten(moved):
    site, spec, now = moved
    before = files(site)
    with pytest.raises(JobFailed, match=r"no journal|outside the write roots"):
        settle.abort_job(now, spec, 7, opened=True)
    with pytest.raises(JobFailed, match=r"no journal|outside the write roots"):
        settle.commit_job(now, spec, 7)
    assert files(site) == before
    settle.abort_job(beneath(site, [".", "sub"]), spec, 7, opened=True)  # host.toml has it again
    assert files(site) == []


def test_a_job_that_was_never_opened_is_aborted_without_a_word(site):
    site.image(IMAGE)
    settle.abort_job(site.roots, site.spec(), 7, opened=False)
    assert site.tree() == []


def test_a_target_directory_that_has_become_a_symlink_is_refused(site, tmp_path):
    site.image(IMAGE)
    member = site.prepared(site.spec())
    (tmp_path / "out").mkdir()
    (site.backup / "R").rename(tmp_path / "out/R")
    (site.backup / "R").symlink_to(tmp_path / "out/R")
    with pytest.raises(JobFailed, match="symlink"):
        settle.commit_member(site.roots, member, 7)
    assert not (tmp_path / "out/R/root.img").exists()
