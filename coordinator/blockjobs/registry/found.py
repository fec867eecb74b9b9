"""Backups found by a rescan: added to the records of runs, and held until a user confirms the rules for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from blockjobs.model.errors import Refused
from blockjobs.model.ids import Host, RunId
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.policies import RunFields
from blockjobs.model.rescan import KINDS, FoundBackup, name_of
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.history import row_of
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.submit import split_batches

BATCH: Final = 100  # backups added in one call


def under_new_name(place: str, old: str, new: Host) -> str:
    """``old:/path`` as ``new:/path``; a path of another host is unchanged."""
    return f"{new}:{place.removeprefix(f'{old}:')}" if place.startswith(f"{old}:") else place


class FoundBackups:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def add(self, backups: Sequence[tuple[FoundBackup, int]]) -> int:
        """Add backups of one run, each with an order number; return the number of new backups.

        Raises:
            Refused: the run is not over.
        """
        run = backups[0][0].run
        names = [keys.run(run), keys.targets(run), keys.runs(), keys.events()]
        fields = codec.pack_value({"name": name_of(run), "grouped": False, **RunFields().to_dict()})
        added = 0
        for batch in split_batches(backups, BATCH):
            words = [word for backup, number in batch for word in _backup_arguments(backup, number)]
            match self._scripts.call("found", names, [run, fields, round(backups[0][0].at * 1000), *words]):
                case [b"added", more]:
                    added += int(more)
                case _:
                    raise Refused(f"run {run} is not over")
        return added

    def unpublished(self, runs: Iterable[RunId]) -> set[RunId]:
        """The staged runs that are not published yet."""
        each = list(runs)
        pipe = self._redis.pipeline(transaction=False)
        for run in each:
            pipe.hget(keys.run(run), "state")
        return {run for run, state in zip(each, pipe.execute(), strict=True) if state not in (None, b"published")}

    def move(self, known: PublishedTarget, backup: FoundBackup) -> bool:
        """Record the new place of a known backup, and hold the backup; False: its entry has changed meanwhile."""
        row = row_of(
            backup.host, backup.path, known.transaction, backup.source, backup.base, layers=backup.layers,
            number=known.number, salvaged=known.salvaged, held=True, seal=backup.seal,
        )  # fmt: skip
        return self._write(known, row, "TARGET_MOVED", backup.place)

    def rehost(self, known: PublishedTarget, new: Host) -> bool:
        """Move a backup and its source to another name of the host; False: the entry has changed meanwhile."""
        source = under_new_name(known.source, known.host, new)
        row = row_of(
            new, known.path, known.transaction, source, known.base, layers=known.layers, number=known.number,
            salvaged=known.salvaged, held=known.held, seal=known.seal,
        )  # fmt: skip
        entry = f"{known.job}@{new}" if known.entry == f"{known.job}@{known.host}" else known.entry
        return self._write(known, row, "TARGET_MOVED", (new, known.path), entry)

    def count(self, targets: Iterable[PublishedTarget]) -> int:
        """Apply the rules to backups found by a rescan; return the number of backups newly under rules."""
        return sum(self._count(target) for target in targets if target.held)

    def _count(self, target: PublishedTarget) -> bool:
        row = row_of(
            target.host, target.path, target.transaction, target.source, target.base, layers=target.layers,
            number=target.number, salvaged=target.salvaged, seal=target.seal,
        )  # fmt: skip
        return self._write(target, row, "TARGET_COUNTED", target.place)

    def _write(self, known: PublishedTarget, row: bytes, kind: str, place: tuple[str, str], entry: str = "") -> bool:
        run = RunId(known.run)
        names = [keys.targets(run), keys.left(run), keys.events()]
        before = self._redis.hget(names[0], known.entry)
        if before is None or not before.startswith(f"{known.host}:{known.path}\0".encode()):
            return False
        args: list[Any] = [
            known.run, known.entry, before, entry or known.entry, row, kind, known.job, known.transaction,
            place[0], ":".join(place),
        ]  # fmt: skip
        return bool(self._scripts.call("recast", names, args)[0] == b"written")


def _backup_arguments(backup: FoundBackup, number: int) -> list[Any]:
    row = row_of(
        backup.host, backup.path, backup.transaction, backup.source, backup.base, layers=backup.layers, number=number,
        salvaged=backup.salvaged, held=True, seal=backup.seal,
    )  # fmt: skip
    return [
        backup.entry,
        row,
        backup.job,
        backup.transaction,
        backup.host,
        f"{backup.host}:{backup.path}",
        backup.ended,
        backup.size,
        int(backup.salvaged),
        int(bool(backup.layers)),
        *(backup.bytes[kind] for kind in KINDS),
    ]
