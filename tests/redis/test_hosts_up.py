"""A host is up when both of its workers beat; nobody rings one that is not, and one message lies there for one step."""

from __future__ import annotations

import pytest
from beating import ONE, Observed, Workers
from puppets import ALPHA, BETA, RUN, spec

from blockjobs.ask.doorbell import Doorbell
from blockjobs.daemons import finalizer
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.model.barriers import Step
from blockjobs.model.errors import HostDown
from blockjobs.model.liveness import Word, WorkerName
from blockjobs.process.clock import Every
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.heartbeats import HostTaken
from blockjobs.registry.hosts import DAEMON_SILENCE, check_host

STEPS, COPY = WorkerName.STEPS, WorkerName.COPY
OTHER = "another machine"


@pytest.fixture
def alpha(fleet):
    return Workers(fleet, ALPHA)


@pytest.fixture
def observed(fleet):
    return Observed(fleet, ALPHA)


def test_a_host_is_up_when_both_beat_and_each_that_does_not_is_named(observed, alpha):
    assert observed.look(alpha.both) == ("up", {})
    assert observed.look(alpha.steps) == ("down", {COPY: Word.DOWN})
    assert observed.look(alpha.both) == ("up", {})
    assert observed.look(alpha.copy) == ("down", {STEPS: Word.DOWN})
    assert observed.look() == ("down", {STEPS: Word.DOWN, COPY: Word.DOWN})
    assert observed.look(alpha.both) == ("up", {})
    assert observed.look(alpha.steps, lambda: alpha.copy("leave")) == ("down", {COPY: Word.LEFT})
    assert observed.look(lambda: alpha.steps("leave")) == ("left", {STEPS: Word.LEFT, COPY: Word.LEFT})
    assert observed.look(lambda: alpha.both("register")) == ("up", {})


def test_a_copy_worker_that_never_beats_is_missed(observed, alpha):
    assert observed.look(alpha.steps) is None, "it may be about to begin"
    assert observed.look(alpha.steps) == ("down", {COPY: Word.DOWN})


def test_since_when_each_is_missing_stays_while_the_other_comes_and_goes(observed, alpha, fleet):
    def since():
        return {each.worker: each.since for each in fleet.registry.hosts.known()[ALPHA].absent}

    observed.look(alpha.both)
    observed.look(alpha.steps)
    first = since()[COPY]
    observed.look()
    observed.look(alpha.steps)
    assert since() == {COPY: first}
    assert first > 0


def test_a_steps_worker_of_an_earlier_version_speaks_for_its_copy_worker(observed, fleet):
    """It knows of no copy worker's beat."""

    def beat(word="beat"):
        fleet.registry.hosts.beat(ALPHA, ONE, 2, {}, word=word)

    assert [observed.look(beat)[0], observed.look()[0], observed.look(beat)[0]] == ["up", "down", "up"]
    assert observed.look(lambda: beat("leave")) == ("left", {STEPS: Word.LEFT, COPY: Word.LEFT})


def test_a_coordinator_that_begins_takes_no_record_of_the_dead_for_a_sign_of_life(fleet, alpha):
    Observed(fleet, ALPHA).look(alpha.both)
    fleet.registry.hosts.judge(ALPHA, "down")
    later = Observed(fleet, ALPHA)
    later.call.silence.limit = 60.0
    assert [later.look()[0], later.look(alpha.steps)[0], later.look(alpha.copy)[0]] == ["down", "down", "up"]


# --- one name, one machine ------------------------------------------------------------------------------------


def taken(call, by):
    """That a call is refused for the sake of this worker; the counter at which that one stands."""
    with pytest.raises(HostTaken) as refused:
        call()
    assert refused.value.holder.worker is by
    return refused.value.holder.beat


