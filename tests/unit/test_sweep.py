"""``sweep`` removes what the registry has lost, and nothing that anybody may still own."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import replace

import pytest
import redis

from blockjobs.model import volumespec
from blockjobs.model.ids import Host
from blockworker.host.roots import Root, Roots
from blockworker.questions.strays import AGE, SweepQuestions
from blockworker.questions.sweeping import sweep_lost
from blockworker.records import journal
from blockworker.system import filesystem
from blockworker.targets import settle
from blockworker.targets.opening import open_member

LATER = time.time() + 2 * AGE


def lost(*known, used=()):
    """A registry that knows these transactions alone, and jobs of these targets."""
    return SweepQuestions(
        lambda txn: txn in known, lambda _, written: any(written.endswith(f"/{each}") for each in used)
    )


def sweep(site, registry=None, *, dry=False, later=False, roots=None):
    found = sweep_lost(
        roots or site.roots, str(site.backup), registry or lost(), dry=dry, now=(lambda: LATER) if later else time.time
    )  # fmt: skip
    return [(os.path.basename(row["path"]), row["state"]) for row in found]


def files(site):
    """Beneath the write root, open journals among them; without the folder's own notes."""
    there = [name for name in site.tree() if (site.backup / name).is_file() and "settled" not in name]
    return [name for name in there if not name.startswith(".blockjobs/") or name.endswith(".journal")]


def test_what_a_lost_registry_left_behind_is_removed(site):
    site.image()
    site.opened(site.spec())
    site.prepared(site.spec("Q.root", "Q/root.img", transaction="Q", run="Q"))
    before = site.tree()
    expected = [("Q.journal", "removed"), ("R.journal", "removed")]
    assert sweep(site, dry=True) == expected
    assert site.tree() == before
    assert sweep(site) == expected
    assert files(site) == []
    assert not (site.backup / "R").exists()
    assert sweep(site) == []


def test_what_the_registry_owns_is_never_touched(site):
    site.image()
    site.prepared(site.spec())
    before = site.tree()
    assert sweep(site, lost("R"), later=True) == []
    assert site.tree() == before

    def away(_):
        raise redis.ConnectionError

    with pytest.raises(redis.ConnectionError):
        sweep(site, SweepQuestions(away, lambda *_: False), later=True)
    assert site.tree() == before


def test_what_was_committed_is_published_not_removed(site):
    site.image(b"content")
    member = site.prepared(site.spec())
    root = site.roots.root_of(str(site.backup), write=True)
    with journal.locked_journal(site.roots, root, "R") as here:
        here.decide("commit", 7)
    assert sweep(site) == [("R.journal", "published")]
    assert (site.backup / "R" / member.name).read_bytes() == b"content"
    assert [name for name in files(site) if name.startswith("R/.")] == []


def prepared_beneath_two_roots(site):
    """The site with a second write root, its images; and a member of one transaction prepared beneath each."""
    both = replace(site, cuts=True)
    both.image(b"content")
    first = both.prepared(both.spec())
    target = volumespec.parse_volume(f"web1:{both.images}/data.img")
    both.prepared(both.spec("R.data", target=target, target_base=str(both.images)))
    return both, first


def test_what_was_committed_beneath_another_root_of_the_host_is_published_here_too(site):
    """The disk of one root was away when the transaction was settled; then the registry was lost."""
    both, first = prepared_beneath_two_roots(site)
    settle.commit_member(both.roots, first, 7)
    settle.clean_transaction(both.roots, "R", Root(str(both.backup)))
    assert [row["state"] for row in sweep_lost(both.roots, str(both.images), lost(), dry=False)] == ["published"]
    assert (both.images / "data.img").read_bytes() == b"content"


def test_what_may_have_been_committed_beneath_a_root_that_is_away_stays(site):
    both, _ = prepared_beneath_two_roots(site)
    both.backup.rename(site.base / "away")
    (row,) = sweep_lost(both.roots, str(both.images), lost(), dry=False)
    assert (row["state"], f"decided beneath write root {both.backup}" in row["text"]) == ("left", True)
    (site.base / "away").rename(both.backup)
    (row,) = sweep_lost(both.roots, str(both.images), lost(), dry=False)
    assert row["state"] == "removed"


def test_what_was_committed_and_has_no_name_stays(site):
    site.image()
    site.prepared(site.spec())
    root = site.roots.root_of(str(site.backup), write=True)
    with journal.locked_journal(site.roots, root, "R") as here:
        here.decide("commit", 7)
    (site.backup / "R" / "root.img").write_text("foreign")
    before = site.tree()
    assert sweep(site) == [("R.journal", "left")]
    assert site.tree() == before


def test_a_copy_that_is_still_at_work_is_left_alone(site):
    site.image()
    member = site.opened(site.spec())
    with (site.backup / "R" / member.staging).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = site.tree()
        assert sweep(site) == [("R.journal", "left")]
        assert site.tree() == before
    assert sweep(site) == [("R.journal", "removed")]


def test_what_another_registry_has_begun_is_left_until_a_person_says_that_it_is_gone(site):
    site.image()
    opened = open_member(site.roots.serving("theirs"), site.spec(), size=1)
    before = site.tree()
    ours = replace(lost(), name="ours")
    (row,) = sweep_lost(site.roots, str(site.backup), ours, dry=False)
    assert (row["state"], row["text"].endswith("`blockjobs sweep --lost theirs`")) == ("left", True)
    assert site.tree() == before
    bury(site)
    (site.backup / "R" / opened.staging).unlink()
    assert sweep(site, ours, later=True) == [(opened.digests, "removed"), (".root.img.reserved", "left")]
    assert sweep(site, replace(ours, gone="theirs"), later=True) == [(".root.img.reserved", "removed")]


