"""Names of which a run has to succeed in time: known from the first start on, until they are forgotten."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from puppets import ALPHA, spec
from test_overlap import FIRST, SECOND, THIRD, job, plan

from blockjobs.daemons.deadlines import Deadlines
from blockjobs.daemons.lookout import Lookout
from blockjobs.daemons.notifier import Notifier
from blockjobs.model.barriers import Step
from blockjobs.model.policies import Policy
from blockjobs.registry import keys
from blockjobs.registry.retention import KEEP_RUNS
from blockjobs.settings import URL as REDIS_URL

pytestmark = pytest.mark.durable

HOUR = 3600 * 1000
URLS = ("https://ops.example.com/hidden",)


def start(fleet, run=FIRST, **terms):
    terms = {"overdue": 26 * 3600, "notify": {"attention": URLS}, **terms}
    fleet.registry.submit.submit(plan(run, **terms))


def end(fleet, run=FIRST, *, bad=False):
    """The run ends, and the coordinator hears of it."""
    fleet.walk(run, Step.RUN)
    if bad:
        fleet.finish(fleet.claim(job(run)), errno=5, text="EIO")
    else:
        fleet.copy(job(run))
    fleet.walk(run)
    announce(fleet, run)


def announce(fleet, run):
    Notifier(fleet.registry, (), lambda: "").announce(run)


def later(fleet, hours):
    """Time passes for what is kept of the names."""
    for field, value in fleet.client.hgetall(keys.names()).items():
        if field.startswith((b"since:", b"good:")):
            at, *rest = value.decode().split(" ")
            fleet.client.hset(keys.names(), field, " ".join([str(int(at) - hours * HOUR), *rest]))


def stands(fleet):
    return {seen.name: seen.is_overdue for seen in fleet.registry.names.all()}


def told(fleet):
    taken = [fleet.registry.notices.take(run, n, "me", lease=60) for run, n in fleet.registry.notices.due()]
    return [each.said["needs"][0]["text"] for each in taken if each is not None]


def test_a_name_is_overdue_when_no_run_of_it_succeeded_within_its_time(fleet):
    start(fleet)
    later(fleet, 25)
    assert stands(fleet) == {"nightly": False}
    later(fleet, 2)
    assert stands(fleet) == {"nightly": True}
    end(fleet)
    assert stands(fleet) == {"nightly": False}
    later(fleet, 27)
    assert stands(fleet) == {"nightly": True}


@pytest.mark.parametrize(
    "how", ["it failed", "only a part of its file", "it was replaced in line", "an earlier one ended late"]
)
def test_what_is_no_success_of_its_name_does_not_count(fleet, how):
    start(fleet)
    later(fleet, 27)
    match how:
        case "it failed":
            end(fleet, bad=True)
        case "only a part of its file":
            start(fleet, SECOND, part=True, on_overlap="")
            end(fleet, SECOND)
        case "it was replaced in line":
            start(fleet, SECOND, on_overlap="queue")
            start(fleet, THIRD, on_overlap="queue")
            Deadlines(fleet.registry).look(fleet.registry.clock.now())
            fleet.walk(SECOND)
            announce(fleet, SECOND)
        case _:
            end(fleet)
            fleet.client.hset(keys.run(SECOND), "ended-steady", 1)
            assert not fleet.registry.names.succeeded("nightly", SECOND)
            later(fleet, 27)
    assert stands(fleet) == {"nightly": True}


def test_a_run_that_is_not_all_of_it_counts_where_its_file_says_that_this_will_do(fleet):
    policies = {"": Policy(grouped=False, succeed_if=50.0)}
    jobs = [spec(f"{FIRST}.{name}", run=FIRST, txn=f"{FIRST}.{name}") for name in ("one", "two")]
    whole = plan(FIRST, overdue=60, policies=policies)
    fleet.registry.submit.submit(replace(whole, transactions=tuple((each,) for each in jobs)))
    later(fleet, 1)
    for each, errno in zip(jobs, (5, 0), strict=True):
        fleet.walk(each.transaction, Step.RUN)
        fleet.finish(fleet.claim(each), errno=errno, text="EIO" * bool(errno))
        fleet.walk(each.transaction)
    announce(fleet, FIRST)
    assert stands(fleet) == {"nightly": False}


def test_the_last_good_end_outlives_its_run_and_a_jump_of_the_clock(fleet):
    start(fleet)
    end(fleet)
    fleet.registry.retention.forget(fleet.registry.hosts.now() + KEEP_RUNS + 1000)
    assert fleet.registry.views.runs() == []
    (seen,) = fleet.registry.names.all()
    assert (seen.run, seen.is_overdue) == (FIRST, False)
    fleet.client.set(keys.clock(), 48 * HOUR)  # Redis' clock was put two days ahead: as much later is it
    fleet.client.hset(keys.names(), "good:nightly", f"{seen.good - 48 * HOUR} {FIRST}")
    assert stands(fleet) == {"nightly": False}


def test_a_success_that_no_coordinator_has_heard_of_yet_is_kept_for_the_next_one(fleet):
    start(fleet, notify={})
    later(fleet, 27)
    fleet.walk(FIRST, Step.RUN)
    fleet.copy(job(FIRST))
    fleet.walk(FIRST)
    assert fleet.registry.notices.untold() == [FIRST]
    announce(fleet, FIRST)
    assert stands(fleet) == {"nightly": False}
    assert fleet.registry.notices.untold() == []


@pytest.mark.parametrize("how", ["its file lost the key", "by hand"])
def test_a_name_can_be_forgotten(fleet, command, how):
    start(fleet)
    end(fleet)
    later(fleet, 27)
    fleet.client.hset(keys.names(), "told:refused nightly", "1 x")
    if how == "by hand":
        assert command("overdue", "--forget", "nightly")[0] == 0
        assert command("overdue", "--forget", "nightly")[0] == 2
    else:
        start(fleet, SECOND, overdue=0)
    assert not fleet.client.exists(keys.names())
    if how == "by hand":
        assert not fleet.registry.names.succeeded("nightly", FIRST), "what is announced late brings nothing back"
        start(fleet, SECOND)
        assert stands(fleet) == {"nightly": False}


def test_a_retry_of_an_earlier_run_does_not_say_anew_what_its_file_no_longer_says(fleet):
    start(fleet)
    end(fleet, bad=True)
    fleet.registry.names.forget("nightly")
    fleet.registry.submit.submit(replace(plan(SECOND, overdue=3600), retries=FIRST))
    assert stands(fleet) == {}


def test_an_overdue_name_is_told_once_until_a_run_of_it_succeeds(fleet):
    start(fleet)
    lookout = Lookout(fleet.registry)
    lookout.look()
    assert told(fleet) == []
    later(fleet, 27)
    lookout.look()
    lookout.look()
    assert told(fleet) == ["nightly: no run succeeded for 1d3h, 1d2h are allowed; none ever did"]
    end(fleet)
    lookout.look()
    assert told(fleet) == []
    later(fleet, 27)
    lookout.look()
    assert told(fleet) == [f"nightly: no run succeeded for 1d3h, 1d2h are allowed; the last one was {FIRST}"]


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_is_a_plugin_of_nagios(fleet, command):
    assert command("overdue")[:2] == (3, "OVERDUE UNKNOWN - no run file was started that says 'overdue'\n")
    start(fleet)
    end(fleet)
    line = f"nightly: no run succeeded for 0s, 1d2h are allowed; the last one was {FIRST}"
    assert command("overdue") == (0, f"OVERDUE OK - 1 name, none is overdue\n{line}\n", "")
    code, out, _ = command("overdue", "nightly", "weekly")
    assert (code, out.splitlines()[0]) == (
        3,
        "OVERDUE UNKNOWN - no run file of the name 'weekly' was started that says 'overdue'",
    )
    later(fleet, 27)
    code, out, _ = command("overdue", "nightly", "weekly")
    late = f"nightly: no run succeeded for 1d3h, 1d2h are allowed; the last one was {FIRST}"
    assert (code, out.splitlines()[0]) == (2, f"OVERDUE CRITICAL - {late}")
    code, out, _ = command("overdue", "--json")
    said = json.loads(out)
    assert (code, said["code"], said["unknown"]) == (2, 2, [])
    (name,) = said["names"]
    assert (name["name"], name["overdue"], name["allowed"], name["last-good"]["run"]) == ("nightly", True, 93600, FIRST)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nowhere/redis.sock", "nonsense"])
def test_without_redis_nothing_is_known(command, monkeypatch, url):
    monkeypatch.setenv(REDIS_URL, url)
    code, out, err = command("overdue")
    assert (code, err) == (3, "")
    assert out.startswith("OVERDUE UNKNOWN - ")
    assert out.count("\n") == 1


def test_a_name_that_cannot_be_read_hides_no_other_one(fleet, command):
    start(fleet)
    fleet.client.hset(keys.names(), "overdue:odd", "soon")
    later(fleet, 27)
    code, out, err = command("overdue")
    assert code == 2
    assert "nightly: no run succeeded" in out
    assert "name 'odd' cannot be read" in err


def test_doctor_says_which_name_is_overdue(fleet, command):
    start(fleet)
    later(fleet, 27)
    fleet.registry.hosts.judge(ALPHA, "left")
    assert "name nightly: no run succeeded for 1d3h" in command("doctor")[1]
