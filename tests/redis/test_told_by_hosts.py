"""What a host's user writes to its own keys is moved to the shared ones only if a worker of that host writes such."""

from __future__ import annotations

import threading

import pytest
from puppets import ALPHA, BETA, RUN, Fleet, Silent, spec

from blockjobs.ask.checkup import Checkup
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.daemons.merger import Merger
from blockjobs.model.barriers import Decide, Step
from blockjobs.model.ids import Host
from blockjobs.process.clock import Every
from blockjobs.registry import keys
from blockjobs.registry.eventkinds import BY_WORKERS, NEEDS
from blockjobs.registry.transactions import DUE_PAGE

MINE, THEIRS = spec("a"), spec("b", host=BETA)
HOSTS = (ALPHA, BETA)
CHANGE = {"event": "JOB_STATUS_CHANGE", "id": "a", "from": "running", "status": "waiting"}
BY_OTHERS = sorted({*NEEDS, "RUN_LAUNCHED", "TRANSACTION_CUT", "HOST_UP", "ANYTHING"} - BY_WORKERS)


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    fleet.submit(MINE, THEIRS)
    fleet.walk(RUN, Step.RUN)
    assert fleet.history()
    return fleet


def tell(fleet: Fleet, event: dict[str, str], host: Host = ALPHA, **options: str) -> None:
    fleet.client.xadd(keys.host_events(host), event, **options)


def told_after(fleet: Fleet, seq: str):
    fleet.registry.events.merge(HOSTS)
    return fleet.registry.events.after(seq)


# --- forging -----------------------------------------------------------------------------------------------

FORGED = {
    **{f"kind {kind}": {"event": kind, "id": "a", **dict.fromkeys(NEEDS.get(kind, "").replace("#", "").split(), "1")}
       for kind in BY_OTHERS},
    "a job of another host": CHANGE | {"id": "b"},
    "a job that nobody has": CHANGE | {"id": "nobody"},
    "no job": {name: value for name, value in CHANGE.items() if name != "id"},
    "no kind": {name: value for name, value in CHANGE.items() if name != "event"},
    "a field that is missing": {name: value for name, value in CHANGE.items() if name != "from"},
    "a number that is none": {"event": "BLOCK_JOB_READY", "id": "a", "type": "mirror", "len": "x", "offset": "1",
                              "speed": "1"},
    "another host's end": {"event": "HOST_LEFT", "id": BETA, "host": BETA},
    "more than an event holds": CHANGE | {"text": "x" * 70_000},
}  # fmt: skip


@pytest.mark.parametrize("event", FORGED.values(), ids=FORGED)
def test_an_event_that_no_worker_of_the_host_writes_is_refused_and_counted(running, event):
    seq = running.registry.events.last()
    tell(running, event)
    tell(running, CHANGE)
    assert [each.name for each in told_after(running, seq)] == ["JOB_STATUS_CHANGE"], "the next one is not lost"
    assert running.registry.hosts.list_refused([ALPHA, BETA])[ALPHA][0] == 1
    assert BETA not in running.registry.hosts.list_refused([ALPHA, BETA])


def test_doctor_names_the_host_whose_user_forged_events(running):
    running.registry.hosts.judge(ALPHA, "down")
    tell(running, FORGED["another host's end"])
    running.registry.events.merge([ALPHA])
    (finding,) = [each for each in Checkup(running.registry, Silent())() if "refused" in each.text]
    assert (finding.level, finding.subject) == ("error", f"host {ALPHA}")
    assert finding.text.startswith("1 events that no worker of this host writes were refused, the last one at 20")


def test_the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry(running):
    seq = running.registry.events.last()
    tell(running, CHANGE | {"host": BETA, "txn": "other", "run": "other", "at": "1"})
    (event,) = told_after(running, seq)
    assert (event.host, event.txn, event.run, event.fields) == (
        ALPHA,
        RUN,
        RUN,
        {"from": "running", "status": "waiting"},
    )
    assert event.at > 1e9


