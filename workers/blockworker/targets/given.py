"""Which owner, permissions and other attributes a published image gets, and its digests and manifest with it.

An image that replaces another one keeps what that one had.  Otherwise a restore gives back what the manifest of its
image names, and a backup gets the owner and the mode of ``host.toml``.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from blockjobs.model.errors import JobFailed
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.records.journal import MemberFiles
from blockworker.targets.attributes import Attributes, give, parse, read
from blockworker.targets.existing import open_existing

_READ_AND_WRITE = 0o666  # nobody executes an image, its digests or its manifest because of us


@dataclass(frozen=True, slots=True)
class Prepared:
    """What PREPARE has come to: the bytes that the image takes up (0: not known), and warnings.

    A warning is a sentence about what is not as it was asked for, and fails nothing.
    """

    allocated: int = 0
    warnings: tuple[str, ...] = ()


def attributes_of_backups(config: HostConfig) -> Attributes:
    """Owner, group and mode of what backups publish, as ``host.toml`` has them."""
    user, group = config.backup_ids
    return Attributes(uid=None if user < 0 else user, gid=None if group < 0 else group, mode=config.backup_mode)


def attributes_of_source(roots: Roots, path: str) -> Attributes:
    """What the file at ``path`` has besides its content, for the manifest.  Raises JobFailed."""
    fd = roots.open_source(path)
    try:
        return read(fd)
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"the attributes of source {path}: {os.strerror(code)}") from None
    finally:
        os.close(fd)


def give_to_image(roots: Roots, member: MemberFiles, fd: int, wanted: Attributes) -> list[str]:
    """Give the open staging file what it is to have; what it could not be given, in words.  Raises OSError."""
    replaced = open_existing(roots, member.target) if member.replaces is not None else None
    if replaced is None:
        return [f"{member.target} did not get back {each}" for each in give(fd, wanted)]
    try:
        return [f"{member.target} did not keep {each}" for each in give(fd, read(replaced, largest=None))]
    finally:
        os.close(replaced)


def give_as_image(image: os.stat_result, fd: int) -> None:
    """Give an open file that is to lie beside an image the image's owner, group and permissions, where that can be."""
    give(fd, Attributes(uid=image.st_uid, gid=image.st_gid, mode=image.st_mode & _READ_AND_WRITE))


def given_back(member: MemberFiles) -> Attributes:
    """What a restore gives back: as the manifest of its image named it at OPEN, checked once more."""
    return parse(member.attributes)
