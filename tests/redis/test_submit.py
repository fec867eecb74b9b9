"""A run enters all at once or not at all, whoever dies, and whoever else was there before."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from puppets import ALPHA, BETA, RUN, dump, grouped, many, spec

from blockjobs.model import errors, volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.runs import RunPlan
from blockjobs.registry import keys
from blockjobs.registry.doors import Registry
from blockjobs.registry.submit import BATCH, STAGED_FOR, split_batches

LATER = STAGED_FOR + 1
NULL = volumespec.parse_volume({"driver": "null-co", "host": "alpha"})


def test_a_run_larger_than_a_batch_is_there_as_a_whole(fleet):
    fleet.registry.submit.submit(many(1200))
    run = fleet.registry.views.run(RUN)
    assert (run.jobs, run.open) == (1200, 1200)
    jobs = list(fleet.registry.views.jobs(fleet.registry.views.places(RunId(RUN))))
    assert [job.id for job in jobs] == [f"job{n}" for n in range(1200)]
    assert {str(job.status) for job in jobs} == {"created"}
    assert fleet.events("RUN_PUBLISHED") == [("RUN_PUBLISHED", RUN)]
    assert len(fleet.replayed()) == 1200
    assert {share.owing[step] for share in fleet.view(RUN).shares.values() for step in Step} == {300}


def test_individual_transactions_of_one_run_are_separate(fleet):
    jobs = [spec("a", txn=f"{RUN}.a"), spec("b", txn=f"{RUN}.b")]
    fleet.registry.submit.submit(
        RunPlan(RunId(RUN), "nightly", grouped=False, transactions=tuple((job,) for job in jobs))
    )
    assert sorted(fleet.registry.views.unfinished()) == [f"{RUN}.a", f"{RUN}.b"]
    fleet.registry.verbs.cancel("a")
    fleet.walk(f"{RUN}.a")
    assert (fleet.status("a"), fleet.status("b")) == ("concluded", "created")


def test_what_is_staged_is_seen_by_nobody_and_touched_by_no_verb(registry, client):
    plan = many(3)
    registry.submit.stage(plan, plan.jobs)
    assert registry.views.runs() == []
    assert registry.views.unfinished() == []
    assert registry.transactions.due() == []
    assert client.xlen(keys.events()) == 0
    assert list(registry.views.jobs(registry.views.places(plan.run))) == []
    with pytest.raises(errors.NoSuchRun):
        registry.views.run(plan.run)
    for look in (registry.views.job, registry.verbs.cancel, registry.verbs.pause, registry.verbs.dismiss):
        with pytest.raises(errors.NoSuchJob):
            look("job0")


# --- a client that dies -------------------------------------------------------------------------------

CLIENT = """\
import sys
from puppets import many
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
url, jobs = sys.argv[1], int(sys.argv[2])
registry = Registry(connect_client(url))
sys.stdin.readline()
registry.submit.submit(many(jobs))
"""


def killed_when(server, client, jobs, enough):
    """A process submits a run and gets SIGKILL as soon as ``enough`` is true; whether it was still at it."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.url, str(jobs)], cwd=Path(__file__).parent, stdin=subprocess.PIPE
    ) as child:
        child.stdin.write(b"go\n")
        child.stdin.flush()
        deadline = time.monotonic() + 30
        while not enough():
            assert time.monotonic() < deadline
        child.kill()
    return child.returncode == -9


@pytest.mark.parametrize("staged", [1, BATCH + 1, 2 * BATCH + 1])
def test_a_client_killed_while_it_stages_leaves_nothing_once_the_reaper_was_there(server, client, registry, staged):
    registry.submit.submit(grouped(spec("before", run="other-20261122T000000Z")))
    before = dump(client)
    assert killed_when(server, client, 6000, lambda: int(client.hget(keys.run(RunId(RUN)), "jobs") or 0) >= staged)
    assert registry.client.hget(keys.run(RunId(RUN)), "state") == b"staged"
    assert [run.id for run in registry.views.runs()] == ["other-20261122T000000Z"]
    with pytest.raises(errors.NoSuchJob):
        registry.views.job("job0")

    registry.submit.recover(registry.hosts.now())  # too early: it might be alive
    assert client.exists(keys.run(RunId(RUN)))
    registry.submit.recover(registry.hosts.now() + LATER)
    assert dump(client) == before
    registry.submit.submit(many(10))  # ids and locks are free


