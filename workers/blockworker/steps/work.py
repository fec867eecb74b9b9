"""The work of a process of the lanes, by kind of errand.

The worker's main process sends the errands. The process has a separate connection to the registry, and may hang: no
process with other work waits for the errand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import redis

from blockjobs.model.errors import BlockjobsError, JobFailed
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.resolutions import Resolution
from blockjobs.registry import codec
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.questions import strays
from blockworker.questions.look import inspect_volumes
from blockworker.questions.prune import Pruner, question_of
from blockworker.questions.rescan import scan_page
from blockworker.questions.resize import resize_image
from blockworker.questions.resolving import resolve_committed
from blockworker.questions.sweeping import sweep_lost
from blockworker.records import devices
from blockworker.records.highest_decision import NAME, Highest
from blockworker.steps.steps import Steps
from blockworker.system import crew
from blockworker.watch import abandoned

log = logging.getLogger(__name__)

CONNECTIONS: Final = 2  # connections of one process to the registry
RESTS: Final = 2.0  # seconds without an errand before the process closes its connections

Words = Mapping[str, Any]


class SharedHighest(Highest):
    """The highest decision, shared by several processes."""

    def raise_to(self, incarnation: str, number: int) -> None:
        if self.damage is None and incarnation == self.incarnation and number <= self.number:
            return  # the decision is on disk: numbers only grow
        with self._alone():
            if self._place is not None:
                self._read_again()
            super().raise_to(incarnation, number)

    def replace(self, gone: str, incarnation: str) -> None:
        with self._alone():
            super().replace(gone, incarnation)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the record, if the host has a place for records, against other processes."""
        if self._place is None:
            yield
            return
        with state.state_errors_as_failure(self._place.path), state.locked_record(self._place, NAME):
            yield


