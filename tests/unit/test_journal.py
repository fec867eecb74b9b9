"""The journal: read back as written, one at a time, and nothing left where nothing was made."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import tracemalloc
from dataclasses import replace

import pytest
from killed import forked

from blockjobs.model.errors import BadInput, JobFailed
from blockworker.host.roots import Root
from blockworker.records import journal
from blockworker.records.entries import Replaced
from blockworker.records.folder import LockBusy
from blockworker.records.journal import JournalRecord, MemberFiles
from blockworker.watch.abandoned import sweep_root


@pytest.fixture
def root(site):
    return Root(str(site.backup))


MEMBER = MemberFiles(
    job="R.a", transaction="R", target="/b/a.img", staging=".a.img.1.part", manifest=".a.img.1.manifest",
    uuid="1", size=5, dev=1, ino=2, boot="x", made_dirs=("/b/R",), replaces=Replaced(3, 4, "uuid:1/1-04"), token=9,
)  # fmt: skip


def test_what_is_written_is_read_back(site, root):
    with journal.locked_journal(site.roots, root, "R") as held:
        assert held.record is None
        held.write(JournalRecord("R").having(MEMBER))
    record = journal.read_journal(site.roots, root, "R")
    assert record.members == {"R.a": MEMBER}
    assert [record.transaction for record in journal.scan_open_journals(site.roots, root)] == ["R"]
    assert (site.backup / ".blockjobs").stat().st_mode & 0o777 == 0o700
    assert json.loads((site.backup / ".blockjobs/R.journal").read_text())["version"] == 2


def test_a_journal_that_was_not_written_leaves_no_trace(site, root):
    with journal.locked_journal(site.roots, root, "R"):
        assert site.tree() == [".blockjobs", ".blockjobs/R.lock"]
    assert site.tree() == []
    with journal.locked_open_journal(site.roots, root, "R") as none:
        assert none is None
        assert site.tree() == []


def test_a_held_lock_is_busy_and_a_free_one_is_not(site, root):
    with journal.locked_journal(site.roots, root, "R") as held:
        held.write(JournalRecord("R"))
        with pytest.raises(LockBusy), journal.locked_journal(site.roots, root, "R", patience=0):
            pytest.fail("two had it")  # the control of this test is the next line but one
        with journal.locked_journal(site.roots, root, "other", patience=0):
            pass
    with journal.locked_journal(site.roots, root, "R", patience=0) as held:
        assert held.record is not None


def test_a_dead_holder_holds_nothing(site, root):
    child = os.fork()
    if child == 0:
        journal.locked_journal(site.roots, root, "R").__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    with journal.locked_journal(site.roots, root, "R", patience=0) as held:
        held.write(JournalRecord("R"))


def test_a_lock_file_that_was_removed_while_waited_for_is_not_taken(site, root):
    """Two holders of one name: the one who got the old file notices that it has no name any more."""
    with journal.locked_journal(site.roots, root, "R") as held:
        held.write(JournalRecord("R"))
    path = site.backup / ".blockjobs/R.lock"
    old = os.open(path, os.O_RDWR)
    path.unlink()
    with journal.locked_journal(site.roots, root, "R", patience=0) as held:
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the old file is free and means nothing
        with pytest.raises(LockBusy), journal.locked_journal(site.roots, root, "R", patience=0):
            pytest.fail("two had it")
    os.close(old)


def test_a_lock_file_that_loses_its_name_between_opening_and_locking_is_not_kept(site, root):
    """The holder before removes the file at the one instant at which nobody can see it: behind open, before flock."""
    path = site.backup / ".blockjobs/R.lock"
    with journal.locked_journal(site.roots, root, "R") as held:
        held.write(JournalRecord("R"))

    def lock_as_the_file_is_removed():
        turns = iter([path.unlink])
        sys.addaudithook(lambda event, _: next(turns, int)() if event == "fcntl.flock" else None)
        with journal.locked_journal(site.roots, root, "R") as held:
            assert os.fstat(held.lock).st_ino == path.stat().st_ino

    assert os.waitpid(forked(lock_as_the_file_is_removed), 0)[1] == 0


def test_a_lock_whose_file_cannot_be_removed_is_given_back_all_the_same(site, root):
    """The disk may have become read-only, and whoever works on it is a process that goes on for days."""
    lock = site.backup / ".blockjobs/R.lock"

    def hold():
        with journal.locked_journal(site.roots, root, "R"):
            lock.rename(site.backup / "moved")
            lock.mkdir()

    with pytest.raises(IsADirectoryError):
        hold()
    with (site.backup / "moved").open() as moved:
        fcntl.flock(moved, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_every_bit_that_flips_in_a_journal_or_in_a_member_s_own_file_is_noticed():
    for parse, text in (
        (JournalRecord.parse, JournalRecord("R").having(MEMBER).dump()),
        (MemberFiles.parse, MEMBER.dump()),
    ):
        assert parse(text + b" " * 100, "J") == parse(text, "J")  # blanks are room for the next version
        for n in range(len(text.rstrip())):
            flipped = bytearray(text)
            flipped[n] ^= 1 << n % 8
            with pytest.raises(JobFailed, match="journal J is not one of version 1 or 2"):
                parse(bytes(flipped), "J")


def test_only_old_tombstones_are_swept(site, root):
    for name, state in (("open", "open"), ("clean", "clean")):
        with journal.locked_journal(site.roots, root, name) as held:
            held.write(replace(JournalRecord(name), state=state, decision="abort"))
    at = journal.read_journal(site.roots, root, "clean").uptime
    assert journal.sweep_tombstones(site.roots, root, 60, now=at + 59) == 0
    assert journal.sweep_tombstones(site.roots, root, 60, now=at + 61) == 1
    assert [record.transaction for record in journal.scan_open_journals(site.roots, root)] == ["open"]


@pytest.mark.parametrize("years", [-2, 2])
@pytest.mark.parametrize("when", ["written", "swept"])
def test_no_clock_that_is_put_makes_a_tombstone_old(site, root, monkeypatch, years, when):
    real = time.time

    def put():
        monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400)

    if when == "written":
        put()
    with journal.locked_journal(site.roots, root, "clean") as held:
        held.write(JournalRecord("clean", state="clean", decision="commit"))
    if when == "swept":
        put()
    assert journal.sweep_tombstones(site.roots, root, 60) == 0
    assert journal.read_journal(site.roots, root, "clean").clean


def test_tombstones_of_earlier_boots_are_as_old_as_this_one_and_the_newest_stay(site, root, monkeypatch):
    monkeypatch.setattr(journal, "MOST_OF_EARLIER_BOOTS", 2)
    monkeypatch.setattr(journal, "read_boot_id", lambda: "the one before")
    names = {1: "c", 2: "a", 3: "b"}  # by decision
    for number, name in names.items():
        with journal.locked_journal(site.roots, root, name) as held:
            held.write(JournalRecord(name, state="clean", decision="abort", decision_number=number))
    monkeypatch.setattr(journal, "read_boot_id", lambda: "this one")
    assert journal.sweep_tombstones(site.roots, root, 60, now=59) == 1
    assert [journal.read_journal(site.roots, root, name) is not None for name in names.values()] == [False, True, True]
    assert journal.sweep_tombstones(site.roots, root, 60, now=60) == 2


def test_a_tombstone_lies_where_no_scan_meets_it_and_needs_no_lock_file(site, root):
    for name, record in (
        ("a", JournalRecord("a")),
        ("b", JournalRecord("b", state="clean")),
        ("c", JournalRecord("c")),
    ):
        with journal.locked_journal(site.roots, root, name) as held:
            held.write(JournalRecord(name).having(MEMBER))
            held.write(record)
    assert [record.transaction for record in journal.scan_open_journals(site.roots, root)] == ["a", "c"]
    assert "b" not in " ".join(os.listdir(site.backup / ".blockjobs"))
    assert os.listdir(site.backup / ".blockjobs/settled") == ["b.journal"]
    with journal.locked_open_journal(site.roots, root, "b") as late:
        assert late.record.state == "clean"
    assert "b" not in " ".join(os.listdir(site.backup / ".blockjobs"))


def test_where_a_journal_was_not_removed_behind_its_tombstone_the_tombstone_counts_and_the_next_one_removes_it(
    site, root
):
    with journal.locked_journal(site.roots, root, "R") as held:
        held.write(JournalRecord("R").having(MEMBER))
        left = (site.backup / ".blockjobs/R.journal").read_bytes()
        held.write(JournalRecord("R", state="clean"))
    (site.backup / ".blockjobs/R.journal").write_bytes(left)
    assert journal.read_journal(site.roots, root, "R").state == "clean"
    with journal.locked_journal(site.roots, root, "R") as held:
        assert held.record.state == "clean"
    assert site.tree() == [".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal"]


def test_the_folder_of_tombstones_is_no_link(site, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with journal.locked_journal(site.roots, root, "R") as held:
        held.write(JournalRecord("R"))
    (site.backup / ".blockjobs/settled").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Not a directory"), journal.locked_journal(site.roots, root, "R"):
        pytest.fail("it was followed")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_sweep_holds_one_tombstone_at_a_time_however_many_there_are(site, root):
    with journal.locked_journal(site.roots, root, "R0") as held:
        held.write(JournalRecord("R0", state="clean"))
        first = held.record
    for n in range(1, 2000):
        (site.backup / f".blockjobs/settled/R{n}.journal").write_bytes(replace(first, transaction=f"R{n}").dump())
    tracemalloc.start()
    assert journal.sweep_tombstones(site.roots, root, 60) == 0
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400_000, "the names of all, twice, and one record"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 3}', '{"version": 1, "members": {"a": {}}}'])
def test_a_journal_that_is_not_ours_to_read_stops_its_transaction_and_no_other(site, root, text):
    for name in ("R", "good"):
        with journal.locked_journal(site.roots, root, name) as held:
            held.write(JournalRecord(name))
    (site.backup / ".blockjobs/R.journal").write_text(text)
    with pytest.raises(JobFailed, match=r"R\.journal is not one of version 1 or 2"):
        journal.read_journal(site.roots, root, "R")
    assert [record.transaction for record in journal.scan_open_journals(site.roots, root)] == ["good"]


@pytest.mark.parametrize("name", ["../R", "a/b", "", ".R"])
def test_a_transaction_that_is_no_id_gets_no_file(site, root, name):
    with pytest.raises(BadInput), journal.locked_journal(site.roots, root, name):
        pytest.fail("a file was made")
    assert site.tree() == []


def test_a_symlink_in_place_of_the_folder_is_not_followed(site, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (site.backup / ".blockjobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JobFailed, match="symlink"), journal.locked_journal(site.roots, root, "R"):
        pytest.fail("it was followed")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(site, root):
    ready, tell = os.pipe()
    with journal.locked_journal(site.roots, root, "R") as held:
        held.write(JournalRecord("R"))
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.read(ready, 1)  # until the test is over
            os._exit(0)
    with journal.locked_journal(site.roots, root, "R", patience=0) as held:
        assert held.record is not None
    os.close(tell)
    os.waitpid(child, 0)
    os.close(ready)


def link_to_nowhere(folder):
    (folder / "m.journal").symlink_to("/nowhere/at/all")


def a_folder(folder):
    (folder / "m.journal").mkdir()


def of_a_transaction_that_is_no_id(folder):
    (folder / "m.journal").write_text(
        '{"version":1,"transaction":"../x","state":"open","decision":"abort","decision_number":1,"at":0.0,"members":{}}'
    )


def with_a_name_that_is_no_id(folder):
    text = (
        '{"version":1,"transaction":"-m","state":"open","decision":"abort","decision_number":1,"at":0.0,"members":{}}'
    )
    (folder / "-m.journal").write_text(text)


def locked_by_a_folder(folder):
    (folder / "m.journal").write_bytes(replace(JournalRecord("m"), decision="abort").dump())
    (folder / "m.lock").mkdir()


ODD = [link_to_nowhere, a_folder, of_a_transaction_that_is_no_id, with_a_name_that_is_no_id, locked_by_a_folder]


@pytest.mark.parametrize("odd", ODD)
def test_a_sweep_closes_and_removes_what_it_can_and_names_the_journal_that_it_cannot(site, root, odd):
    with journal.locked_journal(site.roots, root, "old") as held:
        held.write(replace(JournalRecord("old"), state="clean", decision="abort"))
    folder = site.backup / ".blockjobs"
    tombstone = folder / "settled/old.journal"
    tombstone.write_bytes(replace(JournalRecord.parse(tombstone.read_bytes(), "old"), uptime=-1e9).dump())
    for name in ("a", "z"):
        with journal.locked_journal(site.roots, root, name) as held:
            held.write(replace(JournalRecord(name), decision="abort"))
    odd(folder)
    told = sweep_root(site.roots, str(site.backup))
    assert [journal.read_journal(site.roots, root, name).state for name in ("a", "z")] == ["clean", "clean"]
    assert not tombstone.exists()
    name = "-m" if odd is with_a_name_that_is_no_id else "m"
    assert list(told) == [f"journal {folder}/{name}.journal"]


def test_a_sweep_of_a_root_without_odd_journals_names_nothing(site, root):
    with journal.locked_journal(site.roots, root, "a") as held:
        held.write(replace(JournalRecord("a"), decision="abort"))
    assert sweep_root(site.roots, str(site.backup)) == {}
