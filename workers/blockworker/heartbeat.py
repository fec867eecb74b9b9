"""A host's heartbeat: one beat a second, a refusal to share a name, and a last word on leaving."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

import redis

from blockjobs.model.errors import JobFailed
from blockjobs.store.hosts import Hosts, HostTaken
from blockworker.highest import Highest
from blockworker.host import HostConfig, facts, machine_id
from blockworker.roots import Roots
from blockworker.targets import devices

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0  # seconds
TAKEOVER: Final = 8.0  # seconds another machine's counter must stand still before this one may take the name


class Heartbeat:
    def __init__(self, hosts: Hosts, config: HostConfig, highest: Highest) -> None:
        self._hosts, self._config, self._highest = hosts, config, highest
        self._machine, self._roots = machine_id(), Roots(config)
        self._facts: dict[str, Any] = dict(facts())
        self._unread = ""  # why the state of devices could not be read, as it was logged
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="heartbeat", daemon=True)

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
        except redis.RedisError as error:
            log.warning("host %s: left without a word: %s", self._config.name, error)

    def _beat(self, *, word: str = "beat", seen: str = "") -> None:
        config = self._config
        facts = self._facts | {"decision": self._highest.number, "incarnation": self._highest.incarnation}
        if undefined := self._undefined():
            facts = facts | {"undefined": undefined}
        self._hosts.beat(config.name, self._machine, config.slots, facts, word=word, seen=seen)

    def _undefined(self) -> list[dict[str, Any]]:
        """The devices that jobs have left half-written."""
        try:
            found = devices.undefined(self._roots)
        except (JobFailed, OSError) as error:
            if str(error) != self._unread:
                self._unread = str(error)
                log.warning("host %s: the state of its devices cannot be read: %s", self._config.name, error)
            return []
        return [{"device": record.path, "job": record.left_by, "since": record.left_at} for record in found]

    def _follow(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                self._beat()
            except redis.RedisError as error:
                log.warning("host %s: Redis is away: %s", self._config.name, error)
            except HostTaken as taken:
                log.error("%s: this one stops beating", taken)
                return
