"""Opening, publishing and aborting: every prefix that a kill can leave is finished by doing it again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from dataclasses import replace
from functools import partial

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import TxnId
from blockworker import kernel
from blockworker.host import HostConfig
from blockworker.roots import Root, Roots
from blockworker.sealed import seal
from blockworker.targets import journal, manifest
from blockworker.targets.opening import find_member, open_member
from blockworker.targets.prepare import prepare_member
from blockworker.targets.proof import NotPublished
from blockworker.targets.reserved import give_name
from blockworker.targets.room import Room
from blockworker.targets.settle import abort_member, clean_transaction, close_settled, commit_job, commit_member
from blockworker.targets.staged import StagedTarget, StagingBusy

IMAGE = ["R", "R/root.img", "R/root.img.blake3", "R/root.img.manifest.json"]
PUBLISHED = [".blockjobs", ".blockjobs/.R.journal.new", ".blockjobs/R.journal", ".blockjobs/R.lock", *IMAGE]
SETTLED = [".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal"]


@pytest.fixture
def new_site(sites):
    """A call makes a host with an image to be backed up."""

    def make():
        site = sites()
        site.image()
        return site

    return make


@pytest.fixture
def prepared_site(new_site):
    """A call makes a host with a backup that is copied and prepared."""

    def make():
        site = new_site()
        site.prepared(site.spec())
        return site

    return make


def test_a_committed_image_has_its_name_its_digests_and_its_manifest(site):
    image, spec = site.image(), site.spec()
    member = site.prepared(spec)
    assert "R/root.img" not in site.tree()
    commit_member(site.roots, member, 7)
    assert site.tree() == PUBLISHED
    target = site.backup / "R/root.img"
    assert target.read_bytes() == image.read_bytes()
    assert not manifest.verify(str(target), manifest.load(f"{target}.manifest.json")).bad
    assert clean_transaction(site.roots, "R", Root(str(site.backup)))
    commit_member(site.roots, member, 7)  # rung again, long after
    commit_job(site.roots, spec, 7)
    assert site.tree() == SETTLED + IMAGE


def test_an_aborted_job_leaves_only_its_tombstone(site):
    site.image()
    member = site.prepared(site.spec())
    abort_member(site.roots, member, 7)
    assert clean_transaction(site.roots, "R", Root(str(site.backup)))
    assert site.tree() == SETTLED
    with pytest.raises(JobFailed, match="already decided"):
        site.opened(site.spec())
    assert journal.sweep_tombstones(site.roots, Root(str(site.backup)), 7 * 86400) == 0
    assert journal.sweep_tombstones(site.roots, Root(str(site.backup)), -1) == 1
    assert site.tree() == []


def test_an_open_that_was_killed_anywhere_is_finished_by_the_next(new_site, killed_at_every_change):
    def check(site, _):
        member = site.opened(site.spec())
        assert find_member(site.roots, site.spec()) == member
        assert len([name for name in site.tree() if name.endswith(".part")]) == 1
        StagedTarget.take(site.roots, member, 1).close()

    killed_at_every_change(new_site, lambda site: site.opened(site.spec()), check, at_least=12)


def test_an_open_that_was_killed_anywhere_is_removed_by_an_abort(new_site, killed_at_every_change):
    def check(site, _):
        if (member := find_member(site.roots, site.spec())) is not None:
            abort_member(site.roots, member, 1)
        assert clean_transaction(site.roots, "R", Root(str(site.backup)))
        assert not any(name.startswith("R") for name in site.tree()), site.tree()

    killed_at_every_change(new_site, lambda site: site.opened(site.spec()), check, at_least=12)


def commit_prepared(site):
    commit_member(site.roots, find_member(site.roots, site.spec()), 1)


def test_a_commit_that_was_killed_anywhere_is_finished_by_the_next(prepared_site, killed_at_every_change):
    def check(site, _):
        member = find_member(site.roots, site.spec())
        commit_member(site.roots, member, 1)
        assert site.tree() == PUBLISHED
        target = site.backup / "R/root.img"
        assert target.read_bytes() == (site.images / "root.img").read_bytes()
        assert not manifest.verify(str(target), manifest.load(f"{target}.manifest.json")).bad

    killed_at_every_change(prepared_site, commit_prepared, check, at_least=9)


def test_a_commit_is_in_the_journal_before_anything_is_visible(prepared_site, killed_at_every_change):
    visible = []

    def check(site, _):
        if (site.backup / "R/root.img").exists():
            visible.append(site)
            record = journal.read(site.roots, Root(str(site.backup)), "R")
            assert record is not None
            assert record.decision == "commit"
            with pytest.raises(JobFailed, match="committed"):
                abort_member(site.roots, find_member(site.roots, site.spec()), 1)

    killed_at_every_change(prepared_site, commit_prepared, check, at_least=9)
    assert len(visible) >= 3  # between the renames as well as behind the last one


def test_an_abort_that_was_killed_anywhere_is_finished_by_the_next(prepared_site, killed_at_every_change):
    def abort(site):
        abort_member(site.roots, find_member(site.roots, site.spec()), 1)

    def check(site, _):
        member = find_member(site.roots, site.spec())
        abort_member(site.roots, member, 1)
        assert not any(name.startswith("R") for name in site.tree()), site.tree()
        with pytest.raises(JobFailed, match="aborted"):
            commit_member(site.roots, member, 1)

    killed_at_every_change(prepared_site, abort, check, at_least=9)


def test_a_prepare_that_was_killed_anywhere_is_finished_by_the_next(new_site, killed_at_every_change):
    def set_up():
        site = new_site()
        site.copied(site.spec())
        return site

    def prepare(site):
        member = find_member(site.roots, site.spec())
        prepare_member(site.roots, member, ((0, member.size),), site.manifest(site.spec(), member.size))

    def check(site, _):
        prepare(site)
        commit_prepared(site)
        assert site.tree() == PUBLISHED

    killed_at_every_change(set_up, prepare, check, at_least=3)


def test_prepare_refuses_what_is_not_durable_everywhere(site):
    site.image()
    member = site.copied(site.spec())
    for ranges in ((), ((0, 1 << 20),), ((1 << 20, member.size),), ((0, 1), (2, member.size))):
        with pytest.raises(JobFailed, match="known to be durable") as refused:
            prepare_member(site.roots, member, ranges, {})
        assert refused.value.errno == errno.EIO


def test_prepare_refuses_a_file_that_is_still_open_for_writing(site, monkeypatch):
    site.image()
    member = site.copied(site.spec())
    monkeypatch.setattr(journal, "PATIENCE", 0)
    writer = StagedTarget.take(site.roots, member, 2)
    try:
        with pytest.raises(StagingBusy):
            prepare_member(site.roots, member, ((0, member.size),), site.manifest(site.spec(), member.size))
    finally:
        writer.close()


def test_a_prepare_that_comes_behind_the_publishing_is_answered_again(site):
    site.image()
    spec = site.spec()
    member = site.prepared(spec)
    commit_member(site.roots, member, 1)
    before = site.tree()
    prepare_member(site.roots, member, ((0, member.size),), site.manifest(spec, member.size))
    assert site.tree() == before


@pytest.mark.parametrize("decision", ["commit", "abort"])
def test_a_prepare_that_comes_behind_the_decision_proves_nothing_any_more(site, decision):
    site.image()
    member = site.copied(site.spec())
    with journal.locked(site.roots, Root(str(site.backup)), "R") as noted:
        noted.decide(decision, 1)
    before = site.tree()
    prepare = partial(prepare_member, site.roots, member, ((0, member.size),), site.manifest(site.spec(), member.size))
    if decision == "commit":
        prepare()  # rung late: it is answered again
    else:
        with pytest.raises(JobFailed, match="already decided"):
            prepare()
    assert site.tree() == before


@pytest.mark.parametrize(
    ("asked", "allowed", "why"),
    [
        (False, True, "'overwrite' was not asked"),
        (True, False, "does not allow overwriting"),
        (False, False, "'overwrite' was not asked"),
    ],
    ids=["allowed, not asked", "asked, not allowed", "neither"],
)
def test_a_target_that_exists_is_replaced_only_where_the_job_asks_for_it_and_the_host_allows_it(
    site_at, tmp_path, asked, allowed, why
):
    site = site_at(tmp_path / "host", allow_overwrite=allowed)
    site.image()
    (site.backup / "root.img").write_text("precious")
    with pytest.raises(JobFailed, match=why):
        site.opened(site.spec(name="root.img", overwrite=asked))
    assert site.tree() == ["root.img"]
    assert (site.backup / "root.img").read_text() == "precious"


def test_what_was_never_prepared_is_not_published(site):
    site.image()
    member = site.copied(site.spec())
    with pytest.raises(JobFailed, match="never prepared"):
        commit_member(site.roots, member, 1)
    assert not (site.backup / "R/root.img").exists()


@pytest.mark.parametrize("name", ["root.img", "root.img.blake3", "root.img.manifest.json"])
def test_a_foreign_file_that_took_a_name_is_never_replaced(site, name):
    site.image()
    member = site.prepared(site.spec())
    foreign = site.backup / "R" / name
    foreign.write_text("precious")
    with pytest.raises(NotPublished, match=name):
        commit_member(site.roots, member, 1)
    assert foreign.read_text() == "precious"
    assert name == "root.img" or not (site.backup / "R/root.img").exists()
    foreign.unlink()  # an operator resolved it
    commit_member(site.roots, member, 1)
    assert site.tree() == PUBLISHED


def test_a_lost_journal_is_never_taken_for_done(site):
    site.image()
    site.prepared(site.spec())
    (site.backup / ".blockjobs/R.journal").unlink()
    with pytest.raises(NotPublished, match="no journal"):
        commit_job(site.roots, site.spec(), 1)


def test_the_last_of_several_jobs_removes_the_directory_they_share(site):
    site.image()
    first, second = site.spec("R.a", "R/x/a.img"), site.spec("R.b", "R/x/b.img", transaction=TxnId("R.b"))
    one, two = site.opened(first), site.opened(second)
    abort_member(site.roots, one, 1)
    assert (site.backup / "R/x").exists()
    abort_member(site.roots, two, 2)
    assert not (site.backup / "R").exists()


def test_a_directory_that_was_there_before_stays(site):
    site.image()
    (site.backup / "R").mkdir()
    abort_member(site.roots, site.opened(site.spec()), 1)
    assert (site.backup / "R").exists()


def test_an_abort_before_any_open_does_nothing(site):
    site.image()
    other = site.copied(site.spec())
    abort_member(site.roots, replace(other, transaction="other"), 1)
    assert find_member(site.roots, site.spec("R.never")) is None
    assert not (site.backup / ".blockjobs/other.lock").exists()


def test_a_settled_job_that_is_opened_late_makes_nothing(site):
    site.image()
    with pytest.raises(JobFailed, match="already decided"):
        open_member(site.roots, site.spec(), size=1, wanted=lambda: False)
    assert site.tree() == []


def test_overwriting_needs_the_job_and_the_host(site):
    image = site.image()
    (site.backup / "R").mkdir()
    target = site.backup / "R/root.img"
    target.write_text("old")
    with pytest.raises(JobFailed, match="'overwrite' was not asked"):
        site.opened(site.spec())
    with pytest.raises(JobFailed, match="does not allow overwriting"):
        site.opened(site.spec(overwrite=True))
    allowing = replace(site, allow_overwrite=True)
    member = allowing.prepared(allowing.spec(overwrite=True))
    assert target.read_text() == "old"
    commit_member(allowing.roots, member, 1)
    assert target.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("digests", [True, False])
def test_what_an_image_that_is_gone_left_beside_it_is_replaced_where_overwriting_is_allowed(site, digests):
    site.image()
    (site.backup / "R").mkdir()
    for suffix in (".blake3", ".manifest.json"):
        (site.backup / f"R/root.img{suffix}").write_text("of another image")
    with pytest.raises(JobFailed, match="would belong to target"):
        site.opened(site.spec())
    allowing = replace(site, allow_overwrite=True)
    commit_member(allowing.roots, allowing.prepared(allowing.spec(overwrite=True, digests=digests)), 1)
    assert site.tree() == [name for name in PUBLISHED if digests or not name.endswith(".blake3")]
    target = site.backup / "R/root.img"
    assert manifest.load(f"{target}.manifest.json")["run"] == "R"


def test_only_the_file_that_was_seen_at_open_is_overwritten(site):
    site.image()
    (site.backup / "R").mkdir()
    target = site.backup / "R/root.img"
    target.write_text("old")
    allowing = replace(site, allow_overwrite=True)
    member = allowing.prepared(allowing.spec(overwrite=True))
    newer = site.backup / "R/newer"
    newer.write_text("newer")
    newer.rename(target)
    with pytest.raises(NotPublished):
        commit_member(allowing.roots, member, 1)
    assert target.read_text() == "newer"


def of_another_generation(which):
    """The name that another file has whose inode number is the same: their handles differ in the generation."""
    return which[:-1] + ("0" if which[-1] != "0" else "1")


SEEN = {  # what the journal says of the file that OPEN saw, and whether the one that is there is replaced
    "the file itself": (lambda dev, ino, which: [dev, ino, which], True),
    "its number is another file's now": (lambda dev, ino, which: [dev, ino, of_another_generation(which)], False),
    "its device has another number now": (lambda dev, ino, which: [dev + 1, ino, which], True),
    "noted by numbers only, before": (lambda dev, ino, _: [dev, ino], True),
    "another one, noted by numbers only": (lambda dev, ino, _: [dev, ino + 1], False),
}


@pytest.mark.parametrize(("noted", "same"), SEEN.values(), ids=SEEN)
def test_a_file_is_overwritten_only_where_it_is_the_very_one_of_the_journal(site_at, tmp_path, noted, same):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    image = site.image()
    (site.backup / "R").mkdir()
    target = site.backup / "R/root.img"
    target.write_text("precious")
    member = site.prepared(site.spec(overwrite=True))
    assert member.replaces.ino == target.stat().st_ino
    path = site.backup / ".blockjobs/R.journal"
    keys = json.loads(path.read_text())
    keys["members"]["R.root"]["replaces"] = noted(*keys["members"]["R.root"]["replaces"])
    path.write_bytes(seal(keys))
    if same:
        commit_job(site.roots, site.spec(), 1)
        assert target.read_bytes() == image.read_bytes()
    else:
        with pytest.raises(NotPublished, match=r"root\.img was taken by a file that is not ours"):
            commit_job(site.roots, site.spec(), 1)
        assert target.read_text() == "precious"


@pytest.mark.parametrize(("name", "flag"), [("R/root.img", "i"), ("R/root.img.manifest.json", "a"), ("R", "a")])
def test_what_nobody_may_rename_is_refused_at_open_and_not_first_at_the_commit(site_at, tmp_path, name, flag):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    site.image()
    commit_member(site.roots, site.prepared(site.spec()), 1)
    path, before = site.backup / name, site.tree()
    set_flag = subprocess.run(["chattr", f"+{flag}", path], capture_output=True, text=True, check=False)
    if set_flag.returncode:
        pytest.skip(f"no such flags here: {set_flag.stderr.strip()}")
    try:
        with pytest.raises(JobFailed, match=rf"{path} is immutable or append-only"):
            site.opened(site.spec(transaction=TxnId("Q"), overwrite=True))
        assert [each for each in site.tree() if "/Q." not in each] == before
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


WITHDRAWN = {
    "the image": (("root.img",), "root.img was taken by a file that is not ours"),
    "what an image that is gone left": (("root.img.blake3", "root.img.manifest.json"), "root.img.blake3 was taken"),
}


@pytest.mark.parametrize(("names", "text"), WITHDRAWN.values(), ids=WITHDRAWN)
def test_nothing_is_replaced_once_the_host_does_not_allow_it_any_more(site, names, text):
    site.image()
    (site.backup / "R").mkdir()
    for name in names:
        (site.backup / "R" / name).write_text("old")
    allowing = replace(site, allow_overwrite=True)
    member = allowing.prepared(allowing.spec(overwrite=True))
    with pytest.raises(NotPublished, match=text):
        commit_member(site.roots, member, 1)
    assert [(site.backup / "R" / name).read_text() for name in names] == ["old"] * len(names)
    commit_member(allowing.roots, member, 1)
    assert site.tree() == PUBLISHED


@pytest.mark.parametrize("when", ["before OPEN", "before COMMIT"])
def test_a_file_with_a_second_name_is_not_replaced(site, when):
    site.image()
    (site.backup / "R").mkdir()
    target, second = site.backup / "R/root.img", site.backup / "R/second"
    target.write_text("old")
    allowing = replace(site, allow_overwrite=True)
    spec = allowing.spec(overwrite=True)
    if when == "before OPEN":
        os.link(target, second)
        with pytest.raises(JobFailed, match="has 2 hard links: a file with one was expected"):
            allowing.opened(spec)
        second.unlink()
        member = allowing.prepared(spec)
    else:
        member = allowing.prepared(spec)
        os.link(target, second)
        with pytest.raises(NotPublished, match="was taken by a file that is not ours"):
            commit_member(allowing.roots, member, 1)
        second.unlink()
    assert target.read_text() == "old"
    commit_member(allowing.roots, member, 1)
    assert site.tree() == PUBLISHED


@pytest.mark.parametrize("what", ["part", "blake3"])
def test_nothing_is_made_through_a_name_that_somebody_else_puts_there_meanwhile(site, monkeypatch, what):
    precious, real = site.backup / "precious", os.open
    precious.write_text("precious")
    site.image()

    def open_behind_another(path, flags, *mode, **more):
        if str(path).endswith(f".{what}") and flags & os.O_CREAT:
            os.symlink(precious, path, dir_fd=more["dir_fd"])
        return real(path, flags, *mode, **more)

    with monkeypatch.context() as beside:
        beside.setattr(os, "open", open_behind_another)
        with pytest.raises(JobFailed, match="File exists"):
            site.opened(site.spec())
    assert precious.read_text() == "precious"


def test_a_file_system_that_cannot_rename_without_replacing_gives_an_image_its_name_all_the_same(site, monkeypatch):
    def refused(*_):
        raise OSError(errno.EINVAL, "Invalid argument")  # NFS says so

    image = site.image()
    monkeypatch.setattr(kernel, "rename_noreplace", refused)
    member = site.prepared(site.spec())
    foreign = site.backup / "R/root.img"
    foreign.write_text("precious")
    with pytest.raises(NotPublished, match="was taken by a file that is not ours"):
        commit_member(site.roots, member, 1)
    assert foreign.read_text() == "precious"
    directory = os.open(site.backup / "R", os.O_RDONLY)
    with pytest.raises(FileExistsError):
        give_name(directory, member.staging, "root.img")  # a name that is taken between the look and the link
    os.close(directory)
    assert foreign.read_text() == "precious"
    foreign.unlink()
    commit_member(site.roots, member, 1)
    assert site.tree() == PUBLISHED
    assert foreign.read_bytes() == image.read_bytes()


BAD = {
    "exists": ("root.img", "exists already"),
    "a directory": ("dir.img", "exists already and is a directory"),
    "a symlink": ("link.img", "exists already and is a symlink"),
    "no directory": ("nowhere/root.img", "target directory .*nowhere does not exist on host web1"),
    "a symlinked directory": ("linkdir/new.img", "symlink"),
    "our suffix": ("new.img.part", "are ours"),
    "our other suffix": ("new.img.manifest.json", "are ours"),
    "the journals' folder": (".blockjobs/new.img", "folder of the journals"),
    "a long name": ("x" * 240, "at most 230 bytes"),
    "beside stale digests": ("stale.img", "stale.img.blake3 exists already"),
}


@pytest.mark.parametrize(("name", "text"), BAD.values(), ids=BAD)
def test_a_bad_target_is_refused_and_nothing_is_made(site, name, text):
    site.image()
    (site.backup / "root.img").write_text("there")
    (site.backup / "stale.img.blake3").write_text("there")
    (site.backup / "dir.img").mkdir()
    (site.backup / "link.img").symlink_to("root.img")
    (site.backup / "linkdir").symlink_to("dir.img")
    before = site.tree()
    path = f"{site.backup}/{name}"
    base = os.path.dirname(path) if not name.startswith(".blockjobs") else str(site.backup)
    with pytest.raises(JobFailed, match=text):
        site.opened(site.spec(name=name, target_base=base))
    assert site.tree() == before


def test_a_layer_of_the_source_is_refused_as_a_target(site_at, tmp_path):
    site = site_at(tmp_path / "host", allow_overwrite=True, cuts=True)
    base, top = site.image(name="base.img"), site.images / "top.qcow2"
    top.write_bytes(b"QFI\xfb")
    below = {"driver": "file", "filename": str(base)}
    volume = {"host": "web1", "driver": "qcow2", "file": {"driver": "file", "filename": str(top)}, "backing": below}
    target = volumespec.parse(f"web1:{base}")
    spec = site.spec(
        source=volumespec.parse(volume), target=target, target_base=str(site.images), overwrite=True
    )  # fmt: skip
    with pytest.raises(JobFailed, match=r"base\.img is a layer of source web1:.*top\.qcow2, which lies on it"):
        site.opened(spec)


@pytest.mark.parametrize("suffix", [".blake3", ".manifest.json"])
@pytest.mark.parametrize("digests", [True, False])
def test_nothing_but_a_file_is_replaced_beside_an_image(site_at, tmp_path, suffix, digests):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    site.image()
    (site.backup / "R").mkdir()
    (site.backup / "R/root.img").write_bytes(b"before")
    beside = site.backup / f"R/root.img{suffix}"
    spec = site.spec(overwrite=True, digests=digests)
    beside.symlink_to("elsewhere")
    with pytest.raises(JobFailed, match=f"root.img{suffix} exists already and is a symlink"):
        site.opened(spec)
    beside.unlink()
    member = site.prepared(spec)
    beside.mkdir()
    with pytest.raises(NotPublished, match=f"root.img{suffix} was taken by a file that is not ours"):
        commit_member(site.roots, member, 1)
    assert (site.backup / "R/root.img").read_bytes() == b"before", "nothing is visible yet"
    beside.rmdir()
    commit_member(site.roots, member, 1)
    assert (site.backup / "R/root.img").read_bytes() == (site.images / "root.img").read_bytes()


def test_a_hard_link_of_the_source_is_refused_as_a_target(site):
    image = site.image()
    os.link(image, site.backup / "root.img")
    with pytest.raises(JobFailed, match="is the source itself"):
        site.opened(site.spec(name="root.img"))


def test_a_target_outside_the_write_roots_is_refused(site):
    site.image()
    spec = site.spec(target=volumespec.parse(f"web1:{site.images}/copy.img"), target_base=str(site.images))
    with pytest.raises(JobFailed, match="outside the write roots of host web1") as refused:
        site.opened(spec)
    assert refused.value.errno == errno.EACCES
    assert site.tree() == []


def test_space_is_added_up_by_file_system(site):
    place = os.statvfs(site.backup)
    half = place.f_bavail * place.f_frsize // 2 + (64 << 20)
    Room(site.roots).take(f"{site.backup}/R/x", half // 2)
    room = Room(site.roots)
    room.take(f"{site.backup}/R", half)
    with pytest.raises(JobFailed, match=r"needs \d+ bytes, \d+ are free") as refused:
        room.take(str(site.backup), half)
    assert refused.value.errno == errno.ENOSPC


def test_a_target_that_cannot_be_made_leaves_nothing(site, largest_file):
    site.image()
    with pytest.raises(JobFailed, match="File too large"):
        open_member(site.roots, site.spec(), size=largest_file + 1)
    assert site.tree() == []


def test_a_null_volume_is_not_staged(site):
    spec = site.spec(target=volumespec.parse({"driver": "null-co", "host": "web1"}))
    with pytest.raises(JobFailed, match="is not staged"):
        open_member(Roots(HostConfig(name=spec.host, read_roots=(), write_roots=())), spec, size=1)


def test_a_cleaning_that_was_killed_anywhere_is_finished_by_the_next(prepared_site, killed_at_every_change):
    def set_up():
        site = prepared_site()
        assert not clean_transaction(site.roots, "R", Root(str(site.backup)))  # undecided
        commit_prepared(site)
        return site

    def clean(site):
        return clean_transaction(site.roots, "R", Root(str(site.backup)))

    def check(site, _):
        assert clean(site)
        record = journal.read(site.roots, Root(str(site.backup)), "R")
        assert record is not None
        assert (record.state, record.decision, record.members) == ("clean", "commit", {})
        assert site.tree() == SETTLED + IMAGE

    killed_at_every_change(set_up, clean, check, at_least=7)


def test_a_transaction_is_clean_only_when_every_member_is_settled(site):
    site.image()
    root = Root(str(site.backup))
    first, second = site.opened(site.spec("R.a", "a.img")), site.opened(site.spec("R.b", "b.img"))
    abort_member(site.roots, first, 1)
    assert not clean_transaction(site.roots, "R", root)
    abort_member(site.roots, second, 1)
    assert clean_transaction(site.roots, "R", root)
    assert site.tree() == SETTLED


def test_what_was_settled_and_left_open_is_closed_and_nothing_else_is(site):
    site.image()
    root = Root(str(site.backup))
    first, second = site.opened(site.spec("R.a", "a.img")), site.opened(site.spec("R.b", "b.img"))
    assert close_settled(site.roots, root) == 0  # undecided
    abort_member(site.roots, first, 1)
    assert close_settled(site.roots, root) == 0  # half settled
    abort_member(site.roots, second, 1)
    with journal.held(site.roots, root, "R"):
        assert close_settled(site.roots, root) == 0  # somebody is at work on it
    assert (close_settled(site.roots, root), close_settled(site.roots, root)) == (1, 0)
    assert site.tree() == SETTLED
