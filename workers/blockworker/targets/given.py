"""Owner, permissions and other attributes of a published image, of its digests and of its manifest.

An image that replaces a file keeps the file's attributes.  Otherwise a restore gives back the attributes in the
manifest of its image, and a backup gets the owner and the mode of ``host.toml``.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from blockjobs.model.errors import JobFailed
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.records.journal import MemberFiles
from blockworker.targets.attributes import Attributes, give_attributes, parse_attributes, read_attributes
from blockworker.targets.existing import open_existing

_READ_AND_WRITE = 0o666  # an image, its digests and its manifest get no execute permission


@dataclass(frozen=True, slots=True)
class Prepared:
    """The result of PREPARE: the bytes that the image occupies (0: unknown), and warnings.

    A warning is a sentence about a deviation from the request, and does not fail the job.
    """

    allocated: int = 0
    warnings: tuple[str, ...] = ()


def attributes_of_backups(config: HostConfig) -> Attributes:
    """Owner, group and mode of published backups, from ``host.toml``."""
    user, group = config.backup_ids
    return Attributes(uid=None if user < 0 else user, gid=None if group < 0 else group, mode=config.backup_mode)


def attributes_of_source(roots: Roots, path: str) -> Attributes:
    """Attributes of the file at ``path``, for the manifest.  Raises JobFailed."""
    fd = roots.open_source(path)
    try:
        return read_attributes(fd)
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"the attributes of source {path}: {os.strerror(code)}") from None
    finally:
        os.close(fd)


def give_to_image(roots: Roots, member: MemberFiles, fd: int, wanted: Attributes) -> list[str]:
    """Give the open staging file its attributes; return a sentence for each failure.  Raises OSError."""
    replaced = open_existing(roots, member.target) if member.replaces is not None else None
    if replaced is None:
        return [f"{member.target} did not get back {each}" for each in give_attributes(fd, wanted)]
    try:
        return [
            f"{member.target} did not keep {each}"
            for each in give_attributes(fd, read_attributes(replaced, largest=None))
        ]
    finally:
        os.close(replaced)


def give_as_image(image: os.stat_result, fd: int) -> None:
    """Give an open file that will lie beside an image the image's owner, group and permissions, as far as possible."""
    give_attributes(fd, Attributes(uid=image.st_uid, gid=image.st_gid, mode=image.st_mode & _READ_AND_WRITE))


def given_back(member: MemberFiles) -> Attributes:
    """The attributes that a restore gives back: from the manifest of its image at OPEN, checked again."""
    return parse_attributes(member.attributes)
