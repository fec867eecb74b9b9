"""Names of run files with a time limit between successes: the limits, and the last success of each name.

The records are kept by name and outlive every run: a name keeps its last success even after its history is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from blockjobs.model.ids import RunId
from blockjobs.model.notices import ATTENTION
from blockjobs.model.overdue import NameSeen
from blockjobs.model.policies import RunFields
from blockjobs.registry import codec, keys
from blockjobs.registry.clock import read_jumps, read_steady_ms
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import Odd
from blockjobs.registry.scripts import Scripts

_OVERDUE: Final = "overdue:"


class Names:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    def all(self) -> list[NameSeen]:
        """Every name with a time limit, as of now."""
        record = {readable_name(field): value for field, value in self._redis.hgetall(keys.names()).items()}
        names = sorted(field.removeprefix(_OVERDUE) for field in record if field.startswith(_OVERDUE))
        if not names:
            return []
        now, jumps = read_steady_ms(self._redis), read_jumps(self._redis)
        read = [self._odd.read(f"name '{name}'", partial(_name_seen, name, record, now, jumps)) for name in names]
        return [seen for seen in read if seen is not None]

    def succeeded(self, name: str, run: RunId) -> bool:
        """Record the success of a run of a name; False: a later run has succeeded, or the name has no limit."""
        ended = self._redis.hget(keys.run(run), "ended-steady")
        if ended is None:  # ended under an earlier version, or forgotten
            return False
        return bool(self._scripts.call("good", [keys.names()], [name, ended, run])[0] == b"noted")

    def declare(self, name: str, fields: RunFields) -> None:
        """Set the time limit of a name whose start was refused; an earlier limit stays in force."""
        now = read_steady_ms(self._redis)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hsetnx(keys.names(), f"about:{name}", names_about(fields))
        pipe.hsetnx(keys.names(), f"since:{name}", now)
        pipe.hsetnx(keys.names(), f"{_OVERDUE}{name}", fields.overdue)
        pipe.execute()

    def forget(self, name: str) -> bool:
        """Remove the time limit of a name; False: the name had no limit."""
        return bool(self._scripts.call("forget_name", [keys.names()], [name])[1])


def names_about(fields: RunFields) -> bytes:
    """The data of a run file stored under its name: the path, and the recipients of notices."""
    return codec.pack_value([fields.file, list(fields.notify.get(ATTENTION, ()))])


def _name_seen(name: str, record: Mapping[str, bytes], now: int, jumps: int) -> NameSeen:
    file, urls = codec.unpack_value(record[f"about:{name}"])
    good, _, run = readable_name(record.get(f"good:{name}", b"")).partition(" ")
    return NameSeen(
        name=name,
        seconds=int(record[f"{_OVERDUE}{name}"]),
        since=int(record[f"since:{name}"]),
        good=int(good or 0),
        run=run,
        file=str(file),
        urls=tuple(map(str, urls)),
        now=now,
        jumps=jumps,
        told=readable_name(record.get(f"told:overdue {name}", b"")),
    )
