"""The power goes at any change of the disk: what was answered is there, and what was not can be done again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from backups import MODES, Story, run_until_cut, spread
from shutdown import Disk, disk_of

from blockjobs.model.jobs import Checkpoint
from blockworker.copy.digests import DigestFile
from blockworker.drivers.durability import Durability
from blockworker.targets.written import Written

SHORT, LONG = 15, 100  # cuts of each story on each file system
HUNTED: Final = 160
GOLDEN: Final = 0.618034  # multiples of it, modulo 1, are spread evenly however many there are
# ext4 shares no blocks between files, so that nothing can be cut there.
STORIES: Final = [(kind, mode) for mode in MODES for kind in ("xfs", "ext4") if kind == "xfs" or "cut" not in mode]


@pytest.fixture(scope="module")
def disk(request, tmp_path_factory):
    with disk_of(request.param, tmp_path_factory.mktemp("power")) as disk:
        yield disk


@dataclass(frozen=True)
class Cut:
    """Where the power goes, and what is done behind it: the job goes on, or is given up (``abort``)."""

    point: int
    again: int = 0  # the change of the second attempt before which the power goes once more; 0: it stays
    abort: bool = False


def cut_power_in(disk: Disk, place: Path, mode: str, cut: Cut, omit: Callable[[], None] = lambda: None) -> list[str]:
    """What is wrong after a power cut in a story."""
    story = Story(disk, place, MODES[mode])
    story.set_up()
    try:
        run_until_cut(story, cut.point, omit=omit)
        disk.power_on()
        if cut.again and not (story.mode.abort and story.registry.last("decision")):
            run_until_cut(story, cut.again, token=2)
            disk.power_on()
        return story.wrongs(abort=cut.abort)
    finally:
        disk.unmount()


def changes_in(disk: Disk, place, mode: str) -> int:
    """How many changes a whole story makes."""
    story = Story(disk, place, MODES[mode])
    story.set_up()
    try:
        return run_until_cut(story, 0)
    finally:
        disk.unmount()


def cuts_of(total: int, *, long: bool) -> list[Cut]:
    """The cuts of a story with so many changes: some of them, or all and more."""
    if not long:
        return [Cut(point, abort=point % 3 == 0) for point in spread(total, SHORT)]
    points = range(1, total + 1)
    return [
        *(Cut(point) for point in points),
        *(Cut(point, abort=True) for point in points[::3]),
        *(Cut(point, again=1 + point % 20) for point in points[::4]),
    ]


@pytest.mark.parametrize(("disk", "mode"), STORIES, indirect=["disk"])
def test_a_power_cut_at_any_change_loses_nothing_that_was_answered(disk, tmp_path, mode, long, request):
    total = changes_in(disk, tmp_path, mode)
    if request.config.getoption("--hunt"):
        hunt(disk, tmp_path, mode, total)
        return
    cuts = cuts_of(total, long=long)
    assert len(cuts) >= (LONG if long else SHORT)
    found = {cut: wrongs for cut in cuts if (wrongs := cut_power_in(disk, tmp_path, mode, cut))}
    print(f"{disk.kind}, {mode}: {len(cuts)} power cuts at {total} changes, {len(found)} with violations")
    assert not found


def hunt(disk: Disk, place: Path, mode: str, total: int) -> None:
    """Cut at up to ``HUNTED`` changes, until one is found behind which something is wrong.

    The last one first, behind which most was answered, and then each far from those before it: wherever the changes are
    that a missing sync makes dangerous, some of them come soon.
    """
    for point in sorted(range(1, total + 1), key=lambda point: (total - point) * GOLDEN % 1)[:HUNTED]:
        assert not cut_power_in(disk, place, mode, Cut(point, abort=point % 3 == 0))


# --- controls: each of these omissions has to be found ----------------------------------------------------------


def no_flush_of_data() -> None:
    Written.flush = lambda _: None


def no_flush_of_digests() -> None:
    DigestFile.flush = lambda _: None


def no_fsync_of_the_manifest() -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if ".manifest" not in os.readlink(f"/proc/self/fd/{fd}"):
            real(fd)

    os.fsync = fsync


def ranges_told_before_the_flush() -> None:
    real = Durability.flush

    def flush(self: Durability) -> None:
        self._job.checkpoint(Checkpoint(self._staging, self.copy._account.finished.to_tuple()))
        real(self)

    Durability.flush = flush


@pytest.mark.parametrize("disk", ["xfs", "ext4"], indirect=True)
@pytest.mark.parametrize(
    "omit", [no_flush_of_data, no_flush_of_digests, no_fsync_of_the_manifest, ranges_told_before_the_flush],
    ids=lambda omit: omit.__name__,
)  # fmt: skip
def test_a_flush_that_is_left_out_is_found(disk, tmp_path, omit):
    points = spread(changes_in(disk, tmp_path, "plain"), 60)
    # From the end on: behind the last changes more was answered, and more can be lost.
    assert any(cut_power_in(disk, tmp_path, "plain", Cut(point), omit) for point in reversed(points))
