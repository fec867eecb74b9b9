"""Prune of a name: have hosts remove the targets of earlier runs without a rule, and record the results.

A target is reserved meanwhile, and no job can begin to read or write the target.  A host needs the question's permit
before the first change, as for a resize: nothing is removed after the asker gave up.  A prune may be repeated at any
time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model import keep
from blockjobs.model.errors import HostDown, VolumeBusy
from blockjobs.model.ids import Host, RunId
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.volumespec import FileVolume, HostedVolume
from blockjobs.registry.doors import Registry
from blockjobs.registry.history import keep_rules
from blockjobs.registry.hosts import check_host
from blockjobs.registry.odd import STRICT

log = logging.getLogger(__name__)

WORD: Final = "prune"  # shown in a reservation in place of a job's type
PATIENCE: Final = 60.0  # seconds; removing a large file takes time
AT_ONCE: Final = 20  # targets in one question
BELOW: Final = "another image lies on it"


@dataclass(frozen=True, slots=True)
class PruneOutcome:
    """The result for a target: kept, pruned (or would be), gone, replaced, left; and the reason."""

    target: PublishedTarget
    state: str
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        target = self.target
        return {
            "run": target.run, "job": target.job, "transaction": target.transaction,
            "target": f"{target.host}:{target.path}", "state": self.state, "why": self.why or None,
        }  # fmt: skip


class PruneRequest:
    def __init__(self, registry: Registry, doorbell: Doorbell, patience: float = PATIENCE) -> None:
        self._registry, self._doorbell, self._patience = registry, doorbell, patience

    def __call__(
        self, name: str, *, after: RunId | None = None, dry: bool = False, confirmed: bool = False
    ) -> list[PruneOutcome]:
        """Prune a name; return every target, newest first, with the result.

        ``after``: prune only the series with a target of that run.  ``dry``: change nothing, and return the same
        results.  ``confirmed``: apply the rules to backups found by a rescan from now on.
        """
        if confirmed and not dry:
            self._registry.found.count(self.held(name))
        fate = self._fate(name, after, confirmed=confirmed)
        outcomes = [PruneOutcome(target, "kept", ", ".join(why)) for target, why in fate.kept.items()]
        outcomes += [PruneOutcome(target, "replaced", f"by {run}") for target, run in fate.replaced.items()]
        outcomes += self._hosts(fate, dry=dry)
        if not dry:
            for outcome in outcomes:
                self._note(outcome)
        return sorted(outcomes, key=lambda outcome: outcome.target.order, reverse=True)

    def held(self, name: str) -> list[PublishedTarget]:
        """The targets of a name found by a rescan, with rules not confirmed yet."""
        runs = [run for run in self._registry.views.runs(odd=STRICT) if run.name == name]
        return [target for target in self._registry.history.targets(runs, STRICT) if target.held]

    def _fate(self, name: str, after: RunId | None, *, confirmed: bool) -> keep.PrunePlan:
        # Every record must be readable, or nothing is removed: an unreadable target may lie on top of a target to
        # prune.
        views, history = self._registry.views.runs(odd=STRICT), self._registry.history
        targets = history.targets((run for run in views if run.name == name), STRICT)
        if confirmed:
            targets = [replace(target, held=False) for target in targets]
        others = history.targets((run for run in views if run.name != name and run.layered), STRICT)
        layers = frozenset((target.host, path) for target in others for path in target.layers)
        rules = keep_rules((run for run in views if run.name == name), targets)
        return keep.plan_pruning(targets, rules, after=after, layers=layers, now=self._registry.clock.now() / 1000)

    def _note(self, outcome: PruneOutcome) -> None:
        match outcome.state:
            case "pruned" | "gone":
                self._registry.history.pruned(outcome.target)
            case "replaced":
                self._registry.history.pruned(outcome.target, f"replaced {outcome.why}")
            case "left":
                self._registry.history.leave(outcome.target, outcome.why)
                log.warning("target %s:%s: not pruned: %s", outcome.target.host, outcome.target.path, outcome.why)

    def _hosts(self, fate: keep.PrunePlan, *, dry: bool) -> Iterator[PruneOutcome]:
        """Ask each host for one batch after the other, the hosts in parallel."""
        waiting: dict[Host, list[Sequence[PublishedTarget]]] = {}
        known = self._registry.hosts.known()
        for host in dict.fromkeys(Host(target.host) for target in fate.prune):
            mine = [target for target in fate.prune if target.host == host]
            try:
                check_host(host, known.get(host))
                waiting[host] = list(prune_batches(mine))
            except HostDown as down:
                yield from (PruneOutcome(target, "left", str(down)) for target in mine)
        needed: set[tuple[str, str]] = set()  # the layers below targets that were left
        while waiting:
            asked = {host: self._ask(host, queue.pop(0), fate, needed, dry=dry) for host, queue in waiting.items()}
            give_up = time.monotonic() + self._patience
            for each in asked.values():
                for outcome in each.outcomes(self._wait(each, give_up)):
                    if outcome.state == "left":
                        needed |= {(outcome.target.host, path) for path in outcome.target.layers}
                    yield outcome
            waiting = {host: queue for host, queue in waiting.items() if queue}

    def _ask(
        self,
        host: Host,
        batch: Sequence[PublishedTarget],
        fate: keep.PrunePlan,
        needed: set[tuple[str, str]],
        *,
        dry: bool,
    ) -> Asked:
        nodes, questions = self._registry.nodes, self._registry.questions
        asked = Asked(host, dry=dry)
        for target in batch:
            volume = HostedVolume(host, FileVolume(target.path))
            try:
                if target.place in needed:
                    asked.left[target] = BELOW
                elif not dry:
                    asked.held[target] = (volume, nodes.reserve(volume, WORD, ms=round(2000 * self._patience)))
                elif (job := nodes.writer(volume)) or nodes.readers(volume):
                    raise VolumeBusy(volume.lock, job, nodes.type_of(job))
                else:
                    asked.held[target] = (volume, "")
            except VolumeBusy as busy:
                asked.left[target] = str(busy)
        if asked.held:
            targets = {
                "going": [{"path": t.path, "job": t.job, "run": t.run, "transaction": t.transaction, "base": t.base}
                          for t in asked.held],
                "remaining": sorted({t.path for t in fate.kept if t.host == host}),
                "also": sorted({t.path for t in fate.prune if t.host == host}), "dry": dry,
            }  # fmt: skip
            # A late host finds no permit, so a short patience of the asker need not shorten the time of the host.
            what = {"ask": "prune", "targets": targets, "patience": max(self._patience, PATIENCE)}
            asked.question = put_question(
                questions, self._doorbell, host, what, patience=self._patience, changes=not dry
            )  # fmt: skip
        return asked

    def _wait(self, asked: Asked, give_up: float) -> Sequence[Mapping[str, str]]:
        """The host's answers; ends the reservations, unless the host may still be working, when they expire."""
        questions = self._registry.questions
        if not asked.held:
            return ()
        found: Sequence[Mapping[str, str]] | None = questions.wait(
            asked.host, asked.question, give_up - time.monotonic()
        )  # fmt: skip
        if found is None:
            text = f"host '{asked.host}' did not answer within {self._patience:.0f} s"
            if not asked.dry and not questions.take_permit(asked.host, asked.question):
                return [{"state": "left", "text": f"{text}: it may still be at it"}] * len(asked.held)
            found = [{"state": "left", "text": text}] * len(asked.held)
        for volume, holder in asked.held.values():
            if holder:
                self._registry.nodes.unreserve(volume, holder)
        return found


