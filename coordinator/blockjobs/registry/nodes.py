"""Volumes registered under a name, for commands that accept a name instead of a path."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from blockjobs.model import errors, volumespec
from blockjobs.model.volumespec import HostedVolume
from blockjobs.registry import codec, holders, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.each import readable_name
from blockjobs.registry.odd import Odd, Unreadable, decode_or_raise
from blockjobs.registry.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Node:
    """A named volume.

    ``options``: as given at the definition; ``children``: the nodes below; ``size`` at the definition.
    """

    name: str
    volume: HostedVolume
    options: Mapping[str, Any]
    children: tuple[str, ...] = ()
    size: int = 0
    read_only: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "node-name": self.name, "host": self.volume.host, "volume": self.volume.text,
            "driver": self.volume.volume.driver, "size": self.size, "read-only": self.read_only,
        }  # fmt: skip


class NodeExists(errors.Refused):
    def __init__(self, name: str) -> None:
        super().__init__(f"Duplicate nodes with node-name='{name}'")


class NoSuchNode(errors.Refused):
    def __init__(self, name: str) -> None:
        super().__init__(f"Failed to find node with node-name='{name}'")


class NodeBusy(errors.Refused):
    """A job reads or writes the volume, or a later node was built on the node."""


RESERVED_FOR: Final = 30_000  # ms until the reaper lifts a forgotten reservation


class Nodes:
    def __init__(self, client: Client, scripts: Scripts, odd: Odd | None = None) -> None:
        self._redis, self._scripts, self._odd = client, scripts, odd or Odd()

    def add(self, node: Node) -> None:
        """Add a node.  Raises NodeExists."""
        if not self._redis.hsetnx(keys.nodes(), node.name, record_of(node)):
            raise NodeExists(node.name)

    def get(self, name: str) -> Node:
        """A node by its name.  Raises NoSuchNode."""
        record = self._redis.hget(keys.nodes(), name)
        if record is None:
            raise NoSuchNode(name)
        return decode_or_raise(f"volume name {name}", lambda: _unpack_node(name, record))

    def list(self) -> list[Node]:
        """The nodes, by name."""
        rows = sorted(self._redis.hgetall(keys.nodes()).items())
        named = ((readable_name(name), record) for name, record in rows)
        found = [self._odd.read(f"volume name {name}", partial(_unpack_node, name, record)) for name, record in named]
        return [node for node in found if node is not None]

    def remove(self, name: str) -> None:
        """Forget a name.  Jobs keep the volume, and a job starting at the same moment is not affected.

        An unreadable node is forgotten even if in use, as no other action on the node is possible.

        Raises:
            NoSuchNode: the node is unknown.
            NodeBusy: a job uses the volume, or a node built on the node exists.
        """
        try:
            node = self.get(name)
        except Unreadable:
            self._redis.hdel(keys.nodes(), name)
            return
        if job := self.writer(node.volume):
            raise NodeBusy(f"Node '{name}' is busy: block device is in use by block job: {self.type_of(job)}")
        if self.readers(node.volume) or any(name in other.children for other in self.list()):
            raise NodeBusy(f"Block device {name} is in use")
        self._redis.hdel(keys.nodes(), name)

    def reserve(self, volume: HostedVolume, why: str, *, ms: int = RESERVED_FOR) -> str:
        """Keep every job from a volume for at most ``ms`` milliseconds; return the holder's name.

        Raises:
            VolumeBusy: a job, or another reservation, holds the volume.
        """
        holder = f"{why} {uuid.uuid4().hex}"  # with a space, which no job id contains
        found = self._scripts.call("reserve", [keys.texts(), keys.reserved()], [volume.lock, holder, ms])
        if found[0] == b"busy":
            other = found[1].decode()
            raise errors.VolumeBusy(volume.lock, other, self.type_of(other))
        return holder

    def unreserve(self, volume: HostedVolume, holder: str) -> None:
        self._unreserve(volume.lock, holder)

    def expire(self, now_ms: int) -> tuple[str, ...]:
        """Lift the expired reservations; return the volumes, by text."""
        lifted = []
        for row in self._redis.zrangebyscore(keys.reserved(), "-inf", now_ms):
            reserved = self._odd.read(f"reservation '{readable_name(row)}'", partial(_parse_reservation, row))
            if reserved is not None:
                holder, text = reserved
                self._unreserve(text, holder)
                lifted.append(text)
        return tuple(lifted)

    def _unreserve(self, text: str, holder: str) -> None:
        self._scripts.call("unreserve", [keys.texts(), keys.reserved()], [text, holder])

    def resized(self, volume: HostedVolume, size: int) -> None:
        """Record the new size in every node of a volume.

        The caller has reserved the volume: no node of it can be removed.
        """
        for node in self.list():
            if node.volume.lock == volume.lock:
                self._redis.hset(keys.nodes(), node.name, record_of(replace(node, size=size)))

    def writer(self, volume: HostedVolume) -> str:
        """The job that writes to a volume; "" without one."""
        lock = volume.lock
        return (self._redis.hget(keys.texts(), f"w:{lock}") or b"").decode() if lock else ""

    def readers(self, volume: HostedVolume) -> int:
        """The number of jobs that read a volume."""
        lock = volume.lock
        return int(self._redis.hget(keys.texts(), f"r:{lock}") or 0) if lock else 0

    def type_of(self, job: str) -> str:
        """The type of a job, or the reason of a reservation."""
        return holders.type_of(self._redis, job)


def _parse_reservation(row: bytes) -> tuple[str, str]:
    """The holder of a reserved volume, and the volume's text."""
    why, token, text = row.decode().split(" ", 2)
    return f"{why} {token}", text


def record_of(node: Node) -> bytes:
    """A named volume as stored in the registry."""
    return codec.pack_value(
        {
            "volume": volumespec.to_dict(node.volume),
            "options": dict(node.options),
            "children": list(node.children),
            "size": node.size,
            "read-only": node.read_only,
        }
    )


def _unpack_node(name: str, record: bytes) -> Node:
    fields = codec.unpack_value(record)
    return Node(
        name,
        volumespec.parse_volume(fields["volume"]),
        fields["options"],
        tuple(fields["children"]),
        fields["size"],
        fields["read-only"],
    )
