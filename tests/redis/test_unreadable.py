"""One record that this release cannot read hides itself only: everything else is shown, and the odd one is named."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from puppets import ALPHA, SIZE, grouped, spec

from blockjobs.ask.prune import PruneRequest
from blockjobs.daemons.budgets import BudgetDivider
from blockjobs.model import errors
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import Policy, RunFields, Store
from blockjobs.model.volumespec import parse_volume
from blockjobs.qmp import jobs as verbs
from blockjobs.qmp.events import translate_event
from blockjobs.registry import codec, keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.nodes import Node
from blockjobs.registry.odd import Unreadable

pytestmark = pytest.mark.durable

NEWER = b"\x02" + codec.pack_value({"id": "x"})[1:]  # a record of a later release
RUNS = [RunId(f"{name}-20261122T103000Z") for name in ("first", "odd", "last")]
FIELDS = RunFields(
    stores={"nas1": Store(path="/mnt/nas1", speed=100)}, policies={"": Policy(keep={"last": 5})},
    notify={"failure": ("https://one.example", "https://two.example", "https://three.example")},
)  # fmt: skip


@pytest.fixture
def runs(here, fleet):
    """Three runs of three jobs each, all of them running."""
    for run in RUNS:
        jobs = [spec(f"{run}.{name}", run=run, store="nas1") for name in ("a", "b", "c")]
        here.submit(replace(grouped(*jobs), name=run.partition("-")[0], fields=FIELDS))
        fleet.walk(run, Step.RUN)
        here.registry.hosts.ring(ALPHA, 20, lost_after_ms=10_000)
    return {job.id: job for run in RUNS for job in (here.get(f"{run}.{name}") for name in "abc")}


ODD = f"{RUNS[1]}.b"


@pytest.fixture
def ended(runs, here, fleet):
    """The second run was cancelled, and is over."""
    here.cancel(ODD)
    fleet.walk(RUNS[1])


def others(runs):
    return [job for job in runs if job != ODD]


def named(err, name):
    """The one line that names a record."""
    (line,) = err.splitlines()
    return line.startswith(f"blockjobs: {name} cannot be read: ") and line.endswith(", and is left out")


class Spoken:
    """What a query of QMP works on."""

    def __init__(self, here):
        self.coordinator, self.registry = here, here.registry


# --- jobs ---------------------------------------------------------------------------------------------

JOBS = {
    "spec of a later release":  lambda client, job: client.hset(job, "spec", NEWER),
    "spec without fields":      lambda client, job: client.hset(job, "spec", codec.pack_value({})),
    "spec cut off":             lambda client, job: client.hset(job, "spec", b"\x01\x85"),
    "no status":                lambda client, job: client.hdel(job, "status"),
    "a status nobody knows":    lambda client, job: client.hset(job, "status", "dreaming"),
    "a speed that is no number": lambda client, job: client.hset(job, "speed", "1e+17"),
    "a cut of a later release": lambda client, job: client.hset(job, "cut", NEWER),
    "a text that is none":      lambda client, job: client.hset(job, "error", b"\xff"),
}  # fmt: skip
each_odd_job = pytest.mark.parametrize("spoil", JOBS.values(), ids=JOBS)


@pytest.fixture
def odd_job(runs, client, spoil):
    spoil(client, keys.job(ALPHA, ODD))


@each_odd_job
def test_status_shows_every_other_job_and_names_the_odd_one(odd_job, runs, command):
    code, out, err = command("status", "--json")
    told = json.loads(out)
    assert code == 0
    assert [job["id"] for job in told["jobs"]] == others(runs)
    assert [run["id"] for run in told["runs"]] == RUNS
    assert list(told["unreadable"]) == [f"job {ODD}"]
    assert named(err, f"job {ODD}")
    for words in (("status",), ("status", *RUNS), ("status", "*")):
        code, out, err = command(*words)
        assert code == 0
        assert all(f" {job.rpartition('.')[2]} " in out for job in others(runs))
        assert named(err, f"job {ODD}")


@each_odd_job
def test_show_refuses_the_odd_one_in_one_line_and_shows_the_others(odd_job, runs, command):
    code, out, err = command("show", ODD)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    code, out, err = command("show", f"{RUNS[1]}.*", "--json")
    assert (code, [job["id"] for job in json.loads(out)]) == (0, [f"{RUNS[1]}.a", f"{RUNS[1]}.c"])
    assert named(err, f"job {ODD}")
    assert command("show", RUNS[1])[0] == 0
    assert command("show", f"{RUNS[1]}.a")[::2] == (0, "")


@each_odd_job
def test_queries_of_qmp_and_lists_from_python_have_every_other_job(odd_job, runs, here, caplog):
    assert {job["id"] for job in verbs.query_jobs(Spoken(here), {})} == set(others(runs))
    assert {job["device"] for job in verbs.query_block_jobs(Spoken(here), {})} == set(others(runs))
    assert [job.id for job in here.list(RUNS[1])] == [f"{RUNS[1]}.a", f"{RUNS[1]}.c"]
    assert list(here.registry.odd.found()) == [f"job {ODD}"]
    assert [f"job {ODD} cannot be read" in text for text in caplog.messages] == [True], "once"


@each_odd_job
def test_a_job_that_can_be_read_again_is_shown_and_named_no_more(odd_job, runs, here, client):
    assert len(list(here.list(RUNS[1]))) == 2
    record = client.hgetall(keys.job(ALPHA, f"{RUNS[1]}.a"))
    client.delete(keys.job(ALPHA, ODD))
    client.hset(keys.job(ALPHA, ODD), mapping=record)
    assert len(list(here.list(RUNS[1]))) == 3
    assert here.registry.odd.found() == {}


@pytest.mark.parametrize("spoil", [JOBS[name] for name in JOBS if "status" not in name])
def test_a_job_whose_record_is_odd_can_be_cancelled(odd_job, runs, client, command):
    assert command("cancel", ODD)[0] == 0
    assert client.hget(keys.job(ALPHA, ODD), "cancelled") == b"force"


@pytest.mark.parametrize("spoil", [JOBS[name] for name in JOBS if "status" not in name])
def test_a_job_whose_record_is_odd_can_be_waited_for(ended, here, client, command, spoil):
    spoil(client, keys.job(ALPHA, ODD))
    assert here.wait([ODD, RUNS[1]], timeout=0) == {ODD: False, RUNS[1]: False}
    code, out, _ = command("wait", ODD, f"{RUNS[1]}.a", "--timeout", "0")
    assert (code, len(out.splitlines())) == (1, 2)


@each_odd_job
def test_nobody_takes_an_odd_job_for_one_that_rests(odd_job, here):
    with pytest.raises(Unreadable, match=f"^job {ODD} cannot be read: "):
        here.wait_quiescent([RUNS[1]], timeout=0)


@each_odd_job
def test_the_run_of_an_odd_job_is_not_forgotten_and_others_are(odd_job, here, fleet):
    for run in RUNS:
        here.cancel(f"{run}.a")
        fleet.client.hset(keys.run(run), "open", 0)
    fleet.client.hset(keys.run(RUNS[0]), mapping={"ended": 1})

    def each(_item, call):
        try:
            return call()
        except Unreadable:
            return None

    here.registry.retention.forget(here.registry.hosts.now() + 1, keep_ms=0, each=each)
    assert fleet.client.exists(keys.run_jobs(RUNS[1]))


# --- places -------------------------------------------------------------------------------------------

PLACES = {"one word": b"nowhere", "three words": b"alpha x y", "no text": b"\xff alpha", "nothing": b""}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_read_hides_one_job_only(runs, here, client, command, place):
    client.hset(keys.ids(), ODD, place)
    assert {job["id"] for job in verbs.query_jobs(Spoken(here), {})} == set(others(runs))
    assert [at.job for at in here.glances.jobs_like("*")] == sorted(others(runs))
    code, out, err = command("pause", ODD)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"place of job {ODD} cannot be read" in err
    assert command("show", f"{RUNS[1]}.a")[::2] == (0, "")


@pytest.mark.parametrize("row", [b"nowhere", b"a b c d", b"\xff x y"])
def test_a_row_of_a_run_that_cannot_be_read_hides_one_job_only(runs, here, client, command, row):
    client.lset(keys.run_jobs(RUNS[1]), 1, row)
    assert [job.id for job in here.list(RUNS[1])] == [f"{RUNS[1]}.a", f"{RUNS[1]}.c"]
    code, out, err = command("status", RUNS[1])
    assert (code, len(out.splitlines()), len(err.splitlines())) == (0, 3, 1)


# --- runs ---------------------------------------------------------------------------------------------

RECORDS = {
    "fields of a later release": ("fields", NEWER),
    "no fields":                 ("fields", codec.pack_value({})),
    "fields that are a list":    ("fields", codec.pack_value([1])),
    "a count that is none":      ("jobs", "many"),
    "a sum that is none":        ("sum:read", "1e+17"),
}  # fmt: skip


@pytest.fixture(params=RECORDS.values(), ids=list(RECORDS))
def odd_run(runs, client, request):
    field, value = request.param
    client.hset(keys.run(RUNS[1]), field, value)


def test_status_and_history_show_every_other_run_and_the_jobs_of_the_odd_one(odd_run, runs, command):
    code, out, err = command("status", "--json")
    told = json.loads(out)
    assert (code, [run["id"] for run in told["runs"]]) == (0, [RUNS[0], RUNS[2]])
    assert [job["id"] for job in told["jobs"]] == list(runs)
    assert list(told["unreadable"]) == [f"run {RUNS[1]}"]
    assert named(err, f"run {RUNS[1]}")
    code, out, err = command("history", "--json")
    assert (code, {run["id"] for run in json.loads(out)}) == (0, {RUNS[0], RUNS[2]})
    assert named(err, f"run {RUNS[1]}")
    code, out, err = command("status")
    assert code == 0
    assert f"{RUNS[1]}: the record of the run cannot be read\n" in out
    assert out.count(" a ") == 3


def test_an_odd_run_is_refused_by_its_name_and_left_out_of_many(odd_run, runs, here, command):
    code, out, err = command("show", RUNS[1])
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"run {RUNS[1]} cannot be read" in err
    code, out, err = command("show", "*", "--json")
    assert (code, [run["id"] for run in json.loads(out)]) == (0, [RUNS[0], RUNS[2]])
    assert len(list(here.list(RUNS[1]))) == 3


@pytest.mark.parametrize(("field", "value"), RECORDS.values(), ids=RECORDS)
def test_the_end_of_an_odd_run_can_be_waited_for(ended, client, command, field, value):
    client.hset(keys.run(RUNS[1]), field, value)
    code, out, err = command("wait", RUNS[1], "--timeout", "0")
    assert (code, out, err) == (1, f"{RUNS[1]}: failed or cancelled\n", "")


@pytest.mark.parametrize(("field", "value"), [("jobs", "many"), ("since", "1e+17"), ("why", b"\xff"), ("cut-end", "x")])
def test_a_transaction_that_cannot_be_read_hides_itself_only(runs, client, command, field, value):
    client.hset(keys.txn(RUNS[1]), mapping={"cut-begin": 1, field: value})
    told = json.loads(command("status", "--json")[1])
    assert [txn["id"] for txn in told["transactions"]] == [RUNS[0], RUNS[2]]
    assert list(told["unreadable"]) == [f"transaction {RUNS[1]}"]


# --- events -------------------------------------------------------------------------------------------

EVENTS = {
    "no name":              {"id": "x"},
    "no field it needs":    {"event": "JOB_STATUS_CHANGE", "id": ODD, "from": "running"},
    "no number":            {"event": "JOB_SPEED", "id": ODD, "speed": "fast"},
    "an end without counts": {"event": "RUN_ENDED", "id": RUNS[1], "run": RUNS[1]},
    "no text":              {"event": "JOB_WARNING", "id": ODD, "text": b"\xff"},
}  # fmt: skip


@pytest.fixture(params=EVENTS.values(), ids=list(EVENTS))
def odd_event(runs, client, request):
    return client.xadd(keys.events(), request.param).decode()


def test_events_shows_every_other_event_and_names_the_odd_one(odd_event, runs, here, command):
    here.pause(f"{RUNS[2]}.c")
    code, out, err = command("events", "--json")
    seqs = [json.loads(line)["seq"] for line in out.splitlines()]
    assert code == 0
    assert len(seqs) == here.registry.client.xlen(keys.events()) - 1
    assert odd_event not in seqs
    assert named(err, f"event {odd_event}")
    assert command("events")[0] == 0


def test_those_who_follow_events_come_past_the_odd_one(odd_event, runs, here, fleet):
    events = here.registry.events
    before = events.last()
    assert before < odd_event
    assert events.after(before) == []
    here.set_speed(f"{RUNS[2]}.c", 5)
    assert [event.name for event in events.after(before, block_ms=1)] == ["JOB_SPEED"]
    here.cancel(ODD)
    fleet.walk(RUNS[1])
    assert here.wait([RUNS[1]], timeout=0) == {RUNS[1]: False}
    assert [translate_event(event) for event in events.all()], "none of them is a traceback"


def test_every_event_of_a_run_has_what_an_event_of_its_kind_needs(runs, here, fleet):
    here.cancel(ODD)
    fleet.walk(RUNS[1])
    assert here.registry.odd.found() == {}
    assert len(list(here.registry.events.all())) == here.registry.client.xlen(keys.events())


# --- the readers beside them --------------------------------------------------------------------------


@pytest.mark.parametrize("record", [NEWER, codec.pack_value({}), codec.pack_value([1, 2]), b""])
def test_a_volume_name_that_cannot_be_read_is_left_out_and_can_be_forgotten(here, client, command, record):
    for name in ("disk1", "disk3"):
        here.registry.nodes.add(Node(name, parse_volume(f"alpha:/srv/{name}.img"), {}))
    client.hset(keys.nodes(), "disk2", record)
    assert [node.name for node in here.volumes()] == ["disk1", "disk3"]
    with pytest.raises(Unreadable, match=r"^volume name disk2 cannot be read: "):
        here.volume("disk2")
    here.remove_volume("disk1")
    here.remove_volume("disk2")
    assert [node.name for node in here.volumes()] == ["disk3"]
    assert not client.hexists(keys.nodes(), "disk2")


@pytest.mark.parametrize("speed", ["1e+17", "fast", "", "1.5"])
def test_a_limit_that_cannot_be_read_stops_no_coordinator_and_can_be_set_anew(runs, here, client, command, speed):
    here.set_host(ALPHA, speed=1000)
    client.hset(keys.hosts(), mapping={"state:beta": "up", "since:beta": 1, "speed:beta": speed})
    client.sadd(keys.stores(), "nas2")
    client.hset(keys.store("nas2"), mapping={"path": "/x", "speed": speed or "x"})
    assert here.registry.limits.host_speeds() == {ALPHA: 1000}
    assert [store.name for store in here.stores()] == ["nas1"]
    BudgetDivider(here.registry).look()
    assert "nas1" in command("stores")[1]
    assert command("stores", "set", "nas2", "--jobs", "1", "--speed", "5")[0] == 0
    assert [store.speed for store in here.stores()] == [100, 5]
    here.set_host("beta", speed=7)
    assert here.registry.limits.host_speeds() == {ALPHA: 1000, "beta": 7}


@pytest.mark.parametrize(("field", "value"), [("speed", "1e+17"), ("felt", "x"), ("bytes", NEWER), ("told", "now")])
def test_a_copy_that_cannot_be_read_keeps_no_other_copy_from_its_share(runs, here, fleet, field, value):
    claims = [fleet.claim(runs[f"{RUNS[0]}.{name}"].spec) for name in "abc"]
    fleet.client.hset(keys.job(ALPHA, f"{RUNS[0]}.b"), field, value)
    running = {copy.job for copy in here.registry.limits.running(["nas1"], [ALPHA])}
    assert {f"{RUNS[0]}.a", f"{RUNS[0]}.c"} <= running
    assert f"{RUNS[0]}.b" not in running
    BudgetDivider(here.registry).look()
    orders = fleet.host(ALPHA).attempts.checkpoint(claims[0], Progress(0, SIZE))
    assert orders.speed > 0


@pytest.mark.parametrize(("field", "value"), [("status", "dreaming"), ("offset", "far"), ("len", "1e+17")])
def test_the_progress_of_an_odd_job_is_left_out(runs, here, client, field, value):
    client.hset(keys.job(ALPHA, ODD), field, value)
    found = here.glances.progress(here.registry.views.places(RUNS[1]))
    assert list(found) == [f"{RUNS[1]}.a", f"{RUNS[1]}.c"]


def published(here, fleet, run):
    fleet.copy(*(here.get(f"{run}.{name}").spec for name in "abc"))
    fleet.walk(run)
    return here.registry.views.run(run)


@pytest.mark.parametrize("row", [b"nowhere", b"alpha:/x\0" + NEWER, b"alpha:/x\0" + codec.pack_value(["t"]), b"\xff\0"])
def test_a_target_that_cannot_be_read_hides_itself_and_nothing_is_pruned_meanwhile(runs, here, fleet, command, row):
    run = published(here, fleet, RUNS[0])
    assert len(here.registry.history.targets([run])) == 3
    fleet.client.hset(keys.targets(RUNS[0]), f"{RUNS[0]}.b", row)
    assert sorted(target.job for target in here.registry.history.targets([run])) == [f"{RUNS[0]}.a", f"{RUNS[0]}.c"]
    code, out, err = command("history", "first", "--json")
    assert (code, json.loads(out)[0]["targets"]) == (0, 2)
    assert named(err, f"target of {RUNS[0]}.b in run {RUNS[0]}")
    with pytest.raises(Unreadable, match="cannot be read"):
        PruneRequest(here.registry, None)("first", dry=True)


def test_a_run_that_cannot_be_read_lets_nothing_be_pruned(runs, here, fleet, client):
    published(here, fleet, RUNS[0])
    client.hset(keys.run(RUNS[1]), "fields", NEWER)
    with pytest.raises(Unreadable, match=f"^run {RUNS[1]} cannot be read"):
        PruneRequest(here.registry, None)("first", dry=True)


def test_notices_that_cannot_be_read_are_left_out(here, client):
    notices = here.registry.notices
    client.zadd(keys.notices(), {"0": 1, "x y": 2, "2 r": 3, b"\xff r": 4})
    assert notices.due() == [("r", 2)]
    record = {"count": 3, "message": codec.pack_value({}), **{f"url:{n}": "https://x.example" for n in range(3)}}
    client.hset(keys.run_notices(RunId("r")), mapping={**record, "tries:1": "many"})
    assert [notice.number for notice in notices.of(RunId("r"))] == [0, 2]
    client.hset(keys.run_notices(RunId("r")), mapping={"message": NEWER})
    assert notices.take(RunId("r"), 2, "me", lease=10) is None
    client.hset(keys.run_notices(RunId("r")), "count", "some")
    assert notices.of(RunId("r")) == []
    assert len(here.registry.odd.found()) == 6


@pytest.mark.parametrize("record", [NEWER, codec.pack_value([1]), codec.pack_value(["x", "", "", "never"]), b""])
def test_a_reason_of_many_that_cannot_be_read_hides_itself_only(runs, here, client, command, record):
    here.pause_all("firmware")
    client.hset(keys.holding(), "drain:odd", record)
    assert [each.reason for each in here.holding()] == ["all:firmware"]
    assert command("status")[0] == 0


@pytest.mark.parametrize("record", [b"\xff", b"soon", b"1 later me", b"1.7e+12 1e+17 me"])
def test_the_end_of_a_hold_that_cannot_be_read_keeps_no_other_hold(runs, here, client, fleet, record):
    here.pause(f"{RUNS[0]}.a", seconds=0.001)
    client.hset(keys.terms(), f"{ODD} user", record)
    until = datetime.now(UTC) + timedelta(seconds=10)
    while not (ended := here.registry.verbs.expire(here.registry.clock.now())):
        assert datetime.now(UTC) < until
    assert ended == [(f"{RUNS[0]}.a", "user")]
    assert client.hexists(keys.terms(), f"{ODD} user")


@pytest.mark.parametrize("row", ["odd", "resize x", b"\xff x y"])
def test_a_reservation_that_cannot_be_read_keeps_no_other_one(here, client, row):
    here.registry.nodes.reserve(parse_volume("alpha:/srv/a.img"), "resize", ms=0)
    client.zadd(keys.reserved(), {row: 1})
    assert here.registry.nodes.expire(here.registry.hosts.now() + 1) == ("alpha:/srv/a.img",)
    assert client.zrange(keys.reserved(), 0, -1) == [row if isinstance(row, bytes) else row.encode()]


@pytest.mark.parametrize("speed", ["1e+17", "fast", b"\xff"])
def test_a_host_whose_limit_cannot_be_read_is_shown_without_one(runs, client, command, speed):
    client.hset(keys.hosts(), "speed:alpha", speed)
    code, out, err = command("hosts", "--json")
    assert (code, [(host["name"], host["speed"]) for host in json.loads(out)]) == (0, [("alpha", 0)])
    assert named(err, "limit of host alpha")
    assert command("status")[0] == 0


def test_each_odd_record_is_logged_once_however_often_it_is_met(runs, here, client, caplog):
    caplog.set_level(logging.WARNING)
    client.hset(keys.job(ALPHA, ODD), "spec", NEWER)
    client.hset(keys.run(RUNS[2]), "fields", NEWER)
    for _ in range(3):
        assert len(list(here.registry.views.jobs(here.registry.views.all()))) == 8
        assert len(here.runs()) == 2
    assert len(caplog.messages) == 2


def test_an_odd_record_is_an_error_with_one_line(runs, here, client):
    client.hset(keys.job(ALPHA, ODD), "error", b"\xff\n\xfe")
    with pytest.raises(errors.Refused) as refused:
        here.get(ODD)
    assert "\n" not in str(refused.value)
