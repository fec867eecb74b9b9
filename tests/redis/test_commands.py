"""The command line and the Python client on a real registry, with stand-ins for the hosts."""

from __future__ import annotations

import json
import threading

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, grouped, many, spec

import blockjobs
from blockjobs.cli import main
from blockjobs.cli.board import Board
from blockjobs.cli.follow import Silent, add_run_to_board, follow_board
from blockjobs.cli.selection import select_runs_and_jobs
from blockjobs.client.event_stream import Stream
from blockjobs.client.fleet import Fleet
from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunOutcome
from blockjobs.model.states import Status
from blockjobs.registry.answers import Answer
from blockjobs.registry.attempts import Progress

pytestmark = pytest.mark.durable

A, B, C = (f"{RUN}.{name}" for name in ("alpha-1", "alpha-2", "beta-1"))
OTHER = RunId("weekly-20261122T110000Z")


@pytest.fixture
def here(server, client):
    with Fleet(server.url) as here:
        yield here


@pytest.fixture
def started(fleet):
    """A run of three jobs on two hosts, in RUN."""
    jobs = spec(A), spec(B), spec(C, host=BETA)
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    return jobs


@pytest.fixture
def up(registry):
    for host in (ALPHA, BETA):
        registry.hosts.judge(host, "up")


# --- what an ID means -----------------------------------------------------------------------------------


def test_an_id_is_a_run_a_job_or_a_glob(here, fleet, started):
    fleet.submit(spec("lone", run=OTHER))
    whole = select_runs_and_jobs(here, RUN)
    assert (whole.runs, [place.job for place in whole.jobs], whole.many) == ((RUN,), [A, B, C], True)
    single = select_runs_and_jobs(here, B)
    assert (single.runs, [place.job for place in single.jobs], single.many) == ((), [B], False)
    some = select_runs_and_jobs(here, f"{RUN}.alpha-*")
    assert (some.runs, [place.job for place in some.jobs]) == ((), [A, B])
    everything = select_runs_and_jobs(here, "*")
    assert (everything.runs, len(everything.jobs)) == ((RUN, OTHER), 4)


@pytest.mark.parametrize("text", ["nobody", f"{RUN}.nobody", "no*", ""])
def test_an_id_of_nothing_is_refused(here, started, text):
    with pytest.raises(errors.NoSuchRun, match="no run and no job is named"):
        select_runs_and_jobs(here, text)


def test_what_is_only_staged_is_not_selected(here, registry):
    plan = many(3)
    registry.submit.stage(plan, plan.jobs)
    for text in (RUN, "job1"):
        with pytest.raises(errors.NoSuchRun):
            select_runs_and_jobs(here, text)


# --- verbs ----------------------------------------------------------------------------------------------


def test_a_verb_on_a_run_is_for_all_members_that_accept_it(command, fleet, started):
    fleet.copy(started[0])
    assert command("pause", RUN) == (0, f"{RUN}: 2 jobs paused (of 3)\n", "")
    assert [fleet.status(job) for job in (A, B, C)] == ["waiting", "paused", "paused"]
    assert command("resume", f"{RUN}.alpha*") == (0, f"{RUN}.alpha*: 1 job resumed (of 2)\n", "")


def test_a_verb_that_nobody_accepts_is_refused_with_the_first_refusal(command, started):
    said = f"blockjobs: Job '{A}' in state 'running' cannot accept command verb 'dismiss'\n"
    assert command("dismiss", RUN) == (2, "", said)
    assert command("resume", RUN) == (2, "", "blockjobs: Can't resume a job that was not paused\n")


def test_one_id_that_is_refused_does_not_keep_the_others_from_a_verb(command, fleet, started):
    code, out, err = command("pause", "nobody", B)
    assert (code, out) == (2, f"{B}: paused\n")
    assert "no run and no job is named 'nobody'" in err
    assert fleet.status(B) == "paused"


def test_set_speed_takes_units(command, here, started):
    assert command("set-speed", A, "1.5MiB")[:2] == (0, f"{A}: now at 1.5 MiB/s (was no limit)\n")
    assert here.get(A).speed == 3 << 19


@pytest.mark.parametrize("text", ["-5", "true", "fast", "1e9", ""])
def test_a_bad_speed_is_refused_in_one_line(command, started, text):
    code, out, err = command("set-speed", A, text)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is not a size" in err


