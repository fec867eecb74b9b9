"""Delta passes: they write what differs and nothing else, believe no digest but their own, and say when they lag."""

from __future__ import annotations

import os
import threading
import time
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockworker.copy.convergence import AT_LEAST, LONGEST, PATIENCE, Convergence
from blockworker.copy.digests import root_of
from blockworker.copy.engine import Copy
from blockworker.copy.ledger import Ledger, scratch_digest_file
from blockworker.copy.passes import Pass
from blockworker.copy.throttle import Throttle
from blockworker.targets.manifest import verify_image
from blockworker.targets.prepare import prepare_member
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import filter_target, open_source
from blockworker.volumes.extents import RangeSet

MIB = 1 << 20
SIZE = 5 * MIB + 4097


class Mirrored:
    """A source, its staging file and the ledger of one attempt."""

    tokens = count(1)

    def __init__(self, site, member, *, digests=True, rules=(), granularity=64 << 10):
        self.site, self.member, self.granularity = site, member, granularity
        self.woken = threading.Event()
        self.throttle = Throttle()
        self.source = open_source(site.spec().source.volume, site.roots)
        self.staged = StagedTarget.take(site.roots, member, next(self.tokens))
        image = {"driver": "file", "filename": "/x"}
        debug = {"host": "web1", "driver": "blkdebug", "image": image, "inject-error": list(rules)}
        self.target = filter_target(volumespec.parse_volume(debug).volume, self.staged)
        self.digests = self.staged.digests if digests else scratch_digest_file(self.source.size)
        self.ledger = Ledger(self.digests, self.source.size)

    def bulk(self, done=()):
        copy = Copy(self.source, self.target, size=self.source.size, done=RangeSet(done), throttle=self.throttle,
                    wake=self.woken.set, digests=self.ledger)  # fmt: skip
        return self.run(copy)

    def one(self, **options):
        return Pass(self.source, self.target, size=self.source.size, ledger=self.ledger, throttle=self.throttle,
                    wake=self.woken.set, granularity=self.granularity, lanes=2, **options)  # fmt: skip

    def follow(self):
        """A whole pass; what it found."""
        return self.run(self.one())

    def run(self, copy):
        copy.start()
        try:
            while not copy.finished:
                assert self.woken.wait(10)
                self.woken.clear()
                if copy.troubles:
                    raise copy.troubles[0]
            copy.recorded(copy.flush())
        finally:
            copy.stop()
        return copy

    def until(self, what):
        """Wait for ``what`` to be true, at most 10 s."""
        deadline = time.monotonic() + 10
        while not what():
            assert time.monotonic() < deadline, "it never came"
            self.woken.wait(0.001)

    @property
    def image(self):
        return (self.site.backup / "R" / self.member.staging).read_bytes()

    def write(self, offset, data):
        with (self.site.images / "root.img").open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def close(self):
        self.staged.close()
        self.source.close()
        self.digests.close()