def test_what_this_registry_has_begun_and_forgotten_is_removed(site):
    site.image()
    open_member(site.roots.serving("ours"), site.spec(), size=1)
    assert sweep(site, replace(lost(), name="ours")) == [("R.journal", "removed")]


def bury(site, transaction="R"):
    """The journal is gone, and its files are not."""
    for path in (site.backup / ".blockjobs").iterdir():
        if path.is_file() and transaction in path.name:
            path.unlink()


def test_files_whose_journal_is_gone_are_removed_once_they_are_old(site):
    site.image()
    member = site.prepared(site.spec())
    bury(site)
    assert (sweep(site), len(files(site))) == ([], 4)
    names = [member.digests, member.manifest, member.staging, ".root.img.reserved"]
    expected = sorted((name, "removed") for name in names)
    assert sorted(sweep(site, later=True, dry=True)) == expected
    assert len(files(site)) == 4
    assert sorted(sweep(site, later=True)) == expected
    assert files(site) == []


OTHERS = {
    "somebody's hidden file": ".root.img.part",
    "another program's": ".root.img.0123456g.part",
    "a published image": "root.img",
    "its manifest": "root.img.manifest.json",
    "a trial of doctor": ".blockjobs-doctor-0123456789abcdef",
    "an editor's": ".root.img.swp",
}


@pytest.mark.parametrize("name", OTHERS.values(), ids=OTHERS)
def test_a_file_that_has_none_of_our_names_stays_however_old(site, name):
    (site.backup / name).write_text("foreign")
    assert sweep(site, later=True) == []
    assert (site.backup / name).read_text() == "foreign"


def test_a_file_with_a_date_where_our_names_have_digits_is_left_to_a_person(site):
    (site.backup / ".root.img.20261122.part").write_text("foreign")
    assert sweep(site, later=True) == [(".root.img.20261122.part", "left")]
    assert (site.backup / ".root.img.20261122.part").read_text() == "foreign"


def test_a_link_or_a_directory_with_one_of_our_names_stays(site):
    (site.backup / ".a.0123abcd.part").symlink_to("/etc/passwd")
    (site.backup / ".b.0123abcd.part").mkdir()
    os.mkfifo(site.backup / ".c.0123abcd.part")
    assert sweep(site, later=True) == []
    assert len(site.tree()) == 3


def break_journal(site):
    bury(site)
    (site.backup / ".blockjobs" / "X.journal").write_text("{")


def give_away(site):
    if os.geteuid():
        pytest.skip("only root gives files to others")
    bury(site)
    for path in (site.backup / "R").iterdir():
        os.chown(path, 1, 1)


def target_there(site):
    bury(site)
    (site.backup / "R" / "root.img").write_text("there")


READ = "a job reads what is its target"
ELSEWHERE = "other hosts see its file system"
KEEPS = {
    "a journal names it": str,
    "a job has its target": bury,
    "a process has it open": bury,
    "a journal that cannot be read": break_journal,
    "another user has it": give_away,
    READ: target_there,
    ELSEWHERE: bury,
}


@pytest.mark.parametrize("why", KEEPS)
def test_an_old_file_stays_for_any_of_these_reasons(site, why, monkeypatch):
    site.image()
    member = site.prepared(site.spec())
    KEEPS[why](site)
    if why == ELSEWHERE:
        monkeypatch.setattr(filesystem, "KINDS", {})  # one that nobody knows is taken for one of the network
    before = site.tree()
    known = lost("R", "X", used=("root.img",) if why == "a job has its target" else ())
    if why == READ:
        st = (site.backup / "R" / "root.img").stat()
        known = replace(known, in_use=lambda read, _: read == f"{st.st_dev}:{st.st_ino}")
    with (site.backup / "R" / member.staging).open("rb") as file:
        if why == "a process has it open":
            fcntl.flock(file, fcntl.LOCK_EX)
            kept = {member.staging}
        else:
            kept = {os.path.basename(name) for name in before}
        sweep(site, known, later=True)
        assert kept <= {os.path.basename(name) for name in site.tree()}


def test_files_of_another_host_above_or_below_stay(site):
    """Two hosts have roots that lie in each other, each with journals of its own."""
    site.image()
    (site.backup / "R").mkdir()
    below = Roots(replace(site.roots.config, name=Host("web2"), write_roots=(f"{site.backup}/R",)))
    theirs = open_member(below, site.spec(target_base=f"{site.backup}/R"), size=1)
    assert sweep(site, later=True) == []
    mine = site.opened(site.spec("Q.root", "R/other.img", transaction="Q", run="Q", target_base=f"{site.backup}/R"))
    rows = sweep_lost(below, f"{site.backup}/R", lost("R"), dry=False, now=lambda: LATER)
    assert rows == []
    for member in (theirs, mine):
        assert (site.backup / "R" / member.staging).exists()


def test_a_reserved_name_says_itself_whose_it_is(site):
    path = site.backup / ".x.img.reserved"
    for content, known, expected in (
        ({"transaction": "T", "uuid": "u"}, ("T",), []),
        ({"uuid": "u"}, (), [(path.name, "left")]),
        ({"transaction": "T", "uuid": "u"}, (), [(path.name, "removed")]),
    ):
        path.write_text(json.dumps(content))
        assert sweep(site, lost(*known), later=True) == expected
    assert not path.exists()


def test_a_sweep_that_was_killed_anywhere_is_finished_by_the_next_one(sites, killed_at_every_change):
    def set_up():
        site = sites()
        site.image(b"x")
        site.prepared(site.spec())
        return site

    def check(site, _):
        sweep(site)
        settle.close_settled(site.roots, site.roots.root_of(str(site.backup), write=True))
        assert files(site) == []

    killed_at_every_change(set_up, sweep, check, at_least=8)