@pytest.mark.parametrize(
    ("second", "names"),
    [
        (lambda other: other.steps("register"), STEPS),
        (lambda other: other.copy("register"), COPY),
        (lambda other: other.steps(), STEPS),
        (lambda other: other.copy(), COPY),
    ],
    ids=["steps", "copies", "steps-that-go-on", "copies-that-go-on"],
)
@pytest.mark.parametrize("machine", [ONE, OTHER], ids=["same-machine", "another-machine"])
def test_a_second_worker_of_a_name_is_refused_and_disturbs_nobody(fleet, alpha, second, names, machine):
    alpha.both("register")
    before = fleet.client.hgetall(keys.card(ALPHA))
    taken(lambda: second(Workers(fleet, ALPHA, machine, start=2)), names)
    assert fleet.client.hgetall(keys.card(ALPHA)) == before
    alpha.both()


@pytest.mark.parametrize(("first", "second", "by"), [("steps", "copy", STEPS), ("copy", "steps", COPY)])
def test_the_other_worker_of_a_name_is_refused_on_another_machine(fleet, alpha, first, second, by):
    getattr(alpha, first)("register")
    taken(lambda: getattr(Workers(fleet, ALPHA, OTHER), second)("register"), by)
    getattr(alpha, second)("register")


def test_a_name_moves_to_another_machine_when_both_workers_have_left_it(fleet, alpha):
    alpha.both("register")
    alpha.both("leave")
    Workers(fleet, ALPHA, OTHER).both("register")
    taken(alpha.steps, STEPS)


def test_a_name_moves_when_both_counters_stand_still_and_neither_worker_of_the_old_machine_goes_on(fleet, alpha):
    alpha.both("register")
    other = Workers(fleet, ALPHA, OTHER)
    beat = taken(lambda: other.steps("register"), STEPS)
    taken(lambda: other.steps("register", seen={STEPS: beat}), COPY)
    other.steps("register", seen={STEPS: beat, COPY: "1"})
    other.steps()
    for late in (alpha.copy, alpha.steps):
        taken(late, STEPS)
    other.copy("register")
    taken(alpha.copy, COPY)
    other.both()


def test_a_counter_that_moved_meanwhile_is_nobodys_to_take(fleet, alpha):
    alpha.both("register")
    alpha.both()
    for worker in ("steps", "copy"):
        other = Workers(fleet, ALPHA, OTHER)
        taken(lambda: getattr(other, worker)("register", seen={STEPS: "1", COPY: "1"}), WorkerName(worker))  # noqa: B023


# --- messages -------------------------------------------------------------------------------------------------


def test_one_message_lies_there_for_one_step_of_one_transaction_until_it_is_taken(fleet):
    bells = fleet.registry.bells
    sent = [bells.note(host, step, txn) for _ in range(3) for host in (ALPHA, BETA)
            for step in ("open", "cut") for txn in ("t", "u")]  # fmt: skip
    assert sent == [True] * 8 + [False] * 16
    fleet.host(ALPHA).bells.take(ALPHA, "open", "t")
    assert [bells.note(ALPHA, "open", "t"), bells.note(ALPHA, "open", "u"), bells.note(BETA, "open", "t")] == [
        True, False, False,
    ]  # fmt: skip


def test_a_message_that_was_lost_is_sent_again_and_one_that_lies_in_the_queue_is_not(fleet):
    bells = fleet.registry.bells
    assert bells.note(ALPHA, "open", "t", lost_after_ms=0)
    fleet.client.lpush(keys.queue(ALPHA, STEPS), "a message")
    assert not bells.note(ALPHA, "open", "t", lost_after_ms=0)
    fleet.client.delete(keys.queue(ALPHA, STEPS))
    assert not bells.note(ALPHA, "open", "t", lost_after_ms=60_000), "it may be on its way"
    assert bells.note(ALPHA, "open", "t", lost_after_ms=0)


@pytest.mark.parametrize("hosts", [1, 8])
def test_a_message_costs_the_same_however_many_lie_there(fleet, hosts):
    for number in range(50 * hosts):
        fleet.registry.bells.note(ALPHA, "open", f"t{number}")

    def commands(call):
        before = fleet.client.info("stats")["total_commands_processed"]
        call()
        return fleet.client.info("stats")["total_commands_processed"] - before - 1

    assert commands(lambda: fleet.registry.bells.note(ALPHA, "open", "new")) <= 6
    assert commands(lambda: fleet.host(ALPHA).bells.take(ALPHA, "open", "new")) == 1


