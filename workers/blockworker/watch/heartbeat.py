"""The heartbeat of a host's worker: a beat in three seconds, a refusal to share a name, and a last word.

After a stop for a while, a worker may find the host's name taken by another machine. Before the worker takes a message,
it needs an answered beat that is younger than a takeover takes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis

from blockjobs.model.liveness import WorkerName, WorkerProcess
from blockjobs.process.clock import seconds_since_boot
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry import codec
from blockjobs.registry.heartbeats import Heartbeats, Holder, HostTaken
from blockjobs.registry.hosts import bounded_aside
from blockworker.host import machine
from blockworker.host.config import HostConfig, machine_facts
from blockworker.system.sharedtime import SharedTime
from blockworker.system.threads import end_process, vital_thread

log = logging.getLogger(__name__)

INTERVAL: Final = 3.0  # seconds
SECOND: Final = 1.0  # seconds from the first beat to the second: a host judged as down is up when the counter moves
CURRENT: Final = 9.0  # seconds for which a beat vouches for the name
TAKEOVER: Final = 12.0  # seconds another machine's counter must stand still before this one may take the name
_AGAIN: Final = 0.2  # seconds between two checks for a beat of the main process


class Heartbeat:
    """Beats for one worker. ``more``: changing facts, asked for at every beat; ``more`` must not touch a path.

    Make the heartbeat before the worker forks: the children then see when the last beat was answered.
    """

    def __init__(
        self,
        hosts: Heartbeats,
        config: HostConfig,
        more: Callable[[], Mapping[str, Any]] = dict,
        *,
        worker: WorkerName = WorkerName.STEPS,
    ) -> None:
        self._hosts, self._config, self._more, self._worker = hosts, config, more, worker
        machine.draw_token(config)
        self._machine, self._process = machine.machine_name(config), machine.this_process().text
        self._facts: dict[str, Any] = dict(machine_facts()) if worker is WorkerName.STEPS else {}
        self._aside = Quarantine()
        self._answered = SharedTime()  # the time of sending of the last answered beat
        self._stop = threading.Event()
        self._thread = vital_thread(self._follow, "heartbeat")

    def register(self) -> None:
        """Send the first beat.

        Raises:
            HostTaken: another machine beats under this name, or another process as this worker of this machine.
        """
        seen: dict[WorkerName, str] = {}
        waited = False
        while True:
            try:
                self._beat(word="register", seen=seen)
            except HostTaken as taken:
                holder = taken.holder
                if self._has_ended(holder) and holder.worker not in seen:
                    seen[holder.worker] = holder.beat
                    continue
                if waited:
                    raise
                seen |= self._hosts.counters(self._config.name)
                log.warning("%s; waiting %.0f s to see whether it is alive", taken, TAKEOVER)
                self._stop.wait(TAKEOVER)
                waited = True
            else:
                return

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop beating, and tell the registry."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(3.0)
        try:
            self._beat(word="leave")
        except Exception as error:  # after any error, the resources behind the heartbeat still have to be closed
            log.warning("host %s: left without a word: %s", self._config.name, error)

    # --- before a message is taken ------------------------------------------------------------------------

    def is_current(self) -> bool:
        """Whether a beat was answered so recently that no machine can have taken the name since."""
        return seconds_since_boot() - self._answered.read() <= CURRENT

    def renew(self) -> None:
        """Beat now, unless the last beat is recent. Ends this process if another machine has the name by now."""
        if not self.is_current():
            self._beat_or_end()

    def await_current(self, patience: float) -> bool:
        """Wait, in a child of the beating process, for a recent beat; False: no beat came in time."""
        until = seconds_since_boot() + patience
        while not self.is_current():
            if seconds_since_boot() > until:
                return False
            self._stop.wait(_AGAIN)
        return True

    # --- beats ---------------------------------------------------------------------------------------------

    def _beat(self, *, word: str = "beat", seen: Mapping[WorkerName, str] | None = None) -> None:
        config, at = self._config, seconds_since_boot()
        who = {"machine": self._machine, "process": self._process}
        if self._worker is WorkerName.COPY:
            self._hosts.copy_beat(config.name, **who, word=word, seen=seen)
        else:
            told = self._facts | self._changing()
            self._hosts.beat(config.name, slots=config.slots, facts=told, **who, word=word, seen=seen)
        self._answered.write(at)

    def _has_ended(self, holder: Holder) -> bool:
        """Whether the holder of the name was a process of this machine and has ended."""
        process = WorkerProcess.parse(holder.process)
        return holder.machine == self._machine and process is not None and machine.is_gone(process)

    def _changing(self) -> dict[str, Any]:
        """The changing facts. An error of a fact does not stop the beat: a silent host would be given up."""
        found = self._aside.part("the changing facts of this host", self._packable)
        return {"aside": bounded_aside(self._aside.told())} if found is None else found

    def _packable(self) -> dict[str, Any]:
        found = dict(self._more())
        codec.pack_value(found)
        return found

    def _beat_or_end(self) -> None:
        """Send one beat.

        If another machine has the name by now, this process ends: orders for the host go to the other machine.

        A registry restored from an older state may name an ended worker of this machine: this worker takes its place.
        """
        seen: dict[WorkerName, str] = {}
        while True:
            try:
                return self._beat(seen=seen)
            except HostTaken as taken:
                holder = taken.holder
                if holder.worker in seen or not self._has_ended(holder):
                    end_process(str(taken))
                seen[holder.worker] = holder.beat

    def _follow(self) -> None:
        """Beat until the end."""
        pause = SECOND
        while not self._stop.wait(pause):
            pause = INTERVAL
            try:
                self._beat_or_end()
            except redis.RedisError as error:
                log.warning("host %s: Redis is away, or refuses its heartbeat: %s", self._config.name, error)
            except Exception:  # the next beat may have facts that can be sent
                log.exception("host %s: an error nobody expected", self._config.name)
