"""The meaning of an ID on the command line: a run (every member), a job, or a quoted glob over both."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import NoSuchJob, NoSuchRun, Refused
from blockjobs.model.ids import Host, RunId
from blockjobs.registry.events import Event
from blockjobs.registry.views import JobPlace

_GLOB: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Selection:
    """The runs and jobs of an ID.  ``many``: the members were not named one by one."""

    text: str
    runs: tuple[RunId, ...]  # runs selected as a whole
    jobs: tuple[JobPlace, ...]  # every selected job, also the jobs of the runs
    many: bool


def named_hosts(names: Sequence[str], known: Container[Host]) -> list[Host]:
    """The hosts with these names; raises Refused if a host has never registered."""
    hosts = [Host(name) for name in names]
    if strange := [host for host in hosts if host not in known]:
        raise Refused(f"no host is named '{strange[0]}'; `blockjobs hosts` lists them all")
    return hosts


def is_glob(text: str) -> bool:
    return _GLOB.search(text) is not None


def select_runs_and_jobs(fleet: Fleet, text: str) -> Selection:
    """Find the runs and jobs of an ID; an id of both a run and a job means the run.

    Raises:
        NoSuchRun: neither a run nor a job, or a glob without a match.
    """
    views = fleet.registry.views
    if not text.isascii():  # ids are ASCII, and bytes that are no text cannot be sent in a query
        raise NoSuchRun(text)
    if is_glob(text):
        runs = fleet.glances.runs_like(text)
        places = [place for run in runs for place in views.places(run)] + fleet.glances.jobs_like(text)
        if not places:
            raise NoSuchRun(text)
        whole = [run.id for run in views.runs_of(runs)]  # the jobs of an unreadable run are readable
        return Selection(text, tuple(whole), tuple(dict.fromkeys(places)), many=True)
    try:
        run = views.run_id(text)
    except NoSuchRun:
        try:
            return Selection(text, (), (_published_place(fleet, text),), many=False)
        except NoSuchJob:
            raise NoSuchRun(text) from None
    return Selection(text, (run,), tuple(views.places(run)), many=True)


def _published_place(fleet: Fleet, job_id: str) -> JobPlace:
    place, *_ = fleet.registry.views.published(job_id)
    return place


def is_event_about(event: Event, texts: Iterable[str]) -> bool:
    """Whether an event is about a run, a transaction, a job or a host in ``texts``, by name or by glob."""
    names = (event.id, event.run, event.txn, event.host)
    return any(any(is_glob_match(name, text) for name in names if name) for text in texts)


def is_glob_match(name: str, text: str) -> bool:
    """Redis' globs, as far as ids need globs: ``*``, ``?``, ``[abc]``, ``[^abc]``; other characters are literal."""
    return _glob_as_regex(text).fullmatch(name) is not None if is_glob(text) else name == text


@cache
def _glob_as_regex(text: str) -> re.Pattern[str]:
    """A glob as a regular expression."""
    words = {"*": ".*", "?": "."}
    parts = re.split(r"(\*|\?|\[\^?[^\]]+\])", text)
    return re.compile("".join(words.get(p) or (p if p.startswith("[") and len(p) > 1 else re.escape(p)) for p in parts))
