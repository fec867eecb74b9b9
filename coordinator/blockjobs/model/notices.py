"""Notices of a run's end or of a need for a person: kinds of URLs, redaction, messages and retry times.

A URL may hold a secret anywhere: in the user info, in the query, and with most services in the path or in place of the
host.  Every URL or error text for display, logs or records goes through ``public_url`` and ``scrubbed_text``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from blockjobs.model.errors import BadInput
from blockjobs.model.policies import Verdict, replaced_text
from blockjobs.model.volumespec import printable_text

LONGEST: Final = 2000  # characters of a URL
MOST: Final = 20  # URLs per outcome
FAILURES: Final = 5  # failed jobs named in a message
NEEDS: Final = 10  # needs listed in one message
ATTENTION: Final = "attention"  # the verdict of a message about needs, and the key of its recipients in a run file
TEXT: Final = 300  # characters of an error quoted in a message
VERSION: Final = 1  # of the message

OUTCOMES: Final = {Verdict.ALL: "success", Verdict.PARTIAL: "partial", Verdict.FAILED: "failure"}
_SAID: Final = {Verdict.ALL: "committed", Verdict.PARTIAL: "partly committed", Verdict.FAILED: "failed"}


class Kind(StrEnum):
    WEBHOOK = "webhook"
    APPRISE = "apprise"


_KINDS: Final = {"http": Kind.WEBHOOK, "https": Kind.WEBHOOK}  # everything else is apprise's
_HOSTS: Final = frozenset({"http", "https", "mailto", "mailtos"})  # schemes with a real host instead of a token
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?", re.ASCII)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?=.)", re.ASCII)
_EXPECTED: Final = "https://HOST/PATH, or a URL of apprise's such as mailto://USER:PASSWORD@example.com, was expected"


def url_carrier(url: str) -> Kind:
    """The carrier of messages to ``url``."""
    return _KINDS.get(url.partition("://")[0].lower(), Kind.APPRISE)


def checked_url(url: str) -> str:
    """``url``, if the form is valid; URLs of apprise are checked further by ``notify.by_apprise``.

    Raises:
        BadInput: the fault, without any part of the URL that may be secret.
    """
    match = _SCHEME.match(url)
    if match is None or len(url) > LONGEST or any(ch.isspace() or not ch.isprintable() for ch in url):
        raise BadInput(f"this is no URL that can be told; {_EXPECTED}")
    if url_carrier(url) is Kind.APPRISE:
        return url
    try:
        parts = urlsplit(url)
        fit = bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or not url.isascii():
        raise BadInput(f"a {match[1]}:// URL without a host, or with a malformed one; {_EXPECTED}")
    return url


def public_url(url: str) -> str:
    """The public part of ``url``: the scheme, and the host for schemes with a real host."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    place = re.split("[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(place) :]
    host = place.rpartition("@")[2]
    # A password may contain a character that ends a host: the host is then somewhere behind the password.
    if scheme not in _HOSTS or not _HOST.fullmatch(host) or ("@" in behind and "@" not in place):
        return f"{scheme}://***"
    path = behind.partition("?")[0].partition("#")[0]
    return f"{scheme}://{host}{path[:1]}{'***' if len(path) > 1 else ''}"


def scrubbed_text(text: str, url: str, *secrets: str) -> str:
    """``text`` as one line, without the parts of ``url`` hidden by ``public_url``, and without ``secrets``."""
    open_ = public_url(url)
    rest = url.partition("://")[2]
    parts = {rest, unquote(rest), *re.split(r"[/?&=:@#,+]", rest), *re.split(r"[/?&=:@#,+]", unquote(rest)), *secrets}
    for part in sorted((part for part in parts if len(part) > 2 and part not in open_), key=len, reverse=True):
        text = text.replace(part, "***")
    return printable_text(" ".join(text.split()))[:TEXT]


def recipients_of(notify: Mapping[str, Sequence[str]], verdict: Verdict) -> tuple[str, Sequence[str]]:
    """The outcome used as the key in a run file's recipients, and the URLs; ``partial`` falls back to ``failure``."""
    outcome = OUTCOMES[verdict]
    if outcome == "partial" and outcome not in notify:
        outcome = "failure"
    return outcome, notify.get(outcome, ())


