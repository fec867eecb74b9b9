"""Doubt about the registry's memory: decisions known elsewhere and missing in the registry.  Pure.

Redis may come back with older data, empty, or as a different registry.  The hosts and the finalizer remember the
highest number of a decision that they carried out or took.  A registry with a lower number has lost decisions, and
would decide the same transactions again.  A host's number is compared with the registry's number at the start of Redis,
as later decisions reuse the lost numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blockjobs.model.ids import Host

ALL_STOP = 2  # number of hosts with lost decisions that stops every decision


@dataclass(frozen=True, slots=True)
class DecisionsKnown:
    """A registry, by its incarnation, and the number of the highest known decision; 0: none."""

    registry: str
    number: int


def doubt_host(host: Host, claim: DecisionsKnown, here: DecisionsKnown) -> str:
    """The reason to decide nothing with a host; "" without doubt."""
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
    """The reason to decide nothing at all; "" without doubt.

    ``lost``: the hosts with decisions lost by this registry, with the highest number by host; ``own``: the highest
    decision taken by the finalizer; ``here``: the highest decision known to this registry.
    """
    if own > here:
        return _ask_to_accept(f"the finalizer has taken decision {own}, this registry knows {here}", own)
    if len(lost) < ALL_STOP:
        return ""
    names, highest = ", ".join(sorted(lost)), max(lost.values())
    return _ask_to_accept(f"hosts {names} know of decisions, up to {highest}, that were lost", highest)


def doubt_lost(lost: Mapping[Host, int]) -> str:
    """The reason to decide nothing with the hosts in ``lost``, the hosts with lost decisions; "" without such hosts."""
    if not lost:
        return ""
    host, number = max(lost.items(), key=lambda each: each[1])
    return _ask_to_accept(f"host {host} has carried out decision {number}, which this registry has lost", number)


def _ask_to_accept(what: str, number: int) -> str:
    return f"{what}: bring back the right data of Redis, or `blockjobs registry accept-loss {number}`"


def doubt_unheard(hosts: Iterable[Host]) -> str:
    """The reason to decide nothing with hosts not heard since the start of Redis; "" without such hosts."""
    names = sorted(hosts)
    if not names:
        return ""
    which = f"host {names[0]} was" if len(names) == 1 else f"hosts {', '.join(names)} were"
    return f"Redis was started anew, and {which} not heard since: blockjobs abandon HOST, if it will not come back"
