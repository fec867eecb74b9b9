"""A host's heartbeat: one beat a second, a refusal to share a name, and a last word on leaving."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis

from blockjobs.daemons.quarantine import Quarantine
from blockjobs.store import codec
from blockjobs.store.hosts import Hosts, HostTaken, bounded_aside
from blockworker.host import HostConfig, facts, machine_id
from blockworker.threads import vital

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0  # seconds
TAKEOVER: Final = 8.0  # seconds another machine's counter must stand still before this one may take the name


class Heartbeat:
    """``more``: facts that change, which are asked for at every beat and must not touch a path."""

    def __init__(self, hosts: Hosts, config: HostConfig, more: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._hosts, self._config, self._more = hosts, config, more
        self._machine = machine_id()
        self._facts: dict[str, Any] = dict(facts())
        self._aside = Quarantine()
        self._stop = threading.Event()
        self._thread = vital(self._follow, "heartbeat")

    def register(self) -> None:
        """The first beat.

        Raises:
            HostTaken: another machine beats under this name.
        """
        try:
            self._beat()
        except HostTaken as taken:
            log.warning("%s: waiting %.0f s to see whether it is alive", taken, TAKEOVER)
            self._stop.wait(TAKEOVER)
            self._beat(seen=taken.beat)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop beating, and say so."""
        self._stop.set()
        self._thread.join(3.0)
        try:
            self._beat(word="leave")
        except Exception as error:  # whatever it is, what is closed behind this has to be closed
            log.warning("host %s: left without a word: %s", self._config.name, error)

    def _beat(self, *, word: str = "beat", seen: str = "") -> None:
        config, told = self._config, self._facts | self._changing()
        self._hosts.beat(config.name, self._machine, config.slots, told, word=word, seen=seen)

    def _changing(self) -> dict[str, Any]:
        """The facts that change; a host that is silent is given up, and no fact that cannot be told is worth that."""
        found = self._aside.part("the changing facts of this host", self._packable)
        return {"aside": bounded_aside(self._aside.told())} if found is None else found

    def _packable(self) -> dict[str, Any]:
        found = dict(self._more())
        codec.pack(found)
        return found

    def _follow(self) -> None:
        """Beat until the end.  Raises HostTaken: the name is another machine's by now, and so are its orders."""
        while not self._stop.wait(INTERVAL):
            try:
                self._beat()
            except redis.RedisError as error:
                log.warning("host %s: Redis is away, or refuses its heartbeat: %s", self._config.name, error)
            except HostTaken:
                raise
            except Exception:  # the next beat may be one that can be told
                log.exception("host %s: an error nobody expected", self._config.name)
