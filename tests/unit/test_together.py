"""Members of one batch: they share their waits for the disk and their locks, and none of them costs another one."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Root
from blockworker.records import journal
from blockworker.records.batch import Batch
from blockworker.records.folder import LockBusy
from blockworker.system import together
from blockworker.system.together import do_alone, do_together
from blockworker.targets import settle
from blockworker.targets.opening import opening_member
from blockworker.targets.prepare import preparing_member

MANY = 12


def specs_of(site, number):
    site.image(b"A" * 4096)
    return [site.spec(f"R.j{n}", f"R/j{n}.img") for n in range(number)]


def open_together(site, specs, owed=None, **more):
    with Batch(site.roots, owed) as batch:
        return do_together(
            opening_member(batch, spec, size=4096, wanted=batch.wanted(spec.id, lambda: True), **more) for spec in specs
        )


def test_each_member_has_its_own_end():
    def member(number):
        yield ()
        if number == 1:
            raise JobFailed(errno.EIO, "it is damaged")
        return number

    first, second, third = do_together(map(member, range(3)))
    assert (first, third) == (0, 2)
    assert isinstance(second, JobFailed)
    with pytest.raises(JobFailed):
        do_alone(member(1))


@pytest.mark.parametrize("number", [2, MANY])
def test_a_file_that_cannot_be_made_durable_fails_those_that_named_it(tmp_path, monkeypatch, number):
    real, bad = os.fsync, {}

    def fsync(fd):
        if os.fstat(fd).st_ino in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    def member(n):
        with (tmp_path / str(n)).open("wb") as file:
            if n == 1:
                bad[os.fstat(file.fileno()).st_ino] = True
            yield (file.fileno(),)
        return n

    ends = do_together(map(member, range(number)))
    assert [end for end in ends if not isinstance(end, OSError)] == [0, *range(2, number)]
    assert ends[1].errno == errno.EIO


def test_nothing_goes_on_before_what_it_named_is_durable(tmp_path, monkeypatch):
    durable, real = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (real(fd), durable.add(os.fstat(fd).st_ino)))
    seen = []

    def member(n):
        with (tmp_path / str(n)).open("wb") as file:
            yield (file.fileno(),)
            seen.append(os.fstat(file.fileno()).st_ino in durable)

    do_together(map(member, range(MANY)))
    assert seen == [True] * MANY


def test_a_batch_ends_early_where_its_members_take_long():
    begun = []

    def member(n):
        begun.append(n)
        yield ()
        return n

    assert do_together(map(member, range(MANY)), seconds=0) == [0]
    assert begun == [0]


def test_the_waits_for_the_disk_do_not_grow_with_the_members_of_a_batch(site, monkeypatch):
    rounds, real = [], together._make_durable
    monkeypatch.setattr(together, "_make_durable", lambda named, threads: (rounds.append(1), real(named, threads))[1])
    specs = specs_of(site, journal.FEW + 2 + 2 * MANY)
    open_together(site, specs[: journal.FEW])  # the first few are in the journal itself
    waits = []
    for some in (specs[journal.FEW : journal.FEW + 2], specs[journal.FEW + 2 :]):
        rounds.clear()
        assert not [end for end in open_together(site, some) if isinstance(end, Exception)]
        waits.append(len(rounds))
    assert waits[0] == waits[1] > 3


def test_the_registry_is_asked_once_and_behind_the_locks_of_all(tmp_path, site_at):
    site = site_at(tmp_path / "host", cuts=True)  # with two write roots
    site.image(b"A" * 4096)
    target = volumespec.parse_volume(f"web1:{site.images}/R/b.img")
    specs = [site.spec("R.a", "R/a.img"), site.spec("R.b", target=target, target_base=str(site.images))]
    asked = []

    def owed():
        for root in (site.backup, site.images):
            with (root / ".blockjobs/R.lock").open() as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        asked.append(1)
        return {"R.a"}

    first, second = open_together(site, specs, owed)
    assert first.job == "R.a"
    assert (second.errno, asked) == (errno.ECANCELED, [1])


def test_a_lock_that_is_busy_is_waited_for_once(site, monkeypatch):
    specs = specs_of(site, MANY)
    waits = []

    def held(*_, **__):
        waits.append(1)
        raise LockBusy("it is worked on")

    monkeypatch.setattr(journal, "locked_journal", held)
    assert all(isinstance(end, LockBusy) for end in open_together(site, specs))
    assert len(waits) == 1


@pytest.mark.parametrize("few", [0, journal.FEW])
def test_a_refused_member_takes_nothing_from_the_others_of_its_batch(site, monkeypatch, few):
    monkeypatch.setattr(journal, "FEW", few)
    specs = specs_of(site, 3)
    (site.backup / "R").mkdir()
    (site.backup / "R/.j0.img.reserved").write_text("{}")  # somebody else's
    refused, *others = open_together(site, specs)
    assert refused.errno == errno.EBUSY
    assert [member.job for member in others] == ["R.j1", "R.j2"]
    with journal.locked_journal(site.roots, Root(str(site.backup)), "R") as held:
        assert sorted(member.job for member in held.members()) == ["R.j1", "R.j2"]
    for spec in specs[1:]:
        settle.abort_job(site.roots, spec, 7, opened=True)
    assert settle.clean_transaction(site.roots, "R", Root(str(site.backup)))
    assert [path for path in site.tree() if not path.startswith(".blockjobs")] == ["R", "R/.j0.img.reserved"]


def test_where_all_of_a_batch_are_refused_no_trace_of_it_stays(site):
    specs = specs_of(site, 3)
    (site.backup / "R").mkdir()
    for n in range(3):
        (site.backup / f"R/.j{n}.img.reserved").write_text("{}")
    assert {end.errno for end in open_together(site, specs)} == {errno.EBUSY}
    assert site.tree() == ["R", *(f"R/.j{n}.img.reserved" for n in range(3))]


def test_an_open_of_a_batch_that_dies_at_any_change_can_be_aborted(sites, monkeypatch, killed_at_every_change):
    monkeypatch.setattr(journal, "FEW", 1)  # one in the journal, one with a file of its own

    def begin():
        site = sites()
        return site, specs_of(site, 2)

    def check(place, _):
        site, specs = place
        for spec in specs:
            settle.abort_job(site.roots, spec, 7, opened=False)
        assert not [path for path in site.tree() if not path.startswith(".blockjobs")]
        assert settle.clean_transaction(site.roots, "R", Root(str(site.backup)))

    killed_at_every_change(begin, lambda place: open_together(*place), check, at_least=20)


def test_a_batch_is_prepared_and_committed_together(site, monkeypatch):
    monkeypatch.setattr(journal, "FEW", 1)
    specs = specs_of(site, 3)
    members = [site.copied(spec) for spec in specs]
    records = [site.manifest(spec, 4096) for spec in specs]
    with Batch(site.roots) as batch:
        pairs = zip(members, records, strict=True)
        do_together(preparing_member(batch, member, ((0, 4096),), record) for member, record in pairs)
    with Batch(site.roots) as batch:
        assert do_together(settle.committing_job(batch, spec, 7) for spec in specs) == [None] * 3
    assert sorted(os.listdir(site.backup / "R")) == sorted(
        f"j{n}.img{suffix}" for n in range(3) for suffix in ("", ".blake3", ".manifest.json")
    )
    assert {(site.backup / f"R/j{n}.img").read_bytes() for n in range(3)} == {b"A" * 4096}
    assert settle.clean_transaction(site.roots, "R", Root(str(site.backup)))
