"""What a worker may touch: its own host's keys, the events and what is due; every script of its runs with just that.

A worker may load scripts: after a restart of Redis it must be able to go on by itself, and a script is named by the
hash of its text, runs with the rights of whoever calls it, and can neither replace nor shadow another one.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from puppets import ALPHA, BETA, RUN, SIZE, Fleet, dump, spec, who

from blockjobs.model.barriers import Decision, Step
from blockjobs.model.ids import TxnId
from blockjobs.model.liveness import WorkerName
from blockjobs.registry import keys, scripts
from blockjobs.registry.attempts import Progress
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry

COMMANDS = (
    "+hello +auth +ping +client|setinfo +client|setname +evalsha +script|load +multi +exec +time +blpop +lpush +ltrim "
    "+lrange +del +expire +get +getdel +hget +hmget +hgetall +hset +hsetnx +hincrby +hdel +hexists +hlen +hkeys +zadd "
    "+zrem +zscore +zrange +llen +xadd"
)
LEAST = [
    "-@all",
    *COMMANDS.split(),
    "~bj:h:alpha:*",
    "%R~bj:celery:steps.alpha",
    "%R~bj:txn:*",
    "%R~bj:clock",
    "%R~bj:incarnation",
    "(-@all +sadd ~bj:arrivals)",
]
ACL = Path(__file__).parents[2] / "deploy" / "users.acl"


def deployed():
    """The rules that deploy/ gives to a worker, for the host of these tests."""
    (line,) = (line for line in ACL.read_text().splitlines() if line.startswith("user worker-web1 "))
    return [rule.replace("web1", "alpha") for rule in re.findall(r"\(.*?\)|\S+", line)[2:] if rule[0] != ">"]


@pytest.fixture(params=["least", "deployed"])
def worker(request, server, client):
    """A registry for host alpha, as a user who has only the rights of a worker."""
    rules = LEAST if request.param == "least" else deployed()
    if client.info("server")["redis_version"].startswith("7.0."):
        rules = [rule for rule in rules if rule != "+client|setinfo"]  # which it does not know
    client.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rules)
    with connect_client(f"unix://worker:secret@{quote(str(server.socket))}?db=0") as restricted:
        yield HostRegistry(restricted, ALPHA)
    client.execute_command("ACL", "DELUSER", "worker")


@pytest.fixture
def fleet(client, worker):
    """The control plane with all rights, host alpha with those of a worker."""
    fleet = Fleet(client)
    fleet._hosts[ALPHA] = worker
    return fleet


JOBS = spec("a"), spec("b"), spec("c")


def test_a_worker_does_all_its_work_with_its_own_rights(fleet, worker, client):
    client.script_flush()  # as after a restart: nobody loaded anything
    assert worker.hosts.beat(ALPHA, "machine", 2, {"cpus": 2}) == "1"
    fleet.submit(*JOBS)
    fleet.walk(RUN, Step.RUN)
    first = fleet.claim(JOBS[0])
    worker.attempts.error(first, 1, operation="read", action="stop", io_status="failed", text="EIO")
    assert worker.attempts.checkpoint(first, Progress(1, SIZE), quiet=True).pause
    fleet.registry.verbs.resume("a")
    assert worker.attempts.wait(JOBS[0].id, 5)
    worker.attempts.knock(JOBS[0].id)
    assert [(each.job, each.standing().token) for each in worker.attempts.live()] == [("a", 1)]
    assert worker.attempts.release(JOBS[0].id, TxnId(RUN), first.token, first.attempt, why="parked")
    fleet.copy(*JOBS)
    fleet.walk(RUN)
    assert worker.answers.decision(TxnId(RUN)) == (Decision.COMMIT, 1, "")
    assert worker.answers.needs(TxnId(RUN)) == {}
    assert worker.answers.last_sizes(JOBS) == {}
    worker.answers.forget_sizes()
    assert fleet.registry.views.run(RUN).open == 0
    worker.questions.answer(ALPHA, "question", [{"size": SIZE}])
    assert fleet.registry.questions.wait(ALPHA, "question", 5) == [{"size": SIZE}]
    fleet.registry.questions.put(ALPHA, "question", {"ask": "probe"}, 5)
    assert worker.questions.take(ALPHA, "question") == {"ask": "probe"}
    fleet.registry.questions.permit(ALPHA, "question", 5)
    assert worker.questions.take_permit(ALPHA, "question")
    assert not worker.answers.in_use("no file", "no name")
    fleet.registry.bells.note(ALPHA, "open", TxnId(RUN))
    assert worker.bells.wait(ALPHA, WorkerName.STEPS)
    worker.bells.take(ALPHA, "open", TxnId(RUN))
    assert not worker.bells.wait(ALPHA, WorkerName.STEPS)
    assert not worker.bells.wait(ALPHA, WorkerName.COPY)
    assert worker.hosts.copy_beat(ALPHA, "machine", process="") == "1"
    assert set(worker.hosts.counters(ALPHA)) == {WorkerName.STEPS, WorkerName.COPY}
    assert worker.hosts.beat(ALPHA, "machine", 2, {}, word="leave") == "2"


def test_so_it_does_for_a_job_of_a_store(fleet, worker):
    fleet.registry.limits.set_store("nas1", path="/mnt", jobs=1, speed=60)
    job = spec("a", store="nas1")
    fleet.submit(job)
    fleet.walk(RUN, Step.RUN)
    assert worker.attempts.claim(job.id, who("early")) == "its doorbell came too late"
    ring = {"lost_after_ms": 1000, "limit": lambda *_: 60}
    assert fleet.registry.hosts.ring(ALPHA, 2, **ring) == ["a"]
    claim = fleet.claim(job)
    assert claim.speed == worker.attempts.checkpoint(claim, Progress(1, SIZE)).speed == 60
    assert worker.attempts.release(job.id, TxnId(RUN), claim.token, claim.attempt, why="dead")


def test_so_it_does_when_things_go_wrong(fleet, worker):
    fleet.submit(*JOBS)
    fleet.walk(RUN, Step.RUN)
    for _ in range(3):
        claim = fleet.claim(JOBS[0])
        assert worker.attempts.release(JOBS[0].id, TxnId(RUN), claim.token, claim.attempt, why="dead")
    fleet.finish(fleet.claim(JOBS[1]), errno=5, text="EIO")
    fleet.sick = {(Step.SETTLE, "c"): (17, "in the way")}
    for _ in range(4):
        fleet.advance(RUN)
    assert fleet.registry.views.job("c").unsettled == "in the way"
    fleet.sick = {}
    fleet.walk(RUN)
    assert fleet.view(RUN).decision is Decision.ABORT


def foreign(worker_client):
    return HostRegistry(worker_client, BETA)


@pytest.mark.parametrize("script", scripts.BY_WORKERS)
def test_every_script_of_a_worker_is_refused_for_another_host(fleet, worker, script):
    """Refused before its first line: nothing was changed."""
    other = spec("x", host=BETA, run="other-20261122T000000Z")
    txn = fleet.submit(other)
    fleet.walk(txn, Step.RUN)
    held = fleet.claim(other)
    door = foreign(worker.attempts._redis)
    call = {
        "beat": lambda: door.hosts.beat(BETA, "machine", 9, {}),
        "claim": lambda: door.attempts.claim(other.id, who("thief")),
        "checkpoint": lambda: door.attempts.checkpoint(held, Progress(1, SIZE)),
        "error": lambda: door.attempts.error(held, 1, operation="read", action="stop", io_status="failed", text="x"),
        "ready": lambda: door.attempts.ready(held, Progress(1, SIZE)),
        "diverge": lambda: door.attempts.diverging(held, passes=5, dirty_rate=1, copy_rate=1),
        "stall": lambda: door.attempts.stalled(held, 600),
        "finish": lambda: door.attempts.finish(held, Progress(1, SIZE), durable=None, result={}),
        "release": lambda: door.attempts.release(other.id, txn, held.token, held.attempt, why="dead"),
        "died": lambda: door.attempts._scripts.call(
            "died", [keys.job(BETA, other.id), keys.host_events(BETA)], [other.id, "x", "killed", ""]
        ),
        "answer": lambda: door.answers.answer(txn, Step.SETTLE, [fleet._said(Step.SETTLE, other.id)]),
    }[script]
    before = dump(fleet.client)
    with pytest.raises(redis.exceptions.NoPermissionError):
        call()
    assert dump(fleet.client) == before


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", keys.txn(TxnId(RUN)), "decision", "commit"),
        ("SET", keys.decisions(), "9"),
        ("HDEL", keys.ids(), "a"),
        ("HSET", keys.job(BETA, JOBS[0].id), "status", "waiting"),
        ("HGETALL", keys.job(BETA, JOBS[0].id)),
        ("FLUSHALL",),
        ("SCRIPT", "FLUSH"),
        ("KEYS", "*"),
        ("CONFIG", "SET", "appendonly", "no"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_worker_cannot_write_a_decision_or_read_another_hosts_jobs(worker, command):
    with pytest.raises(redis.exceptions.NoPermissionError):
        worker.attempts._redis.execute_command(*command)


def test_a_worker_that_loads_a_script_of_its_own_gains_nothing_by_it(fleet, worker):
    fleet.submit(*JOBS)
    own = worker.attempts._redis.register_script('return redis.call("HSET", KEYS[1], "decision", "commit")')
    hidden = worker.attempts._redis.register_script('return redis.call("HSET", ARGV[1], "decision", "commit")')
    with pytest.raises(redis.exceptions.NoPermissionError):
        own(keys=[keys.txn(TxnId(RUN))])
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|acl|can't access"):
        hidden(args=[keys.txn(TxnId(RUN))])
    assert fleet.view(TxnId(RUN)).decision is None


def test_with_all_rights_the_same_calls_do_what_they_say(client):
    """The control: it is the rights that refuse, not the calls."""
    fleet = Fleet(client)
    other = spec("x", host=BETA)
    fleet.submit(other)
    fleet.walk(RUN, Step.RUN)
    held = fleet.claim(other)
    assert fleet.host(BETA).attempts.release(other.id, TxnId(RUN), held.token, held.attempt, why="dead")
    fleet.finish(fleet.claim(other))
    assert client.hset(keys.txn(TxnId(RUN)), "decision", "commit") == 1
