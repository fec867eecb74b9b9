"""Verify: read a whole published image and compare each chunk with its digest; no byte is written or passed on.

A verify may therefore read beneath the host's write roots, too, where backups lie: only an image with a manifest and
digests beside the image, and only with the target ``null-co``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.verifications import FROM_MEDIUM, JOB, RUN, in_words
from blockjobs.model.volumespec import NullVolume
from blockjobs.registry.attempts import Progress
from blockworker.copy.checked_source import CheckedSource
from blockworker.copy.engine import Copy
from blockworker.drivers.base import Job
from blockworker.drivers.copying import Copying
from blockworker.drivers.published import MOST, Published
from blockworker.drivers.staged import open_for_attempt
from blockworker.host.roots import Roots
from blockworker.system.cage.tool import Idle
from blockworker.targets import manifest
from blockworker.targets.proof import MANIFEST
from blockworker.volumes.extents import RangeSet

NAMED: Final = 5  # ranges in the error text


class Verify(Published):
    def checked(self, roots: Roots, spec: JobSpec, path: str) -> CheckedSource:
        if not isinstance(spec.target.volume, NullVolume) or spec.in_place:  # else a copy from a write root
            raise JobFailed(errno.EINVAL, f"target {spec.target.text}: nothing but null-co was expected of a verify")
        return _open_published_image(roots, path, spec.options)

    def attached(self, roots: Roots, job: Job) -> Verifying:
        source = self.source(roots, job.spec)
        path = volumespec.volume_label(job.spec.source.volume)
        attached = open_for_attempt(roots, job.claim, source=source)
        return Verifying.of(replace(attached, examine=partial(_damage_of, roots, path)), job)


def _damage_of(roots: Roots, path: str, idle: Idle) -> tuple[str, ...]:
    """Damage of the tables of a formatted image, a line each."""
    return manifest.image_damage(path, _load_image_manifest(roots, path), roots.open_published, roots.cage, idle)


def _open_published_image(roots: Roots, path: str, options: Mapping[str, Any]) -> CheckedSource:
    record = _load_image_manifest(roots, path)
    job = options.get(JOB)
    if job and (record.get("job"), record.get("run")) != (job, options.get(RUN)):
        text = f"image {path} was replaced: its manifest is of job '{str(record.get('job'))[:200]}', not of '{job}'"
        raise JobFailed(errno.ESTALE, text)
    return manifest.open_checked(path, record, roots.open_published, roots.cage)


def _load_image_manifest(roots: Roots, path: str) -> dict[str, Any]:
    """The manifest beside an image."""
    os.close(roots.open_published(path))  # an error of the image's path is reported for the image, not for the manifest
    try:
        return manifest.load_manifest(path + MANIFEST, roots.open_published)
    except JobFailed as failed:
        if failed.errno != errno.ENOENT:
            raise
        text = f"image {path} has no manifest beside it: nobody knows that a job has published it"
        raise JobFailed(errno.ENOENT, text) from None


class Verifying(Copying):
    """An attempt at a verification: a copy to no target."""

    def start(self, job: Job) -> None:
        super().start(job)
        damage = [f"its tables are damaged: {line}" for line in self._damage]
        if found := "; ".join(filter(None, [said_of(self._checked), *damage])):
            raise JobFailed(errno.EBADMSG, f"image {volumespec.volume_label(self._spec.source.volume)}: {found}")

    def _copy(self) -> Copy:
        attached = self._attached
        return Comparing(
            attached.source,
            attached.target,
            size=self._size,
            done=attached.done,
            throttle=self._throttle,
            wake=self._wake,
        )

    @property
    def _checked(self) -> CheckedSource:
        return cast(CheckedSource, self._attached.source)

    def progress(self) -> Progress:
        """The progress with 0 bytes written: a verify writes nothing, whatever the copy counts."""
        told = super().progress()
        return Progress(told.offset, told.len, {**(told.counts or {}), "written": 0})

    def result(self) -> Mapping[str, Any]:
        told = {**super().result(), FROM_MEDIUM: self._checked.from_medium}
        for name, ranges in (("differing", self._checked.differing), ("unreadable", self._checked.unreadable)):
            if ranges:
                told |= {name: ranges[:MOST], f"{name}-more": max(0, len(ranges) - MOST)}
        return told


def said_of(image: CheckedSource) -> str:
    """The ranges that are unreadable or differ from the digests, as text; "": none."""
    ranges = {"cannot be read": image.unreadable, "differ from the digests of its manifest": image.differing}
    return "; ".join(f"bytes {in_words(found, most=NAMED)} {what}" for what, found in ranges.items() if found)


class Comparing(Copy):
    """A copy that records only ranges found good: every attempt reads, and reports, the other ranges again."""

    _source: CheckedSource

    def durable_of(self, flushed: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        wrong = RangeSet((start, end) for start, end in self._source.differing + self._source.unreadable)
        good = [part for start, end in flushed for part in wrong.missing(start, end)]
        return tuple(good[:MOST])  # a checkpoint stays small even if the whole image differs
