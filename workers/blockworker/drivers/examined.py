"""Examination of a source, by OPEN or else by an attempt: notes for people, and whether the source is sound."""

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
from blockworker.volumes.layers import opener_beneath_roots
from blockworker.volumes.soundness import examine_volume, notes_on


@dataclass(frozen=True, slots=True)
class SourceFindings:
    """Findings about a source.  ``notes``: facts for people; ``damage``: defects that do not fail the job; a line each.

    ``unchecked``: whether an attempt has to check for damage before the copy.
    """

    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    unchecked: bool = False


def examine_source(roots: Roots, spec: JobSpec) -> SourceFindings:
    """Examine a source at OPEN, for some seconds.

    An image that QEMU writes to, and an image whose check does not finish in time, is left to the attempt.

    Raises:
        JobFailed: the source is damaged, and the job does not only report damage.
    """
    notes = notes_on(spec.source.volume, opener_beneath_roots(roots))
    found = examine_volume(spec.source.volume, opener_beneath_roots(roots), roots.cage, top_only=spec.sync == "top")
    _expect_sound(spec, found.damage)
    return SourceFindings(notes, found.damage, bool(found.unknown))


def examine_copied(roots: Roots, spec: JobSpec, cut: Cut, idle: Idle) -> tuple[str, ...]:
    """Examine the cut or the source that an attempt will copy; return the damage, a line each.

    ``idle`` is called five times a second meanwhile.

    Raises:
        JobFailed: the source is damaged or the check is inconclusive, and the job does not only report damage.
    """
    volume = volumespec.relocate_volume(spec.source.volume, cut.path) if cut else spec.source.volume
    found = examine_volume(
        volume,
        opener_beneath_roots(roots),
        roots.cage,
        seconds=PATIENCE.copy_check,
        top_only=spec.sync == "top",
        cut=bool(cut),
        idle=idle,
    )
    damage = (*found.damage, *found.unknown)
    _expect_sound(spec, damage)
    return damage


def _expect_sound(spec: JobSpec, damage: tuple[str, ...]) -> None:
    if damage and spec.on_source_damage is OnDamage.FAIL:
        raise JobFailed(errno.EIO, f"source {spec.source.text} is damaged: {'; '.join(damage)}")


def manifest_keys(opened: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's keys for the findings; {} without findings."""
    notes = list(opened.get("notes", ()))
    damage = [*opened.get("damage", ()), *result.get("damage", ())]
    found = {"source_notes": notes, "source_damage": damage}
    return {name: lines for name, lines in found.items() if lines}
