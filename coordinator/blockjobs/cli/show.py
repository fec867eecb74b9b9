"""``show``: the facts of a job or a run, and the reasons for a wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from blockjobs.cli.board import Row
from blockjobs.cli.options import redis_option
from blockjobs.cli.output import duration_as_clock, print_json
from blockjobs.cli.phrases import (
    CRASHED,
    counted_noun,
    hanging_path_text,
    short_duration_text,
    since_text,
    speed_text,
    time_of_day,
)
from blockjobs.cli.selection import is_glob, select_runs_and_jobs
from blockjobs.cli.standing import needs_of_run, run_heading
from blockjobs.cli.why import Scene, reason_of_slowness, reasons_to_wait
from blockjobs.client.fleet import Fleet
from blockjobs.model import volumespec
from blockjobs.model.cuts import CRASH
from blockjobs.model.errors import NoSuchRun
from blockjobs.model.hanging import HangingPath, hanging_under
from blockjobs.model.ids import Host, RunId, TxnId
from blockjobs.model.numbers import size_text
from blockjobs.model.resolutions import resolution_text
from blockjobs.model.states import Status
from blockjobs.model.verifications import FROM_MEDIUM, in_words
from blockjobs.registry.notices import NoticeView
from blockjobs.registry.views import JobPlace, JobView, TxnView

REASONS = 10  # kinds of waiting shown for a run
RANGES = 20  # ranges that differ from their digests

_READ_FROM: Final[dict[object, str]] = {True: "from the medium", False: "maybe from the page cache, not the medium"}


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--json", "json", is_flag=True, help="Print it as JSON.")
@redis_option
def show(id_: str, json: bool, url: str | None) -> None:
    """Show all about a job or a run, and what it waits for.

    \b
    Example:
      blockjobs show nightly-20261122T103000Z.db1-data
    """
    with Fleet(url) as fleet:
        chosen = select_runs_and_jobs(fleet, id_)
        jobs = fleet.registry.views.jobs(chosen.jobs) if chosen.many else map(fleet.get, (at.job for at in chosen.jobs))
        scenes = () if chosen.runs else (scene_of(fleet, job) for job in jobs)
        if json:
            found = [*(run_json(fleet, run) for run in chosen.runs), *map(job_json, scenes)]
            print_json(found if is_glob(id_) else found[0])
        else:
            texts = [*(about_run(fleet, run) for run in chosen.runs), *map(about_job, scenes)]
            click.echo("\n\n".join("\n".join(text) for text in texts))


def scene_of(fleet: Fleet, job: JobView) -> Scene:
    """The facts that decide when a job goes on, read now."""
    registry = fleet.registry
    held = any(reason != "created" for reason in job.holds)
    name = job.spec.store
    return Scene(
        job=job,
        txn=registry.views.transaction(job.transaction),
        hosts={host.name: host for host in fleet.hosts()},
        ahead=fleet.glances.ahead(JobPlace(job.host, job.id, job.transaction)),
        daemons=registry.hosts.daemons(),
        store=next((store for store in fleet.stores() if store.name == name), None) if name else None,
        before=registry.limits.ahead(name, job.host, job.id) if job.crowded else None,
        behind=_run_ahead(fleet, job),
        held_since=fleet.glances.held_since(job.id) if held else {},
        terms={r: terms for (name, r), terms in registry.verbs.terms().items() if name == job.id} if held else {},
    )


def _run_ahead(fleet: Fleet, job: JobView) -> str:
    """The run that this job's run waits for."""
    try:
        return fleet.run(job.run).queued
    except NoSuchRun:  # forgotten before its jobs
        return ""


def job_json(scene: Scene) -> dict[str, Any]:
    job = scene.job
    return job.to_json() | {
        "waits": reasons_to_wait(scene),
        "bytes": job.bytes,
        "result": job.result,
        "unsettled": job.unsettled,
    }


def run_json(fleet: Fleet, run_id: RunId) -> dict[str, Any]:
    run = fleet.run(run_id)
    return run.to_json() | {
        "left-out": [left.to_json() for left in run.fields.skipped],
        "transactions": [txn.to_json() for txn in transactions_of_run(fleet, run_id)],
        "notices": [notice.to_json() for notice in fleet.registry.notices.of(run_id)],
        "attention": fleet.registry.attention.to_json(needs_of_run(fleet, run_id)),
        "hanging": [{"host": name, **each.to_dict()} for name, each in hanging_of_run(fleet, run_id)],
    }


