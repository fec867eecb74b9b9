"""Stand-ins for the two workers of a host that say that they are there, and for whoever judges them."""

from __future__ import annotations

from puppets import Fleet

from blockjobs.daemons.rollcall import RollCall
from blockjobs.daemons.silence import Silence

ONE = "one machine"


class Workers:
    """Both workers of a host on one machine, as two processes say that they are there."""

    def __init__(self, fleet: Fleet, host, machine=ONE, start=1):
        self.hosts, self.host, self.machine, self.start = fleet.host(host).hosts, host, machine, start

    def steps(self, word="beat", **seen):
        self.hosts.beat(self.host, self.machine, 2, {}, process=f"s{self.start}", word=word, **seen)

    def copy(self, word="beat", **seen):
        self.hosts.copy_beat(self.host, self.machine, process=f"c{self.start}", word=word, **seen)

    def both(self, word="beat"):
        self.steps(word)
        self.copy(word)


class Observed:
    """A roll call at which whoever does not beat between two looks is silent."""

    def __init__(self, fleet, *hosts):
        self.hosts = fleet.registry.hosts
        self.call = RollCall(self.hosts, Silence(0.0))
        self.names = list(hosts)

    def look(self, *beats):
        """What is known of the host behind these beats."""
        for beat in beats:
            beat()
        self.call.look(self.hosts.cards(self.names))
        known = self.hosts.known().get(self.names[0])
        return (known.state, {each.worker: each.word for each in known.absent}) if known else None
