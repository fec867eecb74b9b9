"""``report``: a page about a run, failures first: as text, as JSON, or as one HTML file."""

from __future__ import annotations

import time

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import print_json
from blockjobs.cli.report_of import gather_report
from blockjobs.cli.report_text import report_lines
from blockjobs.client.fleet import Fleet


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--json", "as_", flag_value="json", help="Print it as JSON; docs/history.md has the fields.")
@click.option("--html", "as_", flag_value="html", help="Print a self-contained HTML file.")
@redis_option
def report(run_id: str, as_: str | None, url: str | None) -> None:
    """Print all about a RUN: failures with reasons, transactions, hosts, jobs, and time use of the slowest jobs.

    \b
    Example:
      blockjobs report nightly-20261122T103000Z
      blockjobs report nightly-20261122T103000Z --html > report.html
    """
    with Fleet(url) as fleet:
        found = gather_report(fleet, run_id)
    if as_ == "json":
        print_json(found.to_json())
    elif as_ == "html":
        from blockjobs.cli.report_html import report_page  # noqa: PLC0415

        click.echo(report_page(found, time.time()))
    else:
        click.echo("\n".join(report_lines(found, time.time())))
