"""Whether a registry may decide: what others know of decisions that it does not know itself.

Redis may come back older, empty, or be another one.  Who carried out or took a decision remembers its number; a
registry that knows fewer has lost some, and would decide again what was decided.  What a host knows is compared with
what the registry knew when Redis was started: later decisions bear numbers that the lost ones bore as well.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blockjobs.model.ids import Host

ALL_STOP = 2  # hosts that know of later decisions, from which on nothing at all is decided


@dataclass(frozen=True, slots=True)
class DecisionsKnown:
    """A registry, by its incarnation, and the number of the highest decision that somebody knows of it; 0: of none."""

    registry: str
    number: int


def doubt_host(host: Host, claim: DecisionsKnown, here: DecisionsKnown) -> str:
    """Why nothing is decided with a host; "" where it may be."""
    if claim.registry and claim.registry != here.registry:
        which = f"decisions of registry {claim.registry}, this one is {here.registry or 'new'}"
        way = f"`blockjobs registry accept-loss --registry {claim.registry} {claim.number}`, if that is gone for good"
        return f"host {host} has carried out {which}: {way}"
    if claim.number > here.number:
        return _ask_to_accept(
            f"host {host} has carried out decision {claim.number}, this registry knows {here.number}", claim.number
        )
    return ""


def doubt_all(lost: Mapping[Host, int], own: int, here: int) -> str:
    """Why nothing at all is decided; "" where it may be.

    ``lost``: hosts that know of decisions which this registry has lost, and the highest number of each; ``own``: the
    highest that the finalizer has taken itself; ``here``: the highest that this registry knows.
    """
    if own > here:
        return _ask_to_accept(f"the finalizer has taken decision {own}, this registry knows {here}", own)
    if len(lost) < ALL_STOP:
        return ""
    names, highest = ", ".join(sorted(lost)), max(lost.values())
    return _ask_to_accept(f"hosts {names} know of decisions, up to {highest}, that were lost", highest)


def doubt_lost(lost: Mapping[Host, int]) -> str:
    """Why nothing is decided with hosts that know of decisions which were lost; "" where there are none."""
    if not lost:
        return ""
    host, number = max(lost.items(), key=lambda each: each[1])
    return _ask_to_accept(f"host {host} has carried out decision {number}, which this registry has lost", number)


def _ask_to_accept(what: str, number: int) -> str:
    return f"{what}: bring back the right data of Redis, or `blockjobs registry accept-loss {number}`"


def doubt_unheard(hosts: Iterable[Host]) -> str:
    """Why nothing is decided with hosts that were not heard since Redis was started; "" where there are none."""
    names = sorted(hosts)
    if not names:
        return ""
    which = f"host {names[0]} was" if len(names) == 1 else f"hosts {', '.join(names)} were"
    return f"Redis was started anew, and {which} not heard since: blockjobs abandon HOST, if it will not come back"