def again_after(tries: int, delays: Sequence[float]) -> float | None:
    """Seconds until the next try of a notice after ``tries`` failures; None: give the notice up."""
    return delays[tries - 1] if tries <= len(delays) else None


# --- the message ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed job."""

    job: str
    host: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A finished run, as described in a notice.  Times in seconds."""

    run: str
    name: str
    verdict: Verdict
    jobs: int
    failed: int
    cancelled: int
    skipped: int = 0
    began: float = 0.0
    ended: float = 0.0
    failures: tuple[Failure, ...] = ()
    replaced: str = ""  # the later run that took the place in line
    test: bool = False


def run_end_body(run: RunEnd, notice: str) -> dict[str, Any]:
    """The JSON of a webhook; ``notice`` is the id of the notice, the same at every try."""
    return {
        "version": VERSION,
        "notice": notice,
        "test": run.test,
        "run": run.run,
        "name": run.name,
        "verdict": OUTCOMES[run.verdict],
        "exit-code": int(run.verdict),
        "jobs": run.jobs,
        "committed": run.jobs - run.failed - run.cancelled,
        "failed": run.failed,
        "cancelled": run.cancelled,
        "skipped": run.skipped,
        "replaced-by": run.replaced or None,
        "began": run.began,
        "ended": run.ended,
        "seconds": round(run.ended - run.began, 3),
        "failures": [
            {"job": each.job, "host": each.host, "error": _shortened_error(each.error)} for each in run.failures
        ],
    }


def attention_body(
    notice: str, name: str, needs: Sequence[Mapping[str, Any]], *, run: str = "", test: bool = False
) -> dict[str, Any]:
    """The JSON of a webhook about needs: the needs of a run, or of a name without a run."""
    shown_ones = [{**need, "text": _shortened_error(str(need["text"]))} for need in needs[:NEEDS]]
    return {
        "version": VERSION, "notice": notice, "test": test, "run": run or None, "name": name, "verdict": ATTENTION,
        "needs": shown_ones, "more": len(needs) - len(shown_ones),
    }  # fmt: skip


def notice_title(said: Mapping[str, Any]) -> str:
    """The title line of a ``run_end_body`` or an ``attention_body``, for a person."""
    if said["verdict"] == ATTENTION:
        return f"{'TEST: ' * said['test']}blockjobs: {said['name']} needs attention: {said['needs'][0]['text']}"
    word = "skipped" if said["replaced-by"] else _SAID[Verdict(said["exit-code"])]
    counts = f"{said['committed']} of {said['jobs'] + said['skipped']} jobs committed"
    return f"{'TEST: ' * said['test']}blockjobs: {said['name']} {word}: {counts}"


def notice_text(said: Mapping[str, Any]) -> str:
    """The lines below the title."""
    return "\n".join(_lines_of_needs(said) if said["verdict"] == ATTENTION else _run_end_lines(said))


def _lines_of_needs(said: Mapping[str, Any]) -> Iterable[str]:
    yield f"run {said['run']}" if said["run"] else f"name {said['name']}"
    yield from (str(need["text"]) for need in said["needs"])
    if said["more"]:
        yield f"and {said['more']} more: blockjobs show {said['run']}"


def _run_end_lines(said: Mapping[str, Any]) -> Iterable[str]:
    yield f"run {said['run']}"
    if said["replaced-by"]:
        yield replaced_text(said["replaced-by"])
    for name in ("committed", "failed", "cancelled", "skipped"):
        if said[name]:
            yield f"{name}: {said[name]}"
    yield f"took: {said['seconds']:.0f} s"
    yield from (f"{each['job']} on {each['host']} failed: {each['error']}" for each in said["failures"])
    if (more := said["failed"] - len(said["failures"])) > 0 and said["failures"]:
        yield f"and {more} more: blockjobs status {said['run']}"


def _shortened_error(error: str) -> str:
    line = printable_text(" ".join(error.split()))
    return line if len(line) <= TEXT else line[: TEXT - 3] + "..."