class Control:
    """Both daemons, whose turns a test counts, with the real doorbell."""

    def __init__(self, fleet, url, *, limit=60.0):
        self.fleet = fleet
        bell = Doorbell(url)
        self.coordinator = Coordinator(fleet.registry, bell, _each_look=Every(0), _each_lease_look=Every(0))
        self.coordinator.rollcall.silence.limit = limit
        self.finalizer = finalizer.Finalizer(fleet.registry, bell, _each_look=Every(0))

    def turn(self, times=1):
        for _ in range(times):
            self.coordinator._look()
            self.coordinator._dispatch(set(self.coordinator._slots))
            self.fleet.registry.transactions.remind()
            self.finalizer.once()
            while self.finalizer._under_way:
                self.finalizer._collect()

    def messages(self, host, worker):
        return self.fleet.client.llen(keys.queue(host, worker))


@pytest.fixture
def control(fleet, server, alpha):
    made = Control(fleet, server.url)
    made.coordinator._begin()
    made.coordinator._slots |= {ALPHA: 0, BETA: 0}
    Workers(fleet, BETA).both("register")
    alpha.both("register")
    return made


@pytest.fixture
def impatient(control, monkeypatch):
    """The same, with a finalizer that rings again at every turn."""
    monkeypatch.setattr(finalizer, "RING_AGAIN", 0.0)
    return control


AWAY = {
    "both": lambda hosts: hosts.judge(ALPHA, "down"),
    "left": lambda hosts: hosts.judge(ALPHA, "left"),
    "steps": lambda hosts: hosts.judge(ALPHA, "down", {STEPS: Word.DOWN, COPY: Word.UP}),
}


@pytest.mark.parametrize("step", [Step.OPEN, Step.PREPARE, Step.SETTLE])
@pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
def test_a_step_is_sent_to_no_host_that_is_down_and_at_once_to_one_that_is_back(fleet, impatient, alpha, step, away):
    control = impatient
    jobs = spec("a"), spec("b", host=BETA)
    fleet.submit(*jobs)
    if step is not Step.OPEN:
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*jobs)
    fleet.walk(RUN, step)
    away(fleet.registry.hosts)
    control.turn(50)
    assert control.messages(ALPHA, STEPS) == 0
    assert control.messages(BETA, STEPS) == 1
    alpha.both()
    control.turn(2)
    assert control.messages(ALPHA, STEPS) == 1


def test_what_a_host_was_sent_before_it_went_down_is_taken_back(fleet, control, alpha):
    fleet.submit(*(spec(f"j{n}") for n in range(6)))
    control.turn()
    assert control.messages(ALPHA, STEPS) == 1
    fleet.walk(RUN, Step.RUN)
    control.turn()
    assert control.messages(ALPHA, COPY) == 4
    fleet.registry.hosts.judge(ALPHA, "down")
    control.turn()
    control.coordinator._recover()
    control.turn(20)
    assert [control.messages(ALPHA, worker) for worker in (STEPS, COPY)] == [0, 0]
    assert not fleet.client.exists(keys.rung(ALPHA), keys.bells(ALPHA))
    alpha.both()
    control.turn()
    assert control.messages(ALPHA, COPY) == 4


def test_a_copy_worker_alone_that_is_missing_gets_no_message_and_the_steps_worker_does(fleet, control):
    fleet.submit(spec("a"), spec("b", host=BETA))
    fleet.registry.hosts.judge(ALPHA, "down", {STEPS: Word.UP, COPY: Word.DOWN})
    control.turn()
    assert control.messages(ALPHA, STEPS) == 1
    fleet.walk(RUN, Step.RUN)
    control.turn(3)
    assert (control.messages(ALPHA, COPY), control.messages(BETA, COPY)) == (0, 1)