@pytest.fixture
def mirrored(site):
    made = []

    def make(content=None, member=None, **options):
        if member is None:
            site.image(os.urandom(SIZE) if content is None else content)
            member = site.opened(site.spec())
        made.append(Mirrored(site, member, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def content_of(site):
    return (site.images / "root.img").read_bytes()


@pytest.mark.parametrize("digests", [True, False], ids=["published", "in-memory"])
def test_a_pass_over_what_did_not_change_writes_nothing(mirrored, digests):
    pair = mirrored(digests=digests)
    pair.bulk()
    found = pair.follow()
    assert (found.dirty, found.copied, found.bytes_written) == (0, 0, 0)


def test_a_pass_writes_only_the_blocks_that_differ(mirrored, site):
    pair = mirrored(granularity=4096)
    pair.bulk()
    pair.write(2 * MIB + 8192, b"new")
    pair.write(SIZE - 1, b"!")
    found = pair.follow()
    assert found.dirty == found.copied == found.bytes_written == 4096 + 1
    assert pair.image == content_of(site)
    assert pair.follow().dirty == 0


def test_data_that_became_zeros_or_a_hole_is_a_hole(mirrored, site):
    pair = mirrored()
    pair.bulk()
    path = site.images / "root.img"
    os.truncate(path, MIB)
    os.truncate(path, SIZE)
    pair.write(0, bytes(MIB))
    pair.follow()
    assert pair.image == bytes(SIZE)
    assert (site.backup / "R" / pair.member.staging).stat().st_blocks <= 8  # the last, partial block
    assert pair.follow().dirty == 0


def test_another_attempt_believes_no_digest_and_compares_with_the_target(mirrored, site):
    first = mirrored()
    first.bulk()
    first.follow()
    first.close()
    staging = site.backup / "R" / first.member.staging
    with staging.open("r+b") as file:  # the power went: digests on the disk, data not
        file.seek(3 * MIB)
        file.write(bytes(MIB))
    second = mirrored(member=first.member)
    second.bulk(done=[(0, SIZE)])
    assert second.follow().dirty == MIB
    assert second.follow().dirty == 0
    assert second.image == content_of(site)


def test_a_chunk_whose_write_failed_is_not_believed_when_the_source_changes_back(mirrored, site):
    sick = {"iotype": "write", "errno": 5, "sector": (2 * MIB + 512 * 1024) // 512, "once": True}
    pair = mirrored(granularity=4096)
    pair.bulk()
    content = content_of(site)
    pair.close()
    again = mirrored(member=pair.member, granularity=4096, rules=[sick])
    again.bulk(done=[(0, SIZE)])
    again.follow()
    again.write(2 * MIB, b"first block")
    again.write(2 * MIB + 512 * 1024, b"second block")
    failing = again.one()
    with pytest.raises(VolumeError):
        again.run(failing)
    assert failing.dirty > failing.copied, "what failed is still to be copied"
    again.write(2 * MIB, content[2 * MIB : 3 * MIB])  # as it was
    again.follow()
    assert again.image == content


def test_nothing_is_written_while_a_pass_is_held_and_it_goes_on_where_it_was(mirrored, site):
    pair = mirrored()
    pair.bulk()
    pair.write(0, os.urandom(SIZE))
    pair.throttle.speed = 1  # a chunk, and then nothing for days
    found = pair.one()
    found.start()
    pair.until(lambda: found.copied)
    found.hold()
    staging = site.backup / "R" / pair.member.staging
    before = (found.copied, staging.stat().st_mtime_ns)
    pair.throttle.speed = 0
    pair.woken.clear()
    assert not pair.woken.wait(0.05)
    assert (found.copied, staging.stat().st_mtime_ns) == before
    found.release()
    while not found.finished:
        assert pair.woken.wait(10)
        pair.woken.clear()
    found.stop()
    assert pair.image == content_of(site)


def test_a_learning_pass_writes_nothing_and_the_next_one_what_came_after_it(mirrored):
    pair = mirrored()
    learned = pair.run(pair.one(learning=True))
    assert (learned.dirty, learned.bytes_written) == (0, 0)
    pair.write(MIB, b"x")
    assert pair.follow().dirty
    assert not any(pair.image[:MIB] + pair.image[2 * MIB :])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(max_size=9000)), max_size=4), max_size=4))
def test_after_any_writes_a_clean_pass_leaves_the_source_and_true_digests(sites, writes):
    site = sites()
    site.image(b"A" * MIB + bytes(2 * MIB) + os.urandom(SIZE - 3 * MIB))
    spec = site.spec()
    pair = Mirrored(site, site.opened(spec), granularity=8192)
    try:
        pair.bulk()
        for some in writes:
            for offset, data in some:
                pair.write(offset, data[: SIZE - offset])
            pair.follow()
            assert pair.follow().dirty == 0
        assert pair.image == content_of(site)
    finally:
        pair.close()
    prepare_member(site.roots, pair.member, ((0, SIZE),), site.manifest(spec, SIZE))
    folder = site.backup / "R"
    record = {**site.manifest(spec, SIZE), "digests": None}
    digests = (folder / pair.member.digests).rename(folder / "root.img.blake3")
    with digests.open("rb") as file:
        record["digests"] = {**site.manifest(spec, SIZE)["digests"], "root": root_of(file.fileno())}
    assert not verify_image(str(folder / pair.member.staging), record).bad


# --- whether it converges -----------------------------------------------------------------------------

MB = 1_000_000
STORIES = {
    #                  (seconds of each pass, dirty bytes of each pass), diverges
    "clean-at-once":   (1.0, [0], False),
    "shrinking":       (1.0, [64 * MB, 30 * MB, 14 * MB, 6 * MB, 3 * MB, 1 * MB, 0], False),
    "a-short-burst":   (0.1, [MB] * (PATIENCE + 1), False),
    "steady":          (1.0, [MB] * PATIENCE, True),
    "growing":         (1.0, [MB * n for n in range(1, PATIENCE + 1)], True),
    "not-yet":         (1.0, [MB] * (PATIENCE - 1), False),
    "recovers":        (1.0, [MB] * PATIENCE + [0], False),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_a_mirror_is_said_not_to_converge_when_its_passes_do_not_shrink(story):
    seconds, found, diverges = STORIES[story]
    convergence, now, rates = Convergence(), 0.0, None
    for dirty in found:
        rates = convergence.look(now, now + seconds, dirty)
        now += 2 * seconds
    assert convergence.diverging is diverges
    assert (rates is not None) is diverges
    if rates is not None:
        assert (rates.dirty, rates.copy) == (found[-1] / (2 * seconds), found[-1] / seconds)
        assert now >= AT_LEAST


def test_passes_that_do_not_converge_rest_longer_and_longer_instead_of_spinning():
    convergence, rests = Convergence(), []
    for second in range(20):
        convergence.look(second, second + 1, MB)
        rests.append(convergence.rest)
    assert rests == sorted(rests)
    assert rests[0] == 0.0
    assert rests[-1] == LONGEST
