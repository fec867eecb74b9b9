"""The verbs on the command line: for a job, for every member of a run, or for a quoted glob."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from blockjobs.cli.job_options import SizeType
from blockjobs.cli.options import cause_option, for_option, redis_option, user_and_machine
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import print_error
from blockjobs.cli.phrases import counted_noun, speed_text
from blockjobs.cli.selection import Selection, select_runs_and_jobs
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import Refused
from blockjobs.model.ids import JobId
from blockjobs.model.states import ACCEPTS, Status, Verb

Act = Callable[[JobId], str]  # applies a verb to a job, and returns the job's new state in a word


def apply_verb(fleet: Fleet, chosen: Selection, verb: Verb, act: Act) -> Counter[str]:
    """Apply a verb to a selection; return the number of jobs by new state.

    Members of a run or a glob that do not accept the verb are skipped, as long as some member accepts.

    Raises:
        Refused: no job accepted the verb; the first refusal.
    """
    done: Counter[str] = Counter()
    refusal: Refused | None = None
    jobs = [place.job for place in chosen.jobs]
    if chosen.many:
        status = fleet.glances.progress(chosen.jobs)
        # Jobs in a status that never accepts the verb are not asked, unless no job is in an accepting status.  An
        # aborting job may be retried.
        accepts = ACCEPTS[verb] | ({Status.ABORTING} if verb is Verb.CANCEL else set())
        jobs = [job for job in jobs if job in status and status[job].status in accepts] or jobs[:1]
    for job in jobs:
        try:
            done[act(job)] += 1
        except Refused as refused:
            refusal = refusal or refused
    if refusal and not done:
        raise refusal
    return done


def apply_verb_to_ids(ids: tuple[str, ...], url: str | None, verb: Verb, act: Callable[[Fleet, JobId], str]) -> int:
    """Apply a verb to every ID; return the exit code.  A refused ID does not stop the rest."""
    bear_lost_output()
    refused: Refused | None = None
    with Fleet(url) as fleet:
        for text in ids:
            try:
                chosen = select_runs_and_jobs(fleet, text)
                done = apply_verb(fleet, chosen, verb, lambda job: act(fleet, job))
                click.echo(f"{text}: {verb_summary(done, len(chosen.jobs), many=chosen.many)}")
            except Refused as wrong:
                if len(ids) == 1:
                    raise
                print_error(str(wrong))
                refused = wrong
    return refused.exit_code if refused else 0


def verb_summary(done: Counter[str], jobs: int, *, many: bool) -> str:
    """``paused``; of many: ``3 jobs paused, 1 job pausing (of 8)``."""
    if not many:
        return next(iter(done))
    parts = ", ".join(f"{counted_noun(number, 'job')} {word}" for word, number in done.items())
    return parts if done.total() == jobs else f"{parts} (of {jobs})"


def ids_of(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("ids", nargs=-1, required=True, metavar="ID...")(redis_option(command))


@click.command()
@cause_option
@for_option
@ids_of
def pause(ids: tuple[str, ...], cause: str, seconds: float | None, url: str | None) -> int:
    """Hold jobs: no target data is written until they are resumed.

    \b
    Example:
      blockjobs pause nightly-20261122T103000Z.db1-data
      blockjobs pause nightly-20261122T103000Z --for 600 --cause 'a report runs'
    """

    whose = user_and_machine() if cause or seconds else ""

    def act(fleet: Fleet, job: JobId) -> str:
        status = fleet.pause(job, cause=cause, owner=whose, seconds=seconds or 0.0)
        return (
            "held before its start"
            if status is Status.CREATED
            else "paused"
            if _is_standing_still(status)
            else "pausing"
        )

    return apply_verb_to_ids(ids, url, Verb.PAUSE, act)


def _is_standing_still(status: Status) -> bool:
    return status in (Status.PAUSED, Status.STANDBY)


@click.command()
@ids_of
def resume(ids: tuple[str, ...], url: str | None) -> int:
    """Release the hold of a user, or of an I/O error.

    \b
    Example:
      blockjobs resume 'nightly-20261122T103000Z.db*'
    """

    def act(fleet: Fleet, job: JobId) -> str:
        return "resuming" if _is_standing_still(fleet.resume(job)) else "resumed"

    return apply_verb_to_ids(ids, url, Verb.RESUME, act)


@click.command()
@ids_of
def cancel(ids: tuple[str, ...], url: str | None) -> int:
    """Cancel jobs, each with its whole transaction; no target of the transaction is published.

    \b
    Example:
      blockjobs cancel nightly-20261122T103000Z
    """

    def act(fleet: Fleet, job: JobId) -> str:
        fleet.cancel(job)
        return "cancelled"

    return apply_verb_to_ids(ids, url, Verb.CANCEL, act)


@click.command()
@ids_of
def complete(ids: tuple[str, ...], url: str | None) -> int:
    """Complete ready jobs (mirrors) with a consistent copy; a paused job completes after `resume`.

    \b
    Example:
      blockjobs complete mirror-20261122T103000Z
    """

    def act(fleet: Fleet, job: JobId) -> str:
        fleet.complete(job)
        return "completing"

    return apply_verb_to_ids(ids, url, Verb.COMPLETE, act)


@click.command()
@ids_of
def finalize(ids: tuple[str, ...], url: str | None) -> int:
    """Let pending transactions be decided; one job stands for the whole transaction.

    \b
    Example:
      blockjobs finalize nightly-20261122T103000Z
    """

    def act(fleet: Fleet, job: JobId) -> str:
        fleet.finalize(job)
        return "finalizing"

    return apply_verb_to_ids(ids, url, Verb.FINALIZE, act)


@click.command()
@ids_of
def dismiss(ids: tuple[str, ...], url: str | None) -> int:
    """Forget concluded jobs: their ids are free again. Images and the record of the run stay.

    \b
    Example:
      blockjobs dismiss 'nightly-20261115*'
    """

    def act(fleet: Fleet, job: JobId) -> str:
        fleet.dismiss(job)
        return "dismissed"

    return apply_verb_to_ids(ids, url, Verb.DISMISS, act)


@click.command("set-speed", context_settings={"ignore_unknown_options": True})  # -5 is a bad SPEED, no option
@click.argument("id_", metavar="ID")
@click.argument("limit", metavar="SPEED", type=SizeType())
@redis_option
def set_speed(id_: str, limit: int, url: str | None) -> int:
    """Limit jobs to SPEED bytes a second each, e.g. 200MiB; 0 is no limit.

    \b
    Example:
      blockjobs set-speed nightly-20261122T103000Z.db1-data 50MiB
    """

    def act(fleet: Fleet, job: JobId) -> str:
        before = fleet.set_speed(job, limit)
        return f"now at {speed_text(limit)} (was {speed_text(before)})"

    return apply_verb_to_ids((id_,), url, Verb.SET_SPEED, act)