def test_complete_answers_what_it_saw_and_does_not_look_again_for_a_job_that_may_be_gone(here, fleet, started):
    fleet.host(ALPHA).attempts.ready(fleet.claim(started[0]), Progress(0, 0))
    assert here.registry.verbs.complete(A) is Status.READY
    assert here.complete(A) is Status.READY  # remembered, once


def test_cancel_ends_a_run_and_dismiss_forgets_its_jobs(command, fleet, started):
    assert command("cancel", RUN)[:2] == (0, f"{RUN}: 3 jobs cancelled\n")
    fleet.walk(RUN)
    assert command("wait", RUN) == (1, f"{RUN}: failed or cancelled\n", "")
    assert command("dismiss", RUN)[:2] == (0, f"{RUN}: 3 jobs dismissed\n")
    assert command("status", A)[0] == 2
    assert command("status", RUN)[0] == 0


def test_finalize_of_a_run_is_said_once(command, fleet):
    jobs = spec(A, auto_finalize=False), spec(B)
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*jobs)
    fleet.advance(RUN)
    assert command("finalize", RUN)[:2] == (0, f"{RUN}: 1 job finalizing (of 2)\n")
    fleet.walk(RUN)
    assert command("wait", RUN, B)[0] == 0


# --- waiting and following --------------------------------------------------------------------------------


def test_wait_ends_with_the_last_of_what_it_waits_for(here, fleet, started):
    outcome = {}
    waiting = threading.Thread(target=lambda: outcome.update(here.wait([RUN, C], timeout=20)))
    waiting.start()
    fleet.copy(*started)
    fleet.walk(RUN)
    waiting.join(20)
    assert outcome == {RUN: True, C: True}


def test_wait_gives_up_after_its_time(command, started):
    code, out, err = command("wait", A, RUN, "--timeout", "0")
    assert (code, out, err) == (5, "", f"blockjobs: timed out; not concluded yet: {A}, {RUN}\n")


def test_wait_tells_a_job_that_failed_before_its_start_from_one_that_succeeded(here, fleet):
    fleet.sick[Step.OPEN, A] = (2, "no such source")
    fleet.submit(spec(A), spec(B))
    fleet.walk(RUN)
    assert here.wait([A, B, RUN]) == {A: False, B: False, RUN: False}


@pytest.mark.parametrize("late", [False, True], ids=["from-the-start", "from-the-end"])
def test_a_follower_ends_with_its_run(here, fleet, started, late):
    seq = here.registry.events.last()
    board = Board()
    if not late:
        add_run_to_board(here, board, RunId(RUN))
    fleet.copy(*started)
    fleet.walk(RUN)
    if late:
        add_run_to_board(here, board, RunId(RUN))
    follow_board(here, board, Stream(here.registry, seq), Silent(), until=lambda: board.ended)
    tally = board.runs[RunId(RUN)]
    assert (tally.outcome, tally.offset, +tally.words) == (RunOutcome.COMMITTED, 3 * SIZE, {"done": 3})


def test_a_follower_takes_in_runs_that_start_meanwhile(here, fleet):
    board = Board()
    stream = Stream(here.registry, here.registry.events.last())
    fleet.submit(spec(A))
    follow_board(here, board, stream, Silent(), until=lambda: RUN in board.runs, joins=lambda _: True)
    assert list(board.rows) == [A]


# --- submitting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "why"), [("", "is not known: no worker has registered under this name"),
                                            ("down", "is down since 20"), ("left", "has left")])  # fmt: skip
def test_a_host_that_is_not_there_is_refused_by_name(here, registry, up, state, why):
    if state:
        registry.hosts.judge("gamma", state)
    with pytest.raises(errors.HostDown, match=f"host 'gamma' {why}"):
        here.submit(grouped(spec(A), spec("g", host="gamma")))
    assert here.runs() == []


def test_backup_submits_one_job_and_warns_of_dead_daemons(command, here, up):
    code, out, err = command("backup", "alpha:/srv/a.img", "alpha:/backup/{name}.img", "--id", "mine", "--detach",
                             "--speed", "1MiB", "--no-digests", "--on-source-error", "stop")  # fmt: skip
    assert (code, out.startswith("run backup-"), out.endswith(": 1 job on 1 host\n")) == (0, True, True)
    assert "warning: the coordinator does not run" in err
    assert "warning: the finalizer does not run" in err
    spec_ = here.get("mine").spec
    assert (spec_.target.text, spec_.speed, spec_.digests, spec_.on_source_error) == (
        "alpha:/backup/mine.img", 1 << 20, False, "stop",
    )  # fmt: skip


