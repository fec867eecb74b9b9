"""The lines of a run's report, shared by the HTML page and the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from blockjobs.cli.board import Row
from blockjobs.cli.history import job_counts_text, targets_word
from blockjobs.cli.output import duration_as_clock
from blockjobs.cli.phrases import counted_noun, duration_text, event_sentence, name_within_run, time_of_day
from blockjobs.cli.report_of import BYTES, Group, Report
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import replaced_text
from blockjobs.model.verifications import in_words
from blockjobs.registry.views import JobView, TxnView

RANGES: Final = 20  # unreadable ranges of a source, in a line


def run_facts(found: Report, now: float) -> Iterator[tuple[str, str]]:
    """The most important facts of a run, as name and value."""
    run = found.past.run
    yield "outcome", found.past.word + (f": {reason_of_end(found)}" if reason_of_end(found) else "")
    yield "began", time_of_day(run.published / 1000, now)
    yield "took", duration_text(run.elapsed) if run.ended else f"{duration_text(now - run.published / 1000)} so far"
    yield "jobs", job_counts_text(run)
    yield "bytes", ", ".join(f"{name} {size_text(run.sums.get(name, 0))}" for name in BYTES)
    if run.rate:
        yield "rate", f"{size_text(run.rate)}/s"
    if attempts := run.sums.get("attempts", 0):
        yield "attempts", str(attempts)
    if run.retried:
        yield "tries", f"{run.retried} beyond the first"
    if word := targets_word(found.past):
        yield "targets", word
    if run.retries:
        yield "retries", run.retries
    if run.fields.file:
        yield "file", run.fields.file
    if found.dismissed:
        yield "dismissed", f"{counted_noun(found.dismissed, 'job')}: only what is above is known of them"


def reason_of_end(found: Report) -> str:
    run = found.past.run
    return replaced_text(run.replaced) if run.replaced else run.why.removeprefix(f"{run.id}.")


GROUPS: Final = ("", "JOBS", "FAILED", "CANCELLED", "READ", "WRITTEN", "TOOK", "RATE")
JOBS: Final = ("JOB", "HOST", "STATUS", "SIZE", "READ", "WRITTEN", "TOOK", "RATE", "ATTEMPTS", "CUT")


def group_cells(group: Group) -> list[str]:
    return [
        group.name,
        str(group.jobs),
        str(group.failed or ""),
        str(group.cancelled or ""),
        size_text(group.read),
        size_text(group.written),
        duration_as_clock(group.seconds),
        f"{size_text(group.rate)}/s" if group.rate else "",
    ]


def job_cells(job: JobView) -> list[str]:
    read = job.bytes.get("read", 0)
    written = job.bytes.get("written", 0)
    return [
        name_within_run(job.id, job.run),
        job.host,
        Row.of(job).word,
        size_text(job.len),
        size_text(read),
        size_text(written),
        duration_as_clock(job.elapsed) if job.started else "",
        f"{size_text(read / job.elapsed)}/s" if job.elapsed and read else "",
        str(job.attempts or ""),
        cut_text(job),
    ]


def cut_text(job: JobView) -> str:
    """How the point in time was made, by the job's record: the field ``cut``, or the result."""
    found: Any = job.to_json().get("cut") or job.result.get("cut") or {}
    told = found if isinstance(found, Mapping) else {}
    how = " ".join(str(told[key]) for key in ("how", "consistency") if told.get(key))
    change = str(job.result.get("source-change", ""))
    return ", ".join(word for word in (how, f"source {change}" if change == "changed" else "") if word)


def decision_line(txn: TxnView, run: str) -> str:
    """A transaction as one line, with the time between the cuts if known."""
    skew = txn.to_json().get("skew")
    apart = f"; its cuts lie {skew * 1000:.1f} ms apart" if isinstance(skew, float) else ""
    why = f" ({txn.why})" if txn.why else ""
    return f"{name_within_run(txn.id, run)}: {txn.decision or f'at {txn.barrier}'}{why}{apart}"


def failure_line(job: JobView) -> str:
    tries = f", try {job.tries}" if job.tries > 1 else f", attempt {job.attempts}" if job.attempts > 1 else ""
    return f"{name_within_run(job.id, job.run)} on {job.host}{tries}: {job.error or job.unsettled}"


def salvage_lines(found: Report) -> Iterator[str]:
    for job in found.jobs:
        if ranges := job.result.get("salvaged"):
            lost, where = in_words(ranges, job.result.get("salvaged-more", 0), most=RANGES), f"on {job.host}"
            name, size = name_within_run(job.id, found.past.run.id), size_text(job.result["salvaged-bytes"])
            yield f"{name} {where}: {size}: bytes {lost}"


def skipped_lines(found: Report) -> Iterator[str]:
    for each in found.past.run.fields.skipped:
        yield f"{', '.join(each.jobs)} on {each.host}: {each.why}"


def report_lines(found: Report, now: float) -> Iterator[str]:
    run = found.past.run
    yield run.id
    yield from _column_lines(run_facts(found, now))
    failed = [job for job in found.failures if not job.cancelled]
    yield from _titled_lines("failed", map(failure_line, failed))
    yield from _titled_lines(
        "cancelled with them" if failed else "cancelled", (failure_line(job) for job in found.failures if job.cancelled)
    )
    yield from _titled_lines(
        "salvaged: these parts of the sources could not be read, and are zeros", salvage_lines(found)
    )
    yield from _titled_lines("skipped", skipped_lines(found))
    yield from _titled_lines(
        "not pruned", (f"{name_within_run(job, run.id)}: {each}" for job, each in found.past.left.items())
    )
    yield from _titled_lines("transactions", _column_lines([GROUPS, *map(group_cells, found.transactions)]))
    yield from _titled_lines("decisions", (decision_line(txn, run.id) for txn in found.decisions[:20]))
    yield from _titled_lines("hosts", _column_lines([GROUPS, *map(group_cells, found.hosts)]))
    yield from _titled_lines("jobs", _column_lines([JOBS, *map(job_cells, found.jobs)]))
    for job, events in found.events.items():
        begin = events[0].at
        rows = [(f"{event.at - begin:+.3f} s", event_sentence(event)) for event in events]
        yield from _titled_lines(
            f"what {name_within_run(job, run.id)} did, from {time_of_day(begin, now)} on", _column_lines(rows)
        )


def _titled_lines(title: str, told: Iterable[str]) -> Iterator[str]:
    if found := list(told):
        yield from ("", title, *(f"  {line}" for line in found))


def _column_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Cells as columns, without the columns of empty cells only."""
    table = [list(row) for row in rows]
    if len(table) < 1:
        return
    used = [at for at in range(len(table[0])) if any(row[at] for row in table[1:]) or at == 0 or len(table) == 1]
    widths = {at: max(len(row[at]) for row in table) for at in used}
    for row in table:
        yield "  ".join(row[at].ljust(widths[at]) for at in used).rstrip()
