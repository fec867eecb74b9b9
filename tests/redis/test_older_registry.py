"""Redis comes back older, or is merely started anew: nothing is decided that may have been decided before."""

from __future__ import annotations

import json

import pytest
from puppets import ALPHA, BETA, RUN, Fleet, spec

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.daemons.remembered import Remembered, find_place
from blockjobs.model.barriers import Decision, Step
from blockjobs.model.ids import Host
from blockjobs.process.clock import Every
from blockjobs.registry import keys
from blockjobs.registry.doors import HostRegistry
from blockjobs.registry.format import FORMAT

pytestmark = pytest.mark.durable

GAMMA = Host("gamma")
A, B = spec("a"), spec("b", host=BETA)
OTHER = spec("o", host=GAMMA, run="other-20261122T000000Z")


class Bell:
    """A doorbell that hosts hear at once."""

    def __init__(self, fleet):
        self.fleet, self.deaf = fleet, frozenset()

    def step(self, host, step, txn):
        if host not in self.deaf:
            self.fleet.answer(host, txn, step)


def beat(fleet, host, decision=0):
    """A heartbeat of a host, with the highest decision that it has carried out."""
    facts = {"decision": decision, "incarnation": fleet.registry.hosts.incarnate()}
    HostRegistry(fleet.client, host).hosts.beat(host, f"m-{host}", 2, facts)


def beat_both(fleet):
    """A heartbeat of both hosts of a transaction."""
    for host in (ALPHA, BETA):
        beat(fleet, host)


@pytest.fixture
def fleet(client):
    fleet = Fleet(client)
    for host in (ALPHA, BETA, GAMMA):
        beat(fleet, host)
        fleet.registry.hosts.judge(host, "up")
    return fleet


def finalizer(fleet, place=None):
    """One that has looked once."""
    mine = Finalizer(fleet.registry, Bell(fleet), remembered=Remembered(place), _each_look=Every(0))
    mine.once()
    return mine


def prepared(fleet, mine):
    """A transaction of alpha and beta that lacks nothing but its decision."""
    fleet.submit(A, B)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(A, B)
    fleet.advance(RUN)
    for host in (ALPHA, BETA):
        fleet.answer(host, RUN, Step.PREPARE)


class Copy:
    """A copy of Redis' data, and the way back to it: with another run id, as every start has one."""

    def __init__(self, fleet):
        self._client = fleet.client
        self._data = {key: fleet.client.dump(key) for key in fleet.client.scan_iter()}

    def bring_back(self, fleet):
        self._client.flushall()
        for key, value in self._data.items():
            self._client.restore(key, 0, value)
        start_anew(fleet)


def start_anew(fleet):
    """As every start of Redis has a run id of its own: what was noted is of another one."""
    fleet.client.hset(keys.restart(), "run", "the start before")


def turns(mine, number=4):
    for _ in range(number):
        mine.once()


def decided(fleet, txn=RUN):
    return fleet.view(txn).decision


def doubt(fleet, txn=RUN):
    return fleet.registry.views.transaction(txn).doubt


# --- started anew ----------------------------------------------------------------------------------------------


def test_after_a_start_of_redis_a_transaction_is_decided_when_each_of_its_hosts_was_heard(fleet):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    start_anew(fleet)
    mine = finalizer(fleet)
    turns(mine)
    assert decided(fleet) is None
    assert doubt(fleet).startswith("Redis was started anew, and hosts alpha, beta were not heard since")
    beat(fleet, ALPHA)
    turns(mine)
    assert decided(fleet) is None
    assert "host beta was not heard" in doubt(fleet)
    beat(fleet, BETA)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT
    assert doubt(fleet) == ""


def test_a_copy_that_is_older_than_the_first_finalizer_counts_as_one_that_was_started_anew(fleet):
    """It lacks the note of any start, and has a transaction that may have been decided since."""
    prepared(fleet, finalizer(fleet))
    fleet.client.delete(keys.restart())
    mine = finalizer(fleet)
    turns(mine)
    assert (decided(fleet), doubt(fleet)[:24]) == (None, "Redis was started anew, ")
    beat_both(fleet)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT


