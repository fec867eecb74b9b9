"""A run's report as one HTML file: no script, no font, no picture from anywhere; readable on paper, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from blockjobs.cli.phrases import counted_noun, event_sentence, name_within_run, time_of_day
from blockjobs.cli.report_of import Report
from blockjobs.cli.report_text import (
    GROUPS,
    JOBS,
    decision_line,
    failure_line,
    group_cells,
    job_cells,
    run_facts,
    salvage_lines,
    skipped_lines,
)
from blockjobs.model.policies import RunOutcome

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --bad: #b3261e; --good: #1b6e3c; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #7fd6a2; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
.outcome { font-weight: 600; } .bad { color: var(--bad); } .good { color: var(--good); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 1rem 0; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: .75rem; letter-spacing: .04em; opacity: .7; }
td.n, th.n { text-align: right; white-space: nowrap; width: 1%; padding-left: .7rem; }
tr.bad td:first-child { box-shadow: inset 3px 0 var(--bad); padding-left: .6rem; }
ul.failures { list-style: none; padding: 0; margin: 0; }
ul.failures li { border-left: 3px solid var(--bad); background: var(--soft); padding: .4rem .8rem; margin: .3rem 0;
  overflow-wrap: anywhere; }
details summary { cursor: pointer; }
footer { margin-top: 2rem; font-size: .8rem; opacity: .7; }
@page { margin: 15mm; }
@media print {
  :root { color-scheme: light; --bad: #8c1d18; --good: #14522d; }
  body { font-size: 9pt; margin: 0; max-width: none; padding: 0; }
  .scroll { overflow: visible; } tr, li { break-inside: avoid; } h2 { break-after: avoid; }
  thead { display: table-header-group; }
}
"""
NUMBERS: Final = frozenset(
    ("JOBS", "FAILED", "CANCELLED", "SIZE", "READ", "WRITTEN", "TOOK", "RATE", "ATTEMPTS", "AFTER")
)


def report_page(found: Report, now: float) -> str:
    run = found.past.run
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(run.id)}: {escape(found.past.word)}</title>",
            f"<style>{STYLE}</style>",
            *_report_body(found, now),
            "</html>",
        )
    )


def _report_body(found: Report, now: float) -> Iterator[str]:
    run = found.past.run
    sound = run.outcome is RunOutcome.COMMITTED and not run.salvaged
    good = "" if not run.ended or run.found else "good" if sound else "bad"
    yield f"<h1>{escape(run.id)}</h1>"
    (_, outcome), *facts = run_facts(found, now)
    yield f'<p class="outcome {good}">{escape(outcome)}</p>'
    yield "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts) + "</dl>"
    failed = [job for job in found.failures if not job.cancelled]
    yield from _html_list("Failed", map(failure_line, failed))
    yield from _html_list("Cancelled", (failure_line(job) for job in found.failures if job.cancelled))
    yield from _html_list("Salvaged: these parts of the sources could not be read, and are zeros", salvage_lines(found))
    yield from _html_list("Skipped", skipped_lines(found))
    yield from _html_list(
        "Not pruned", (f"{name_within_run(job, run.id)}: {why}" for job, why in found.past.left.items())
    )
    yield from _html_table("Transactions", GROUPS, map(group_cells, found.transactions))
    if found.decisions:
        yield (
            "<ul>" + "".join(f"<li>{escape(decision_line(txn, run.id))}</li>" for txn in found.decisions[:20]) + "</ul>"
        )
    yield from _html_table("Hosts", GROUPS, map(group_cells, found.hosts))
    marked = frozenset(name_within_run(job.id, run.id) for job in found.failures)
    yield from _html_table("Jobs", JOBS, map(job_cells, found.jobs), marked)
    for job, events in found.events.items():
        begin = events[0].at
        rows = ((f"{event.at - begin:+.3f} s", event_sentence(event)) for event in events)
        yield from _html_table(
            f"What {name_within_run(job, run.id)} did, from {time_of_day(begin, now)} on", ("AFTER", "EVENT"), rows
        )
    yield f"<footer>blockjobs, {counted_noun(run.jobs, 'job')}, written at {escape(time_of_day(now, 0))}</footer>"


def _html_list(title: str, lines: Iterable[str]) -> Iterator[str]:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    if items:
        yield f'<h2>{escape(title)}</h2><ul class="failures">{items}</ul>'


def _html_table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], marked: frozenset[str] = frozenset()
) -> Iterator[str]:
    """A table without the columns of empty cells only."""
    lines = list(rows)
    if not lines:
        return
    used = [at for at in range(len(heads)) if at == 0 or any(row[at] for row in lines)]
    kinds = {at: ' class="n"' if heads[at] in NUMBERS else "" for at in used}
    yield f'<h2>{escape(title)}</h2><div class="scroll" tabindex="0"><table><thead><tr>'
    yield "".join(f"<th{kinds[at]}>{escape(heads[at].capitalize())}</th>" for at in used) + "</tr></thead><tbody>"
    for row in lines:
        kind = ' class="bad"' if row[0] in marked else ""
        yield f"<tr{kind}>" + "".join(f"<td{kinds[at]}>{escape(row[at])}</td>" for at in used) + "</tr>"
    yield "</tbody></table></div>"
