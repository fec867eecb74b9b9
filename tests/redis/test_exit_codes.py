"""What a command ends with: every exit code of the table, and followers whose run, Redis or stdout goes away."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from puppets import ALPHA, RUN, Fleet, spec

from blockjobs.cli import follow, main
from blockjobs.client import event_stream
from blockjobs.model.barriers import Step
from blockjobs.model.errors import NoSuchJob, SightLost
from blockjobs.model.exits import Exit
from blockjobs.registry import keys
from blockjobs.registry.connection import connect_client
from blockjobs.server import RedisServer

pytestmark = pytest.mark.durable

BACKUP = ("backup", "alpha:/srv/a.img", "alpha:/backup/a.img", "--id", "mine")
FOLLOWERS = {
    "run": BACKUP,
    "wait": ("wait", RUN),
    "wait for a job": ("wait", "j"),
    "status --watch": ("status", "--watch", RUN),
}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Records are looked at more often than in each five seconds."""
    monkeypatch.setattr(event_stream, "RECORDS", 0.1)


@pytest.fixture
def up(registry):
    registry.hosts.judge(ALPHA, "up")


@contextmanager
def meanwhile(act):
    """Does something in a thread; what goes wrong there goes wrong here."""
    wrong = []

    def run():
        try:
            act()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(20)
    assert not thread.is_alive()
    assert not wrong, wrong


def await_true(happened, why):
    """Wait for what nobody tells; ``why``: it did not happen."""
    give_up, never = time.monotonic() + 20, threading.Event()
    while not happened():
        assert time.monotonic() < give_up, why
        never.wait(0.02)


def await_job(fleet, job):
    """The record of a job, once its run is published."""
    found = []

    def is_there():
        with suppress(NoSuchJob):
            found.append(fleet.registry.views.job(job))
        return found

    await_true(is_there, f"nobody has started {job}")
    return found[0]


def await_follower(fleet):
    """Until a command waits for events: by then it has looked at everything, and its signals are its own."""
    await_true(lambda: any(each["cmd"] == "xread" for each in fleet.client.client_list()), "nobody follows")


def carry_out(fleet, job, *, errno=0):
    """Do what the daemons and the host do with a run of one job."""
    found = await_job(fleet, job)
    fleet.walk(found.transaction, Step.RUN)
    fleet.finish(fleet.claim(found.spec), errno, "no such source" if errno else "")
    fleet.walk(found.transaction)


# --- each code ------------------------------------------------------------------------------------------


def end_well(command, fleet, _):
    with meanwhile(lambda: carry_out(fleet, "mine")):
        return command(*BACKUP)


def end_with_a_failure(command, fleet, _):
    with meanwhile(lambda: carry_out(fleet, "mine", errno=5)):
        return command(*BACKUP)


def be_refused(command, *_):
    return command("backup", "beta:/srv/a.img", "beta:/backup/a.img")


def find_no_redis(command, _, monkeypatch):
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", "unix:///nowhere/redis.sock")
    return command(*BACKUP)


def end_in_part(command, fleet, _):
    Path("n.yaml").write_text(
        "version: 1\nname: n\ntransactions:\n  - {name: t, completion-mode: individual, succeed-if: 50%, jobs: ["
        "{id: a, source: 'alpha:/srv/a', target: 'alpha:/backup/a'},"
        "{id: b, source: 'alpha:/srv/b', target: 'alpha:/backup/b'}]}\n"
    )

    def act():
        await_true(lambda: len(fleet.registry.views.all()) == 2, "not both jobs were started")
        for bad, place in enumerate(sorted(fleet.registry.views.all(), key=lambda place: place.job)):
            carry_out(fleet, place.job, errno=5 * bad)

    with meanwhile(act):
        return command("run", "n.yaml")


def wait_for_too_long(command, fleet, _):
    fleet.submit(spec("j"))
    return command("wait", "j", "--timeout", "0")


def lose_the_run(command, fleet, _):
    def act():
        await_job(fleet, "mine")
        fleet.client.flushall()

    with meanwhile(act):
        return command(*BACKUP)


