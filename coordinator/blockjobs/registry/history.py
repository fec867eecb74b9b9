"""What runs leave behind for good: what each has published and where, what was pruned of it, and who has yet to prune.

Rows are written as jobs conclude (conclude.lua) and taken out as their targets are pruned.
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
from blockjobs.registry.each import readable
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.views import RunView

# What is behind a target's layers, where it was not written: salvaged, number of the decision, held, seal.
UNSAID: Final[tuple[Any, ...]] = (False, 0, False, "")


class History:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    def targets(self, runs: Iterable[RunView], odd: Odd | None = None) -> list[PublishedTarget]:
        """What some runs have published, and nobody has pruned."""
        read = (odd or self._odd).read
        each = list(runs)
        names = _transactions(each)
        pipe = self._redis.pipeline(transaction=False)
        for run in each:
            pipe.hgetall(keys.targets(run.id))
        found = (
            read(f"target of {readable(job)} in run {run.id}", partial(_target, run, names[run.name], job, row))
            for run, rows in zip(each, pipe.execute(), strict=True)
            for job, row in sorted(rows.items())  # a hash has no order of its own
        )
        return [target for target in found if target is not None]

    def left(self, runs: Iterable[RunId]) -> dict[RunId, dict[str, str]]:
        """Of each run the jobs whose targets could not be pruned, and why."""
        each = list(runs)
        pipe = self._redis.pipeline(transaction=False)
        for run in each:
            pipe.hgetall(keys.left(run))
        return {
            run: {readable(job): readable(why) for job, why in rows.items()}
            for run, rows in zip(each, pipe.execute(), strict=True)
        }

    def pruned(self, target: PublishedTarget, why: str = "") -> None:
        """A target is gone; ``why``: what else than pruning did it.  Again is harmless."""
        self._note(target, "pruned", why)

    def leave(self, target: PublishedTarget, why: str) -> None:
        """A target was to be pruned, and is still there."""
        self._note(target, "left", why)

    def _note(self, target: PublishedTarget, what: str, why: str) -> None:
        run = RunId(target.run)
        self._scripts.call(
            "prune", [keys.run(run), keys.targets(run), keys.left(run), keys.events()],
            [run, target.entry, target.job, target.transaction, target.host, f"{target.host}:{target.path}", what, why],
        )  # fmt: skip

    # --- who has yet to prune -----------------------------------------------------------------------------

    def due(self) -> list[RunId]:
        """Runs that committed and have a rule of what to keep, oldest first."""
        return [RunId(run.decode()) for run in self._redis.zrange(keys.prunes(), 0, -1)]

    def done(self, run: RunId) -> None:
        self._redis.zrem(keys.prunes(), run)


def keeps(runs: Iterable[RunView], targets: Sequence[PublishedTarget]) -> dict[str, Mapping[str, int]]:
    """The rules that hold for a name, by transaction: those of the last run that published anything of it.

    What is held says nothing about rules: that a run has published it is a host's word.
    """
    published = {(target.run, target.group) for target in targets if not target.held}
    rules: dict[str, Mapping[str, int]] = {}
    numbers = {target.run: target.number for target in targets}
    for run in sorted(runs, key=lambda run: (numbers.get(run.id, 0), run.published), reverse=True):
        for name, policy in run.fields.policies.items():
            if (run.id, name) in published:
                rules.setdefault(name, policy.keep)
    return rules


def layers(spec: JobSpec) -> tuple[str, ...]:
    """The paths of the images that a job's target lies on, as its volume says."""
    found, below = [], volumespec.formatted(spec.target.volume)
    while below is not None and below.backing is not None:
        found.append(volumespec.label(below.backing))
        below = volumespec.formatted(below.backing)
    return tuple(found)


def pack(spec: JobSpec) -> bytes:
    """What to keep of a job beside the place of its target; nothing of one that makes no backup."""
    if spec.type == "restore" or not isinstance(volumespec.bottom(spec.target.volume), FileVolume):
        return b""
    return codec.pack([spec.transaction, spec.source.lock, spec.target_base, list(layers(spec))])


def row_of(
    host: str, path: str, transaction: str, source: str, base: str, *, layers: Sequence[str] = (), number: int = 0,
    salvaged: bool = False, held: bool = False, seal: str = "",
) -> bytes:  # fmt: skip
    """An entry of a run's record, as ``_target`` reads it and conclude.lua writes it."""
    packed = codec.pack([transaction, source, base, list(layers), salvaged, number, held, seal])
    return f"{host}:{path}\0".encode() + packed


def _transactions(runs: Iterable[RunView]) -> Mapping[str, frozenset[str]]:
    """The names of the transactions in the files of each name: a manifest does not say which part of an id is one."""
    names: dict[str, set[str]] = {}
    for run in runs:
        names.setdefault(run.name, set()).update(run.fields.policies)
    return {name: frozenset(each) for name, each in names.items()}


def _target(run: RunView, names: frozenset[str], entry: bytes, row: bytes) -> PublishedTarget:
    place, _, packed = row.partition(b"\0")
    host, _, path = place.decode().partition(":")
    # Earlier versions wrote no number, and the mark of a salvaged one only if it was.
    txn, source, base, below, *more = codec.unpack(packed)
    salvaged, number, held, seal = [*more, *UNSAID[len(more) :]][: len(UNSAID)]
    return PublishedTarget(
        run=run.id, at=run.published / 1000, job=entry.decode().partition("@")[0], transaction=txn,
        group=transaction_name(run.id, TxnId(txn), names if run.found else run.fields.policies), host=host, path=path,
        source=source, base=base, layers=tuple(below), salvaged=bool(salvaged), number=int(number),
        held=bool(held), entry=entry.decode(), seal=seal,
    )  # fmt: skip