# --- poisoning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [keys.host_events, keys.host_due, keys.host_due_wake])
def test_a_key_of_another_kind_stops_neither_the_finalizer_nor_the_events_of_others(running, key):
    seq = running.registry.events.last()
    running.client.set(key(ALPHA), "x")
    running.finish(running.claim(THEIRS))
    merger = Merger(running.registry, _each_look=Every(0))
    for host in HOSTS:
        running.registry.hosts.judge(host, "up")
    merger.once()
    running.registry.transactions.wait(0.01, HOSTS)
    assert [due.txn for due in running.registry.transactions.due(HOSTS)] == [RUN]
    assert "ATTEMPT_CLAIMED" in [event.name for event in running.registry.events.after(seq)]
    assert running.client.type(keys.host_due(ALPHA)) != b"string"
    assert running.client.type(keys.host_events(ALPHA)) != b"string"
    assert bool(running.registry.hosts.list_refused([ALPHA])) is (key is keys.host_events)
    running.registry.verbs.pause(MINE.id)
    running.registry.verbs.resume(MINE.id)
    running.client.delete(keys.host_events(ALPHA), keys.host_due(ALPHA), keys.host_due_wake(ALPHA))
    running.finish(running.claim(MINE))
    running.walk(RUN)


def test_what_a_host_told_stands_before_the_judgement_of_it_which_is_told_once(running):
    seq = running.registry.events.last()
    running.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {})
    for _ in range(2):
        running.registry.hosts.judge(ALPHA, "up")
    assert [each.name for each in running.registry.events.after(seq)] == ["HOST_REGISTERED", "HOST_UP"]


def test_what_a_host_told_as_it_prepared_stands_before_the_decision(running):
    running.copy(MINE, THEIRS)
    running.sick = {(Step.PREPARE, "a"): (0, "no owner")}
    running.walk(RUN, Decide)
    running.advance(RUN)
    names = [each.name for each in running.registry.events.all()]
    assert names.index("JOB_WARNING") < names.index("TRANSACTION_DECIDED")


def test_what_is_no_list_where_a_host_wakes_the_finalizer_is_removed_and_those_of_others_stay(running):
    running.client.delete(keys.due_wake())
    running.client.set(keys.host_due_wake(ALPHA), "x")
    running.client.lpush(keys.host_due_wake(BETA), "1")
    running.registry.transactions.wait(0.01, HOSTS)
    assert [running.client.type(keys.host_due_wake(host)) for host in HOSTS] == [b"none", b"list"]


def test_what_is_no_stream_keeps_the_merger_from_no_other_host(running):
    seq = running.registry.events.last()
    for host in HOSTS:
        running.registry.hosts.judge(host, "up")
    running.client.set(keys.host_events(ALPHA), "x")
    tell(running, CHANGE | {"id": "b"}, BETA)
    Merger(running.registry, _each_look=Every(0)).once()
    assert running.registry.events.after(seq)[-1].id == "b"


def test_an_entry_at_the_end_of_all_numbers_keeps_nobody_from_telling_more(running):
    tell(running, CHANGE, id=f"{2**64 - 1}-{2**64 - 1}")
    running.registry.events.merge(HOSTS)
    running.finish(running.claim(MINE))
    running.finish(running.claim(THEIRS))
    running.walk(RUN)
    assert running.registry.views.run(RUN).open == 0


def test_a_host_that_never_stops_telling_keeps_no_other_one_from_being_heard(running):
    for _ in range(500):
        tell(running, CHANGE)
    running.finish(running.claim(THEIRS))
    seq = running.registry.events.last()
    assert {event.host for event in told_after(running, seq)} == {ALPHA, BETA}
    assert running.client.xlen(keys.host_events(ALPHA)) == 300


def test_what_nobody_moves_is_bounded(running, client):
    flood = "for _ = 1, 100200 do redis.call('XADD', KEYS[1], '*', 'event', 'x') end"
    client.eval(flood, 1, keys.host_events(ALPHA))
    running.claim(MINE)
    assert client.xlen(keys.host_events(ALPHA)) < 100_200, "a node of entries more at most"


# --- order -------------------------------------------------------------------------------------------------


