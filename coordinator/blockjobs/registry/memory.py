"""Decisions known to the registry and to the hosts, to detect a registry that came back older or is a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blockjobs.model.ids import Host, TxnId
from blockjobs.model.memory import DecisionsKnown, doubt_all, doubt_host, doubt_lost, doubt_unheard
from blockjobs.registry import keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.facts import read_facts
from blockjobs.registry.scripts import Scripts


class DecisionMemory:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def note_restart(self, run_id: str, hosts: Iterable[Host]) -> bool:
        """Record the current start of Redis; True: a new start, and every host has to beat again."""
        reply = self._scripts.call("restart", [keys.restart(), keys.decisions(), keys.unfinished()], [run_id, *hosts])
        return bool(reply[0] == b"restarted")

    def doubt_hosts(self, hosts: Iterable[Host], *, gone: str = "") -> str:
        """The reason to decide nothing with some hosts: a host carried out decisions unknown to this registry.

        ``gone``: the incarnation of a registry whose decisions do not count.
        """
        here, claims, unreadable = self._read(hosts)
        if unreadable:  # such a host may know of later decisions
            return unreadable[0]
        found = (
            doubt_host(host, claim, here)
            for host, claim in claims.items()
            if not (claim.registry and claim.registry == gone != here.registry)
        )
        return next(filter(None, found), "")

    def hear(self) -> None:
        """Check which hosts have beaten since the start of Redis, and whether their numbers show lost decisions.

        No decision involves a host before its first beat, so the host's number dates from before the start.
        """
        record = self._record()
        waiting = {Host(name[5:]): beat for name, beat in record.items() if name.startswith("beat:")}
        if not waiting:
            return
        pipe = self._redis.pipeline(transaction=False)
        for host in waiting:
            pipe.hget(keys.card(host), "beat")
        beats = zip(waiting.items(), pipe.execute(), strict=True)
        here, claims, _ = self._read([host for (host, then), beat in beats if beat and beat.decode() != then])
        for host, claim in claims.items():
            if claim.number > int(record["decisions"]) and claim.registry == here.registry:
                self._redis.hset(keys.restart(), f"lost:{host}", claim.number)
            self._redis.hdel(keys.restart(), f"beat:{host}")

    def doubt_members(self, txn: TxnId, hosts: Iterable[Host]) -> str:
        """The reason to decide nothing with the hosts of a transaction, without abandoned hosts; "" without doubt."""
        members = list(hosts)
        pipe = self._redis.pipeline(transaction=False)
        for host in members:
            pipe.hexists(keys.abandoned(host), txn)
            pipe.hmget(keys.restart(), f"beat:{host}", f"lost:{host}")
        rows = pipe.execute()
        asked = zip(members, rows[::2], rows[1::2], strict=True)
        marks = {host: mark for host, given_up, mark in asked if not given_up}
        return (
            doubt_unheard([host for host, (beat, _) in marks.items() if beat is not None])
            or doubt_lost({host: int(lost) for host, (_, lost) in marks.items() if lost is not None})
            or self.doubt_hosts(marks)
        )

    def doubt_all(self, own: int) -> str:
        """The reason to decide nothing at all; ``own``: the highest number taken by a finalizer."""
        return doubt_all(self._lost(), own, self._decisions())

    def highest_lost(self) -> int:
        """The highest decision number known to a host and lost by this registry; 0: none."""
        return max(self._lost().values(), default=0)

    def claims_of(self, registry: str, hosts: Iterable[Host]) -> dict[Host, int]:
        """The hosts that carried out decisions of a registry, with the highest number by host."""
        _, claims, _ = self._read(hosts)
        return {host: claim.number for host, claim in claims.items() if claim.registry == registry}

    def accept_loss(self, number: int) -> int:
        """Raise the number of the next decision above ``number``, and end the doubt in hosts without a higher number.

        Returns the highest number in force.
        """
        known = self._decisions()
        if number > known:
            known = int(self._redis.incrby(keys.decisions(), number - known))
        for host in [host for host, lost in self._lost().items() if lost <= known]:
            self._redis.hdel(keys.restart(), f"lost:{host}")
        return known

    def _lost(self) -> dict[Host, int]:
        """The hosts with decisions lost by this registry, with the highest number by host."""
        return {Host(name[5:]): int(number) for name, number in self._record().items() if name.startswith("lost:")}

    def _record(self) -> dict[str, str]:
        return {
            readable_name(name): readable_name(value) for name, value in self._redis.hgetall(keys.restart()).items()
        }

    def _decisions(self) -> int:
        return int(self._redis.get(keys.decisions()) or 0)

    def _read(self, hosts: Iterable[Host]) -> tuple[DecisionsKnown, Mapping[Host, DecisionsKnown], list[str]]:
        """This registry's number, the numbers of hosts with readable facts, and the errors for the other hosts."""
        members = list(hosts)
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(keys.decisions())
        pipe.get(keys.incarnation())
        for host in members:
            pipe.hget(keys.card(host), "facts")
        number, incarnation, *cards = pipe.execute()
        claims: dict[Host, DecisionsKnown] = {}
        unreadable = []
        for host, card in zip(members, cards, strict=True):
            facts, why = read_facts(host, card)
            if why:
                unreadable.append(why)
            else:
                claims[host] = DecisionsKnown(str(facts.get("incarnation", "")), int(facts.get("decision", 0)))
        return DecisionsKnown((incarnation or b"").decode(), int(number or 0)), claims, unreadable