def test_a_registry_in_which_nothing_is_to_be_decided_may_be_a_new_one(fleet):
    """The control: the first start waits for nobody."""
    mine = finalizer(fleet)
    prepared(fleet, mine)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT


def test_a_host_that_is_known_by_its_transaction_alone_has_to_be_heard_as_well(fleet):
    prepared(fleet, finalizer(fleet))
    fleet.client.delete(keys.hosts())
    start_anew(fleet)
    mine = finalizer(fleet)
    turns(mine)
    assert decided(fleet) is None
    beat_both(fleet)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT


def test_a_registry_that_was_emptied_while_all_ran_is_another_one_at_the_next_look(fleet):
    mine = finalizer(fleet)
    before = fleet.client.get(keys.incarnation())
    fleet.client.flushall()
    mine.once()
    assert fleet.client.get(keys.incarnation()) not in (None, before)
    assert int(fleet.client.get(keys.registry_format())) == FORMAT
    assert fleet.client.hget(keys.restart(), "run").decode() == fleet.registry.hosts.run_id()


def test_what_another_finalizer_has_decided_is_reminded_of_no_more(fleet):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    start_anew(fleet)
    mine, other = finalizer(fleet), finalizer(fleet)
    turns(mine)
    assert list(mine._doubts) == [RUN]
    beat_both(fleet)
    fleet.registry.transactions.remind()
    turns(other)
    assert fleet.registry.views.run(RUN).open == 0
    turns(mine)
    assert mine._doubts == {}


def test_a_host_that_stays_away_holds_its_own_transactions_and_no_others(fleet):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    start_anew(fleet)
    mine = finalizer(fleet)
    fleet.submit(OTHER)
    fleet.registry.verbs.cancel("o")
    beat(fleet, GAMMA)
    turns(mine)
    assert decided(fleet, OTHER.transaction) is Decision.ABORT
    assert decided(fleet) is None


def test_a_host_that_is_abandoned_is_not_waited_for(fleet):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    start_anew(fleet)
    mine = finalizer(fleet)
    beat(fleet, BETA)
    fleet.registry.transactions.abandon(ALPHA)
    turns(mine)
    assert decided(fleet) is Decision.ABORT


def test_a_start_between_the_look_and_the_decision_is_noticed_by_the_decision(fleet):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    mine._run_id = "0" * 40  # what it looked at was another start
    mine._each_look = lambda: False
    mine.once()
    assert decided(fleet) is None
    assert list(mine._doubts) == [RUN], "it is looked at again"
    mine._each_look = Every(0)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT


def test_the_next_finalizer_knows_that_hosts_were_not_heard(fleet):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    start_anew(fleet)
    turns(finalizer(fleet))
    turns(finalizer(fleet))
    assert decided(fleet) is None
    assert fleet.client.hget(keys.restart(), "run").decode() == fleet.registry.hosts.run_id()


# --- come back older -------------------------------------------------------------------------------------------


@pytest.fixture
def rolled_back(fleet):
    """It was committed, alpha carried it out, and Redis came back as it was before; then b is cancelled."""
    mine = finalizer(fleet)
    prepared(fleet, mine)
    copy = Copy(fleet)
    mine.doorbell.deaf = frozenset({BETA})
    turns(mine)
    assert decided(fleet) is Decision.COMMIT
    copy.bring_back(fleet)
    fleet.registry.verbs.cancel("b")
    return fleet


def test_the_finalizer_is_not_quicker_than_the_heartbeat_that_tells_it(rolled_back):
    mine = finalizer(rolled_back)
    turns(mine)
    assert decided(rolled_back) is None
    beat(rolled_back, ALPHA, 1)
    beat(rolled_back, BETA)
    turns(mine)
    assert decided(rolled_back) is None
    assert doubt(rolled_back).startswith("host alpha has carried out decision 1, which this registry has lost")


