"""Who a run file names is told of the run's end, whatever receiver and coordinator do meanwhile; no run waits."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from fleet import DEADLINE, MIB, Fleet
from receiver import Got, Receiver

from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields
from blockjobs.notify.webhook import notice_signature

SECRET = "topsecret"  # noqa: S105 - of this test
_numbers = count()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One host; a coordinator that signs, and tries again soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKJOBS_NOTIFY_SECRET", SECRET)
        patch.setenv("BLOCKJOBS_NOTIFY_DELAYS", "0.5,1,30,30")
        patch.setenv("BLOCKJOBS_HELD_MINUTES", "0.001")
        fleet = Fleet(tmp_path_factory.mktemp("told"), ["a"])
        yield fleet
        fleet.close()


@pytest.fixture
def fleet(site: Fleet) -> Fleet:
    site.mend()
    return site


def start(fleet: Fleet, urls: list[str], *, outcome: str = "success", **options: object) -> RunId:
    source = fleet.image("a", f"told{next(_numbers)}.img", 4)
    target = f"{fleet.root('a')}/{{run}}.img"
    plan = fleet.plan([{"id": "one", "source": f"a:{source}", "target": f"a:{target}"}], **options)
    return fleet.submit(replace(plan, fields=RunFields(notify={outcome: tuple(urls)})))


def genuine(got: Got) -> bool:
    return got.headers["blockjobs-signature"] == notice_signature(
        SECRET.encode(), got.headers["blockjobs-timestamp"], got.body
    )


def nothing_more(receiver: Receiver, seconds: float) -> bool:
    try:
        receiver.got.get(timeout=seconds)
    except queue.Empty:
        return True
    return False


def logged(fleet: Fleet) -> str:
    return (fleet.place / "logs" / "coordinator.log").read_text()


def test_a_receiver_that_fails_twice_is_told_once(fleet: Fleet) -> None:
    with Receiver([503, 500, 200]) as receiver:
        run = start(fleet, [receiver.url])
        sent = fleet.until("NOTICE_SENT", run)
        got = [receiver.got.get(timeout=DEADLINE) for _ in range(3)]
        assert [each.answered for each in got] == [503, 500, 200]
        assert all(map(genuine, got))
        assert {each.headers["idempotency-key"] for each in got} == {f"{run}/0"}
        assert len({each.body for each in got}) == 1
        said = json.loads(got[0].body)
        assert (said["run"], said["verdict"], said["committed"]) == (run, "success", 1)
        assert sent.fields["tries"] == "3"
        assert nothing_more(receiver, 3)
    told = logged(fleet) + json.dumps(sent.fields)
    assert "HTTP 503" in told
    assert not any(word in told for word in ("hush", "hidden", SECRET))


def test_a_receiver_that_never_answers_delays_nobody(fleet: Fleet) -> None:
    with Receiver([0]) as silent, Receiver() as other:
        began = time.monotonic()
        run = start(fleet, [silent.url] * 3 + [other.url])
        fleet.until("RUN_ENDED", run)
        ended = time.monotonic()
        silent.got.get(timeout=DEADLINE)
        sent = fleet.until("NOTICE_SENT", run)
        assert sent.fields["url"].startswith("http://127.0.0.1:")
        assert json.loads(other.got.get(timeout=DEADLINE).body)["run"] == run
        then = time.monotonic()
        fleet.until("RUN_ENDED", start(fleet, []))
        print(f"with a silent receiver a run took {ended - began:.1f} s, the next {time.monotonic() - then:.1f} s")
        (first, *_, last) = fleet.registry.notices.of(run)
        assert (first.state, last.state) == ("waiting", "sent")


@pytest.mark.parametrize("moment", ["before it was tried", "while it was tried"])
def test_a_coordinator_that_died_between_the_end_and_the_telling_tells_after_its_restart(
    fleet: Fleet, moment: str
) -> None:
    with Receiver([0, 200] if moment == "while it was tried" else [200]) as receiver:
        run = start(fleet, [receiver.url], speed=2 * MIB)
        if moment == "before it was tried":
            fleet.until_offset(f"{run}.one", 1)
            fleet.kill("coordinator")
            fleet.until("RUN_ENDED", run)
            assert fleet.registry.notices.untold() == [run]
        else:
            receiver.got.get(timeout=DEADLINE)
            fleet.kill("coordinator")
        fleet.start("coordinator")
        fleet.until("NOTICE_SENT", run)
        assert json.loads(receiver.got.get(timeout=DEADLINE).body)["notice"] == f"{run}/0"
        assert nothing_more(receiver, 2)


def test_a_coordinator_that_is_stopped_leaves_at_once_and_another_one_goes_on(fleet: Fleet) -> None:
    with Receiver([0, 200]) as receiver:
        run = start(fleet, [receiver.url])
        receiver.got.get(timeout=DEADLINE)
        began = time.monotonic()
        fleet.kill("coordinator", signal.SIGTERM)
        assert time.monotonic() - began < 5
        fleet.start("coordinator")
        assert fleet.until("NOTICE_SENT", run).fields["tries"] == "1", "a try that we cut off does not count"


def test_a_job_that_is_held_for_long_is_told_once_over_restarts_of_the_coordinator(fleet: Fleet) -> None:
    with Receiver() as receiver:
        run = start(fleet, [receiver.url], outcome="attention", speed=MIB)
        fleet.until_offset(f"{run}.one", 1)
        fleet.registry.verbs.pause(f"{run}.one", cause="looks at the disk")
        fleet.kill("coordinator")
        fleet.start("coordinator")  # it looks at once
        fleet.until("NOTICE_SENT", run)
        fleet.kill("coordinator")
        fleet.start("coordinator")
        got = receiver.got.get(timeout=DEADLINE)
        assert genuine(got)
        said = json.loads(got.body)
        assert (said["verdict"], said["run"], said["needs"][0]["cause"]) == ("attention", run, "held")
        assert f"job {run}.one on host a is held by user" in said["needs"][0]["text"]
        assert nothing_more(receiver, 3)
        fleet.registry.verbs.cancel(f"{run}.one")
        fleet.until("RUN_ENDED", run)


def test_two_coordinators_tell_once(fleet: Fleet) -> None:
    fleet.processes["other"] = fleet.processes["coordinator"]
    fleet.start("coordinator")
    try:
        with Receiver() as receiver:
            runs = [start(fleet, [receiver.url]) for _ in range(3)]
            told = {json.loads(receiver.got.get(timeout=DEADLINE).body)["run"] for _ in runs}
            assert told == set(runs)
            assert nothing_more(receiver, 3)
    finally:
        other = fleet.processes.pop("other")
        other.kill()
        other.wait(DEADLINE)


def run_file(fleet: Fleet, place: Path, *, speed: str = "0", notify: str = "{}") -> Path:
    source = fleet.image("a", "file.img", 4)
    path = place / "nightly.yaml"
    path.write_text(
        f"version: 1\nname: {place.name.replace('_', '-')[:40]}\nnotify: {notify}\njobs:\n"
        f"  - {{id: one, source: 'a:{source}', target: 'a:{fleet.root('a')}/{{run}}.img', speed: {speed}}}\n"
    )
    return path


def command(fleet: Fleet, *words: str) -> subprocess.Popen[str]:
    """As a timer starts it: no terminal anywhere."""
    return subprocess.Popen(
        [sys.executable, "-m", "blockjobs", *words], env=os.environ | {"BLOCKJOBS_REDIS_URL": fleet.server.url},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_the_urls_of_a_run_file_are_told(fleet: Fleet, tmp_path: Path) -> None:
    with Receiver() as receiver:
        path = run_file(fleet, tmp_path, notify=f"{{success: ['{receiver.url}'], failure: ['{receiver.url}no']}}")
        process = command(fleet, "run", str(path))
        assert process.communicate(timeout=DEADLINE)[1] == ""
        assert process.returncode == 0
        assert json.loads(receiver.got.get(timeout=DEADLINE).body)["verdict"] == "success"


def test_without_a_terminal_a_run_prints_one_line_an_event_and_nothing_else(fleet: Fleet, tmp_path: Path) -> None:
    fleet.seq = fleet.registry.events.last()
    process = command(fleet, "run", str(run_file(fleet, tmp_path)))
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    first, *lines, last = out.splitlines()
    run = first.removeprefix("run ").partition(":")[0]
    assert first == f"run {run}: 1 job on 1 host"
    assert last.startswith(f"run {run} committed: 1 job")
    events = [event for event in fleet.registry.events.all(fleet.seq) if event.run == run or event.id.startswith(run)]
    until_end = events[: next(n for n, event in enumerate(events) if event.name == "RUN_ENDED") + 1]
    assert len(lines) == len(until_end)
    assert not [text for text in out.splitlines() if not text.isprintable()], "no colours, no bars"


def test_sigterm_detaches_from_a_run_without_a_terminal(fleet: Fleet, tmp_path: Path) -> None:
    fleet.seq = fleet.registry.events.last()
    process = command(fleet, "run", str(run_file(fleet, tmp_path, speed="1MiB")))
    run = RunId(fleet.until("ATTEMPT_CLAIMED").run)
    fleet.until_offset(f"{run}.one", 1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 143
    assert "detached; the run goes on" in err
    assert fleet.until("RUN_ENDED", run).fields["failed"] == "0"
