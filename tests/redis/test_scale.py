"""10,000 jobs in one transaction: no script holds Redis longer than 20 ms.

Every call of a script but the last has a full batch to do, so the median is its length, and is held to half of what
is allowed; what is longer by the clock has waited for a core that somebody else had.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from statistics import median

import pytest
from puppets import RUN, dump, many

from blockjobs.model.barriers import Decision, Step
from blockjobs.model.jobs import JobSpec
from blockjobs.registry import keys, scripts
from blockjobs.registry.submit import STAGED_FOR, split_batches

pytestmark = pytest.mark.alone

JOBS, HOSTS = 10_000, 20  # 500 members a host: every script meets full batches
COPIED = 500  # jobs that are really claimed and finished: one claim is like another
LIMIT = 20.0  # milliseconds


@pytest.fixture
def durations(client):
    """What scripts took, in milliseconds by name, as Redis measured it; those below 0.5 ms are left out.

    (With a lower threshold every command within a script is logged too, and the logging is what takes long.)
    """
    names = {hashlib.sha1(scripts.script_source(name).encode()).hexdigest().encode(): name for name in scripts.NAMES}  # noqa: S324
    before = {**client.config_get("slowlog-log-slower-than"), **client.config_get("slowlog-max-len")}
    client.config_set("slowlog-log-slower-than", "500")
    client.config_set("slowlog-max-len", "100000")
    client.slowlog_reset()

    def read():
        found = defaultdict(list)
        for entry in client.slowlog_get(100_000):
            command, sha, *_ = [*entry["command"].split(b" ", 2), b""]
            if command.upper() == b"EVALSHA":
                found[names[sha]].append(entry["duration"] / 1000)
        return found

    yield read
    for name, value in before.items():
        client.config_set(name, value)


def check(durations: dict[str, list[float]], expected: set[str]) -> None:
    assert expected <= set(durations), "the measurement measures nothing"
    for name, each in durations.items():
        assert median(each) < LIMIT / 2, f"{name}: {sorted(each)}"


def copied(fleet, jobs: list[JobSpec]) -> None:
    fleet.copy(*jobs[:COPIED])
    pipe = fleet.client.pipeline(transaction=False)
    for job in jobs[COPIED:]:
        pipe.hset(keys.job(job.host, job.id), mapping={"status": "waiting", "passed": "run"})
        pipe.hincrby(keys.tally(job.host, job.transaction), "run", -1)
    pipe.execute()


def test_no_script_of_a_commit_is_long(fleet, durations):
    plan = many(JOBS, hosts=HOSTS)
    fleet.registry.submit.submit(plan)
    fleet.walk(RUN, Step.RUN)
    copied(fleet, list(plan.jobs))
    fleet.walk(RUN)
    fleet.close(RUN)
    assert fleet.view(RUN).decision is Decision.COMMIT
    assert fleet.registry.views.run(RUN).open == 0
    assert fleet.client.hlen(keys.texts()) == 0
    check(durations(), {"stage", "launch", "start", "answer", "pend", "conclude"})


def test_no_script_of_an_abort_is_long(fleet, durations):
    plan = many(JOBS, hosts=HOSTS)
    fleet.registry.submit.submit(plan)
    fleet.walk(RUN, Step.RUN)
    fleet.registry.verbs.cancel("job5000")
    fleet.walk(RUN)
    assert fleet.registry.views.run(RUN).cancelled == JOBS
    check(durations(), {"stop", "answer", "conclude"})


def test_no_script_of_a_run_that_is_given_up_is_long(fleet, durations):
    plan = many(JOBS, hosts=1)
    for batch in split_batches(plan.jobs):
        fleet.registry.submit.stage(plan, batch)
    fleet.registry.submit.recover(fleet.registry.hosts.now() + 2 * STAGED_FOR)
    assert dump(fleet.client) == {}
    check(durations(), {"stage", "unstage"})


def test_nothing_is_ever_too_long_for_one_host_that_fails_with_all_its_members(fleet, durations):
    plan = many(2000, hosts=1)
    fleet.registry.submit.submit(plan)
    fleet.registry.transactions.fail(fleet.view(RUN), plan.jobs[0].host, Step.OPEN, 110, "host0 did not answer OPEN")
    assert fleet.view(RUN).shares[plan.jobs[0].host].failed == 2000
    check(durations(), {"fail"})