def about_job(scene: Scene) -> Iterator[str]:
    """The lines about a job, a line per fact."""
    job, spec, now = scene.job, scene.job.spec, scene.now
    yield f"{job.id}: {Row.of(job).word}"
    facts = {
        "run": job.run,
        "transaction": job.transaction + _decision_text(scene.txn),
        "host": job.host,
        "source": spec.source.text,
        "target": spec.target.text,
        "job": ", ".join(_option_texts(job)),
        "progress": f"{size_text(job.offset)} of {size_text(job.len)}"
        + (f" ({100 * job.offset // job.len} %)" if job.len else ""),
        "speed": ", ".join(filter(None, (speed_text(job.speed), reason_of_slowness(scene)))),
        "store": spec.store,
        "submitted": time_of_day(job.created / 1000, now),
        "cut": _cut_text(scene),
        "started": f"{time_of_day(job.started / 1000, now)}, {duration_as_clock(job.elapsed)} ago"
        if job.started
        else "",
        "ended": f"{time_of_day(job.ended / 1000, now)}, {duration_as_clock(job.elapsed)} after its start"
        if job.ended
        else "",
        "attempts": _attempts_text(job),
        "bytes": ", ".join(f"{name} {size_text(number)}" for name, number in job.bytes.items()),
        "io-status": job.io_status if job.io_status != "ok" else "",
        "died": f"last lost attempt: {job.died}" if job.died else "",
        "error": job.error,
        "tries": f"try {job.tries} now; the last try failed: {job.failed_with}" if job.failed_with else "",
        **{
            name: in_words(job.result.get(name, ()), job.result.get(f"{name}-more", 0), most=RANGES)
            for name in ("differing", "unreadable", "salvaged")
        },
        "read": _READ_FROM.get(job.result.get(FROM_MEDIUM), ""),
        "untouched": f"{size_text(job.result['untouched'])} of the device" if job.result.get("untouched") else "",
        "undefined": _undefined_text(scene),
        "resolved": resolution_text(job.resolved, job.published_as, job.run) if job.resolved else "",
    }
    if job.ended:
        facts["started"] = time_of_day(job.started / 1000, now) if job.started else ""
    for name, value in facts.items():
        if value:
            yield f"  {name + ':':<13}{value}"
    for warning in job.warnings:
        yield f"  warning:     {warning}"
    for reason in reasons_to_wait(scene):
        yield f"  waiting:     {reason}"


def _undefined_text(scene: Scene) -> str:
    job, host = scene.job, scene.hosts.get(scene.job.host)
    if not job.undefined or host is None:
        return job.undefined
    device = volumespec.volume_label(job.spec.target.volume)
    listed = host.facts.get("undefined")  # None: the steps worker has just started and has not read its records yet
    if listed is None or any(left["device"] == device for left in listed):
        return job.undefined
    return f"{job.spec.target.text} was left undefined; a later job onto it has completed, or the device was cleared"


def _cut_text(scene: Scene) -> str:
    """How and when the source was cut, and for how long it stood still."""
    cut, txn = scene.job.cut, scene.txn
    if cut is None:
        return ""
    if not cut:
        return f"none: {cut.why}" if cut.why else ""
    frozen = f", frozen for {short_duration_text(cut.frozen)}" if cut.frozen else ""
    text = (
        f"{cut.how}, at {time_of_day(cut.begin, scene.now)}, within {short_duration_text(cut.end - cut.begin)}{frozen}"
    )
    if cut.consistency == CRASH:
        return f"{text}; {CRASHED}"
    return text + (
        f"; all of its transaction within {short_duration_text(txn.skew)}" if txn and txn.skew is not None else ""
    )


def _decision_text(txn: TxnView | None) -> str:
    return f" ({txn.decision}: {txn.why})" if txn and txn.decision else ""


def _option_texts(job: JobView) -> Iterator[str]:
    spec = job.spec
    yield f"{spec.type} {spec.sync}"
    yield from ["digests"] * spec.digests
    yield from ["overwrite"] * spec.overwrite
    yield from ["no auto-finalize"] * (not spec.auto_finalize)
    yield from ["auto-dismiss"] * spec.auto_dismiss
    yield f"on-source-error {spec.on_source_error}, on-target-error {spec.on_target_error}"


