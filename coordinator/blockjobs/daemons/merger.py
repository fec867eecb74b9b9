"""What the workers of each host tell is moved to the one stream of events that is read, as soon as it is told.

Each host's user of Redis may write to a stream of its own host and to no other.  Every script of the control plane that
tells something of a host moves what its workers told before (``events.lua``), and so the order is right with
and without this thread; it is here for what nothing follows.
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
from blockjobs.registry.connection import connect, is_absence
from blockjobs.registry.doors import Registry

PATIENCE: Final = 500  # ms that one look waits for news
REST: Final = 0.02  # seconds behind news: of a host that never stops telling a page is moved in each


@dataclass
class Merger:
    registry: Registry
    stop: threading.Event = field(default_factory=threading.Event)
    _hosts: list[Host] = field(default_factory=list)
    _each_look: Every = field(default_factory=lambda: Every(1.0))

    def once(self) -> None:
        """Wait for news, not for long, and move them."""
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
            news = self._hosts  # one of them has something else there than a stream, which is removed
        if news:
            self.registry.events.merge(news)
            self.stop.wait(REST)


@contextmanager
def merging(url: str) -> Iterator[None]:
    """Move events meanwhile, in a thread with a connection of its own."""
    with connect(url) as client:
        merger = Merger(Registry(client, internal=True))
        with loop.run_beside("merger", merger.once, merger.stop):
            yield
