"""What must hold after everything: judged by the disks and by raw records, with none of the product's code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis
from workload import Member, Sent, digest

JOB = "bj:h:{host}:job:{job}"
TOMBSTONES = "settled"
JOURNALS = ".blockjobs"  # the folder of them


@dataclass(frozen=True)
class World:
    """What is judged: the registry, the runs that were sent, the sources' digests, and where targets lie."""

    client: redis.Redis
    sent: list[Sent]
    digests: Mapping[Path, str]
    roots: Mapping[str, Path]
    excused: frozenset[str]  # transactions of which somebody accepted that their decision is lost
    unknown: frozenset[str]  # transactions and runs that a copy of the registry, brought back, does not have


def violations(world: World) -> list[str]:
    """All that is wrong; each a sentence."""
    return [
        *sources_changed(world), *targets_differ(world), *transactions_split(world), *verdicts_and_disks(world),
        *acknowledged_and_gone(world), *left_on_disks(world), *left_in_registry(world),
    ]  # fmt: skip


def sources_changed(world: World) -> Iterator[str]:
    for path, before in world.digests.items():
        if digest(path) != before:
            yield f"source {path} was changed"


def targets_differ(world: World) -> Iterator[str]:
    for sent in world.sent:
        for member in sent.members:
            if member.target.exists() and digest(member.target) != world.digests[member.source]:
                yield f"{member.target} is there and differs from its source"


def transactions_of(sent: Sent) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for member in sent.members:
        found.setdefault(member.transaction, []).append(member)
    return found


def transactions_split(world: World) -> Iterator[str]:
    """All members of a transaction are published, or none is."""
    for sent in world.sent:
        for txn, members in transactions_of(sent).items():
            there = [member.target.exists() for member in members]
            if any(there) != all(there) and txn not in world.excused:
                yield f"transaction {txn}: {sum(there)} of {len(there)} targets are there"


def verdicts_and_disks(world: World) -> Iterator[str]:
    """What the registry says of a job is what lies on the disk."""
    for sent in world.sent:
        for member in sent.members:
            if {member.transaction, sent.run} & (world.excused | world.unknown):
                continue
            record = world.client.hgetall(JOB.format(host=member.host, job=member.job))
            if not record:
                continue
            if record.get(b"status") != b"concluded":
                yield f"job {member.job} is {record.get(b'status')!r} after everything"
            elif (record.get(b"ret", b"0") == b"0") != member.target.exists():
                there = "is" if member.target.exists() else "is not"
                yield f"job {member.job} ended with {record.get(b'ret')!r}, and its target {there} there"


def acknowledged_and_gone(world: World) -> Iterator[str]:
    """What was acknowledged is known, and is over."""
    for sent in world.sent:
        if not sent.acknowledged or sent.run in world.unknown:
            continue
        record = world.client.hgetall(f"bj:run:{sent.run}")
        if not record:
            yield f"run {sent.run} was acknowledged, and the registry does not know it"
        elif b"ended" not in record:
            yield f"run {sent.run} is not over"


def left_on_disks(world: World) -> Iterator[str]:
    """No staging file and no reserved name is left of what is over, and no journal that says of no decision.

    A journal whose transaction was settled while its disk was going away is closed by the host within the hour.
    """
    for host, root in world.roots.items():
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            hidden = any(part.startswith(".") for part in parts)
            if not path.is_file() or not hidden or TOMBSTONES in parts or path.suffix in (".lock", ".json"):
                continue
            if path.parent.name != JOURNALS or not is_decided(path):
                yield f"{path} is left on host {host}"


def is_decided(path: Path) -> bool:
    """Whether a journal, or the journal beside its spare file, has a decision."""
    journal = path.with_name(path.name.removeprefix(".").removesuffix(".new"))
    try:
        return bool(json.loads(journal.read_text())["decision"])
    except (OSError, ValueError, KeyError):
        return False


def left_in_registry(world: World) -> Iterator[str]:
    """Nobody holds a slot, a volume or an attempt for what is over."""
    ours = {member.job for sent in world.sent for member in sent.members}
    for host in world.roots:
        for what in ("attempts", "fences", "locks", "ready", "rung"):
            for name in members_of(world.client, f"bj:h:{host}:{what}"):
                if any(job in name for job in ours):
                    yield f"{name} is left in {what} of host {host}"
    for what in ("unfinished", "due"):
        for name in members_of(world.client, f"bj:{what}"):
            if any(name in transactions_of(sent) for sent in world.sent):
                yield f"{name} is left in {what}"


def members_of(client: redis.Redis, key: str) -> Iterable[str]:
    kind = client.type(key)
    if kind == b"hash":
        return [f"{name.decode(errors='replace')} {value.decode(errors='replace')}"
                for name, value in client.hgetall(key).items()]  # fmt: skip
    return [name.decode(errors="replace") for name in client.zrange(key, 0, -1)] if kind == b"zset" else []