def meet_a_fault(command, _, monkeypatch):
    monkeypatch.setattr("blockjobs.cli.show.select_runs_and_jobs", lambda *_: 1 / 0)
    return command("show", RUN)


def be_interrupted(command, fleet, _, number=signal.SIGINT):
    def act():
        await_job(fleet, "mine")
        await_follower(fleet)
        os.kill(os.getpid(), number)

    with meanwhile(act):
        return command(*BACKUP)


def be_terminated(command, fleet, monkeypatch):
    return be_interrupted(command, fleet, monkeypatch, signal.SIGTERM)


CASES = {
    Exit.ALL: (end_well, ""),
    Exit.FAILED: (end_with_a_failure, "no such source"),
    Exit.REFUSED: (be_refused, "host 'beta' is not known"),
    Exit.NO_REDIS: (find_no_redis, "Redis is not reachable"),
    Exit.PARTIAL: (end_in_part, "accepted by the run file"),
    Exit.TIMED_OUT: (wait_for_too_long, "timed out"),
    Exit.GONE: (lose_the_run, "is gone from the registry"),
    Exit.FAULT: (meet_a_fault, "ZeroDivisionError"),
    Exit.INTERRUPTED: (be_interrupted, "detached; the run goes on"),
    Exit.TERMINATED: (be_terminated, "detached; the run goes on"),
}  # fmt: skip
ELSEWHERE = {Exit.LOST_SIGHT, Exit.OUTPUT_LOST, Exit.READER_GONE}  # below, and in test_lost_output.py


def test_every_exit_code_is_shown_by_a_test():
    assert CASES.keys() | ELSEWHERE == set(Exit)