def test_decisions_about_others_make_no_lost_one_look_known(rolled_back):
    """They bear the same numbers."""
    mine = finalizer(rolled_back)
    beat(rolled_back, GAMMA)
    rolled_back.submit(OTHER)
    rolled_back.registry.verbs.cancel("o")
    turns(mine)
    assert decided(rolled_back, OTHER.transaction) is Decision.ABORT
    assert rolled_back.view(OTHER.transaction).number == 1
    beat(rolled_back, ALPHA, 1)
    beat(rolled_back, BETA)
    turns(mine)
    assert decided(rolled_back) is None


@pytest.mark.parametrize("enough", [True, False])
def test_it_goes_on_when_the_loss_is_accepted(rolled_back, command, enough):
    mine = finalizer(rolled_back)
    beat(rolled_back, ALPHA, 7)
    beat(rolled_back, BETA)
    turns(mine)
    code, out, err = command("registry", "accept-loss", "7" if enough else "6", "--yes")
    assert (code, out) == ((0, "the next decision is number 8\n") if enough else (2, "")), err
    assert enough or "a host knows decision 7" in err
    turns(mine)
    assert (decided(rolled_back) is Decision.ABORT) is enough
    assert rolled_back.view(RUN).number == 8 * enough


def test_two_hosts_that_know_more_stop_everything(rolled_back):
    mine = finalizer(rolled_back)
    for host in (ALPHA, BETA):
        beat(rolled_back, host, 3)
    beat(rolled_back, GAMMA)
    rolled_back.submit(OTHER)
    rolled_back.registry.verbs.cancel("o")
    turns(mine)
    assert decided(rolled_back, OTHER.transaction) is None
    assert doubt(rolled_back, OTHER.transaction) == (
        "hosts alpha, beta know of decisions, up to 3, that were lost: bring back the right data of Redis, "
        "or `blockjobs registry accept-loss 3`"
    )


@pytest.mark.parametrize("decision", ["many", None, [7]])
def test_a_host_whose_highest_decision_is_no_number_holds_its_own_transactions_and_no_others(fleet, decision):
    mine = finalizer(fleet)
    prepared(fleet, mine)
    start_anew(fleet)
    mine = finalizer(fleet)
    fleet.submit(OTHER)
    fleet.registry.verbs.cancel("o")
    beat(fleet, ALPHA, decision)
    beat(fleet, BETA)
    beat(fleet, GAMMA)
    turns(mine)
    assert decided(fleet, OTHER.transaction) is Decision.ABORT
    assert decided(fleet) is None


# --- what the finalizer remembers -------------------------------------------------------------------------------


def test_what_the_finalizer_has_decided_itself_stops_everything_too(fleet, tmp_path):
    mine = finalizer(fleet, tmp_path)
    prepared(fleet, mine)
    copy = Copy(fleet)
    turns(mine)
    record = tmp_path / "decisions.json"
    while not record.exists():
        pass
    assert json.loads(record.read_text())["number"] == 1
    copy.bring_back(fleet)
    mine = finalizer(fleet, tmp_path)
    for host in (ALPHA, BETA, GAMMA):
        beat(fleet, host)
    turns(mine)
    assert decided(fleet) is None
    assert doubt(fleet).startswith("the finalizer has taken decision 1, this registry knows 0")
    fleet.registry.memory.accept_loss(1)
    turns(mine)
    assert fleet.view(RUN).number == 2


def test_a_registry_that_comes_back_older_twice_says_each_time_why_nothing_is_decided(fleet, tmp_path):
    mine = finalizer(fleet, tmp_path)
    prepared(fleet, mine)
    copy = Copy(fleet)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT
    for _ in range(2):
        copy.bring_back(fleet)
        mine._run_id = "the start before"
        beat_both(fleet)
        turns(mine)
        assert "`blockjobs registry accept-loss 1`" in doubt(fleet)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"number": "x"}'])
