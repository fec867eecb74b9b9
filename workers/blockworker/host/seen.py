"""The identity of a directory: file system, mount point and file handle; and the check for a change."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from blockworker.system import identity
from blockworker.system.filesystem import filesystem_kind

# The kinds that are created anew at each boot or mount: they are known by their mount point.
_PASSING: Final = frozenset({"tmpfs", "ramfs", "overlayfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A directory of the host, with its identity at the time of use."""

    path: str
    file_system: str  # identity.file_system_of
    kind: str  # ext4, xfs...
    mount: str  # the mount point of the file system
    directory: str  # identity.handle_of
    write_root: bool = True  # False: a mount below a write root
    at: float = 0.0

    @property
    def title(self) -> str:
        """The file system in words."""
        return f"{self.file_system} ({self.kind}, mounted at {self.mount})"

    def is_same(self, now: Seen) -> bool:
        """Whether ``now`` is the same directory: the same file system and, for bind mounts, the same part of it."""
        if self.file_system != now.file_system:
            if (self.kind, self.mount) != (now.kind, now.mount):
                return False
            schemes = {each.file_system.partition(":")[0] for each in (self, now)}
            if schemes == {"boot"} or now.kind in _PASSING:
                return True
            # Another kernel, or a container, may name one file system in another way.
            return len(schemes) > 1 and self.directory == now.directory
        return self.directory == now.directory or self.mount == now.mount


def directory_identity(path: str, fd: int, *, write_root: bool = True) -> Seen:
    """The present identity of an open directory. Raises OSError."""
    with suppress(PermissionError):  # a directory that may be searched but not listed has fewer known properties
        fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # O_PATH tells too little
        try:
            return _identity_of_descriptor(path, fd, write_root=write_root)
        finally:
            os.close(fd)
    return _identity_of_descriptor(path, fd, write_root=write_root)


def _identity_of_descriptor(path: str, fd: int, *, write_root: bool) -> Seen:
    return Seen(
        path=path,
        file_system=identity.file_system_of(fd),
        kind=filesystem_kind(fd)[0],
        mount=mount_point_of(fd),
        directory=identity.handle_of(fd),
        write_root=write_root,
        at=time.time(),
    )


def mount_point_of(fd: int) -> str:
    """The mount point of the file system of an open file; "" if the kernel does not tell."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as about:
        number = next((line.split()[1] for line in about if line.startswith("mnt_id:")), "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            words = line.split()
            if words[0] == number:
                return words[4].encode("utf-8", "surrogateescape").decode("unicode_escape")  # a space is \\040
    return ""


def why_path_refused(before: Seen, now: Seen) -> str:
    """Why a path is refused, for people."""
    what = "write root" if before.write_root else "directory"
    return (
        f"{what} {before.path} was on file system {before.title}, and is now on {now.title}: is it mounted? "
        f"`blockjobs roots accept {before.path}` takes the change"
    )
