"""Opening, publishing and aborting: every prefix that a kill can leave is finished by doing it again."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from functools import partial

import pytest
from trees import IMAGE, PUBLISHED, SETTLED

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import TxnId
from blockworker.host.roots import Root
from blockworker.records import journal
from blockworker.records.reserved import give_name
from blockworker.system import kernel
from blockworker.targets import manifest
from blockworker.targets.opening import find_member, open_member
from blockworker.targets.prepare import prepare_member
from blockworker.targets.proof import NotPublished
from blockworker.targets.settle import abort_member, clean_transaction, close_settled, commit_job, commit_member
from blockworker.targets.staged import StagedTarget, StagingBusy


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
    assert not manifest.verify_image(str(target), manifest.load_manifest(f"{target}.manifest.json")).bad
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
        assert not manifest.verify_image(str(target), manifest.load_manifest(f"{target}.manifest.json")).bad

    killed_at_every_change(prepared_site, commit_prepared, check, at_least=9)


def test_a_commit_is_in_the_journal_before_anything_is_visible(prepared_site, killed_at_every_change):
    visible = []

    def check(site, _):
        if (site.backup / "R/root.img").exists():
            visible.append(site)
            record = journal.read_journal(site.roots, Root(str(site.backup)), "R")
            assert record is not None
            assert record.decision == "commit"
            with pytest.raises(JobFailed, match="committed"):
                abort_member(site.roots, find_member(site.roots, site.spec()), 1)

    killed_at_every_change(prepared_site, commit_prepared, check, at_least=9)
    assert len(visible) >= 3  # between the renames as well as behind the last one


def test_a_commit_that_has_begun_is_finished_by_an_abort_of_a_later_decision(prepared_site, killed_at_every_change):
    """The registry came back without the decision to commit, and somebody accepted that."""
    begun = []

    def check(site, _):
        record = journal.read_journal(site.roots, Root(str(site.backup)), "R")
        assert record is not None
        abort_member(site.roots, find_member(site.roots, site.spec()), 2)
        if record.decision == "commit":
            begun.append(site)
            assert site.tree() == PUBLISHED
        else:
            assert not any(name.startswith("R") for name in site.tree()), site.tree()

    killed_at_every_change(prepared_site, commit_prepared, check, at_least=9)
    assert len(begun) >= 3


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
    with journal.locked_open_journal(site.roots, Root(str(site.backup)), "R") as noted:
        noted.decide(decision, 1)
    before = site.tree()
    prepare = partial(prepare_member, site.roots, member, ((0, member.size),), site.manifest(site.spec(), member.size))
    if decision == "commit":
        prepare()  # rung late: it is answered again
    else:
        with pytest.raises(JobFailed, match="already decided"):
            prepare()
    assert site.tree() == before


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
        record = journal.read_journal(site.roots, Root(str(site.backup)), "R")
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
    with journal.locked_journal(site.roots, root, "R"):
        assert close_settled(site.roots, root) == 0  # somebody is at work on it
    assert (close_settled(site.roots, root), close_settled(site.roots, root)) == (1, 0)
    assert site.tree() == SETTLED