def test_a_client_killed_behind_publish_leaves_a_run_that_is_launched_for_it(server, client, fleet):
    assert killed_when(server, client, 1200, lambda: client.hget(keys.run(RunId(RUN)), "state") == b"published")
    fleet.registry.submit.recover(fleet.registry.hosts.now())
    jobs = list(fleet.registry.views.jobs(fleet.registry.views.places(RunId(RUN))))
    assert len(jobs) == 1200
    assert {str(job.status) for job in jobs} == {"created"}
    assert not client.exists(keys.launches())
    assert len(fleet.replayed()) == 1200
    assert [due.txn for due in fleet.due()] == [RUN]


def half_launched(fleet, *jobs):
    """A run whose client died between two batches of its launch: only the first job was reached."""
    submit = fleet.registry.submit
    submit.stage(grouped(*jobs), jobs)
    submit.publish(RunId(RUN), len(jobs))
    names = [keys.run(RunId(RUN)), keys.events(), keys.unfinished(), keys.due(), keys.due_wake()]
    submit._scripts.call("launch", [*names, keys.job(jobs[0].host, jobs[0].id)], [jobs[0].id, RUN, 0])


def test_a_run_launched_by_halves_can_be_cancelled_as_a_whole(fleet):
    jobs = spec("a"), spec("b", host=BETA)
    half_launched(fleet, *jobs)
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    fleet.registry.submit.recover(fleet.registry.hosts.now())
    assert [fleet.status(job.id) for job in jobs] == ["concluded", "concluded"]
    assert fleet.registry.views.run(RUN).cancelled == 2


def test_a_run_launched_by_halves_waits_for_its_other_half(fleet):
    jobs = spec("a"), spec("b", host=BETA)
    half_launched(fleet, *jobs)
    fleet.answer(ALPHA, RUN, Step.OPEN)
    assert fleet.next(RUN).step is Step.OPEN
    fleet.registry.submit.recover(fleet.registry.hosts.now())
    fleet.walk(RUN, Step.RUN)
    assert [fleet.status(job.id) for job in jobs] == ["running", "running"]


def test_a_transaction_is_due_and_as_old_as_its_first_launch_when_the_rest_of_it_is_launched(fleet):
    half_launched(fleet, spec("a"), spec("b", host=BETA))
    assert fleet.due() == []
    fleet.client.zadd(keys.unfinished(), {RUN: 1})
    fleet.registry.submit.recover(fleet.registry.hosts.now())
    assert [due.txn for due in fleet.due()] == [RUN]
    assert fleet.client.zscore(keys.unfinished(), RUN) == 1


def test_what_a_client_says_once_more_or_too_early_changes_nothing(fleet):
    submit, run, jobs = fleet.registry.submit, RunId(RUN), (spec("a"), spec("b"))
    plan, places = grouped(*jobs), [(job.host, job.id, job.transaction) for job in jobs]
    submit.stage(plan, jobs[:1], "me")
    submit.stage(plan, jobs[:1], "me")
    before = dump(fleet.client)
    submit.launch(run)
    with pytest.raises(errors.Refused, match="only 1 of 2 jobs are staged"):
        submit.publish(run, 2)
    assert dump(fleet.client) == before, "not all of it is there"
    submit.stage(plan, jobs[1:], "me")
    submit.publish(run, 2)
    submit.launch(run)
    before = dump(fleet.client)
    while fleet.registry.hosts.now() <= int(fleet.client.hget(keys.run(run), "published")):
        pass
    submit.publish(run, 2)
    submit.unstage(run, places, "me")
    with pytest.raises(errors.RunExists):
        submit.stage(plan, [spec("c")], "me")
    assert dump(fleet.client) == before, "it is published"


def test_a_source_of_two_runs_is_read_by_the_one_that_was_not_given_up(fleet):
    submit, source = fleet.registry.submit, spec("a").source
    fleet.submit(spec("a"))
    other = spec("x", run="other-20261122T000000Z", source=source)
    submit.stage(grouped(other), [other], "me")
    assert fleet.registry.nodes.readers(source) == 2
    submit.unstage(other.run, [(other.host, other.id, other.transaction)], "me")
    assert fleet.registry.nodes.readers(source) == 1


def test_what_was_not_launched_yet_is_no_member_that_its_host_could_be_given_up_with(fleet):
    jobs = spec("a"), spec("b", host=BETA)
    half_launched(fleet, *jobs)
    before = fleet.record(jobs[1])
    assert fleet.registry.transactions.abandon(BETA) == 0
    assert fleet.record(jobs[1]) == before


def test_recovering_again_changes_nothing_but_that_the_finalizer_looks_once_more(fleet):
    fleet.submit(spec("a"))
    before = dump(fleet.client)
    fleet.registry.submit.recover(fleet.registry.hosts.now() + LATER)
    fleet.registry.submit.launch(RunId(RUN))
    after = dump(fleet.client)
    assert [each.txn for each in fleet.due()] == [RUN]
    for seen in (before, after):
        del seen[keys.due()], seen[keys.due_wake()]
    assert after == before


