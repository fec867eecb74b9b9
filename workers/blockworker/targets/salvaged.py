"""A salvaged image, parts of which could not be read, never replaces a whole image."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Any

from blockjobs.model.errors import BadInput, JobFailed
from blockworker.host.roots import Roots
from blockworker.records.journal import MemberFiles
from blockworker.targets import manifest
from blockworker.targets.proof import MANIFEST


def expect_no_whole_image(roots: Roots, member: MemberFiles) -> None:
    """Refuse to replace a whole image by a salvaged image; a salvaged image may replace a salvaged image.

    Raises:
        JobFailed: the target exists, and no manifest beside the target says that the target is salvaged.
    """
    if member.replaces is None:
        return
    record: dict[str, Any] = {}
    with suppress(BadInput, JobFailed):
        record = manifest.load_manifest(member.target + MANIFEST, roots.open_published)
    if not record.get("salvaged"):
        text = f"target {member.target} is whole, and a salvaged image does not replace it: another target was expected"
        raise JobFailed(errno.EEXIST, text)