@pytest.mark.parametrize("code", CASES)
@pytest.mark.usefixtures("up")
def test_a_command_ends_with_the_code_of_its_case(code, command, fleet, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    case, says = CASES[code]
    found, _, err = case(command, fleet, monkeypatch)
    assert found == code, err
    assert says in err


# --- a run that is gone -----------------------------------------------------------------------------------


def followed(fleet, follower):
    """The words of a command that follows, and the job of its run, which it starts itself or finds."""
    words = FOLLOWERS[follower]
    if words is BACKUP:
        return words, "mine"
    fleet.submit(spec("j"))
    return words, "j"


def flush(fleet, _):
    fleet.client.flushall()


def remove_the_record(fleet, job):
    view = fleet.registry.views.job(job)
    fleet.client.delete(keys.run(view.run), keys.job(view.host, view.id))
    fleet.client.hdel(keys.ids(), job)


def come_back_older(fleet, job):
    """All that there was of the run, and nothing that has happened since then."""
    remove_the_record(fleet, job)
    fleet.client.delete(keys.events())
    fleet.submit(spec("other", run="weekly-20261122T110000Z"))


@pytest.mark.parametrize("lose", [flush, remove_the_record, come_back_older])
@pytest.mark.parametrize("follower", FOLLOWERS)
def test_a_follower_of_a_run_that_is_gone_ends_and_says_so(follower, lose, command, fleet, up):
    words, job = followed(fleet, follower)

    def act():
        await_job(fleet, job)
        await_follower(fleet)
        lose(fleet, job)

    with meanwhile(act):
        code, _, err = command(*words)
    assert (code, err.count("is gone from the registry, and the outcome is unknown")) == (Exit.GONE, 1)


@pytest.mark.parametrize("follower", FOLLOWERS)
def test_a_follower_ends_with_its_run_although_no_event_says_so(follower, command, fleet, up):
    words, job = followed(fleet, follower)

    def act():
        await_job(fleet, job)
        later = f"{2 * fleet.registry.hosts.now()}-0"  # Redis' clock was ahead, and came back behind what was read
        fleet.client.xadd(keys.events(), {"event": "HOST_UP", "id": "alpha", "host": "alpha"}, id=later)
        time.sleep(1.0)
        fleet.client.delete(keys.events())
        carry_out(fleet, job)

    with meanwhile(act):
        code, _, err = command(*words)
    assert (code, err.count("gone")) == (Exit.ALL, 0)


def test_what_a_record_says_counts_once_it_was_seen_twice_at_the_end_of_the_events(here, monkeypatch):
    monkeypatch.setattr(event_stream, "RECORDS", 0.0)
    events = event_stream.Stream(here.registry, "0")
    records = event_stream.Records(events)
    assert records.twice(lambda: ["a"]) == set(), "no event was read"
    events.take(0.001)
    assert [records.twice(lambda seen=seen: seen) for seen in (["a"], ["a", "b"], ["c"], ["c"])] == [
        set(), {"a"}, set(), {"c"},
    ]  # fmt: skip


def test_whoever_watches_everything_goes_on_without_a_run_that_is_gone(command, fleet, up, monkeypatch):
    fleet.submit(spec("j"))
    looked, look_again = threading.Event(), follow.look_again

    def look(*words):
        look_again(*words)
        looked.set()

    monkeypatch.setattr(follow, "look_again", look)

    def act():
        await_follower(fleet)
        remove_the_record(fleet, "j")
        assert looked.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(act):
        code, _, err = command("status", "--watch")
    assert (code, err.count("is gone from the registry")) == (Exit.ALL, 1)


# --- Redis away -------------------------------------------------------------------------------------------


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A server that can be killed, and the fleet on it."""
    with RedisServer(tmp_path / "redis") as server, connect_client(server.url) as client:
        monkeypatch.setenv("BLOCKJOBS_REDIS_URL", server.url)
        fleet = Fleet(client)
        fleet.registry.hosts.judge(ALPHA, "up")
        yield server, fleet


@pytest.fixture
def call(capfd):
    def call(*words):
        code = main.run_command_guarded(lambda: main.cli.main(list(words), standalone_mode=False))
        return code, *capfd.readouterr()

    return call


@pytest.mark.parametrize("follower", FOLLOWERS)
def test_a_follower_that_lost_sight_of_its_run_says_so_and_that_it_goes_on(follower, call, away, caplog):
    server, fleet = away
    words = FOLLOWERS[follower]
    if words is not BACKUP:
        fleet.submit(spec("j"))

    def act():
        await_follower(fleet)
        server.kill()

    with meanwhile(act):
        code, _, err = call(*words, "--patience", "1.5")  # longer than the client of Redis tries by itself
    assert code == Exit.LOST_SIGHT, err
    assert "which goes on: Redis is away for more than 1.5 s" in err
    said = err + caplog.text  # the Python client logs it
    assert (said.count("Redis is away, trying again"), said.count("Redis is back")) == (1, 0)


def test_a_follower_that_is_patient_ends_as_its_run_does(call, away):
    server, fleet = away
    over = threading.Event()

    def act():
        await_job(fleet, "mine")
        server.kill()
        time.sleep(1.0)
        server.start()
        carry_out(fleet, "mine")
        over.wait(20)  # the server ends with the thread that has started it

    with meanwhile(act):
        code, out, err = call(*BACKUP, "--patience", "20")
        over.set()
    assert (code, "committed" in out) == (Exit.ALL, True), err
    assert err.count("Redis is away, trying again") == err.count("Redis is back") == 1


def test_an_absence_is_not_over_while_any_question_is_refused():
    said: list[str] = []
    sight = event_stream.Patience(0.5, said.append)

    def follow():
        for _ in range(10):
            with sight.bear():
                raise redis.exceptions.NoPermissionError("one right is missing")
            sight.answered()  # another question is answered all the while

    with pytest.raises(SightLost, match=r"which goes on: Redis is away for more than 0\.5 s .one right is missing"):
        follow()
    assert said == ["Redis is away, trying again: one right is missing"]


def test_a_start_that_nobody_can_say_anything_of_is_not_called_one_that_was_not_made(call, away, monkeypatch):
    server, _ = away
    publish = event_stream.Registry.__init__

    def dying(self, *args, **kwargs):
        publish(self, *args, **kwargs)
        inner = self.submit.publish

        def lost(*words, **more):
            inner(*words, **more)
            server.kill()
            inner(*words, **more)

        self.submit.publish = lost

    monkeypatch.setattr(event_stream.Registry, "__init__", dying)
    code, _, err = call(*BACKUP, "--patience", "0.4")
    assert code == Exit.LOST_SIGHT
    assert "was started is not known" in err
