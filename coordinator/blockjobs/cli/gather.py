"""Ask the fleet for facts unknown to a run file before every start: absent hosts, and the matches of globs.

No job is started and nothing is changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from blockjobs.cli.phrases import counted_noun, duration_text
from blockjobs.cli.runfile import FleetFacts, RunFileRead
from blockjobs.cli.runfile.expansion import Glob
from blockjobs.client.event_stream import BLOCK, Patience, Stream
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import HostDown
from blockjobs.model.ids import Host
from blockjobs.model.policies import transaction_name
from blockjobs.registry.hosts import check_host

PATIENCE: Final = 20.0  # seconds: a large tree, or many images in many pieces, takes a while to look at


def gather_fleet_facts(
    fleet: Fleet, read: RunFileRead, say: Callable[[str], None], *, patient: bool = True
) -> FleetFacts:
    """The facts of the fleet.  ``patient``: wait for hosts as long as the file says, and tell ``say``.

    Raises:
        BadInput: the file is wrong.
        HostsAway: hosts are away that a transaction cannot do without.
    """
    wanted = _seconds_to_wait(fleet, read)
    away = unavailable_hosts(fleet, wanted)
    if patient and any(wanted[host] for host in away):
        away = _await_hosts(fleet, wanted, away, say)
    known = FleetFacts(fleet.volume, absent=away)
    read.plan(datetime.now(UTC), known)  # an indispensable host that is away ends the start before globs are asked
    found, left_out = resolve_globs(fleet, [glob for glob in read.globs() if glob.host not in away])
    return FleetFacts(fleet.volume, found, left_out, away)


def unavailable_hosts(fleet: Fleet, hosts: Iterable[Host]) -> dict[Host, str]:
    """The hosts that cannot take a job now, with the reasons."""
    known = fleet.registry.hosts.known()
    away = {}
    for host in hosts:
        try:
            check_host(host, known.get(host))
        except HostDown as down:
            away[host] = down.why
    return away


def resolve_globs(
    fleet: Fleet, globs: Iterable[Glob]
) -> tuple[dict[Glob, tuple[str, ...] | str], dict[Glob, list[tuple[str, str]]]]:
    """The matches of globs on the hosts, asked in parallel, and by glob the matches left out.

    A text in place of the files says why a glob could not be answered.
    """
    asked: dict[Host, list[str]] = {}
    for glob in globs:
        asked.setdefault(glob.host, []).append(glob.pattern)
    looks = {host: [{"as": "glob", "pattern": each} for each in patterns] for host, patterns in asked.items()}
    found: dict[Glob, tuple[str, ...] | str] = {}
    left_out: dict[Glob, list[tuple[str, str]]] = {}
    for host, answer in ask_about_volumes(fleet, looks).items():
        for at, pattern in enumerate(asked[host]):
            glob = Glob(host, pattern)
            found[glob] = answer if isinstance(answer, str) else _matches_of_answer(answer[at])
            if not isinstance(answer, str):  # a host of an older version does not report left-out files
                left_out[glob] = [(path, why) for path, why in answer[at].get("left-out", ())]
    return found, left_out


def ask_about_volumes(
    fleet: Fleet, looks: Mapping[Host, list[dict[str, Any]]]
) -> dict[Host, list[dict[str, Any]] | str]:
    """The answers of hosts about local volumes; a text for a host without an answer."""
    if not looks:
        return {}
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.probe import Probe  # noqa: PLC0415

    answers = Probe(fleet.registry, Doorbell(fleet.url)).each(looks, PATIENCE)
    return {host: str(answer) if isinstance(answer, HostDown) else answer for host, answer in answers.items()}


def _matches_of_answer(answer: Mapping[str, Any]) -> tuple[str, ...] | str:
    return str(answer["text"]) if "errno" in answer else tuple(answer["paths"])


def _seconds_to_wait(fleet: Fleet, read: RunFileRead) -> dict[Host, int]:
    """Every host of the run -> the seconds that the run may wait for the host."""
    plan = read.plan(datetime.now(UTC), FleetFacts(fleet.volume))
    wanted: dict[Host, int] = {}
    for job in plan.jobs:
        policy = plan.fields.policies[transaction_name(plan.run, job.transaction, plan.fields.policies)]
        wanted[job.host] = max(wanted.get(job.host, 0), policy.offline.seconds)
    return wanted


def _await_hosts(
    fleet: Fleet, wanted: Mapping[Host, int], away: dict[Host, str], say: Callable[[str], None]
) -> dict[Host, str]:
    """Wait until every host worth a wait is up, or the time is over; return the hosts still away."""
    began = time.monotonic()
    stream = Stream(fleet.registry, fleet.registry.events.last(), Patience(say=say))
    away, told = unavailable_hosts(fleet, wanted), set[Host]()
    while left := {host: wanted[host] - (time.monotonic() - began) for host in away if wanted[host]}:
        if max(left.values()) <= 0:
            break
        if told != set(left):
            told = set(left)
            most = duration_text(math.ceil(max(left.values())))
            say(f"waiting for {counted_noun(len(told), 'host')}, {most} at most: {', '.join(sorted(told))}")
        if any(event.name.startswith("HOST_") for event in stream.take(min(BLOCK, max(left.values())) + 0.01)):
            away = unavailable_hosts(fleet, wanted)
    return away
