"""The desk of the steps worker: hands steps and housekeeping to its lanes, sorted by file system.

Rule: the desk never touches a path and never waits for an errand. The errands themselves answer steps to the registry.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import JobId, TxnId
from blockjobs.process.clock import Every
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.answers import UnreadableMember
from blockjobs.registry.doors import HostRegistry
from blockjobs.registry.hosts import bounded_aside
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.steps.board import Errand, Lane
from blockworker.steps.lanes import Lanes
from blockworker.steps.path_mounts import MountTable
from blockworker.steps.questions import QuestionDesk, redis_may_be_away
from blockworker.steps.touched import TOUCHED, lane_of, spec_paths
from blockworker.system.threads import vital_thread

log = logging.getLogger(__name__)

TICK: Final = 0.25  # seconds between looks at hanging errands, and at the questions whose time is over
VISIT: Final = 5.0  # seconds between looks at a write root
ODD: Final = 300.0  # seconds after which a write root with journals in quarantine is swept once more
TOLD: Final = 20  # hanging paths that a heartbeat reports
KNOWN: Final = 256  # transactions whose shares are remembered


@dataclass(frozen=True, slots=True)
class Part:
    """Members of a transaction on this host that touch the same file systems."""

    lane: Lane
    jobs: tuple[JobId, ...]
    paths: tuple[str, ...]


class Desk:
    """Hands errands to the lanes of one host.

    ``facts``: the heartbeat's facts about this host's records, until the records have been read once more.
    """

    def __init__(
        self,
        registry: HostRegistry,
        config: HostConfig,
        lanes: Lanes,
        mounts: MountTable,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._registry, self._config, self._lanes, self._mounts = registry, config, lanes, mounts
        self._point_of = mounts.point_of
        self.questions = QuestionDesk(registry.questions, config, lanes, mounts.point_of)
        self._one = threading.Lock()
        self._parts: OrderedDict[TxnId, list[Part]] = OrderedDict()
        self.facts = dict(facts or {})
        self._records = state.record_paths(config)
        self._aside = Quarantine()
        self._odd: dict[str, dict[str, str]] = {}  # by write root: journals in quarantine, with their errors
        self._stop = threading.Event()
        self._thread = vital_thread(self._follow, "desk")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(3.0)

    # --- steps ------------------------------------------------------------------------------------------

    def step(self, step: str, txn: TxnId) -> None:
        """Hand a step of a transaction to the lanes of the members on this host."""
        self._registry.bells.take(self._config.name, step, txn)
        parts = self._parts_of(txn)
        if step == "cut" and len(parts) > 1:  # cut at one instant, and therefore in one errand
            lane = frozenset[str]().union(*(part.lane for part in parts))
            jobs = tuple(job for part in parts for job in part.jobs)
            parts = [Part(lane, jobs, tuple(path for part in parts for path in part.paths)[:TOUCHED])]
        for part in self._noting(parts) if step == "settle" else parts:
            about = f"{step.upper()} of transaction {txn}"
            words = {"step": step, "txn": txn, "jobs": list(part.jobs)}
            key = ("step", step, txn, *sorted(part.lane))
            self._lanes.hand(Errand("step", key, part.lane, words, about, part.paths))

    def _parts_of(self, txn: TxnId) -> list[Part]:
        """Members of a transaction on this host, by lane. The paths of a member never change, and are read once."""
        here = self._registry.answers.member_ids(txn)
        with self._one:
            known = self._parts.get(txn)
            if known is not None and Counter(job for part in known for job in part.jobs) == Counter(here):
                self._parts.move_to_end(txn)
                return known
        jobs: dict[Lane, list[JobId]] = {}
        paths: dict[Lane, dict[str, None]] = {}
        for member in self._registry.answers.every_member(txn, here):
            if isinstance(member, UnreadableMember):  # the member is answered as failed, and touches nothing
                jobs.setdefault(frozenset(), []).append(member.job)
                paths.setdefault(frozenset(), {})
                continue
            touched = spec_paths(self._config, member.spec)
            lane = lane_of(touched, self._point_of)
            jobs.setdefault(lane, []).append(member.spec.id)
            if len(noted := paths.setdefault(lane, {})) < TOUCHED:
                noted.update(dict.fromkeys(touched))
        parts = [Part(lane, tuple(members), tuple(paths[lane])) for lane, members in jobs.items()]
        with self._one:
            self._parts[txn] = parts
            while len(self._parts) > KNOWN:
                self._parts.popitem(last=False)
        return parts

    def _noting(self, parts: Sequence[Part]) -> list[Part]:
        """The parts, extended by this host's own records: the decision is noted in the records first."""
        records = self._records[:1]
        lane = lane_of(records, self._point_of)
        return [Part(part.lane | lane, part.jobs, (*part.paths, *records)) for part in parts]

    def question(self, question: str) -> None:
        """Read the question of this name, and hand the question to the lanes."""
        registry, host = self._registry.questions, self._config.name
        match registry.take(host, question):
            case {"ask": "probe", "looks": looks, "patience": patience}:
                self.questions.probe(question, looks, patience)
            case {"ask": "resize", "volume": volume, "size": size, "patience": patience}:
                self.questions.resize(question, volume, size, patience)
            case {"ask": "prune", "targets": targets, "patience": patience}:
                self.questions.prune(question, targets, patience)
            case {"ask": "resolve", "transaction": txn, "job": job, "how": how}:
                self.resolve(question, TxnId(txn), JobId(job), how)
            case {"ask": "sweep", "dry": dry, "lost": lost}:
                self.questions.sweep(question, dry=dry, lost=lost)
            case {"ask": "replace", "gone": gone}:
                self.questions.replace(question, str(gone), self._records[:1])
            case {"ask": "rescan", "root": root, "after": after, "patience": patience}:
                self.questions.rescan(question, root, after, patience)
            case None:
                log.info("question %s: nobody asks it any more", question)
            case other:
                kind = other.get("ask", "nothing")
                text = f"host {host} was asked for '{kind}', which its version of blockjobs does not know"
                registry.answer(host, question, {"errno": errno.ENOSYS, "text": text})

    def resolve(self, question: str, txn: TxnId, job: JobId, how: str) -> None:
        """Have a committed but unpublishable job resolved, if the question is still permitted."""
        part = next((part for part in self._noting(self._parts_of(txn)) if job in part.jobs), None)
        lane, paths = (part.lane, part.paths) if part is not None else (frozenset[str](), ())
        self.questions.resolve(question, {"txn": txn, "job": job, "how": how}, lane, paths)

    # --- housekeeping -----------------------------------------------------------------------------------

    def told(self, attempts: Sequence[HangingPath] = (), aside: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Further facts of the heartbeat; facts on disk date from a beat ago.

        ``attempts``: the hanging paths of attempts on this host. ``aside``: items put aside by other parts of the
        worker.
        """
        self._refresh()
        odd = {name: error for found in [*self._odd.values()] for name, error in found.items()}
        put_aside = bounded_aside({**(aside or {}), **self._aside.told(), **odd})
        hanging = [self._placed(each).to_dict() for each in (*self._lanes.hanging(), *attempts)]
        facts = self.facts | ({"hanging": hanging[:TOLD]} if hanging else {})
        return facts | ({"aside": put_aside} if put_aside else {})

    def _placed(self, each: HangingPath) -> HangingPath:
        """The hanging path with its file system's mount point, and the mount points below."""
        point = self._point_of(each.path)
        return replace(each, point=point, beneath=self._mounts.beneath(point))

    def tidy(self) -> None:
        """Tidy up after ended processes: at the start, after an absence of Redis, and now and then."""
        self.settle_abandoned()
        self.sweep()
        with redis_may_be_away("sizes of old backups are forgotten the next time"):
            self._registry.answers.forget_sizes()

    def _refresh(self) -> None:
        """Have the heartbeat's facts about this host's records read."""

        def done(found: Any) -> None:
            if found is not None:
                self.facts = self.facts | found

        self._tend("highest", self._records[:1], "the highest decision of this host", done)
        # a write root may hold some records, and hang
        self._tend("devices", self._records, "the records of devices", done)

    def visit(self) -> None:
        """Have every write root checked: for changes, and for work owed beneath the root."""
        for path in self._config.target_roots:
            self._tend("visit", [path], f"a look at {path}")

    def sweep(self) -> None:
        """Have settled transactions closed and swept, root by root."""
        for path in self._config.target_roots:
            self._sweep_root(path)

    def _sweep_the_odd(self) -> None:
        """Have roots with journals in quarantine swept once more: the journals may have been mended."""
        for path in [path for path, odd in [*self._odd.items()] if odd]:
            self._sweep_root(path)

    def _sweep_root(self, path: str) -> None:
        def done(odd: Any) -> None:
            if odd is not None:
                self._odd[path] = odd

        self._tend("sweep", [path], f"the sweep of {path}", done)

    def settle_abandoned(self) -> None:
        """Have the decisions carried out, root by root, that were made while this host was given up."""
        if not self._registry.answers.abandoned():
            return
        roots = self._config.target_roots or ("",)
        settled: dict[str, set[str]] = {}

        def settled_below(path: str, found: Any) -> None:
            if found is None:
                return
            with self._one:
                settled[path] = set(found)
                everywhere = set.intersection(*settled.values()) if len(settled) == len(roots) else set()
            for txn in sorted(everywhere):
                log.info("transaction %s: this host was abandoned; its decision is carried out", txn)
                with redis_may_be_away(f"transaction {txn}: its end is noted the next time"):
                    self._registry.answers.settled(TxnId(txn))

        for path in roots:
            self._tend("abandoned", [path], f"what was abandoned beneath {path}", partial(settled_below, path))

    def _tend(self, kind: str, paths: Sequence[str], about: str, done: Callable[[Any], None] = lambda _: None) -> None:
        """Hand in work on a write root, if the host has one, as housekeeping."""
        path = paths[0] if paths else ""
        lane = lane_of(filter(None, paths), self._point_of)
        self._lanes.hand(Errand(kind, (kind, path), lane, {"path": path}, about, tuple(paths), done=done))

    def _follow(self) -> None:
        turns: Sequence[tuple[str, Every, Callable[[], None]]] = (
            ("the looks at write roots", Every(VISIT), self.visit),
            ("the sweep of journals that were put aside", Every(ODD), self._sweep_the_odd),
            ("the look at what hangs", Every(0.0), self._lanes.look),
            ("the end of questions", Every(0.0), self.questions.expire),
        )
        while not self._stop.wait(TICK):
            for name, due, act in turns:
                with redis_may_be_away(f"{name} is tried again"):
                    if due():
                        self._aside.part(name, act)
