"""A salvaged image, of which parts could not be read, never ends the life of a whole one."""

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
    """Refuse to replace an image that is whole by one that is salvaged; another salvaged one may be replaced.

    Raises:
        JobFailed: the target exists, and no manifest beside it says that it is salvaged.
    """
    if member.replaces is None:
        return
    record: dict[str, Any] = {}
    with suppress(BadInput, JobFailed):
        record = manifest.load(member.target + MANIFEST, roots.open_published)
    if not record.get("salvaged"):
        text = f"target {member.target} is whole, and a salvaged image does not replace it: another target was expected"
        raise JobFailed(errno.EEXIST, text)