def test_days_of_a_host_that_is_down_add_nothing(fleet, impatient, monkeypatch):
    control = impatient
    monkeypatch.setattr(finalizer, "LONGEST_REST", 0.0)
    fleet.registry.hosts.judge(ALPHA, "down")
    fleet.submit(*(spec(f"j{n}") for n in range(8)))
    control.turn(5)
    before = set(fleet.client.keys()), fleet.client.xlen(keys.events())
    control.turn(100)
    assert (set(fleet.client.keys()), fleet.client.xlen(keys.events())) == before
    assert not fleet.client.keys(f"{keys.CELERY_PREFIX}*")


def test_what_hangs_in_a_queue_is_no_more_than_one_message_for_each_step(fleet, impatient, monkeypatch):
    """A host that beats and takes nothing."""
    control = impatient
    monkeypatch.setattr("blockjobs.daemons.coordinator.DOORBELL_LOST", 0)
    fleet.submit(*(spec(f"j{n}") for n in range(8)))
    control.turn(30)
    assert control.messages(ALPHA, STEPS) == 1
    fleet.walk(RUN, Step.RUN)
    control.turn(30)
    assert control.messages(ALPHA, COPY) == 4, "slots and two"


# --- places in stores -----------------------------------------------------------------------------------------


@pytest.fixture
def nas(fleet, control):
    """A store of one place, a job of each host that wants it; alpha's came first."""
    fleet.registry.limits.set_store("nas", path="/mnt", jobs=1)
    jobs = spec("a", store="nas"), spec("b", host=BETA, store="nas")
    fleet.submit(*jobs)
    fleet.walk(RUN, Step.RUN)
    return jobs


def places(fleet):
    return [place.decode() for place in fleet.client.zrange(keys.places("nas"), 0, -1)]


def share(control):
    control.coordinator.shares._due = True
    control.coordinator.shares._not_before = 0.0
    control.coordinator._dispatch(control.coordinator.shares.look() | set(control.coordinator._slots))


def test_a_host_that_was_rung_and_went_down_holds_no_place(fleet, control, nas):
    control.turn()
    (first,) = places(fleet)
    host = ALPHA if first.startswith(ALPHA) else BETA
    fleet.registry.hosts.judge(host, "down")
    control.coordinator._recover()
    control.turn()
    control.coordinator._recover()
    share(control)
    share(control)
    (second,) = places(fleet)
    assert second != first


def test_an_attempt_that_stands_still_on_a_host_that_is_down_holds_no_place_until_it_goes_on(fleet, control, nas):
    fleet.registry.hosts.judge(BETA, "down")
    control.turn()
    claim = fleet.claim(nas[0])
    assert places(fleet) == ["alpha a"]
    control.coordinator._leases.limit = 0.0
    fleet.registry.hosts.judge(ALPHA, "down")
    control.turn()
    control.turn()
    assert places(fleet) == []
    Workers(fleet, BETA).both()
    control.turn()
    share(control)
    assert places(fleet) == ["beta b"]
    fleet.host(ALPHA).attempts.checkpoint(claim, Progress(1, 2))
    control.turn()
    assert places(fleet) == ["beta b", "alpha a"], "it runs: its place is taken, though it is one too many"


def test_an_attempt_that_stands_still_on_a_host_that_is_up_keeps_its_place_until_it_is_ended(fleet, control, nas):
    fleet.registry.hosts.judge(BETA, "down")
    control.turn()
    fleet.claim(nas[0])
    control.coordinator._leases.limit = 0.0
    control.turn(3)
    assert places(fleet) == ["alpha a"]
    assert fleet.client.hlen(keys.fences(ALPHA)) == 1


def test_the_place_of_an_attempt_is_given_back_for_no_other_one(fleet, control, nas):
    fleet.registry.hosts.judge(BETA, "down")
    control.turn()
    fleet.claim(nas[0])
    fleet.registry.limits.vacate(ALPHA, nas[0].id, "the attempt before", "nas", away=True)
    assert places(fleet) == ["alpha a"]


