"""A host does the steps of all members that it can read, and answers for one that it cannot; so it is with hosts."""

from __future__ import annotations

import errno

import pytest
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, spec, who

from blockjobs.ask.checkup import Checkup
from blockjobs.ask.doorbell import Doorbell
from blockjobs.model import volumespec
from blockjobs.model.barriers import Decision, Step
from blockjobs.model.hanging import HangingPath
from blockjobs.registry import codec, keys
from blockjobs.registry.answers import Answer, UnreadableMember
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.steps.steps import Steps

NEWER = b"\x02\x94"
NOTHING = volumespec.parse_volume({"driver": "null-co", "host": ALPHA})
ZEROS = volumespec.parse_volume({"driver": "null-co", "host": ALPHA, "size": SIZE, "read-zeroes": True})
ODD_FIELDS = {
    "a spec of a newer version": ("spec", NEWER),
    "a spec that is none": ("spec", codec.pack_value(["j"])),
    "a policy that nobody knows": ("spec", codec.pack_value({**spec("odd").to_dict(), "on-source-error": "dance"})),
    "a spec without an id": ("spec", codec.pack_value({"id": "odd"})),
    "what OPEN found, of a newer version": ("opened", NEWER),
    "a checkpoint of a newer version": ("durable", NEWER),
    "a result of a newer version": ("result", NEWER),
    "a cut of a newer version": ("cut", NEWER),
}


@pytest.fixture
def fleet(client):
    """A fleet with a transaction of three jobs from nothing to nowhere."""
    fleet = Fleet(client)
    fleet.submit(*(spec(name, source=ZEROS, target=NOTHING) for name in ("a", "odd", "z")))
    return fleet


@pytest.fixture
def steps(fleet):
    """What does the steps of the host; nothing of these jobs lies on a disk."""
    return Steps(fleet.host(ALPHA).answers, Roots(HostConfig(name=ALPHA, read_roots=(), write_roots=())))


def break_field(fleet, field, value):
    fleet.client.hset(keys.job(ALPHA, "odd"), field, value)


def passed(fleet):
    return [fleet.client.hget(keys.job(ALPHA, name), "passed").decode() for name in ("a", "odd", "z")]


def odd_error(fleet):
    ret, error = fleet.client.hmget(keys.job(ALPHA, "odd"), "ret", "error")
    return int(ret), error.decode()


@pytest.mark.parametrize(("field", "value"), ODD_FIELDS.values(), ids=ODD_FIELDS)
def test_a_member_that_cannot_be_read_keeps_no_other_one_from_being_read(fleet, field, value):
    break_field(fleet, field, value)
    first, odd, last = fleet.host(ALPHA).answers.every_member(RUN)
    assert (first.spec.id, last.spec.id) == ("a", "z")
    assert isinstance(odd, UnreadableMember)
    assert (odd.job, odd.status, odd.passed, odd.claimed) == ("odd", "created", "", False)
    assert odd.text.startswith("job 'odd': its record is of a newer version of blockjobs, or damaged (")


@pytest.mark.parametrize("step", [Step.OPEN, Step.PREPARE])
def test_a_member_that_cannot_be_read_fails_its_step_and_the_others_have_done_theirs(fleet, steps, step):
    if step is Step.PREPARE:
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*(member.spec for member in fleet.host(ALPHA).answers.members(RUN)))
        fleet.walk(RUN, Step.PREPARE)
    break_field(fleet, "spec", NEWER)
    steps.take(step, RUN)
    before = "" if step is Step.OPEN else "run"
    after = "cut" if step is Step.OPEN else "prepare"
    assert passed(fleet) == [after, before, after]
    code, text = odd_error(fleet)
    assert (code, text.startswith("job 'odd': its record is of a newer version")) == (-errno.EINVAL, True)
    assert fleet.next(RUN).decision is Decision.ABORT


