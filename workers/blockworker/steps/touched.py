"""The paths, and thereby the file systems, that a member, a question or a command touches: they decide its lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import Volume
from blockworker.host.config import HostConfig
from blockworker.host.roots import Root
from blockworker.steps.board import Lane

PointOf = Callable[[str], str]  # the mount point of a path

TOUCHED: Final = 20  # paths of an errand that are remembered, to name a hanging path


def lane_of(paths: Iterable[str], point_of: PointOf) -> Lane:
    """The mount points of the file systems of ``paths``."""
    return frozenset(map(point_of, paths))


def spec_paths(config: HostConfig, spec: JobSpec) -> tuple[str, ...]:
    """Paths touched by a job of this host: its target, the root with its journal, its source and the layers below."""
    mine = [*_volume_paths(config, spec.target.volume, write=True)]
    if spec.source.host == config.name:
        mine += _volume_paths(config, spec.source.volume)
    return tuple(dict.fromkeys(mine))


def look_paths(config: HostConfig, question: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths touched by a question of ``probe``; empty for an unreadable question, whose answer names the fault."""
    with suppress(BadInput, KeyError, ValueError, TypeError):
        if "spec" in question:
            return spec_paths(config, JobSpec.from_dict(question["spec"]))
        if "pattern" in question:
            return (_literal_directory(str(question["pattern"])),)
        if "volume" in question:
            return tuple(_volume_paths(config, volumespec.parse_volume(question["volume"]).volume, write=True))
    return ()


def prune_paths(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths touched by a question of ``prune``: removed and remaining targets, as a target may lie on another."""
    return (*(target["path"] for target in keys["going"]), *keys["remaining"])


def _volume_paths(config: HostConfig, volume: Volume, *, write: bool = False) -> list[str]:
    paths = [each.filename for each in volumespec.files_and_devices(volume)]
    return paths + [root for path in paths if write and (root := root_path(config.target_roots, path))]


def root_path(roots: Sequence[str], path: str) -> str:
    """The longest of some roots that holds a path; "" if none does."""
    return max((root for root in roots if Root(root).holds(path)), key=len, default="")


def _literal_directory(pattern: str) -> str:
    """The longest directory of a pattern without wildcards."""
    parts = pattern.split("/")
    plain = next((at for at, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
    return "/".join(parts[:plain]) or "/"
