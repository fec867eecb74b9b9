"""The heartbeats of a host's two workers: their facts, and the holder of the host's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from blockjobs.model import errors
from blockjobs.model.hanging import HangingPath
from blockjobs.model.ids import Host
from blockjobs.model.liveness import WorkerName, WorkerProcess
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.facts import name_unreadable, read_hanging
from blockjobs.registry.scripts import Scripts


class Card(NamedTuple):
    """A host's card: the counters of the heartbeats, ``here`` or ``left``, the slots, the hanging paths.

    The copy worker's fields are None if the steps worker is of a version without heartbeats of copy workers.
    """

    beat: int
    says: str
    slots: int
    hanging: tuple[HangingPath, ...] = ()
    copy_beat: int | None = None
    copy_says: str = ""

    def counter(self, worker: WorkerName) -> int | None:
        """The counter of a worker; None for a version without the counter."""
        return self.beat if worker is WorkerName.STEPS else self.copy_beat

    def word(self, worker: WorkerName) -> str:
        """The last word of a worker."""
        return self.says if worker is WorkerName.STEPS else self.copy_says

    @property
    def places(self) -> int:
        """The number of copy processes on the host: the slots, and one extra process per hanging copy."""
        return self.slots + min(self.slots, len({each.job for each in self.hanging if each.job}))


class Holder(NamedTuple):
    """The worker that holds a host's name: machine, process, counter, and the start of its presence (ms)."""

    worker: WorkerName
    machine: str
    process: str
    beat: str
    since: int


class HostTaken(errors.Refused):
    """A worker of a second machine, or a second process, beats under the name."""

    def __init__(self, host: str, holder: Holder) -> None:
        at = datetime.fromtimestamp(holder.since / 1000).astimezone()
        since = f" since {at:%Y-%m-%d %H:%M:%S}" if holder.since else ""
        process = WorkerProcess.parse(holder.process)
        where = f"process {process.pid} on {process.node}, " if process else ""
        super().__init__(
            f"host name '{host}' is held by another {holder.worker} worker, which beats{since} "
            f"({where}machine {holder.machine}): stop that one, or give this machine a name of its own"
        )
        self.holder = holder


class Heartbeats:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def beat(
        self,
        host: Host,
        machine: str,
        slots: int,
        facts: Mapping[str, Any],
        *,
        process: str = "",
        word: str = "beat",
        seen: Mapping[WorkerName, str] | None = None,
    ) -> str:
        """Send a beat of the steps worker of a host, or the leave; return the counter.

        ``process``: the unique name of this process.  ``word``: "register" (the first beat of a process), "beat" or
        "leave".  ``seen``: counters seen standing still by the caller.

        Raises:
            HostTaken: a worker of a second machine, or a second process, beats under this name.
        """
        return self._beat(
            host, WorkerName.STEPS, (machine, process, word, slots, codec.pack_value(dict(facts))), seen or {}
        )

    def copy_beat(
        self,
        host: Host,
        machine: str,
        *,
        process: str,
        word: str = "beat",
        seen: Mapping[WorkerName, str] | None = None,
    ) -> str:
        """Send a beat of the copy worker of a host, like ``beat``."""
        return self._beat(host, WorkerName.COPY, (machine, process, word, "", ""), seen or {})

    def _beat(self, host: Host, worker: WorkerName, says: Sequence[object], seen: Mapping[WorkerName, str]) -> str:
        other = WorkerName.COPY if worker is WorkerName.STEPS else WorkerName.STEPS
        args = [host, worker, *says, seen.get(worker, ""), seen.get(other, "")]
        match self._scripts.call("beat", [keys.card(host), keys.host_events(host)], args):
            case [b"ok", beat]:
                return str(beat.decode())
            case [_, *holder]:
                whose, machine, process, beat, since = (readable_name(value) for value in holder)
                raise HostTaken(host, Holder(WorkerName(whose), machine, process, beat, int(since or 0)))
            case reply:
                raise AssertionError(reply)

    def counters(self, host: Host) -> dict[WorkerName, str]:
        """The counters of a host's workers, in the form of ``seen``."""
        found = self._redis.hmget(keys.card(host), "beat", "copy-beat")
        return {
            worker: readable_name(counter)
            for worker, counter in zip((WorkerName.STEPS, WorkerName.COPY), found, strict=True)
            if counter is not None
        }

    def cards(self, hosts: list[Host]) -> dict[Host, Card]:
        """The card of each host."""
        pipe = self._redis.pipeline(transaction=False)
        for host in hosts:
            pipe.hmget(keys.card(host), "beat", "state", "slots", "facts", "process", "copy-beat", "copy-state")
        return {host: _parse_card(host, row) for host, row in zip(hosts, pipe.execute(), strict=True)}

    def hanging(self, host: Host) -> tuple[HangingPath, ...]:
        """The hanging paths on a host."""
        return read_hanging(host, self._redis.hget(keys.card(host), "facts"))


def _parse_card(host: Host, row: Sequence[bytes | None]) -> Card:
    """A host's card; a host with unreadable counters counts as never having beaten."""
    beat, state, slots, facts, process, copy_beat, copy_state = row
    try:
        copies = int(copy_beat or 0) if process else None
        return Card(
            int(beat or 0),
            (state or b"").decode(),
            int(slots or 0),
            read_hanging(host, facts),
            copies,
            (copy_state or b"").decode(),
        )
    except ValueError as error:
        name_unreadable(host, error)
        return Card(0, "", 0)
