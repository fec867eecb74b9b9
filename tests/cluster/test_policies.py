"""What an I/O error does to a job: the five policies, on both sides, on disks that really refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from fleet import MIB, Fleet, files

EIO, ENOSPC = 5, 28
SIZE = 4  # MiB
MIDDLE = 2 * MIB // 512  # a sector
_numbers = count(1)
SIDES = {"read": "on_source_error", "write": "on_target_error"}


@pytest.fixture
def source(fleet: Fleet) -> Path:
    path = fleet.root("d") / "policies.img"
    return path if path.exists() else fleet.image("d", path.name, SIZE)


def start(fleet: Fleet, source: Path, side: str, policy: str, *rules: dict[str, object], **more: object) -> str:
    """Start a backup whose source or target refuses by these rules; its job id."""
    places = {"read": str(source), "write": str(fleet.root("d") / f"policy{next(_numbers)}.out")}
    volumes = {
        name: {"driver": "blkdebug", "host": "d", "image": {"driver": "file", "filename": path},
               "inject-error": [{"iotype": side, **rule} for rule in rules] if name == side else []}
        for name, path in places.items()
    }  # fmt: skip
    job = {"id": "job", "source": volumes["read"], "target": volumes["write"], SIDES[side]: policy, **more}
    return fleet.submit(fleet.plan([job])) + ".job"


def copied(fleet: Fleet, job: str) -> bytes:
    """What the job made."""
    return Path(fleet.job(job).spec.target.text.partition(":")[2]).read_bytes()


def errors_of(fleet: Fleet, job: str) -> list[tuple[str, str]]:
    events = (event for event in fleet.registry.events.all() if event.id == job)
    return [(e.fields["operation"], e.fields["action"]) for e in events if e.name == "BLOCK_JOB_ERROR"]


def concluded(fleet: Fleet, job: str) -> tuple[int, str]:
    fleet.until_status(job, "concluded")
    view = fleet.job(job)
    assert view.io_status == "ok"
    return view.ret, view.error


def stopped(fleet: Fleet, job: str) -> Iterator[None]:
    """Each time that the job is stopped, until it goes past copying."""
    for event in fleet.stream():
        if event.id == job and event.name == "JOB_STATUS_CHANGE":
            if event.fields["status"] == "paused":
                yield
            elif event.fields["status"] == "waiting":
                return


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("policy", "code"), [("report", EIO), ("report", ENOSPC), ("enospc", EIO), ("auto", EIO)])
def test_a_reported_error_ends_the_job_and_leaves_nothing(
    fleet: Fleet, source: Path, side: str, policy: str, code: int
) -> None:
    before = files(fleet.root("d"))
    job = start(fleet, source, side, policy, {"errno": code, "sector": MIDDLE, "once": True})
    ret, text = concluded(fleet, job)
    assert (ret, errors_of(fleet, job)) == (-code, [(side, "report")])
    assert ("No space left on device" if code == ENOSPC else "Input/output error") in text
    assert files(fleet.root("d")) <= before


@pytest.mark.parametrize("side", SIDES)
def test_an_ignored_error_is_tried_again_at_the_same_place(fleet: Fleet, source: Path, side: str) -> None:
    job = start(fleet, source, side, "ignore", {"errno": EIO, "sector": MIDDLE, "once": True})
    assert concluded(fleet, job) == (0, "")
    assert errors_of(fleet, job) == [(side, "ignore")]
    assert copied(fleet, job) == source.read_bytes()


@pytest.mark.parametrize("side", SIDES)
def test_an_error_that_is_ignored_and_stays_can_still_be_cancelled(fleet: Fleet, source: Path, side: str) -> None:
    job = start(fleet, source, side, "ignore", {"errno": EIO, "sector": MIDDLE})
    for _ in range(3):
        fleet.until("BLOCK_JOB_ERROR", job)
    fleet.registry.verbs.cancel(job)
    assert concluded(fleet, job) == (-125, "Operation canceled")


@pytest.mark.parametrize("type_", ["backup", "mirror"])
def test_an_error_that_is_ignored_and_stays_ends_the_job_after_its_stall_limit_with_the_range(
    fleet: Fleet, source: Path, type_: str
) -> None:
    rule = {"errno": EIO, "sector": MIDDLE}
    job = start(fleet, source, "read", "ignore", rule, type=type_, stall_limit=4)
    code, text = concluded(fleet, job)
    assert code == -EIO
    assert re.search(r"bytes \d+ to \d+ were tried for \d+ s, and no other byte came through", text)
    tries = errors_of(fleet, job)
    assert set(tries) == {("read", "ignore")}
    assert 3 <= len(tries) < 15, "it is tried again ever later: nobody wants a thousand events of one bad sector"
    assert fleet.job(job).attempts == 1


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "case",
    [("stop", EIO, "failed"), ("stop", ENOSPC, "nospace"), ("enospc", ENOSPC, "nospace"), ("auto", ENOSPC, "nospace")],
)
def test_a_job_stops_for_an_error_and_a_resume_tries_the_same_place_again(
    fleet: Fleet, source: Path, side: str, case: tuple[str, int, str]
) -> None:
    policy, code, io_status = case
    job = start(fleet, source, side, policy, {"errno": code, "sector": MIDDLE, "once": True})
    fleet.until_status(job, "paused")
    view = fleet.job(job)
    assert (view.io_status, list(view.holds), view.busy) == (io_status, ["user"], False)
    assert view.holds["user"], "the hold says why"
    fleet.registry.verbs.resume(job)
    assert fleet.job(job).io_status == "ok"
    assert concluded(fleet, job) == (0, "")
    assert errors_of(fleet, job) == [(side, "stop")]
    assert copied(fleet, job) == source.read_bytes()


@pytest.mark.parametrize("side", SIDES)
def test_an_error_that_stays_stops_the_job_again_and_cancel_resets_its_io_status(
    fleet: Fleet, source: Path, side: str
) -> None:
    job = start(fleet, source, side, "stop", {"errno": EIO, "sector": MIDDLE})
    for _ in range(3):
        fleet.until_status(job, "paused")
        assert fleet.job(job).io_status == "failed"
        fleet.registry.verbs.resume(job)
    fleet.until_status(job, "paused")
    fleet.registry.verbs.cancel(job)
    assert concluded(fleet, job) == (-125, "Operation canceled")
    assert errors_of(fleet, job) == [(side, "stop")] * 4


@pytest.mark.parametrize("side", SIDES)
def test_several_errors_in_flight_are_one_hold(fleet: Fleet, source: Path, side: str) -> None:
    rules: list[dict[str, object]] = [{"errno": EIO, "sector": n * MIB // 512, "once": True} for n in range(SIZE)]
    job = start(fleet, source, side, "stop", *rules)
    stops = 0
    for _ in stopped(fleet, job):
        stops += 1
        assert list(fleet.job(job).holds) == ["user"]
        fleet.registry.verbs.resume(job)  # one is enough, however many errors it stopped for
    assert errors_of(fleet, job) == [(side, "stop")] * SIZE
    held = [e for e in fleet.registry.events.all() if e.id == job and e.name == "JOB_HELD"]
    assert len(held) == stops <= SIZE
    assert concluded(fleet, job) == (0, "")