def test_what_a_host_told_stands_before_whatever_followed_from_it_though_nobody_moved_it_in_time(running):
    running.finish(running.claim(MINE))
    running.finish(running.claim(THEIRS))
    while not running.view(RUN).decision:
        running.advance(RUN)
    names = [(event.name, event.fields.get("status", event.id)) for event in running.registry.events.all()]
    decided = names.index(("TRANSACTION_DECIDED", RUN))
    assert [at for at, name in enumerate(names) if name == ("JOB_STATUS_CHANGE", "waiting")] < [decided]
    running.walk(RUN)
    running.replayed()  # no gap in any job's story


def test_the_events_of_a_job_that_moves_to_another_host_are_not_lost(running):
    claim = running.claim(MINE)
    reason = f"move:{BETA}"
    running.registry.verbs.pause(MINE.id, reason=reason)
    running.host(ALPHA).attempts.release(MINE.id, RUN, claim.token, claim.attempt, why="parked")
    view = running.registry.views.job(MINE.id)
    assert running.registry.moves.move(view, BETA, reads="r-a", writes="w-a")
    names = [event.name for event in running.registry.events.all() if event.id == MINE.id]
    assert names.index("ATTEMPT_RELEASED") < names.index("JOB_MOVED")


def test_an_event_that_is_moved_late_bears_the_time_when_it_was_told(running, client):
    seconds, _ = client.time()
    tell(running, CHANGE, id=f"{(seconds - 3600) * 1000}-0")
    seq = running.registry.events.last()
    (event,) = told_after(running, seq)
    assert event.at == seconds - 3600


def test_the_merger_moves_what_is_told_while_nothing_follows(running, server):
    running.registry.hosts.judge(ALPHA, "up")
    merger = Merger(running.registry)
    turns = threading.Thread(target=lambda: [merger.once() for _ in range(2)])
    turns.start()
    seq = running.registry.events.last()
    tell(running, CHANGE)
    assert [event.name for event in running.registry.events.after(seq, block_ms=5000)] == ["JOB_STATUS_CHANGE"]
    merger.stop.set()
    turns.join()


# --- what is due, and who is new ----------------------------------------------------------------------------


def test_a_host_makes_only_its_own_transactions_due(running):
    other = spec("x", host=BETA, run="other-20261122T000000Z")
    txn = running.submit(other)
    running.close(RUN)
    running.close(txn)
    for name in (RUN, txn, "nothing"):
        running.client.zadd(keys.host_due(ALPHA), {name: 1})
    assert [due.txn for due in running.due()] == [RUN]


def test_a_host_that_asks_for_much_keeps_no_other_one_waiting(running):
    running.close(RUN)
    running.client.zadd(keys.host_due(ALPHA), {f"n{n}": 0 for n in range(20_000)})
    running.finish(running.claim(THEIRS))
    assert [due.txn for due in running.due()] == [RUN]
    assert running.client.zcard(keys.host_due(ALPHA)) == 20_000 - DUE_PAGE


@pytest.mark.parametrize("name", [b"nobody", b"\xff\xfe", b"", b"x" * 100_000])
def test_a_name_under_which_no_host_beats_is_no_host(running, client, name):
    client.sadd(keys.arrivals(), name)
    coordinator = Coordinator(running.registry, Silent(), _each_look=Every(0))
    running.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {})
    coordinator.once()
    assert running.registry.hosts.known().keys() == {ALPHA}
    assert not client.exists(keys.arrivals())


def test_a_host_that_registered_while_a_coordinator_died_is_found_by_the_next_one(running, client):
    running.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {})
    assert running.registry.hosts.list_arrivals() == [ALPHA]  # and it dies
    Coordinator(running.registry, Silent(), _each_look=Every(0)).once()
    assert running.registry.hosts.known()[ALPHA][0] == "up"


def test_every_kind_that_workers_write_is_known_by_its_needs():
    assert BY_WORKERS - NEEDS.keys() == {
        "HOST_REGISTERED", "HOST_LEFT", "JOB_STALLED", "MIRROR_CONVERGING", "MIRROR_NOT_CONVERGING",
    }  # fmt: skip
