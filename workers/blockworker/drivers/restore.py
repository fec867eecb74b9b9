"""Restore: copy a published image or a range to a file or device, comparing each chunk's digest before the write."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.restores import FORCE
from blockjobs.model.verifications import FROM_MEDIUM
from blockworker.copy.checked_source import CheckedSource, Tolerate
from blockworker.copy.digests import CHUNK
from blockworker.drivers.base import Job
from blockworker.drivers.copying import Copying
from blockworker.drivers.published import MOST, Published
from blockworker.drivers.staged import open_for_attempt
from blockworker.host.roots import Roots
from blockworker.records.journal import MemberFiles
from blockworker.targets import manifest
from blockworker.targets.attributes import Attributes, parse_attributes
from blockworker.targets.given import given_back
from blockworker.targets.proof import MANIFEST


class Restore(Published):
    def checked(self, roots: Roots, spec: JobSpec, path: str) -> CheckedSource:
        record = manifest.load_manifest(path + MANIFEST, roots.open_published)
        whole: int = record["size"]
        on = Tolerate.DIFFERENCES if spec.options.get(FORCE) else Tolerate.NOTHING
        offset, size = spec.offset, spec.length or whole - spec.offset
        if size < 0 or (size == 0 and whole) or offset + size > whole:
            text = f"bytes {offset} to {offset + max(0, size)} are not all in image {path}: it has {whole} bytes"
            raise JobFailed(errno.EINVAL, text)
        if not record.get("digests") and not on:
            text = f"image {path} was copied with 'digests: false': only `--force` restores what cannot be checked"
            raise JobFailed(errno.EINVAL, text)
        with ExitStack() as opened:  # on an error, closes the files opened before
            digests = None
            if record.get("digests"):
                digests = opened.enter_context(closing(manifest.open_digests(path, record, roots.open_published)))
            image = opened.enter_context(closing(manifest.open_image(path, record, roots.open_published, roots.cage)))
            if image.size < offset + size and not on:
                text = f"source {path}: bytes {image.size} to {whole} are missing: the image was cut"
                raise JobFailed(errno.EBADMSG, text)
            source = CheckedSource(image, path, whole=whole, digests=digests, offset=offset, size=size, on=on)
            opened.pop_all()
            return source

    def attributes(self, roots: Roots, spec: JobSpec) -> Attributes:
        """Attributes from the manifest, as far as a manifest may name attributes; a range of an image gets none."""
        if spec.offset or spec.length:
            return Attributes()
        path = volumespec.volume_label(spec.source.volume)
        return parse_attributes(manifest.load_manifest(path + MANIFEST, roots.open_published).get("attributes"))

    def allocated(self, spec: JobSpec, source: object) -> int | None:  # noqa: ARG002
        return source.allocated() if isinstance(source, CheckedSource) and source.is_raw else None

    def wanted(self, roots: Roots, member: MemberFiles) -> Attributes:  # noqa: ARG002
        return given_back(member)

    def attached(self, roots: Roots, job: Job) -> Restoring:
        source = self.source(roots, job.spec)
        return Restoring.of(open_for_attempt(roots, job.claim, source=source), job).checking(source)

    def told(self, spec: JobSpec, result: Mapping[str, Any]) -> Mapping[str, Any]:
        facts = {name: result[name] for name in ("checked", "differing") if name in result}
        return {"restored": {"offset": spec.offset, **facts}}


class Restoring(Copying):
    """An attempt at a restore."""

    _source: CheckedSource

    def checking(self, source: CheckedSource) -> Restoring:
        self._source = source
        return self

    def start(self, job: Job) -> None:
        if self._spec.options.get(FORCE):
            # The differences in the ranges of an earlier attempt are not on record: compare those ranges again.
            for start, end in self._attached.done.to_tuple():
                for here in range(start, end, CHUNK):
                    self._source.check(here, min(here + CHUNK, end))
                    job.point()
        super().start(job)

    def result(self) -> Mapping[str, Any]:
        told = {**super().result(), "checked": self._source.compares, FROM_MEDIUM: self._source.from_medium}
        if differing := self._source.differing:
            told["differing"] = differing[:MOST]
        return told
