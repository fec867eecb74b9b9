"""What a job costs its host does not grow with the jobs of its transaction, nor with the transactions that are open."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blockworker.host.roots import Root
from blockworker.records import journal
from blockworker.records.journal import JournalRecord, MemberFiles
from blockworker.system import sparefile
from blockworker.targets import settle
from blockworker.targets.opening import find_member
from blockworker.targets.staged import StagedTarget

FEW, MANY = 50, 1000
STEPS = {
    "open": lambda site, spec: site.opened(spec),
    "claim": lambda site, spec: StagedTarget.take(site.roots, find_member(site.roots, spec), 1).close(),
    "prepare": lambda site, spec: site.prepared(spec),
    "commit": lambda site, spec: settle.commit_job(site.roots, spec, 7),
}


@pytest.fixture
def filled(site, monkeypatch):
    """A function that adds members to the transaction ``R``, or transactions of one member each, up to a number."""
    site.image(b"A" * 4096)
    root = Root(str(site.backup))
    monkeypatch.setattr(sparefile.os, "fsync", lambda _: None)  # nothing of this has to survive a power cut

    def member(job, transaction):
        return MemberFiles(
            job=job, transaction=transaction, target=f"{site.backup}/R/{job}.img", staging=f".{job}.part",
            manifest=f".{job}.manifest", uuid="1" * 32, size=4096, dev=1, ino=1, made_dirs=(f"{site.backup}/R",),
        )  # fmt: skip

    def fill(of, up_to):
        have = len(journal.read_members(site.roots, root, "R")) if of == "members" else len([*_open(site, root)])
        if of == "members":
            with journal.locked_journal(site.roots, root, "R") as held:
                held.put(*(member(f"R.x{n}", "R") for n in range(have, up_to)))
            return
        for n in range(have, up_to):
            with journal.locked_journal(site.roots, root, f"T{n}") as held:
                held.write(JournalRecord(f"T{n}").having(member(f"T{n}.x", f"T{n}")))

    return fill


def _open(site, root):
    return journal.scan_open_journals(site.roots, root)


def spent(act):
    """Bytes that this process has read and written, by system calls, in doing something."""
    before = _counted()
    act()
    return tuple(now - then for now, then in zip(_counted(), before, strict=True))


def _counted():
    with Path("/proc/self/io").open() as file:
        found = dict(line.split(": ") for line in file)
    return int(found["rchar"]), int(found["wchar"])


@pytest.mark.parametrize("of", ["members", "transactions"])
def test_a_member_costs_the_same_beside_few_and_beside_many(site, filled, of):
    costs = {}
    site.opened(site.spec())  # the first one makes the journal
    for number in (FEW, MANY):
        filled(of, number)
        spec = site.spec(f"R.j{number}", f"R/j{number}.img")
        costs[number] = {name: spent(lambda step=step, spec=spec: step(site, spec)) for name, step in STEPS.items()}
        if number == FEW:  # the transaction is decided then: what comes is another one's
            root = Root(str(site.backup))
            with journal.locked_journal(site.roots, root, "R") as held:
                held.write(JournalRecord("R", members=held.record.members))
    for name in STEPS:
        for few, many in zip(costs[FEW][name], costs[MANY][name], strict=True):
            assert many <= 1.1 * few + 512, (name, costs)  # ids are longer by some digits; of twenty times as many
    assert all(sum(cost) > 4096 for cost in costs[FEW].values()), "the control: something was counted"


def test_most_transactions_are_one_file(site):
    site.image()
    for n in range(journal.FEW):
        site.opened(site.spec(f"R.j{n}", f"R/j{n}.img"))
    assert not (site.backup / ".blockjobs/R.members").exists()
    site.opened(site.spec())
    assert sorted(name for name in os.listdir(site.backup / ".blockjobs/R.members") if name[0] != ".") == ["R.root"]


def test_a_settled_transaction_of_many_leaves_only_its_tombstone(site):
    site.image()
    specs = [site.spec(f"R.j{n}", f"R/j{n}.img") for n in range(2 * journal.FEW)]
    for spec in specs:
        site.opened(spec)
    root = Root(str(site.backup))
    for spec in specs:
        assert not settle.clean_transaction(site.roots, "R", root)
        settle.abort_job(site.roots, spec, 7, opened=True)
    assert settle.clean_transaction(site.roots, "R", root)
    assert site.tree() == [".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal"]


def test_a_journal_of_version_1_with_many_members_is_carried_over_at_its_next_change(site):
    site.image()
    specs = [site.spec(f"R.j{n}", f"R/j{n}.img") for n in range(2 * journal.FEW)]
    members = [site.opened(spec) for spec in specs]
    root, path = Root(str(site.backup)), site.backup / ".blockjobs/R.journal"
    with journal.locked_journal(site.roots, root, "R") as held:
        whole = JournalRecord("R", members={member.job: member for member in members})
    for left in (site.backup / ".blockjobs/R.members").iterdir():
        left.unlink()
    keys = json.loads(whole.dump()) | {"version": 1}
    del keys["digest"]  # version 1 had none
    path.write_text(json.dumps(keys))
    assert [member.job for member in journal.read_members(site.roots, root, "R")] == [spec.id for spec in specs]
    StagedTarget.take(site.roots, find_member(site.roots, specs[0]), 3).close()
    assert len(journal.read_journal(site.roots, root, "R").members) == journal.FEW
    assert {member.job for member in journal.read_members(site.roots, root, "R")} == {spec.id for spec in specs}
    for spec in specs:
        settle.abort_job(site.roots, spec, 7, opened=True)
    assert settle.clean_transaction(site.roots, "R", root)
    with journal.locked_journal(site.roots, root, "R") as held:
        assert held.record.clean