def test_a_record_that_cannot_be_read_is_named_and_stops_nobody(fleet, tmp_path, caplog, content):
    (tmp_path / "decisions.json").write_text(content)
    mine = finalizer(fleet, tmp_path)
    assert "cannot be read" in caplog.text
    prepared(fleet, mine)
    turns(mine)
    assert decided(fleet) is Decision.COMMIT


def test_a_place_that_cannot_be_written_is_told_and_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert find_place(str(tmp_path / "file" / "x")) is None
    assert "hosts alone" in caplog.text
    assert find_place(str(tmp_path / "new")) == tmp_path / "new"


def claim(fleet, host, **facts):
    HostRegistry(fleet.client, host).hosts.beat(host, f"m-{host}", 2, facts)


@pytest.mark.parametrize(
    ("facts", "gone", "doubt"),
    [
        ({}, "", ""),
        ({"decision": 3}, "", "decision 3"),
        ({"incarnation": "there", "decision": 1}, "", "registry there"),
        ({"incarnation": "there", "decision": 1}, "there", ""),
        ({"incarnation": "there", "decision": 1}, "elsewhere", "registry there"),
        ({"aside": 5}, "", "damaged"),
    ],
    ids=str,
)
def test_a_host_that_claims_more_than_this_registry_knows_is_decided_nothing_with(fleet, facts, gone, doubt):
    claim(fleet, ALPHA, **facts)
    said = fleet.registry.memory.doubt_hosts([BETA, ALPHA], gone=gone)
    assert doubt in said
    assert bool(said) is bool(doubt)
    assert bool(fleet.registry.memory.doubt_members(RUN, [ALPHA, BETA])) is bool(doubt or gone)


def test_the_decisions_of_this_very_registry_count_though_somebody_says_that_it_is_gone(fleet):
    here = fleet.registry.hosts.incarnate()
    claim(fleet, ALPHA, incarnation=here, decision=3)
    assert "decision 3" in fleet.registry.memory.doubt_hosts([ALPHA], gone=here)


@pytest.mark.parametrize(
    ("facts", "lost"),
    [
        ({"incarnation": "here", "decision": 3}, 3),
        ({"incarnation": "here", "decision": 0}, 0),
        ({"incarnation": "there", "decision": 3}, 0),
    ],
    ids=["more", "no more", "of another registry"],
)
def test_what_a_host_knows_when_it_is_heard_again_tells_whether_decisions_were_lost(fleet, facts, lost):
    memory = fleet.registry.memory
    fleet.client.set(keys.incarnation(), "here")
    assert [memory.note_restart(run, [ALPHA]) for run in ("one", "one", "two")] == [False, False, True]
    memory.hear()
    assert "not heard since" in memory.doubt_members(RUN, [ALPHA])
    claim(fleet, ALPHA, **facts)
    memory.hear()
    assert "not heard since" not in memory.doubt_members(RUN, [ALPHA])
    assert memory.highest_lost() == lost


def test_a_host_of_which_nobody_can_read_what_it_knows_is_not_heard_yet(fleet):
    memory = fleet.registry.memory
    memory.note_restart("one", [])
    memory.note_restart("two", [ALPHA])
    claim(fleet, ALPHA, aside=5)
    memory.hear()
    assert "not heard since" in memory.doubt_members(RUN, [ALPHA])


def test_a_loss_is_accepted_up_to_the_number_that_was_said_and_numbers_never_go_back(fleet):
    memory = fleet.registry.memory
    fleet.client.hset(keys.restart(), mapping={"lost:alpha": 3, "lost:beta": 9})
    assert memory.accept_loss(5) == 5
    assert memory.highest_lost() == 9
    assert memory.accept_loss(2) == 5
    assert memory.accept_loss(9) == 9
    assert memory.highest_lost() == 0
