"""What hosts are asked to change: with a permit and a reservation, at most once, and never behind whoever gave up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from puppets import ALPHA, BETA, RUN, grouped, spec
from test_history import ended

from blockjobs.ask import resize
from blockjobs.ask.prune import BELOW, PruneRequest, prune_batches
from blockjobs.ask.resize import Resize
from blockjobs.ask.resolve import Resolve
from blockjobs.ask.sweep import Sweep
from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.errors import HostDown, Refused
from blockjobs.model.ids import RunId
from blockjobs.model.keep import PrunePlan, PublishedTarget
from blockjobs.model.resolutions import Resolution
from blockjobs.registry import keys, retention
from blockjobs.registry.nodes import Node
from blockjobs.registry.odd import Unreadable
from blockjobs.registry.retention import AT_ONCE

VOLUME = volumespec.parse_volume(f"{ALPHA}:/srv/a.img")
JOBS = spec("a"), spec("b", host=BETA)


class Host:
    """A doorbell that a host hears at once.  ``says``: its answer, None: none; ``begins``: it takes the permit."""

    def __init__(self, fleet):
        self.fleet, self.says, self.begins = fleet, lambda _: None, True
        self.asked, self.permits, self.steps = [], [], []

    def question(self, host, question):
        door = self.fleet.host(host).questions
        what = door.take(host, question)
        self.asked.append(what)
        if self.begins:
            self.permits.append(door.take_permit(host, question))
        if (said := self.says(what)) is not None:
            door.answer(host, question, said)

    def step(self, host, step, txn):
        self.steps.append((host, step, txn))


@pytest.fixture
def host(fleet):
    fleet.registry.hosts.judge(ALPHA, "up")
    return Host(fleet)


def reserved(fleet):
    return fleet.client.zcard(keys.reserved())


# --- resize ----------------------------------------------------------------------------------------------------


@pytest.fixture
def node(fleet, monkeypatch):
    monkeypatch.setattr(resize, "PATIENCE", 0.2)
    fleet.registry.nodes.add(Node("disk", VOLUME, {}, size=512))
    return lambda: fleet.registry.nodes.get("disk").size


@pytest.mark.parametrize(("said", "size"), [({"size": 4096}, 4096), ({"errno": 5, "text": "EIO"}, 512)])
def test_an_image_is_resized_once_by_permit_and_is_free_again(fleet, host, node, said, size):
    host.says = lambda _: said
    assert Resize(fleet.registry, host)(VOLUME, 4096) == said
    assert (host.permits, node(), reserved(fleet)) == ([True], size, 0)


@pytest.mark.parametrize(("begins", "told"), [(False, "was not resized"), (True, "is unknown")])
def test_a_host_that_does_not_answer_resizes_nothing_unless_it_had_begun(fleet, host, node, begins, told):
    host.begins = begins
    with pytest.raises(HostDown, match=told):
        Resize(fleet.registry, host)(VOLUME, 4096)
    assert reserved(fleet) == begins
    assert not fleet.client.keys("bj:*permit*")


def test_a_host_that_is_down_is_not_asked_to_resize(fleet, host, node):
    fleet.registry.hosts.judge(ALPHA, "down")
    with pytest.raises(HostDown):
        Resize(fleet.registry, host)(VOLUME, 4096)
    assert (host.asked, reserved(fleet)) == ([], 0)


# --- prune -----------------------------------------------------------------------------------------------------


@pytest.fixture
def nights(fleet, host):
    """Three nights of two backups, of which a rule keeps the last one; the last night has only one of them."""
    host.says = lambda what: [{"state": "pruned"} for _ in what["targets"]["going"]]
    return [ended(fleet, day, *jobs, keep={"last": 1}).run for day, jobs in ((1, "ab"), (2, "ab"), (3, "a"))]


def states(outcomes):
    return {outcome.target.job: outcome.state for outcome in outcomes}


def going(host):
    return [each["path"] for what in host.asked for each in what["targets"]["going"]]


def test_what_no_rule_keeps_is_pruned_by_permit_and_is_free_again(fleet, host, nights):
    first, second, third = nights
    assert states(PruneRequest(fleet.registry, host)("nightly")) == {
        f"{first}.a": "pruned", f"{first}.b": "pruned", f"{second}.a": "pruned", f"{second}.b": "kept",
        f"{third}.a": "kept",
    }  # fmt: skip
    assert (host.permits, reserved(fleet)) == ([True], 0)
    assert len(fleet.registry.history.targets(fleet.registry.views.runs())) == 2


def test_a_look_at_what_would_be_pruned_gives_no_permit_and_reserves_nothing(fleet, host, nights):
    outcomes = PruneRequest(fleet.registry, host)("nightly", dry=True)
    assert (host.permits, reserved(fleet)) == ([False], 0)
    assert len(fleet.registry.history.targets(fleet.registry.views.runs())) == len(outcomes) == 5


def test_after_a_run_only_what_it_has_made_anew_is_pruned(fleet, host, nights):
    PruneRequest(fleet.registry, host)("nightly", after=nights[2])
    assert sorted(going(host)) == [f"/backup/{run}/a.img" for run in nights[:2]]


def test_what_was_made_at_a_time_that_lies_beyond_now_is_not_pruned(fleet, host, nights):
    fleet.client.set(keys.clock(), 10**10)
    assert {*states(PruneRequest(fleet.registry, host)("nightly")).values()} == {"kept"}
    assert host.asked == []


def test_what_an_image_of_another_name_lies_on_is_not_pruned(fleet, host, nights):
    below = f"/backup/{nights[0]}/a.img"
    image = {"driver": "qcow2", "file": {"driver": "file", "filename": "/other/top.qcow2"}, "host": ALPHA,
             "backing": {"driver": "file", "filename": below}}  # fmt: skip
    job = spec("top", run="other-20261105T100000Z", target=volumespec.parse_volume(image))
    fleet.registry.submit.submit(replace(grouped(job), name="other"))
    fleet.walk(job.transaction, Step.RUN)
    fleet.copy(job)
    fleet.walk(job.transaction)
    PruneRequest(fleet.registry, host)("nightly")
    assert below not in going(host)
    assert len(going(host)) == 2
    host.asked.clear()
    fleet.client.hset(keys.targets(job.run), "another", b"odd")
    with pytest.raises(Unreadable):
        PruneRequest(fleet.registry, host)("nightly", dry=True)
    assert host.asked == []


@pytest.mark.parametrize("begins", [False, True])
def test_a_host_that_does_not_answer_prunes_nothing_unless_it_had_begun(fleet, host, nights, begins):
    host.says, host.begins = lambda _: None, begins
    outcomes = [each for each in PruneRequest(fleet.registry, host, patience=0.2)("nightly") if each.state == "left"]
    assert len(outcomes) == 3
    assert {each.why.endswith("it may still be at it") for each in outcomes} == {begins}
    assert reserved(fleet) == 3 * begins
    assert not fleet.client.keys("bj:*permit*")


def target(path, *layers):
    return PublishedTarget(
        run=RUN,
        at=1.0,
        job=path,
        transaction=RUN,
        group="",
        host=ALPHA,
        path=path,
        source="alpha:/srv/a",
        layers=layers,
    )


CHAIN = target("/top", "/mid", "/base"), target("/mid", "/base"), target("/base")


def test_an_image_is_asked_for_behind_those_that_lie_on_it(host):
    assert [[each.path for each in batch] for batch in prune_batches(CHAIN)] == [["/top"], ["/mid"], ["/base"]]


def test_what_an_image_lies_on_that_was_left_is_left(fleet, host):
    host.says = lambda what: [{"state": "left", "text": "in the way"} for _ in what["targets"]["going"]]
    outcomes = [*PruneRequest(fleet.registry, host)._hosts(PrunePlan(prune=CHAIN), dry=False)]
    assert [each.why for each in outcomes] == ["in the way", BELOW, BELOW]
    assert going(host) == ["/top"]


# --- resolve and sweep -----------------------------------------------------------------------------------------


@pytest.fixture
def stuck(fleet, host):
    """What is committed, and cannot be published on host alpha."""
    fleet.submit(*JOBS)
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*JOBS)
    fleet.sick = {(Step.SETTLE, "a"): (17, "in the way")}
    fleet.walk(RUN, Step.SETTLE)
    fleet.advance(RUN)
    host.says = lambda _: {"resolved": "discard", "published-as": ""}
    return host


def resolve(fleet, host, job="a"):
    return Resolve(fleet.registry, host, patience=0.2)(job, Resolution.DISCARD)


def test_what_is_committed_and_cannot_be_published_is_resolved_by_permit_and_asked_for_again(fleet, stuck):
    assert resolve(fleet, stuck) == {"resolved": "discard", "published-as": ""}
    assert (stuck.permits, stuck.steps) == ([True], [(ALPHA, Step.SETTLE, RUN)])


@pytest.mark.parametrize(("begins", "told"), [(False, "nothing was done"), (True, "it may still be at it")])
def test_a_host_that_does_not_answer_resolves_nothing_unless_it_had_begun(fleet, stuck, begins, told):
    stuck.says, stuck.begins = lambda _: None, begins
    with pytest.raises(HostDown, match=told):
        resolve(fleet, stuck)


def settled(fleet):
    fleet.client.hdel(keys.job(ALPHA, JOBS[0].id), "unsettled")


def over(fleet):
    fleet.client.hset(keys.job(ALPHA, JOBS[0].id), "status", "concluded")


def aborted(fleet):
    fleet.client.hset(keys.txn(RUN), "decision", "abort")


@pytest.mark.parametrize("otherwise", [settled, over, aborted])
def test_nothing_else_is_resolved(fleet, stuck, otherwise):
    otherwise(fleet)
    with pytest.raises(Refused, match="not one that is committed and cannot be published"):
        resolve(fleet, stuck)
    assert stuck.asked == []


def test_a_host_that_carried_out_decisions_of_another_registry_is_not_asked_to_sweep(fleet, host):
    fleet.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {"incarnation": "there", "decision": 1})
    (row,) = Sweep(fleet.registry, host, patience=0.2)([ALPHA], dry=False)
    assert (row["state"], host.asked) == ("left", [])
    host.says = lambda _: []
    assert [*Sweep(fleet.registry, host, patience=0.2)([ALPHA], dry=False, lost="there")] == []
    assert len(host.asked) == 1


# --- permits and reservations -----------------------------------------------------------------------------------


def test_a_permit_that_nobody_takes_is_gone_after_its_time(fleet):
    fleet.registry.questions.permit(ALPHA, "question", 5)
    assert 0 < fleet.client.pttl(keys.permit(ALPHA, "question")) <= 5000


def test_a_reservation_whose_answer_was_lost_is_had_by_whoever_asks_again(fleet):
    names = [keys.texts(), keys.reserved()]
    answers = [fleet.registry.nodes._scripts.call("reserve", names, ["x", who, 1000]) for who in ("me", "me", "you")]
    assert [answer[0] for answer in answers] == [b"reserved", b"reserved", b"busy"]


# --- forgetting -------------------------------------------------------------------------------------------------


def concluded(fleet, run):
    job = spec("a", run=run)
    fleet.submit(job)
    fleet.registry.verbs.cancel("a")
    fleet.walk(run)


def test_another_job_of_the_id_is_not_dismissed_with_a_run_that_is_forgotten(fleet):
    later = "later-20261123T103000Z"
    concluded(fleet, RUN)
    fleet.registry.verbs.dismiss("a")
    concluded(fleet, later)
    fleet.client.zadd(keys.runs(), {RUN: 1})
    assert fleet.registry.retention.forget(fleet.registry.hosts.now()).runs == [RUN]
    assert fleet.registry.views.job("a").run == later


def test_runs_that_only_wait_for_their_targets_keep_no_other_from_being_forgotten(fleet):
    for n in range(AT_ONCE):
        run = RunId(f"slim{n}")
        fleet.client.zadd(keys.runs(), {run: n})
        fleet.client.hset(keys.run(run), mapping={"slim": 1, "open": 0})
        fleet.client.hset(keys.targets(run), "job", "target")
    concluded(fleet, RUN)
    fleet.client.zadd(keys.runs(), {RUN: AT_ONCE})
    assert fleet.registry.retention.forget(fleet.registry.hosts.now()).runs == [RUN]


def test_a_run_of_which_jobs_are_left_stays_until_the_last_of_them_is_dismissed(fleet, monkeypatch):
    monkeypatch.setattr(retention, "SLICE", 1)
    fleet.submit(*JOBS)
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    fleet.client.zadd(keys.runs(), {RUN: 1})
    turns = [fleet.registry.retention.forget(fleet.registry.hosts.now()) for _ in range(3)]
    assert [(turn.runs, turn.more) for turn in turns[:2]] == [([], True)] * 2
    assert turns[2].runs == [RUN]