def test_a_member_that_cannot_be_read_fails_its_cut(fleet, steps):
    fleet.answer(ALPHA, RUN, Step.OPEN)
    break_field(fleet, "spec", NEWER)
    steps.take(Step.CUT, RUN)
    assert odd_error(fleet)[0] == -errno.EINVAL
    others = [fleet.record(spec(name))["error"] for name in ("a", "z")]
    assert others == ["target alpha:null-co: a file was expected, a null-co is not staged"] * 2, "their own answers"


def test_a_member_that_cannot_be_read_is_owed_its_settle_and_the_others_are_settled(fleet, steps):
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*(member.spec for member in fleet.host(ALPHA).answers.members(RUN)))
    fleet.walk(RUN, Step.SETTLE)
    kept = fleet.client.hget(keys.job(ALPHA, "odd"), "spec")
    break_field(fleet, "spec", NEWER)
    steps.take(Step.SETTLE, RUN)
    assert passed(fleet) == ["settle", "prepare", "settle"]
    assert fleet.record(spec("odd"))["unsettled"].startswith("job 'odd': its record is of a newer version")
    steps.take(Step.SETTLE, RUN)
    assert len(fleet.events("JOB_UNSETTLED")) == 1, "the same answer again changes nothing"
    break_field(fleet, "spec", kept)
    steps.take(Step.SETTLE, RUN)
    assert passed(fleet) == ["settle"] * 3


def test_a_member_whose_record_is_no_hash_keeps_no_other_one_from_its_step(fleet, steps, caplog):
    fleet.client.delete(keys.job(ALPHA, "odd"))
    fleet.client.set(keys.job(ALPHA, "odd"), "x")
    steps.take(Step.OPEN, RUN)
    assert [fleet.client.hget(keys.job(ALPHA, name), "passed") for name in ("a", "z")] == [b"cut", b"cut"]
    assert "job odd: its record cannot be read: WRONGTYPE" in caplog.text


def test_an_answer_that_redis_refuses_keeps_no_other_one_from_being_given(fleet, caplog):
    fleet.client.delete(keys.job(ALPHA, "a"))
    fleet.client.set(keys.job(ALPHA, "a"), "x")
    door = fleet.host(ALPHA).answers
    door.answer(RUN, Step.OPEN, [Answer(job, size=SIZE) for job in ("a", "odd", "z")])
    assert [fleet.client.hget(keys.job(ALPHA, name), "passed") for name in ("odd", "z")] == [b"open", b"open"]
    assert "job a: its answer to open is refused" in caplog.text


@pytest.mark.parametrize("field", ["spec", "opened", "durable"])
def test_a_job_that_cannot_be_read_fails_at_its_first_claim(fleet, field):
    fleet.walk(RUN, Step.RUN)
    break_field(fleet, field, NEWER)
    said = fleet.host(ALPHA).attempts.claim("odd", who("a1"))
    assert str(said).startswith("job 'odd': its record is of a newer version")
    assert odd_error(fleet) == (-errno.EINVAL, said)
    assert fleet.host(ALPHA).attempts.live() == []


def test_a_job_that_cannot_be_read_is_rung_for_and_claimed_where_something_hangs(fleet):
    """What it touches is not known; its claim says what is wrong, and others wait for nothing but what hangs."""
    fleet.walk(RUN, Step.RUN)
    break_field(fleet, "spec", NEWER)
    hanging = HangingPath(path="/srv/x", point="/srv")
    fleet.host(ALPHA).hosts.beat(ALPHA, "m", 2, {"hanging": [hanging.to_dict()]})
    assert fleet.registry.hosts.ring(ALPHA, 2, lost_after_ms=1000, hanging=[hanging]) == ["a", "odd", "z"]
    assert fleet.host(ALPHA).attempts.held_back("odd") == ""


ODD_FACTS = {
    "of a newer version": NEWER,
    "a list": codec.pack_value([1]),
    "damaged": b"\x01\xc1",
    "a path that is none": codec.pack_value({"hanging": [{"point": "/"}]}),
    "what hangs is a number": codec.pack_value({"hanging": 7}),
    "what stands aside is a number": codec.pack_value({"aside": 7}),
}


