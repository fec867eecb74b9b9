"""The driver ``verify``: it reads what this host has published and nothing else, and what differs is never done."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace

import pytest
from sparse import proven

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.restores import FORCE
from blockjobs.model.volumespec import InjectedError
from blockworker import drivers
from blockworker.copy.checked_source import CheckedSource, Tolerate
from blockworker.copy.digests import ZERO, chunk_digest
from blockworker.copy.throttle import Throttle
from blockworker.drivers.verify import Comparing
from blockworker.targets.settle import commit_member
from blockworker.volumes.blkdebug import DebugSource
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.file import FileSource
from blockworker.volumes.null import NullTarget

MIB = 1 << 20
CONTENT = b"A" * MIB + bytes(2 * MIB) + b"B" * MIB + b"tail"


@pytest.fixture
def published(site):
    """A backup as any: below a write root that is no read root."""
    site.image(CONTENT)
    commit_member(site.roots, site.prepared(site.spec()), 1)
    return site.backup / "R/root.img"


def opened(site, path, **changes):
    spec = site.spec(
        "V.root", type="verify", source=volumespec.parse_volume(f"web1:{path}"),
        target=volumespec.parse_volume({"host": "web1", "driver": "null-co"}),
    )  # fmt: skip
    return drivers.find_driver("verify", "web1").open(site.roots, replace(spec, **changes), lambda: True)


def refused(site, path, **changes):
    before = site.tree()
    with pytest.raises(JobFailed) as failed:
        opened(site, path, **changes)
    assert site.tree() == before
    assert "\n" not in failed.value.text
    return failed.value


def test_a_backup_below_a_write_root_is_read_and_locked_as_read(site, published):
    before, st = site.tree(), published.stat()
    found = opened(site, published)
    assert (found.size, found.writes, found.cut) == (len(CONTENT), "", "")
    assert found.reads == f"{st.st_dev}:{st.st_ino}"
    assert site.tree() == before, "nothing is made"
    with pytest.raises(JobFailed, match="outside the read roots"):
        site.roots.open_source(str(published))


def test_a_file_outside_both_kinds_of_roots_is_refused_whatever_lies_beside_it(site, published):
    outside = site.base / "outside"
    published.parent.rename(outside)
    failed = refused(site, outside / "root.img")
    assert failed.errno == errno.EACCES
    image = outside / "root.img"
    outside_both = f"{image} is outside the read and write roots of host web1 ({site.images}, {site.backup}); "
    assert failed.text.startswith(outside_both)


def test_a_plain_file_below_a_write_root_is_refused(site, published):
    plain = site.backup / "plain.img"
    plain.write_bytes(b"somebody's")
    text = f"image {plain} has no manifest beside it: nobody knows that a job has published it"
    assert refused(site, plain).text == text
    plain.unlink()
    assert refused(site, plain).text == f"image {plain} does not exist on host web1"


def test_it_copies_nothing_anywhere(site, published):
    into = volumespec.parse_volume(f"web1:{site.backup}/copy.img")
    assert "nothing but null-co was expected" in refused(site, published, target=into).text
    debug = {"host": "web1", "driver": "blkdebug", "image": {"driver": "null-co"}}
    assert "nothing but null-co was expected" in refused(site, published, target=volumespec.parse_volume(debug)).text
    assert "nothing but null-co was expected" in refused(site, published, in_place=True).text
    nothing = volumespec.parse_volume({"host": "web1", "driver": "null-co"})
    assert "the file of a published image was expected" in refused(site, published, source=nothing).text


def test_an_image_of_another_job_than_the_one_meant_is_refused(site, published):
    assert opened(site, published, options={"run": "R", "job": "R.root"}).size == len(CONTENT)
    failed = refused(site, published, options={"run": "Q", "job": "Q.root"})
    text = f"image {published} was replaced: its manifest is of job 'R.root', not of 'Q.root'"
    assert (failed.errno, failed.text) == (errno.ESTALE, text)


def test_without_digests_or_with_others_there_is_nothing_to_compare_with(site, published):
    digests = published.with_name("root.img.blake3")
    digests.write_bytes(bytes(digests.stat().st_size))
    assert refused(site, published).text == f"digests {digests} are not the ones that the manifest names"
    digests.unlink()
    assert "does not exist" in refused(site, published).text
    site.image(CONTENT)
    spec = site.spec("S.root", "S/root.img", digests=False, transaction="S", run="S")
    commit_member(site.roots, site.prepared(spec), 1)
    failed = refused(site, site.backup / "S/root.img")
    assert "was copied with 'digests: false': there is nothing to verify it with" in failed.text
    restore = site.spec(
        "B.root", "back.img", type="restore", source=volumespec.parse_volume(f"web1:{site.backup}/S/root.img")
    )
    driver = drivers.find_driver("restore", "web1")
    with pytest.raises(JobFailed, match="only `--force` restores what cannot be checked"):
        driver.source(site.roots, restore)
    driver.source(site.roots, replace(restore, options={FORCE: True})).close()


# --- what is on record as done --------------------------------------------------------------------------


def compared(path, content, *, done=(), bad=()):
    """An attempt at an image that was written as ``content``: what is on record as done after it, and what is not good.

    ``bad``: where it cannot be read.
    """
    chunks = [content[at : at + MIB] for at in range(0, len(content), MIB)]
    values = b"".join(chunk_digest(memoryview(chunk)) if any(chunk) else ZERO for chunk in chunks)
    errors = tuple(InjectedError(iotype="read", errno=errno.EIO, sector=at // 512) for at in bad)
    image = DebugSource(FileSource(os.open(path, os.O_RDONLY), "image"), errors)
    kept = proven(values)
    source = CheckedSource(image, "image", whole=len(content), digests=kept, size=len(content), on=Tolerate.ERRORS)
    target, news = NullTarget(len(content)), threading.Event()
    copy = Comparing(
        source, target, size=len(content), done=RangeSet(done), throttle=Throttle(), wake=news.set
    )  # fmt: skip
    copy.start()
    try:
        while not copy.finished:
            assert news.wait(30)
            news.clear()
    finally:
        copy.stop()
        source.close()
    return copy.flush(), source.differing + source.unreadable


def test_what_differs_is_never_done_so_that_the_next_attempt_finds_it_again(tmp_path):
    content = CONTENT * 2
    bad = bytearray(content)
    bad[MIB + 5] ^= 1  # of a hole
    bad[-1] ^= 1
    path = tmp_path / "image"
    path.write_bytes(bad)
    size = len(content)
    wrong = [[MIB, 2 * MIB], [8 * MIB, size]]
    done, found = compared(path, content)
    assert (done, found) == (((0, MIB), (2 * MIB, 8 * MIB)), wrong)
    assert compared(path, content, done=done) == (done, wrong)
    assert compared(path, content, done=done[:1]) == (done, wrong)
    path.write_bytes(content)
    assert compared(path, content) == (((0, size),), [])
    assert compared(path, content, bad=[3 * MIB]) == (((0, 3 * MIB), (4 * MIB, size)), [[3 * MIB, 4 * MIB]])


def test_a_checkpoint_of_an_image_that_differs_all_over_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr("blockworker.drivers.verify.MOST", 3)
    content = b"A" * (9 * MIB)
    path = tmp_path / "image"
    path.write_bytes(b"".join(bytes([66 - at % 2]) * MIB for at in range(9)))
    done, found = compared(path, content)
    assert done == ((MIB, 2 * MIB), (3 * MIB, 4 * MIB), (5 * MIB, 6 * MIB))
    assert compared(path, content, done=done)[1] == found == [[at * MIB, (at + 1) * MIB] for at in range(0, 9, 2)]