# --- refusals: everything is as before -----------------------------------------------------------------

OTHER = "other-20261122T103001Z"


@pytest.mark.parametrize(
    ("job", "error", "text"),
    [
        (spec("taken", run=OTHER), errors.JobExists, "Job ID 'taken' already in use"),
        (
            spec("x", run=OTHER, target=volumespec.parse_volume("alpha:/backup/taken.img")),
            errors.VolumeBusy,
            "Node 'alpha:/backup/taken.img' is busy: block device is in use by block job: backup (job 'taken')",
        ),
        (
            spec("x", run=OTHER, source=volumespec.parse_volume("alpha:/backup/taken.img")),
            errors.VolumeBusy,
            "Node 'alpha:/backup/taken.img' is busy: block device is in use by block job: backup (job 'taken')",
        ),
        (
            spec("x", run=OTHER, target=volumespec.parse_volume("alpha:/srv/taken.img")),
            errors.VolumeBusy,
            "Node 'alpha:/srv/taken.img' is busy: block device is in use by block job: backup (a job reads it)",
        ),
    ],
    ids=["id", "target is a target", "source is a target", "target is a source"],
)
@pytest.mark.parametrize("position", [0, BATCH - 1, BATCH, 2 * BATCH])
def test_one_job_that_is_refused_undoes_the_whole_run(fleet, job, error, text, position):
    fleet.submit(spec("taken"))
    before = dump(fleet.client)
    rest = many(2 * BATCH, run=OTHER).jobs
    with pytest.raises(error) as refused:
        fleet.registry.submit.submit(grouped(*rest[:position], job, *rest[position:]))
    assert str(refused.value) == text
    assert dump(fleet.client) == before


def test_two_jobs_of_one_plan_under_one_id_or_with_one_target_are_refused(fleet):
    twice = spec("a"), spec("a", host=BETA)
    one_target = spec("a"), spec("b", target=spec("a").target)
    reads_it = spec("a"), spec("b", source=spec("a").target)
    for pair in (twice, (spec("a"), spec("a")), one_target, reads_it):
        with pytest.raises(errors.Refused):
            fleet.registry.submit.submit(grouped(*pair))
        assert dump(fleet.client) == {}


def test_a_source_may_be_read_by_many_and_a_volume_that_is_nowhere_by_all(fleet):
    fleet.submit(spec("a"), spec("b", source=spec("a").source), spec("c", source=NULL, target=NULL))
    fleet.submit(spec("d", run=OTHER, source=spec("a").source), spec("e", run=OTHER, source=NULL, target=NULL))
    assert fleet.client.hgetall(keys.texts())[b"r:alpha:/srv/a.img"] == b"3"


def test_the_same_run_again_is_refused_and_the_first_one_stays(fleet):
    fleet.submit(spec("a"))
    before = dump(fleet.client)
    with pytest.raises(errors.Refused, match="exists already"):
        fleet.submit(spec("b"))
    assert dump(fleet.client) == before


def test_two_clients_with_one_run_id_cannot_mix_their_jobs(fleet):
    """Two backups started within one second have the same run id."""
    first, second = grouped(spec("a")), grouped(spec("b"))
    fleet.registry.submit.stage(first, first.jobs)
    before = dump(fleet.client)
    other = Registry(fleet.client)
    with pytest.raises(errors.Refused, match="exists already"):
        other.submit.submit(second)
    with pytest.raises(errors.Refused, match="exists already"):
        other.submit.submit(first)
    assert dump(fleet.client) == before
    fleet.registry.submit.publish(first.run, 1)
    fleet.registry.submit.launch(first.run)
    assert fleet.status("a") == "created"


def test_of_many_clients_that_want_one_id_one_gets_it(server, client):
    start = threading.Barrier(10)
    outcomes = []

    def submit(number):
        registry = Registry(client)
        plan = grouped(spec("a", run=f"n{number}-20261122T000000Z"))
        start.wait()
        try:
            registry.submit.submit(plan)
            outcomes.append(plan.run)
        except errors.JobExists:
            pass

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    registry = Registry(client)
    assert [run.id for run in registry.views.runs()] == outcomes
    assert registry.views.job("a").run == outcomes[0]


def test_batches_lose_nothing():
    assert [len(batch) for batch in split_batches(range(BATCH * 2 + 7))] == [BATCH, BATCH, 7]
    assert [n for batch in split_batches(range(1200), 7) for n in batch] == list(range(1200))
