"""The fleet from the view of a command, and a few questions shared by several commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from blockjobs.client.fleet import Fleet
from blockjobs.model import volumespec
from blockjobs.model.ids import Host
from blockjobs.model.volumespec import HostedVolume
from blockjobs.qmp.errors import QmpError
from blockjobs.registry.doors import Registry
from blockjobs.registry.nodes import Node, NoSuchNode

Ask = Callable[[Mapping[Host, list[dict[str, Any]]]], dict[Host, list[dict[str, Any]]]]
Resize = Callable[[HostedVolume, int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sight:
    """A host's view of a volume."""

    size: int = 0
    allocated: int = 0
    errno: int = 0
    text: str = ""
    backing: str = ""  # the layer named in the image's header, and its format
    backing_format: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """``ask``: asks hosts about volumes (``ask.probe``).  ``resize``: resizes a file (``ask.resize``)."""

    coordinator: Fleet
    ask: Ask
    resize: Resize
    commands: list[str] = field(default_factory=list)  # every name, for query-commands

    @property
    def registry(self) -> Registry:
        return self.coordinator.registry

    def node(self, name: str) -> Node:
        try:
            return self.registry.nodes.get(name)
        except NoSuchNode:
            raise QmpError(f"Cannot find device='{name}' nor node-name='{name}'") from None

    def look(self, wanted: Iterable[tuple[str, HostedVolume]]) -> dict[tuple[str, HostedVolume], Sight]:
        """Hosts' views of volumes, each in the role ``source``, ``target`` or ``node``; hosts are asked in parallel.

        Raises:
            HostDown: a host is not up.
        """
        asked: dict[Host, list[tuple[str, HostedVolume]]] = {}
        for side, volume in dict.fromkeys(wanted):
            asked.setdefault(volume.host, []).append((side, volume))
        looks = {
            host: [{"as": side, "volume": volumespec.to_dict(volume)} for side, volume in each]
            for host, each in asked.items()
        }
        return {
            key: Sight(**seen)
            for host, answers in self.ask(looks).items()
            for key, seen in zip(asked[host], answers, strict=True)
        }

    def only_host(self) -> str:
        """The host for a volume without a host: the only host of the fleet."""
        hosts = [view.name for view in self.coordinator.hosts()]
        if len(hosts) != 1:
            raise QmpError("Parameter 'host' is missing")
        return str(hosts[0])
