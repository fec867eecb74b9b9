"""What OPEN finds of a source, and an attempt where OPEN could not: whether the source is sound, and what people should
know of it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockjobs.model import volumespec
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec, OnDamage
from blockworker.host.roots import Roots
from blockworker.system.cage.limits import PATIENCE
from blockworker.system.cage.tool import Idle
from blockworker.volumes.layers import by
from blockworker.volumes.soundness import examine_volume, notes_on


@dataclass(frozen=True, slots=True)
class SourceFindings:
    """``notes``: what people should know; ``damage``: what is wrong, where that does not fail the job; a line each.
    ``unchecked``: whether an attempt has to look for damage before it copies."""

    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    unchecked: bool = False


def examine_source(roots: Roots, spec: JobSpec) -> SourceFindings:
    """Look at a source at OPEN, for some seconds.

    An image that QEMU writes to, and one whose check is not through in time, is left to the attempt.

    Raises:
        JobFailed: it is damaged, and the job does not say that this is only to be reported.
    """
    notes = notes_on(spec.source.volume, by(roots))
    found = examine_volume(spec.source.volume, by(roots), roots.cage, top_only=spec.sync == "top")
    _expect_sound(spec, found.damage)
    return SourceFindings(notes, found.damage, bool(found.unknown))


def examine_copied(roots: Roots, spec: JobSpec, cut: Cut, idle: Idle) -> tuple[str, ...]:
    """Look at what an attempt is going to copy, the cut or the source itself; the damage, a line each.

    ``idle`` is called five times a second meanwhile.

    Raises:
        JobFailed: it is damaged, or that cannot be known, and the job does not say that this is only to be reported.
    """
    volume = volumespec.instead(spec.source.volume, cut.path) if cut else spec.source.volume
    found = examine_volume(
        volume, by(roots), roots.cage, seconds=PATIENCE.copy_check, top_only=spec.sync == "top", cut=bool(cut),
        idle=idle,
    )  # fmt: skip
    damage = (*found.damage, *found.unknown)
    _expect_sound(spec, damage)
    return damage


def _expect_sound(spec: JobSpec, damage: tuple[str, ...]) -> None:
    if damage and spec.on_source_damage is OnDamage.FAIL:
        raise JobFailed(errno.EIO, f"source {spec.source.text} is damaged: {'; '.join(damage)}")


def manifest_keys(opened: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of all that was found; {} where there was nothing."""
    notes = list(opened.get("notes", ()))
    damage = [*opened.get("damage", ()), *result.get("damage", ())]
    found = {"source_notes": notes, "source_damage": damage}
    return {name: lines for name, lines in found.items() if lines}
