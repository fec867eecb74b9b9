"""The common part of restore and verify: the source is a published image, compared with its digests."""

from __future__ import annotations

import errno
from abc import abstractmethod
from typing import Final

from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import FileVolume
from blockworker.copy.checked_source import CheckedSource
from blockworker.drivers.examined import SourceFindings
from blockworker.drivers.staged import Staged
from blockworker.host.roots import Roots

MOST: Final = 1000  # most differing ranges listed in the result


class Published(Staged):
    cuts = False  # no process writes to a published image

    def source(self, roots: Roots, spec: JobSpec) -> CheckedSource:
        image = spec.source.volume
        if not isinstance(image, FileVolume):
            raise JobFailed(errno.EINVAL, f"source {spec.source.text}: the file of a published image was expected")
        try:
            return self.checked(roots, spec, image.filename)
        except BadInput as wrong:
            raise JobFailed(errno.EINVAL, str(wrong)) from None

    def findings(self, roots: Roots, spec: JobSpec) -> SourceFindings:  # noqa: ARG002
        """No findings: the image's own digests show damage."""
        return SourceFindings()

    @abstractmethod
    def checked(self, roots: Roots, spec: JobSpec, path: str) -> CheckedSource:
        """Open the image at ``path``; raises JobFailed, or BadInput for a defect of the manifest."""