class ErrandWork:
    """The errands of one process."""

    def __init__(self, registry: HostRegistry, roots: Roots, highest: Highest) -> None:
        self._registry, self._roots, self._highest = registry, roots, highest
        self._warned: dict[str, str] = {}
        self._steps = Steps(registry.answers, roots, highest)
        self._by_kind: dict[str, Callable[[Words], Any]] = {
            "step": self._step,
            "look": lambda words: inspect_volumes(roots, words["looks"]),
            "resize": self._resize,
            "prune": self._prune,
            "resolve": self._resolve,
            "lost": self._sweep_lost,
            "rescan": self._rescan,
            "replace": self._replace,
            "visit": lambda words: abandoned.visit_root(roots.with_former(), words["path"]),
            "sweep": lambda words: abandoned.sweep_root(roots.with_former(), words["path"]),
            "abandoned": self._abandoned,
            "highest": self._told_highest,
            "devices": self._told_devices,
        }

    def run(self, kind: str, words: Words) -> tuple[Any, bool]:
        """Do an errand; return its result (None: no result), and whether this process may go on."""
        try:
            value = self._by_kind[kind](words)
            self._warned.pop(kind, None)
            return value, not crew.left_behind()
        except redis.RedisError as error:
            self._warn(kind, f"Redis is away: {error}")
        except (BlockjobsError, OSError) as error:
            self._warn(kind, str(error))
        except Exception:
            log.exception("%s: an error nobody expected", kind)
        return None, not crew.left_behind()

    def _warn(self, kind: str, text: str) -> None:
        """Log the obstacle of an errand; for errands that come every second, once as long as the obstacle stays."""
        if self._warned.get(kind) != text:
            self._warned[kind] = text
            log.warning("%s: %s", kind, text)

    def _step(self, words: Words) -> None:
        self._steps.take(words["step"], TxnId(words["txn"]), [JobId(job) for job in words["jobs"]])

    def _resize(self, words: Words) -> dict[str, Any] | None:
        return resize_image(
            self._roots,
            words["volume"],
            words["size"],
            in_use=self._registry.answers.in_use,
            permitted=lambda: self._permitted(words),
        )

    def _prune(self, words: Words) -> list[dict[str, str]]:
        pruner = Pruner(
            self._roots, in_use=self._registry.answers.in_use, permitted=lambda: self._permitted(words)
        )  # fmt: skip
        return pruner.answer(question_of(words["keys"]))

    def _resolve(self, words: Words) -> dict[str, Any] | None:
        txn, job = TxnId(words["txn"]), JobId(words["job"])
        return resolve_committed(
            self._registry.answers,
            self._roots.with_former(),
            self._highest,
            txn=txn,
            job=job,
            how=Resolution(words["how"]),
            permitted=lambda: self._permitted(words),
        )

    def _sweep_lost(self, words: Words) -> list[dict[str, str]]:
        answers = self._registry.answers
        _, _, incarnation = answers.decision(TxnId(""))
        ours = _read_highest_decision(self._roots.config).incarnation
        if ours and ours not in (incarnation, words["lost"]):
            text = f"the registry is another one than before ({incarnation or 'none'}, not {ours}): it cannot be asked"
            return [{"what": "root", "path": words["path"], "state": "left", "text": text}]
        registry = strays.SweepQuestions(
            lambda txn: answers.knows(TxnId(txn)), answers.in_use, name=incarnation, gone=words["lost"]
        )  # fmt: skip
        return sweep_lost(self._roots.with_former(), words["path"], registry, dry=words["dry"])

    def _rescan(self, words: Words) -> dict[str, Any]:
        try:
            return scan_page(self._roots, words["path"], words["after"]).to_dict()
        except (BlockjobsError, OSError) as error:
            return {"odd": [[words["path"], str(error)]], "lost": True, "after": None}

    def _replace(self, words: Words) -> dict[str, Any] | None:
        """Put the present registry in the place of a registry that a person says is gone."""
        _, _, incarnation = self._registry.answers.decision(TxnId(""))
        if not incarnation or not self._permitted(words):
            return None
        try:
            self._highest.replace(words["gone"], incarnation)
        except JobFailed as failed:
            return {"errno": failed.errno, "text": failed.text}
        log.warning(
            "registry %s is gone, as somebody says: decisions of %s are carried out", words["gone"], incarnation
        )
        return {"registry": incarnation}

    def _permitted(self, words: Words) -> bool:
        return self._registry.questions.take_permit(self._roots.config.name, words["question"])

    def _abandoned(self, words: Words) -> list[str]:
        roots = self._roots.with_former()
        return [
            str(txn)
            for txn in abandoned.settle_beneath_root(self._registry.answers, roots, self._highest, words["path"])
        ]

    def _told_highest(self, _: Words) -> dict[str, Any]:
        highest = _read_highest_decision(self._roots.config)
        return {"decision": highest.number, "incarnation": highest.incarnation}

    def _told_devices(self, _: Words) -> dict[str, Any]:
        """The devices that jobs have left half-written."""
        found = devices.undefined_devices(self._roots)
        return {"undefined": [{"device": each.path, "job": each.left_by, "since": each.left_at} for each in found]}


def _read_highest_decision(config: HostConfig) -> Highest:
    """The highest decision, read from disk. Raises JobFailed: the record is damaged."""
    highest = Highest(config)
    if highest.damage is not None:
        raise highest.damage
    return highest


def serve_connection(connection: Connection, url: str, config: HostConfig) -> None:
    """Do the errands that come by ``connection`` until it is closed."""
    client = connect_client(url, at_most=CONNECTIONS)
    work = ErrandWork(HostRegistry(client, config.name), Roots(config), SharedHighest(config))
    while True:
        if not connection.poll(RESTS):
            client.connection_pool.disconnect(inuse_connections=False)  # the next errand opens them anew
        try:
            kind, words = codec.unpack_value(connection.recv_bytes())
        except (EOFError, OSError):
            return
        answer = work.run(kind, words)
        try:
            connection.send_bytes(codec.pack_value(list(answer)))
        except OSError:
            return