def test_a_path_without_a_host_is_refused_where_there_are_two(command, up):
    code, _, err = command("backup", "a.img", "b.img")
    assert (code, err) == (
        2,
        "blockjobs: volume 'a.img' names no host, and there are 2 hosts: HOST:/PATH was expected\n",
    )


# --- looking ------------------------------------------------------------------------------------------------


def test_status_as_json_has_runs_transactions_and_jobs(command, fleet, started):
    code, out, _ = command("status", "--json")
    told = json.loads(out)
    assert (code, list(told)) == (0, ["runs", "transactions", "jobs", "holding", "unreadable"])
    assert [[each["id"] for each in told[kind]] for kind in list(told)[:3]] == [[RUN], [RUN], [A, B, C]]
    single = json.loads(command("status", B, "--json")[1])
    assert [[each["id"] for each in single[kind]] for kind in list(single)[:3]] == [[RUN], [RUN], [B]]
    qemu = {"type", "device", "len", "offset", "busy", "paused", "speed", "io-status", "ready", "status",
            "auto-finalize", "auto-dismiss", "error"}  # fmt: skip
    ours = {"id", "run", "transaction", "host", "attempt", "holds", "elapsed"}
    assert qemu | ours <= single["jobs"][0].keys()


def test_status_names_every_job_of_a_run_and_a_few_of_many(command, fleet, started):
    fleet.registry.submit.submit(many(60, run=OTHER))
    _, out, _ = command("status")
    assert "... and 40 more: blockjobs status " + OTHER in out
    _, out, _ = command("status", OTHER)
    assert out.count("\n") == 61


def test_status_without_anything_says_how_to_begin(command):
    assert command("status")[:2] == (0, "no runs yet: blockjobs run FILE, or blockjobs backup SOURCE TARGET\n")


def test_show_says_why_a_job_waits(command, up, fleet, started):
    first = fleet.claim(started[0])
    _, out, _ = command("show", B)
    assert "waiting:     waits for a slot on alpha: 1 running, 0 ahead" in out
    fleet.finish(first)
    _, out, _ = command("show", A)
    assert "waits for 2 members of its transaction to be copied: 1 on alpha, 1 on beta" in out
    fleet.registry.verbs.pause(B)
    assert "waiting:     held by user (since " in command("show", B)[1]
    assert "1 job queued on beta" in command("show", RUN)[1]
    assert json.loads(command("show", B, "--json")[1])["waits"][0].startswith("held by user (since ")


def test_show_names_a_host_that_owes_a_step(command, up, fleet):
    fleet.submit(spec(A), spec(C, host=BETA))
    fleet.host(ALPHA).answers.answer(RUN, Step.OPEN, [Answer(A, size=SIZE)])
    fleet.registry.hosts.judge(BETA, "down")
    _, out, _ = command("show", A)
    assert "host beta is down since " in out
    assert "waits for beta, which owes OPEN since " in out
    assert "host beta is down since " in command("status", RUN)[1]


def test_events_are_filtered_and_continued(command, fleet, started):
    fleet.submit(spec("lone", run=OTHER))
    _, out, _ = command("events", A, "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert {each["id"] for each in told} == {A}
    assert [each["data"].get("status") for each in told] == ["created", "running"]
    _, out, _ = command("events", A, "--json", "--since", told[0]["seq"])
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [told[1]["seq"]]
    assert command("events", OTHER)[1].count("\n") == 2
    assert command("events", "--since", "now")[:2] == (0, "")


def test_hosts_are_listed(command, up):
    assert [line.split()[:2] for line in command("hosts")[1].splitlines()[1:]] == [["alpha", "up"], ["beta", "up"]]
    assert [host["name"] for host in json.loads(command("hosts", "--json")[1])] == ["alpha", "beta"]


@pytest.mark.parametrize("name", [*main.COMMANDS])
def test_every_command_has_an_example_unless_a_service_manager_calls_it(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert "Example" in out or name in ("up", "coordinator", "finalizer")


def test_a_redis_that_is_not_there_is_exit_code_3(command, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", f"unix://{tmp_path}/none.sock")
    code, out, err = command("status")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "Redis is not reachable" in err


def test_the_package_gives_the_client_by_its_name():
    assert blockjobs.Fleet is Fleet
    with pytest.raises(AttributeError, match="nobody"):
        blockjobs.nobody  # noqa: B018
