"""The permanent records of runs: published targets and their places, pruned targets, and the runs still to prune.

Rows are written as jobs conclude (conclude.lua) and removed as targets are pruned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.ids import RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.policies import transaction_name
from blockjobs.model.volumespec import FileVolume
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.views import RunView

# Defaults of the fields behind a target's layers, if missing: salvaged, number of the decision, held, seal.
UNSAID: Final[tuple[Any, ...]] = (False, 0, False, "")


class History:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    def targets(self, runs: Iterable[RunView], odd: Odd | None = None) -> list[PublishedTarget]:
        """The targets published by some runs and not pruned."""
        read = (odd or self._odd).read
        each = list(runs)
        names = _transaction_names(each)
        pipe = self._redis.pipeline(transaction=False)
        for run in each:
            pipe.hgetall(keys.targets(run.id))
        found = (
            read(
                f"target of {readable_name(job)} in run {run.id}",
                partial(_published_target, run, names[run.name], job, row),
            )
            for run, rows in zip(each, pipe.execute(), strict=True)
            for job, row in sorted(rows.items())  # a hash has no order
        )
        return [target for target in found if target is not None]

    def left(self, runs: Iterable[RunId]) -> dict[RunId, dict[str, str]]:
        """The jobs of each run with targets that could not be pruned, and the reasons."""
        each = list(runs)
        pipe = self._redis.pipeline(transaction=False)
        for run in each:
            pipe.hgetall(keys.left(run))
        return {
            run: {readable_name(job): readable_name(why) for job, why in rows.items()}
            for run, rows in zip(each, pipe.execute(), strict=True)
        }

    def pruned(self, target: PublishedTarget, why: str = "") -> None:
        """Record that a target is gone; ``why``: a cause other than pruning.  A repeated call is harmless."""
        self._note(target, "pruned", why)

    def leave(self, target: PublishedTarget, why: str) -> None:
        """Record that a target could not be pruned."""
        self._note(target, "left", why)

    def _note(self, target: PublishedTarget, what: str, why: str) -> None:
        run = RunId(target.run)
        self._scripts.call(
            "prune",
            [keys.run(run), keys.targets(run), keys.left(run), keys.events()],
            [run, target.entry, target.job, target.transaction, target.host, f"{target.host}:{target.path}", what, why],
        )

    # --- runs still to prune ------------------------------------------------------------------------------

    def due(self) -> list[RunId]:
        """Committed runs with a rule of retention, oldest first."""
        return [RunId(run.decode()) for run in self._redis.zrange(keys.prunes(), 0, -1)]

    def done(self, run: RunId) -> None:
        self._redis.zrem(keys.prunes(), run)


def keep_rules(runs: Iterable[RunView], targets: Sequence[PublishedTarget]) -> dict[str, Mapping[str, int]]:
    """The rules for a name, by transaction: the rules of the last run that published a target of the transaction.

    A held target does not determine rules, as only a host's word connects the target to a run.
    """
    published = {(target.run, target.group) for target in targets if not target.held}
    rules: dict[str, Mapping[str, int]] = {}
    numbers = {target.run: target.number for target in targets}
    for run in sorted(runs, key=lambda run: (numbers.get(run.id, 0), run.published), reverse=True):
        for name, policy in run.fields.policies.items():
            if (run.id, name) in published:
                rules.setdefault(name, policy.keep)
    return rules


def target_layers(spec: JobSpec) -> tuple[str, ...]:
    """The paths of the images below a job's target, according to its volume."""
    found, below = [], volumespec.format_image(spec.target.volume)
    while below is not None and below.backing is not None:
        found.append(volumespec.volume_label(below.backing))
        below = volumespec.format_image(below.backing)
    return tuple(found)


def pack_history_entry(spec: JobSpec) -> bytes:
    """The packed record of a job beside the place of its target; empty for a job that makes no backup."""
    if spec.type == "restore" or not isinstance(volumespec.bottom_volume(spec.target.volume), FileVolume):
        return b""
    return codec.pack_value([spec.transaction, spec.source.lock, spec.target_base, list(target_layers(spec))])


def row_of(
    host: str,
    path: str,
    transaction: str,
    source: str,
    base: str,
    *,
    layers: Sequence[str] = (),
    number: int = 0,
    salvaged: bool = False,
    held: bool = False,
    seal: str = "",
) -> bytes:
    """An entry of a run's record, as read by ``_published_target`` and written by conclude.lua."""
    packed = codec.pack_value([transaction, source, base, list(layers), salvaged, number, held, seal])
    return f"{host}:{path}\0".encode() + packed


def _transaction_names(runs: Iterable[RunView]) -> Mapping[str, frozenset[str]]:
    """The transaction names in the run files of each name, needed as a manifest does not mark the name inside an id."""
    names: dict[str, set[str]] = {}
    for run in runs:
        names.setdefault(run.name, set()).update(run.fields.policies)
    return {name: frozenset(each) for name, each in names.items()}


def _published_target(run: RunView, names: frozenset[str], entry: bytes, row: bytes) -> PublishedTarget:
    place, _, packed = row.partition(b"\0")
    host, _, path = place.decode().partition(":")
    # Earlier versions wrote no number, and wrote the mark of a salvaged backup only if set.
    txn, source, base, below, *more = codec.unpack_value(packed)
    salvaged, number, held, seal = [*more, *UNSAID[len(more) :]][: len(UNSAID)]
    return PublishedTarget(
        run=run.id,
        at=run.published / 1000,
        job=entry.decode().partition("@")[0],
        transaction=txn,
        group=transaction_name(run.id, TxnId(txn), names if run.found else run.fields.policies),
        host=host,
        path=path,
        source=source,
        base=base,
        layers=tuple(below),
        salvaged=bool(salvaged),
        number=int(number),
        held=bool(held),
        entry=entry.decode(),
        seal=seal,
    )
