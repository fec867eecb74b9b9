"""Figures that a document gives and the code has: each sentence is written here with the figure of the code.

What the figures do is shown by the tests of the parts; here nothing but that a reader is told the right ones.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis

from blockjobs.cli import events, main, refusal
from blockjobs.client import event_stream
from blockjobs.daemons import lookout
from blockjobs.model import notices
from blockjobs.notify import send
from blockjobs.registry import attention, fitness
from blockjobs.settings import Settings

ROOT = Path(__file__).parents[2]
UNATTENDED, SECURITY, DEPLOY = "docs/unattended.md", "docs/security.md", "deploy/README.md"
DEFAULT = Settings.model_construct()
DELAYS = [f"{delay:g}" for delay in DEFAULT.delays]
NUMBERS = {n: str(n) for n in range(100)} | {5: "five", 10: "ten"}
LUA = (Path(attention.__file__).parent / "lua" / "events.lua").read_text(encoding="utf-8")
(PAGE,) = re.findall(r"^local HOST_PAGE = (\d+)", LUA, re.M)
TRIES, MINUTES = NUMBERS[1 + len(DELAYS)], NUMBERS[round(sum(DEFAULT.delays) / 60)]
OLD_REDIS, OLD_VALKEY = (".".join(map(str, fitness.REPLAYS[kind])).removesuffix(".0") for kind in ("redis", "valkey"))

SENTENCES = {
    "patience": (UNATTENDED, f"away for up to `--patience S` ({event_stream.PATIENCE:g} seconds)"),
    "gone": (UNATTENDED, f"ends its followers within {NUMBERS[round(2 * event_stream.RECORDS)]} seconds, with 6"),
    "a try": (UNATTENDED, f"A try takes at most {send.LIMIT:g} s;"),
    "delays": (UNATTENDED, f"after {', '.join(DELAYS[:-1])} and {DELAYS[-1]} s a new try follows, {TRIES} times"),
    "tries": (UNATTENDED, f"{TRIES} times in {MINUTES} minutes (`BLOCKJOBS_NOTIFY_DELAYS={DEFAULT.notify_delays}` is"),
    "apprise": (UNATTENDED, f"A coordinator says so in Redis each {lookout.LOOK:g} s."),
    "a look": (UNATTENDED, f"The coordinator looks every {lookout.LOOK:g} s,"),
    "owes": (UNATTENDED, f"for {DEFAULT.owes_minutes:g} minutes (`BLOCKJOBS_OWES_MINUTES`)"),
    "held": (UNATTENDED, f"for {DEFAULT.held_minutes:g} minutes (`BLOCKJOBS_HELD_MINUTES`)"),
    "idle": (UNATTENDED, f"for {DEFAULT.idle_minutes:g} minutes (`BLOCKJOBS_IDLE_MINUTES`)"),
    "the same refusal": (UNATTENDED, "in the next half of the day" * (refusal.QUIET == 12 * 3_600_000) or "?"),
    "notices of no run": (UNATTENDED, f"they are kept for {attention.KEPT // 86_400_000} days."),
    "failures": (UNATTENDED, f"`failures` holds the first {NUMBERS[notices.FAILURES]};"),
    "needs": (UNATTENDED, f"`needs` holds the first {NUMBERS[notices.NEEDS]}, `more`"),
    "what hosts tell": (SECURITY, f"at most {PAGE} entries of a host at a time"),
    "who replays": (DEPLOY, f"one older than Redis {OLD_REDIS} or Valkey {OLD_VALKEY} whose user `default`"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_document_gives_the_figure_that_the_code_has(sentence):
    document, said = SENTENCES[sentence]
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    assert said in text


def test_whoever_follows_events_is_patient_for_ever(monkeypatch):
    """docs/unattended.md: ``run``, ``wait`` and ``status`` take ``--patience``; ``events --follow`` waits for ever."""
    context = main.cli.make_context("blockjobs", ["events"])
    options = {
        name: {each.name for each in main.cli.get_command(context, name).params}
        for name in ("run", "wait", "status", "events")
    }
    assert {name for name, known in options.items() if "patience" in known} == {"run", "wait", "status"}
    sight = events.Patience(say=lambda _: None)
    for now in (0.0, 1e12):
        monkeypatch.setattr(event_stream.time, "monotonic", lambda now=now: now)
        with sight.bear():
            raise redis.ConnectionError("away")