def test_a_worker_that_goes_on_beating_tells_nothing_new(fleet, alpha):
    alpha.both("register")
    fleet.registry.hosts.drop_arrivals([ALPHA])
    told = fleet.client.xlen(keys.host_events(ALPHA))
    alpha.both()
    assert (fleet.client.xlen(keys.host_events(ALPHA)), fleet.registry.hosts.list_arrivals()) == (told, [])


@pytest.mark.parametrize("field", ["beat", "slots", "copy-beat"])
def test_a_card_that_cannot_be_read_hides_no_other_host(fleet, alpha, field):
    alpha.both()
    Workers(fleet, BETA).both()
    before = fleet.registry.hosts.cards([ALPHA, BETA])
    fleet.client.hset(keys.card(ALPHA), field, "many")
    cards = fleet.registry.hosts.cards([ALPHA, BETA])
    assert (cards[ALPHA].beat, cards[ALPHA].slots) == (0, 0), "it has never beaten"
    assert cards[BETA] == before[BETA]


@pytest.mark.parametrize(("state", "lacks"), [("up", False), ("down", True), ("left", True)])
def test_a_host_that_an_earlier_version_judged_lacks_both_workers_unless_it_is_up(fleet, state, lacks):
    fleet.client.hset(keys.hosts(), f"state:{ALPHA}", state)
    judged = fleet.registry.hosts.known()[ALPHA]
    assert [judged.lacks(worker) for worker in WorkerName] == [lacks, lacks]


def test_a_daemon_that_does_not_go_round_counts_as_dead(fleet):
    hosts = fleet.registry.hosts
    hosts.daemon_beat("finalizer")
    assert hosts.daemons() == {"coordinator": False, "finalizer": True}
    fleet.client.hincrby(keys.daemons(), "finalizer", -DAEMON_SILENCE)
    assert hosts.daemons() == {"coordinator": False, "finalizer": False}


def test_a_registry_is_the_same_one_for_everybody_who_asks(fleet):
    first = fleet.registry.hosts.incarnate()
    assert fleet.registry.hosts.incarnate() == first


def test_a_host_that_is_down_is_refused_by_its_record(fleet):
    fleet.registry.hosts.judge(ALPHA, "down", {STEPS: Word.DOWN, COPY: Word.UP})
    with pytest.raises(HostDown, match="its steps worker does not beat"):
        check_host(ALPHA, fleet.registry.hosts.known()[ALPHA])


def test_behind_a_restart_of_redis_nobody_was_silent_before(fleet, control, alpha):
    """Neither a worker nor an attempt, which may have been cut off; the control is a server that is the same."""
    fleet.submit(spec("a"))
    fleet.walk(RUN, Step.RUN)
    fleet.claim(spec("a"))
    control.turn()
    control.coordinator._leases.limit = control.coordinator.rollcall.silence.limit = 0.0
    for fenced, server in ((0, "the one before"), (0, "another one"), (1, control.coordinator._redis_run)):
        control.coordinator._redis_run = server
        alpha.both()
        Workers(fleet, BETA).both()
        control.turn()
        assert control.coordinator.rollcall.up == {ALPHA, BETA}
        assert fleet.client.hlen(keys.fences(ALPHA)) == fenced
    control.coordinator._redis_run = "the one before"
    control.turn()
    assert control.coordinator.rollcall.up == {ALPHA, BETA}


def test_behind_a_restart_of_redis_events_are_read_from_where_its_copy_was(fleet, control):
    """The copy may be older, and its clock behind: what comes now would have lower numbers than what was read."""
    control.turn()
    control.coordinator._seq = beyond = "9999999999999-0"
    control.turn()
    assert control.coordinator._seq == beyond, "the control: the server is the same"
    fleet.registry.hosts.daemon_beat("coordinator", read := fleet.registry.events.last())
    control.coordinator._redis_run = "the one before"
    control.turn()
    assert control.coordinator._seq == read


def test_what_is_unfinished_is_looked_at_again_without_anybody_asking(fleet, control):
    fleet.submit(spec("a"))
    fleet.close(RUN)
    assert fleet.due() == []
    control.coordinator.once()
    assert [due.txn for due in fleet.due()] == [RUN]