@pytest.mark.parametrize("facts", ODD_FACTS.values(), ids=ODD_FACTS)
def test_a_host_whose_facts_cannot_be_read_has_told_nothing_and_is_named(client, facts):
    hosts = Fleet(client).registry.hosts
    hanging = HangingPath(path="/srv/x", point="/srv")
    for host in (ALPHA, BETA):
        hosts.beat(host, "m", 2, {"hanging": [hanging.to_dict()]})
        hosts.judge(host, "up")
    client.hset(keys.card(ALPHA), "facts", facts)
    cards = hosts.cards([ALPHA, BETA])
    assert (cards[ALPHA].beat, cards[ALPHA].slots, cards[ALPHA].hanging) == (1, 2, ())
    assert cards[BETA].hanging == (hanging,)
    assert (hosts.hanging(ALPHA), hosts.hanging(BETA)) == ((), (hanging,))
    alpha, beta = hosts.views()
    assert "what host alpha tells of itself is of a newer version of blockjobs, or damaged" in alpha.unreadable
    assert (alpha.facts, alpha.hanging, beta.hanging, beta.unreadable) == ({}, (), (hanging,), "")
    assert Fleet(client).host(ALPHA).attempts.held_back("j") == ""


@pytest.mark.parametrize("field", ["beat", "slots"])
def test_a_host_whose_counters_cannot_be_read_counts_as_silent_and_is_named(client, field):
    hosts = Fleet(client).registry.hosts
    for host in (ALPHA, BETA):
        hosts.beat(host, "m", 2, {})
        hosts.judge(host, "up")
    client.hset(keys.card(ALPHA), field, "many")
    cards = hosts.cards([ALPHA, BETA])
    assert (cards[ALPHA].beat, cards[ALPHA].says, cards[BETA].beat) == (0, "", 1)
    alpha, beta = hosts.views()
    assert ("damaged" in alpha.unreadable, beta.unreadable) == (True, "")


def test_nothing_is_decided_with_a_host_of_which_nobody_can_read_what_it_has_carried_out(client):
    fleet = Fleet(client)
    hosts = fleet.registry.hosts
    hosts.beat(ALPHA, "m", 2, {"incarnation": hosts.incarnate(), "decision": 0})
    assert fleet.registry.memory.doubt_hosts([ALPHA]) == ""
    client.hset(keys.card(ALPHA), "facts", NEWER)
    assert "what host alpha tells of itself" in fleet.registry.memory.doubt_hosts([ALPHA])


def test_doctor_names_what_a_host_has_put_aside_and_a_host_that_cannot_be_read(client, server):
    registry = Fleet(client).registry
    registry.hosts.beat(ALPHA, "m", 2, {"aside": {"claim of job a": "ValueError: odd"}})
    registry.hosts.beat(BETA, "m", 2, {})
    for host in (ALPHA, BETA):
        registry.hosts.judge(host, "down")  # nobody is asked
    client.hset(keys.card(BETA), "facts", NEWER)
    found = [f"{each.subject}: {each.text} {each.advice}" for each in Checkup(registry, Doorbell(server.url))()]
    odd = "host alpha: claim of job a is put aside, and tried again ever later: ValueError: odd mend what is named"
    assert any(line.startswith(odd) for line in found)
    assert any(line.startswith("host beta: what host beta tells of itself is of a newer version") for line in found)


def test_an_answer_that_comes_too_late_changes_nothing_and_says_in_the_log_what_became_of_its_job(fleet, caplog):
    answers = fleet.host(ALPHA).answers
    caplog.set_level("INFO", "blockjobs.registry.answers")
    answers.answer(RUN, Step.OPEN, [Answer("a"), Answer("z")])
    assert "changes nothing" not in caplog.text
    before = fleet.client.hgetall(keys.job(ALPHA, "a"))
    answers.answer(RUN, Step.OPEN, [Answer("a"), Answer("odd"), Answer("gone")])
    assert fleet.client.hgetall(keys.job(ALPHA, "a")) == before
    late = [record.getMessage() for record in caplog.records]
    assert late == [
        "job a: its answer to open changes nothing: it is created and has passed open",
        "job gone: its answer to open changes nothing: it is no member any more",
    ]
