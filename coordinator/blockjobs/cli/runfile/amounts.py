"""Number of hosts and jobs of a run file, computed from its content before any host or job is made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from blockjobs.cli.runfile import limits, units
from blockjobs.cli.runfile.yaml_places import Path as Place


def first_excess(content: object) -> tuple[Place, str] | None:
    """The first place at which the hosts or the jobs are too many, and the error text; None: within the limits.

    Malformed hosts, lists and mappings count as nothing; the check of the fields refuses them later.
    """
    groups: dict[object, int] = {}
    named, jobs = 0, len(_list_at(content, "jobs"))
    if jobs > limits.JOBS:
        return ("jobs",), _too_many(jobs, limits.JOBS, "jobs")
    for field in ("hosts", "stores"):
        if len(_mapping_at(content, field)) > limits.GROUPS:
            return (field,), _too_many(len(_mapping_at(content, field)), limits.GROUPS, f"names of {field}")
    for group, words in _mapping_at(content, "hosts").items():
        groups[group] = _number_of_hosts(words, {})
        named += groups[group]
        if named > limits.NAMES:
            return ("hosts", group), _too_many(named, limits.NAMES, "hosts")
    for at, txn in enumerate(_list_at(content, "transactions")):
        hosts = _number_of_hosts(txn.get("hosts") if isinstance(txn, dict) else None, groups)
        named += hosts
        if named > limits.NAMES:
            return ("transactions", at, "hosts"), _too_many(named, limits.NAMES, "hosts")
        jobs += hosts * len(_list_at(txn, "sources")) + len(_list_at(txn, "jobs"))
        if jobs > limits.JOBS:
            return ("transactions", at, "sources"), _too_many(jobs, limits.JOBS, "jobs, each source on each host")
    return None


def _too_many(found: int, most: int, what: str) -> str:
    return f"up to here the file is {found} {what}; at most {most} were expected"


def _number_of_hosts(words: object, groups: Mapping[object, int]) -> int:
    """Number of hosts in a list of groups, names and ranges; a host named twice counts twice.

    A range that is too large by itself counts as nothing, and is refused as a range later.
    """
    many = 0
    for word in words if isinstance(words, list) else [words]:
        if isinstance(word, str):
            with suppress(ValueError):
                found = groups.get(word) or units.count_hosts(word)
                many += found if found <= limits.HOSTS or word in groups else 0
    return many


def _list_at(value: object, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _mapping_at(value: object, key: str) -> dict[Any, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}
