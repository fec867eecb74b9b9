"""``notify``: send a test notice to a URL of a run file's ``notify:``, from this machine."""

from __future__ import annotations

import time
from typing import Any

import click

from blockjobs.model.attention import Cause, Need
from blockjobs.model.errors import BlockjobsError
from blockjobs.model.notices import ATTENTION, Kind, RunEnd, attention_body, public_url, run_end_body, url_carrier
from blockjobs.model.policies import Verdict
from blockjobs.notify import by_apprise
from blockjobs.notify.send import LIMIT, send_notice
from blockjobs.settings import read_settings

OUTCOMES = {"success": Verdict.ALL, "partial": Verdict.PARTIAL, "failure": Verdict.FAILED}


@click.group()
def notify() -> None:
    """Test notification URLs.

    \b
    Example:
      blockjobs notify test https://hooks.example.com/blockjobs
    """


@notify.command()
@click.argument("url")
@click.option(
    "--outcome",
    type=click.Choice([*OUTCOMES, ATTENTION]),
    default="failure",
    show_default=True,
    help="Outcome that the test message reports.",
)
def test(url: str, outcome: str) -> int:
    """Send a test message to URL, once, from this machine; needs no Redis.

    A webhook (http, https) gets the JSON of a run `test`, signed if BLOCKJOBS_NOTIFY_SECRET or
    BLOCKJOBS_NOTIFY_SECRET_FILE is set here; apprise sends to every other kind of URL. Exit code 0: the message was
    accepted; 1: the message was not accepted; 2: the URL is not valid.

    \b
    Example:
      blockjobs notify test https://hooks.example.com/blockjobs
      blockjobs notify test mailto://user:password@example.com --outcome success
    """
    settings, now = read_settings(), time.time()
    by_apprise.check_url(url)
    if url_carrier(url) is Kind.APPRISE and not by_apprise.is_apprise_installed():
        raise BlockjobsError(by_apprise.MISSING)
    said = body_of_test_notice(outcome, f"test/{now:.6f}", now)
    try:
        secret = settings.secret()
    except (OSError, UnicodeDecodeError) as error:
        raise BlockjobsError(f"BLOCKJOBS_NOTIFY_SECRET_FILE: {error}") from None
    if why := send_notice(url, said, secret):
        raise BlockjobsError(f"the message could not be sent to {public_url(url)}: {why}")
    signed = ", signed" if secret and url_carrier(url) is Kind.WEBHOOK else ""
    click.echo(f"message sent to {public_url(url)} (at most {LIMIT:.0f} s a try{signed})")
    return 0


def body_of_test_notice(outcome: str, notice: str, now: float) -> dict[str, Any]:
    """The body of a test notice for a run ``test``, which never existed."""
    run = "test-19700101T000000Z"
    if outcome == ATTENTION:
        need = Need(cause=Cause.STOPPED, subject=f"{run}.one", host="test", text="this is a test: nothing stopped")
        return attention_body(notice, "test", [need.to_json()], run=run, test=True)
    verdict = OUTCOMES[outcome]
    ended = RunEnd(
        run=run, name="test", verdict=verdict, jobs=2, failed=0 if verdict is Verdict.ALL else 1, cancelled=0,
        began=now, ended=now, test=True,
    )  # fmt: skip
    return run_end_body(ended, notice)
