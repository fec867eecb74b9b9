"""A rescan reads every manifest below a write root, a bounded page at a time, and none of them can end it."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace

import pytest

from blockjobs.model import keep
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.rescan import BackupStanding, FoundBackup, judge_found, number_among
from blockworker.host.roots import Root
from blockworker.questions import rescan
from blockworker.questions.rescan import scan_page
from blockworker.targets import manifest
from blockworker.targets.settle import clean_transaction, commit_member

NIGHT = "nightly-202611{:02}T103000Z"
RUN = NIGHT.format(1)
HOST = Host("web1")


def published(site, run=RUN, name="root.img"):
    """A committed backup in a directory of its run."""
    if not (site.images / "root.img").exists():
        site.image(b"A" * 4096)
    spec = site.spec(f"{run}.root", f"{run}/{name}", run=RunId(run), transaction=TxnId(run), id=JobId(f"{run}.root"))
    commit_member(site.roots, site.prepared(spec), 7)
    clean_transaction(site.roots, run, Root(str(site.backup)))
    return site.backup / run / name


def scan(site, after=None, **bounds):
    return scan_page(site.roots, str(site.backup), after, **bounds)


def runs(page):
    return [FoundBackup.of(row, HOST).run for row in page.rows]


def beside(image):
    return image.with_name(f"{image.name}.manifest.json")


def test_a_backup_is_found_with_what_a_registry_needs_of_it(site):
    image = published(site)
    page = scan(site)
    (found,) = (FoundBackup.of(row, HOST) for row in page.rows)
    assert (page.odd, page.more, page.after) == ([], 0, None)
    assert (found.path, found.run, found.job, found.named) == (str(image), RUN, f"{RUN}.root", "web1")
    assert (found.source, found.size) == (f"web1:{site.images}/root.img", 4096)
    assert (found.base, found.transaction, found.salvaged) == (str(site.backup), RUN, False)
    assert found.bytes["read"] == 4096


@pytest.mark.parametrize(
    ("bounds", "pages"),
    [({"most": 1}, 6), ({"most": 2}, 3), ({"clock": iter(range(10**6)).__next__, "seconds": 0.5}, 13), ({}, 1)],
    ids=["one manifest", "two", "no time", "none is reached"],
)
def test_page_by_page_every_manifest_is_told_once_whatever_bounds_a_page(site, bounds, pages):
    names = [NIGHT.format(day) for day in range(1, 5)]
    for run in names:
        published(site, run)
    os.link(site.backup / names[0] / "root.img", site.backup / "root.img")  # beside directories: told before them
    os.link(beside(site.backup / names[0] / "root.img"), beside(site.backup / "root.img"))
    (site.backup / ".hidden" / "empty").mkdir(parents=True)
    after, told, asked = None, [], 0
    while asked == 0 or after is not None:
        page = scan(site, after, **bounds)
        told += [row["path"] for row in page.rows]
        after, asked = page.after, asked + 1
        assert page.odd == []
        assert asked < 30
    assert told == [str(site.backup / "root.img"), *(str(site.backup / run / "root.img") for run in names)]
    assert asked == pages


def test_of_a_directory_with_many_names_few_are_held_at_once(site, monkeypatch):
    monkeypatch.setattr(rescan, "_BATCH", 3)
    image = published(site)
    for number in range(10):
        os.link(image, site.backup / f"{number}.img")
        os.link(beside(image), beside(site.backup / f"{number}.img"))
        (site.backup / f"d{number}").mkdir()
    page = scan(site, most=100)
    assert len(page.rows) == 11
    assert len({row["path"] for row in page.rows}) == 11


# --- manifests that do not count -------------------------------------------------------------------------------


def keys(**changes):
    """A manifest with other keys, and a digest that fits: somebody wrote it so."""

    def change(image):
        text = json.loads(beside(image).read_text())
        beside(image).write_bytes(manifest.manifest_text({**text, **changes}))

    return change


def altered(image):
    text = beside(image).read_text()
    beside(image).write_text(text.replace("unchanged", "changed"))


def written(content):
    return lambda image: beside(image).write_bytes(content)


def link(image):
    beside(image).rename(image.parent / "elsewhere")
    beside(image).symlink_to(image.parent / "elsewhere")


def fifo(image):
    beside(image).unlink()
    os.mkfifo(beside(image))


def no_image(image):
    image.unlink()


def an_image_elsewhere(image):
    image.rename(image.parent / "elsewhere")
    image.symlink_to("/etc/hostname")


def grown(image):
    with image.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (written(b"{"), "is not JSON"),
        (written(b"[" * 100_000), "is not JSON"),
        (written(b" " * (1 << 20) + b"{}"), "larger than 1 MiB"),
        (written(b"9" * 10_000), "is not JSON"),
        (altered, "was changed since it was written"),
        (link, "is a symlink"),
        (fifo, "is a FIFO"),
        (no_image, "there is no image beside it"),
        (an_image_elsewhere, "its image is a symlink"),
        (grown, "its image has 4100 bytes, 4096 were expected"),
        (keys(size=1 << 70), "a number of bytes"),
        (keys(run="../../etc"), "run:"),
        (keys(run="nightly"), "a name like nightly-20261122T103000Z"),
        (keys(run="nightly-20269922T103000Z"), "the time in its name is none"),
        (keys(run="#health-20261122T103000Z"), "run:"),
        (keys(job="x@web2"), "job:"),
        (keys(job=None), "job:"),
        (keys(transaction="a/../b"), "transaction:"),
        (keys(target="/etc/passwd"), "not of one host"),
        (keys(target="web 1:/a", source={"volume": "web 1:/a"}), "invalid host name"),
        (keys(source={"volume": "web2:/srv/root.img"}), "not of one host"),
        (keys(source={"volume": ["x"]}), "source:"),
        (keys(source={}), "source:"),
        (keys(bytes={"read": -1}), "read:"),
        (keys(bytes={"read": "many"}), "read:"),
        (keys(version=3), "version 1 or 2"),
    ],
)
def test_a_manifest_that_is_damaged_or_lies_is_named_and_all_others_count(site, spoil, told):
    bad, good = published(site), published(site, NIGHT.format(2))
    spoil(bad)
    page = scan(site)
    assert [row["path"] for row in page.rows] == [str(good)]
    (odd,) = page.odd
    assert odd[0] == str(beside(bad))
    assert told in odd[1], odd


def test_what_a_manifest_names_is_not_opened(site, monkeypatch):
    image = published(site)
    keys(parent="web1:/etc/shadow", digests={"file": "../../secret"}, target=f"web1:{site.images}/root.img")(image)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *more, **named: opened.append(str(path)) or real(path, *more, **named))
    (row,) = scan(site).rows
    assert row["path"] == str(image), "where it was found, and not where it says"
    assert opened
    assert {os.path.basename(path) for path in opened if "img" in path} == {beside(image).name}


def test_what_an_image_lies_on_is_told_and_not_opened(site):
    image, told = published(site), {}
    for below in (b"/elsewhere/base.img", b"/" + b"x" * 300, b"base.img"):
        image.write_bytes(b"QFI\xfb" + struct.pack(">IQI", 3, 4096, len(below)) + bytes(4076) + below)
        keys(format="qcow2", image={"size": image.stat().st_size})(image)
        (found,) = scan(site).rows
        told[below] = FoundBackup.of(found, HOST).layers
    assert [*told.values()] == [("/elsewhere/base.img",), (), (f"{image.parent}/base.img",)]


def test_what_a_restore_has_left_is_no_backup(site):
    keys(restored={"offset": 0})(published(site))
    page = scan(site)
    assert (page.rows, page.odd, page.restored) == ([], [], 1)


def test_more_that_do_not_count_than_a_page_tells_are_counted(site):
    image = published(site)
    for number in range(rescan.ODD + 5):
        beside(site.backup / f"{number}.img").write_bytes(b"{")
    page = scan(site)
    assert (len(page.odd), page.more, runs(page)) == (rescan.ODD, 5, [RUN])
    assert image.exists()


def test_directories_that_are_too_deep_or_not_ours_to_read_are_named(site, monkeypatch):
    image = published(site)
    monkeypatch.setattr(rescan, "DEEPEST", 3)
    (site.backup / "a/b/c/d/e").mkdir(parents=True)
    (site.backup / "loop").symlink_to(site.backup)
    (site.backup / ".blockjobs" / "inner").mkdir(parents=True)
    os.link(image, site.backup / ".blockjobs" / "inner" / "root.img")
    os.link(beside(image), beside(site.backup / ".blockjobs" / "inner" / "root.img"))
    page = scan(site)
    assert runs(page) == [RUN]
    assert [path for path, _ in page.odd] == [f"{site.backup}/a/b/c/d"]


@pytest.mark.parametrize("name", [b"caf\xe9", b"new\nline", b"\x1b[31m"])
def test_a_name_that_no_path_of_ours_has_ends_no_scan(site, name):
    published(site)
    os.mkdir(os.fsencode(site.backup) + b"/" + name)
    os.link(beside(site.backup / RUN / "root.img"), os.fsencode(site.backup) + b"/" + name + b".img.manifest.json")
    pages, after = [], None
    while not pages or after is not None:
        pages.append(scan(site, after, clock=iter(range(10**6)).__next__, seconds=0.5))
        after = pages[-1].after
    assert [run for page in pages for run in runs(page)] == [RUN]
    odd = [path for page in pages for path, _ in page.odd]
    assert len(odd) == 2
    assert all(path.isprintable() for path in odd)


def test_a_root_that_is_not_there_is_refused_and_a_directory_that_went_is_not_missed(site):
    published(site)
    with pytest.raises(JobFailed, match="does not exist"):
        scan_page(site.roots, str(site.backup / "gone"), None)
    page = scan(site, [b"gone/deeper", b"x"])
    assert (runs(page), page.odd) == ([RUN], [])


# --- what counts ------------------------------------------------------------------------------------------------


def row(day=1, host="web1", **changes):
    run = NIGHT.format(day)
    return {
        "path": f"/backup/{run}/root.img", "run": run, "job": f"{run}.root", "transaction": run,
        "source": f"{host}:/srv/root.img", "target": f"{host}:/backup/{run}/root.img", "size": 1, "seal": "0" * 64,
        "ended": 1, **changes,
    }  # fmt: skip


def found(day=1, on="web1", **changes):
    return FoundBackup.of(row(day, **changes), Host(on))


def target(day=1, host="web1", path="", number=0, **more):
    run = NIGHT.format(day)
    return PublishedTarget(
        run=run, at=found(day).at, job=f"{run}.root", transaction=run, group="", host=host,
        path=path or f"/backup/{run}/root.img", source=f"{host}:/srv/root.img", base="/backup", number=number,
        entry=f"{run}.root", **more,
    )  # fmt: skip


def test_a_backup_counts_for_the_host_below_whose_roots_it_lies():
    here = found(host="web2", on="web1")
    assert (here.source, here.entry, here.place) == (
        "web1:/srv/root.img", f"{RUN}.root@web1", ("web1", f"/backup/{RUN}/root.img")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "why"),
    [(row(path="relative"), "not absolute"), (row(path="/a/../b"), "'..'"), (row(path="/a\nb"), "control"),
     (row(path=7), "path"), (row(seal="x"), "seal"), (row(layers=["x"]), "absolute"),
     (row(ended=-1), "ended"), (row(size=1 << 63), "size")],
)  # fmt: skip
def test_an_answer_that_no_host_of_ours_gives_is_refused(row, why):
    with pytest.raises(BadInput, match=why):
        FoundBackup.of(row, HOST)


@pytest.mark.parametrize(
    ("path", "base"),
    [(f"/backup/{RUN}/a/root.img", "/backup"), (f"/backup/web1/{RUN}-x/root.img", "/backup/web1"),
     (f"/backup/{RUN}.img", "/backup"), ("/backup/daily/root.img", "/backup/daily"), ("/root.img", "/"),
     (f"/{RUN}/root.img", "/")],
)  # fmt: skip
def test_only_directories_that_are_named_after_its_run_go_with_a_backup(path, base):
    assert found(path=path).base == base


KNOWN = ("web1", "web2")
CASES = {
    "nobody knows it": (found(), [], {}, BackupStanding.NEW),
    "it is known": (found(), [target()], {}, BackupStanding.KNOWN),
    "another job of its run is known": (found(), [replace(target(), job="x")], {}, BackupStanding.NEW),
    "it lies elsewhere": (found(), [target(path="/old/root.img")], {}, BackupStanding.MOVED),
    "its run goes on": (found(), [], {"going": True}, BackupStanding.GOING),
    "it is known and its run goes on": (found(), [target()], {"going": True}, BackupStanding.KNOWN),
    "it is of another host": (found(host="web2"), [], {}, BackupStanding.FOREIGN),
    "it is of another host that has it": (found(host="web2"), [target(host="web2")], {}, BackupStanding.FOREIGN),
    "it is of another host whose backups were moved here":
        (found(host="web2"), [], {"moved_from": "web2"}, BackupStanding.NEW),
    "it is of another host that has it, and whose backups were moved here":
        (found(host="web2"), [target(host="web2")], {"moved_from": "web2"}, BackupStanding.MOVED),
    "it is of a host that nobody knows": (found(host="old"), [], {}, BackupStanding.NEW),
    "it has it by the name that the host had": (found(host="old"), [target(host="old")], {}, BackupStanding.FOREIGN),
    "two hosts see one directory, and one has it":
        (found(host="old"), [replace(target(host="web2"), seal="0" * 64)], {}, BackupStanding.KNOWN),
    "another host says that its job is called the same": (found(), [target(host="web2")], {}, BackupStanding.NEW),
}  # fmt: skip


@pytest.mark.parametrize(("backup", "entries", "more", "standing"), CASES.values(), ids=CASES)
def test_what_a_backup_is_to_the_registry(backup, entries, more, standing):
    judged = judge_found(backup, entries, **{"going": False, "hosts": KNOWN, **more})
    assert judged.standing is standing


# --- how it is ordered, and kept -----------------------------------------------------------------------------------

NOW = found(30).at


@pytest.mark.parametrize(
    ("day", "known", "number"),
    [
        (3, [], 0),
        (3, [target(5, number=1)], 0),
        (3, [target(1, number=7), target(2, number=9), target(5, number=12)], 9),
        (9, [target(1, number=7), target(2, number=9)], 9),
        # A clock that was once set back years says nothing about what came before; one that was ahead, nothing at all.
        (3, [target(1, number=7), target(5, number=8), replace(target(6, number=9), at=0.0)], 7),
        (9, [target(1, number=7), replace(target(2, number=8), at=NOW + 1), target(6, number=9)], 9),
    ],
    ids=["nothing is known", "all are newer", "between", "behind all", "a clock was behind", "a clock was ahead"],
)
def test_a_found_backup_stands_behind_what_is_surely_older(day, known, number):
    assert number_among(found(day).at, known, NOW) == number


def fate(targets, rules, **more):
    return keep.plan_pruning(targets, {"": rules}, now=NOW, **more)


def test_what_is_held_stays_and_takes_no_place_of_a_rule():
    held = [target(day, held=True) for day in (1, 2, 28, 29)]
    nights = [target(day, number=day) for day in (3, 4, 5)]
    planned = fate([*held, *nights], {"last": 2, "daily": 2, "monthly": 1})
    assert {each: planned.kept[each] for each in held} == dict.fromkeys(held, (keep.HELD,))
    assert planned.prune == (nights[0],), "as if there were no others"
    assert fate([*held, *nights], {"last": 2}, after=NIGHT.format(5)).prune == (nights[0],)


def test_once_it_counts_it_is_older_than_what_has_a_number_of_this_registry():
    found_ones = [target(day) for day in (1, 2, 28)]
    night = target(3, number=1)  # the counter began anew
    planned = fate([*found_ones, night], {"last": 1}, after=night.run)
    assert [each.run for each in planned.kept] == [night.run]
    assert len(planned.prune) == 3


def test_what_a_held_backup_lies_on_stays():
    below = target(1, number=1)
    above = target(2, held=True, layers=(below.path,))
    assert fate([below, above, target(3, number=3)], {"last": 1}).prune == ()
