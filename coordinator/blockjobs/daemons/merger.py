"""Move the events written by the workers of the hosts to the stream read by clients, without delay.

A host's user of Redis may write to the stream of this host only.  Every script of the control plane with an event about
a host first moves the earlier events of the host's workers (``events.lua``): the order is right with and without this
thread.  The thread moves the events that no such script follows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import redis

from blockjobs.daemons import loop
from blockjobs.model.ids import Host
from blockjobs.process.clock import Every
from blockjobs.registry.connection import connect_client, is_absence
from blockjobs.registry.doors import Registry

PATIENCE: Final = 500  # ms of a turn's wait for news
REST: Final = 0.02  # seconds after news: from a host with endless events, a turn moves one page


@dataclass
class Merger:
    registry: Registry
    stop: threading.Event = field(default_factory=threading.Event)
    _hosts: list[Host] = field(default_factory=list)
    _each_look: Every = field(default_factory=lambda: Every(1.0))

    def once(self) -> None:
        """Wait for news for a short time, and move the news."""
        if self._each_look():
            self._hosts = [*self.registry.hosts.known()]
        if not self._hosts:
            self.stop.wait(PATIENCE / 1000)
            return
        try:
            news = self.registry.events.wait_for_hosts(self._hosts, PATIENCE)
        except redis.ResponseError as error:
            if is_absence(error):
                raise
            news = self._hosts  # a host's key is no stream: merge removes the key
        if news:
            self.registry.events.merge(news)
            self.stop.wait(REST)


@contextmanager
def run_merger_beside(url: str) -> Iterator[None]:
    """Move events during the context, in a thread with a separate connection."""
    with connect_client(url) as client:
        merger = Merger(Registry(client, internal=True))
        with loop.run_beside("merger", merger.once, merger.stop):
            yield