class Asked:
    """One question to a host: the targets with their reservations, and the targets left out."""

    def __init__(self, host: Host, *, dry: bool) -> None:
        self.host, self.question, self.dry = host, "", dry
        self.held: dict[PublishedTarget, tuple[HostedVolume, str]] = {}
        self.left: dict[PublishedTarget, str] = {}

    def outcomes(self, answers: Iterable[Mapping[str, str]]) -> Iterator[PruneOutcome]:
        yield from (PruneOutcome(target, "left", why) for target, why in self.left.items())
        for target, answer in zip(self.held, answers, strict=True):
            yield PruneOutcome(target, answer["state"], answer.get("text", ""))


def prune_batches(targets: Sequence[PublishedTarget]) -> Iterator[Sequence[PublishedTarget]]:
    """Batches in order, and never a target together with its layer: a target left in place protects the layer."""
    batch: list[PublishedTarget] = []
    for target in targets:
        if len(batch) == AT_ONCE or any(target.path in above.layers for above in batch):
            yield batch
            batch = []
        batch.append(target)
    if batch:
        yield batch


def prune_summary(outcomes: Iterable[PruneOutcome]) -> str:
    """``2 pruned, 1 left``."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    with suppress(KeyError):
        counts["pruned"] += counts.pop("gone", 0)
    return ", ".join(f"{number} {state}" for state, number in counts.items())