def _attempts_text(job: JobView) -> str:
    if not job.attempts:
        return ""
    lost = f", {job.lost} lost in a row" if job.lost else ""
    return f"{job.attempts}{lost}{', one runs now' if job.claimed else ''}{', busy' if job.busy else ''}"


def about_run(fleet: Fleet, run_id: RunId) -> Iterator[str]:
    """The lines about a run: the transactions, and by kind of waiting the number of jobs."""
    now = fleet.registry.hosts.now() / 1000
    run = fleet.run(run_id)
    yield run_heading(run, now)
    yield f"  completion-mode: {run.mode}"
    for left in run.fields.skipped:
        told = f" of transaction {left.transaction}" if left.transaction else ""
        yield f"  skipped{told}: {left.host}: {', '.join(left.jobs)}: {left.why}"
    for txn in transactions_of_run(fleet, run_id) if run.mode == "grouped" or run.jobs <= REASONS else ():
        stands = f", at {txn.barrier} {since_text(txn.since / 1000, now)}" if txn.barrier != "concluded" else ""
        skew = f", cut within {short_duration_text(txn.skew)}" if txn.skew is not None else ""
        yield f"  transaction {txn.id}: {counted_noun(txn.jobs, 'job')}{skew}{stands}{_decision_text(txn)}"
        if txn.doubt:
            yield f"    not decided: {txn.doubt}"
    yield from (f"  needs attention: {need.text}" for need in needs_of_run(fleet, run_id))
    for notice in fleet.registry.notices.of(run_id):
        yield f"  notice: {about_notice(notice, now)}"
    waiting: dict[str, list[JobView]] = {}
    if run.ended:
        return
    for name, each in hanging_of_run(fleet, run_id):
        yield f"  on host {name} {hanging_path_text(each, now)}"
    for job in fleet.list(run_id):
        if job.status is not Status.CONCLUDED:
            waiting.setdefault(_waiting_key(job), []).append(job)
    for kind, jobs in list(waiting.items())[:REASONS]:
        reasons = reasons_to_wait(scene_of(fleet, jobs[-1]))
        told = f": e.g. {jobs[-1].id}: {'; '.join(reasons)}" if reasons else ""
        yield f"  {counted_noun(len(jobs), 'job')} {kind}{told}"


def hanging_of_run(fleet: Fleet, run_id: RunId) -> list[tuple[Host, HangingPath]]:
    """The paths that hang on a run's hosts, and lie beneath the run's jobs or delay the run's transactions."""
    hosts = {host.name: host for host in fleet.hosts() if host.hanging}
    found: dict[tuple[Host, HangingPath], None] = {}
    for job in fleet.list(run_id) if hosts else ():
        if job.host in hosts and job.status is not Status.CONCLUDED:
            for each in hosts[job.host].hanging:
                if each.transaction == job.transaction or hanging_under([each], job.spec):
                    found[job.host, each] = None
    return [*found]


def about_notice(notice: NoticeView, now: float) -> str:
    """Whether a notice was sent, of a run's end or of a condition that needs a person."""
    tries = f"{notice.tries} {'try' if notice.tries == 1 else 'tries'}"
    who = f"{notice.outcome} to {notice.url}"
    match notice.state:
        case "sent":
            told = f"sent at {time_of_day(notice.at / 1000, now)}, {tries}"
        case "failed":
            told = f"not sent, given up after {tries}: {notice.error}"
        case _:
            told = f"not sent yet, {tries}"
            told += f": {notice.error}; next at {time_of_day(notice.due / 1000, now)}" * bool(notice.error)
    return f"{who}: {told}" + f" ({notice.about})" * bool(notice.about)


def _waiting_key(job: JobView) -> str:
    """A key for jobs that wait alike."""
    word = Row.of(job).word
    return f"{word} on {job.host}" if word in ("queued", "created") else word


def transactions_of_run(fleet: Fleet, run_id: RunId) -> Iterator[TxnView]:
    txns: dict[TxnId, None] = dict.fromkeys(place.transaction for place in fleet.registry.views.places(run_id))
    for txn in txns:
        view = fleet.registry.views.transaction(txn)
        if view is not None:
            yield view
