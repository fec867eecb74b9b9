"""What is published is what PREPARE has proven: the very files, of the very size, with a whole manifest."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from disks import Disk

from blockjobs.model.errors import JobFailed
from blockworker.records import journal
from blockworker.records.sealed import seal_json
from blockworker.targets import manifest, settle
from blockworker.targets.opening import find_member
from blockworker.targets.prepare import prepare_member
from blockworker.targets.proof import NotPublished
from blockworker.targets.staged import StagedTarget

FILES = {"image": "staging", "digests": "digests", "manifest": "manifest"}
CHANGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "grown": lambda path: os.truncate(path, path.stat().st_size + 1),
    "replaced": lambda path: (shutil.copy(path, f"{path}.x"), os.rename(f"{path}.x", path)),
    "a symlink": lambda path: (os.rename(path, f"{path}.x"), path.symlink_to(f"{path}.x")),
    "gone": os.unlink,
}


def staged(site, member, what):
    return site.backup / "R" / getattr(member, FILES[what])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_not_as_it_was_prepared_is_not_published(site, what, change):
    site.image()
    member = site.prepared(site.spec())
    change(staged(site, member, what))
    with pytest.raises(NotPublished, match=r"root\.img"):
        settle.commit_member(site.roots, member, 7)
    assert not (site.backup / "R/root.img").exists()


def test_files_that_are_as_they_were_prepared_are_published(site):
    image = site.image()
    settle.commit_member(site.roots, site.prepared(site.spec()), 7)
    assert (site.backup / "R/root.img").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("form", ["", "digests: false"])
def test_a_manifest_of_version_1_that_is_torn_is_not_published(site, form):
    site.image()
    member = site.prepared(site.spec(digests=not form))
    path = site.backup / ".blockjobs/R.journal"
    keys = json.loads(path.read_text())
    keys["members"]["R.root"]["proven"] = {}  # as version 1 knew nothing of it
    path.write_bytes(seal_json(keys))
    os.truncate(staged(site, member, "manifest"), 100)
    with pytest.raises(NotPublished, match="is not JSON"):
        settle.commit_member(site.roots, member, 7)
    assert not (site.backup / "R/root.img").exists()


def test_a_foreign_file_with_the_inode_number_of_the_staging_file_is_not_taken_for_it(tmp_path, site_at):
    disk = Disk(tmp_path / "disk", "ext4", 64)
    try:
        disk.mount()
        site = site_at(disk.top / "site")
        site.image()
        member = site.prepared(site.spec())
        path = staged(site, member, "image")
        number = path.stat().st_ino
        path.unlink()
        foreign = site.backup / "R/root.img"
        for n in range(200):  # ext4 gives the number to the next file
            foreign.write_bytes(b"foreign")
            if foreign.stat().st_ino == number:
                break
            foreign.rename(site.backup / f"R/x{n}")
        assert foreign.stat().st_ino == number, "the control: it has the very number"
        with pytest.raises(NotPublished, match="is gone"):
            settle.commit_member(site.roots, member, 7)
        foreign.rename(path)
        with pytest.raises(NotPublished, match="another file"):
            settle.commit_member(site.roots, member, 7)
        with pytest.raises(JobFailed, match="not the one that was opened"):
            StagedTarget.take(site.roots, member, 2)
        settle.abort_member(site.roots, member, 7)
        assert path.read_bytes() == b"foreign", "an abort leaves it alone as well"
    finally:
        disk.close()


def test_a_second_prepare_changes_nothing_and_notices_what_changed_since_the_first(site):
    site.image()
    spec = site.spec()
    member = site.prepared(spec)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in site.backup.rglob("*") if path.is_file()}
    again = {**site.manifest(spec, member.size), "source_change": "changed"}
    prepare_member(site.roots, member, ((0, member.size),), again)
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in before} == before
    os.truncate(staged(site, member, "manifest"), 100)
    with pytest.raises(JobFailed, match="changed since it was prepared"):
        prepare_member(site.roots, member, ((0, member.size),), again)


def test_a_second_prepare_that_is_killed_anywhere_leaves_what_the_first_one_proved(sites, killed_at_every_change):
    def set_up():
        site = sites()
        site.image()
        return site, site.prepared(site.spec())

    def act(place):
        site, member = place
        prepare_member(site.roots, member, ((0, member.size),), site.manifest(site.spec(), member.size))

    def check(place, _):
        site, member = place
        settle.commit_member(site.roots, member, 1)
        target = str(site.backup / "R/root.img")
        assert not manifest.verify_image(target, manifest.load_manifest(f"{target}.manifest.json")).bad
        assert [name for name in os.listdir(site.backup / "R") if name.startswith(".")] == []

    killed_at_every_change(set_up, act, check, at_least=1)


def test_keys_of_a_later_release_are_kept_in_the_journal_its_members_and_their_cuts(site):
    site.image()
    spec = site.spec()
    site.opened(spec)
    path = site.backup / ".blockjobs/R.journal"
    keys = json.loads(path.read_text())
    keys["epoch"] = [1, {"two": 3}]
    keys["members"]["R.root"] |= {
        "generation": 7,
        "cut": {"how": "reflink", "source": "/s", "id": "1", "path": f"{site.backup}/c", "begun": False, "tool": "x"},
    }
    path.write_bytes(seal_json(keys))
    member = site.prepared(spec)
    with journal.locked_journal(
        site.roots, journal.journal_root(site.roots, member.target, "R", "R.root"), "R"
    ) as held:
        held.decide("commit", 7)
    told = json.loads(path.read_text())
    assert (told["epoch"], told["decision"]) == ([1, {"two": 3}], "commit")
    assert told["members"]["R.root"]["generation"] == 7
    assert told["members"]["R.root"]["cut"]["tool"] == "x"
    assert set(told["members"]["R.root"]["proven"]) == set(FILES)


def test_keys_of_a_later_release_are_kept_in_a_member_s_own_file(site):
    site.image()
    for n in range(journal.FEW):
        site.opened(site.spec(f"R.j{n}", f"R/j{n}.img"))
    spec = site.spec()
    site.opened(spec)
    path = site.backup / ".blockjobs/R.members/R.root"
    path.write_bytes(seal_json({**json.loads(path.read_text()), "generation": 7}))
    site.prepared(spec)
    assert json.loads(path.read_text())["generation"] == 7
    assert find_member(site.roots, spec).rest == {"generation": 7}
