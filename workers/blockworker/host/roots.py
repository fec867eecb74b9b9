"""The only module that opens a path: beneath a root of the host's configuration, through no symlink.

Rule: the kernel walks a name (openat2); no name is checked as text and then opened. An opened file is judged by fstat
of the descriptor that is used afterwards.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput, JobFailed
from blockworker.host.config import HostConfig
from blockworker.host.mounts import Mounts
from blockworker.host.seen import mount_point_of
from blockworker.system import image_locks, kernel
from blockworker.system.cage import Cage, kernel_cage
from blockworker.system.relatives import open_relatives

_BENEATH: Final = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symlink",
    stat.S_IFREG: "a regular file",
}


@dataclass(frozen=True, slots=True)
class Root:
    """A directory of the host's configuration; for a job, nothing above the directory exists."""

    path: str

    def holds(self, path: str) -> bool:
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")

    def relative(self, path: str) -> str:
        """``path`` as seen from the root (``.`` for the root itself)."""
        return path[len(self.path) :].lstrip("/") or "."


class Roots:
    """A host's read and write roots, and its allow-list of devices."""

    def __init__(self, config: HostConfig) -> None:
        self.config = config
        self.registry = ""  # incarnation of the registry for which files are opened
        self.cage: Cage = replace(kernel_cage(), uncaged=config.uncaged_formats)  # where QEMU's tools run
        self.mounts = Mounts(config)

    def serving(self, registry: str) -> Roots:
        """These roots, for files opened by a registry of this incarnation."""
        roots = copy(self)
        roots.registry = registry
        return roots

    def with_former(self) -> Roots:
        """These roots and the former write roots of host.toml: work that began beneath a former root ends there."""
        former = self.mounts.former_roots()
        return Roots(replace(self.config, write_roots=(*self.config.write_roots, *former))) if former else self

    def remember_root(self, path: str) -> None:
        """Record the file system of a write root, unless the root is on record.

        Raises:
            RootAway: the root is on a file system other than the recorded file system.
        """
        fd = self.open_dir(path)
        try:
            with self._told("write root", path):
                self.mounts.remember(path, fd)
        finally:
            os.close(fd)

    def remember_mount(self, path: str) -> None:
        """Record the file system of a target's directory, if mounted below the write root.

        Raises:
            JobFailed: the directory is missing, or its file system has changed.
        """
        root, fd = self.root_of(path, write=True), self.open_dir(path, what="target directory")
        try:
            with self._told("target directory", path):
                mount = mount_point_of(fd)
                if mount != root.path and root.holds(mount) and mount not in self.mounts.seen():
                    below = self._open(root, mount, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        self.mounts.remember(mount, below, write_root=False)
                    finally:
                        os.close(below)
        finally:
            os.close(fd)

    def root_of(self, path: str, *, write: bool) -> Root:
        """The longest root that holds ``path``; ``write``: among the roots of targets and journals.

        A target may lie below a restore root only if made by a restore: ``expect_target`` checks that.
        """
        if write:
            return self._root_among(path, self.config.target_roots, "write")
        return self._root_among(path, self.config.read_roots, "read")

    def expect_target(self, path: str, *, restore: bool = False) -> None:
        """Refuse a path below which nothing may be made, replaced or removed; ``restore``: the job is of that type.

        Raises:
            JobFailed: names the path, the allowed roots, and the key of ``host.toml`` that would allow the path.
        """
        if restore:
            remedy = self._remedy("restore-roots", self.config.restore_roots, path)
            self._root_among(path, self.config.target_roots, "write and restore", remedy)
        else:
            self._root_among(path, self.config.write_roots, "write")

    def _remedy(self, key: str, roots: Sequence[str], path: str) -> str:
        """The line of ``host.toml`` that would allow a path."""
        wanted = ", ".join(f'"{root}"' for root in (*roots, os.path.dirname(path)))
        return f"; to allow it, set {key} = [{wanted}] in {self.config.path} of host {self.config.name}"

    def _root_among(self, path: str, roots: Sequence[str], side: str, remedy: str = "") -> Root:
        try:
            if path != "/":
                volumespec.checked_path(path)
        except BadInput as error:
            raise JobFailed(errno.EINVAL, str(error)) from None
        fitting = [root for root in map(Root, roots) if root.holds(path)]
        if not fitting:
            known = ", ".join(roots) or "none"
            text = f"{path} is outside the {side} roots of host {self.config.name} ({known}){remedy}"
            raise JobFailed(errno.EACCES, text)
        return max(fitting, key=lambda root: len(root.path))

    def open_source(self, path: str) -> int:
        """A read-only descriptor of a regular file beneath the read roots."""
        return self._open_file("source", path, self.root_of(path, write=False))

    def open_image(self, path: str) -> int:
        """A descriptor of a regular file beneath the write roots, for reading and writing."""
        return self._open_file("image", path, self._root_among(path, self.config.write_roots, "write"), write=True)

    def open_published(self, path: str) -> int:
        """A read-only descriptor of a regular file beneath any root, for a verify and for a restore.

        A folder of backups is a write root, and mostly no read root. A caller first asks for the manifest beside the
        file: published files can be compared and restored, and no other file can be read.
        """
        config = self.config
        every = dict.fromkeys((*config.read_roots, *config.write_roots, *config.restore_roots))
        remedy = self._remedy("read-roots", config.read_roots, path)
        return self._open_file("image", path, self._root_among(path, tuple(every), "read and write", remedy))

    def _open_file(self, what: str, path: str, root: Root, *, write: bool = False) -> int:
        with self._told(what, path):
            # Examined first: opening a device or a FIFO can have effects, an O_PATH descriptor has none.
            seen = self._open(root, path, os.O_PATH)
            try:
                self._expect_file(what, path, os.fstat(seen))
            finally:
                os.close(seen)
            fd = self._open(root, path, (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK)
            try:
                self._expect_file(what, path, os.fstat(fd))
            except BaseException:
                os.close(fd)
                raise
            return fd

    def open_device(self, path: str, *, write: bool = False) -> int:
        """A descriptor of a block device of the allow-list; links are followed at the time of the call.

        For reading; or, if the host allows it, for reading and writing: then the device is locked until the descriptor
        is closed, both against mounts (O_EXCL) and against QEMU (its image locks).
        """
        what = "target" if write else "source"
        if write and not self.config.allow_in_place:
            raise JobFailed(errno.EACCES, f"host {self.config.name} does not allow devices to be written ({path})")
        real = os.path.realpath(path)
        allowed = self.config.devices
        named = any(_matches_pattern(path, each) for each in allowed)
        if not named and real not in map(os.path.realpath, allowed):
            known = ", ".join(allowed) or "none"
            raise JobFailed(errno.EACCES, f"{path} is not in the devices of host {self.config.name} ({known})")
        if not real.startswith("/dev/"):
            raise JobFailed(errno.EACCES, f"{path} leads to {real}: a device under /dev was expected")
        with self._told(what, path):
            if not stat.S_ISBLK((st := os.stat(real)).st_mode):  # before it is opened: that can have effects
                raise JobFailed(errno.ENOTBLK, f"{what} {path} is {file_kind(st)}: a block device was expected")
            if write and _takes_no_writes(st.st_rdev):
                raise JobFailed(errno.EROFS, f"target {path} on host {self.config.name} is a read-only device")
            mode = os.O_RDWR | os.O_EXCL if write else os.O_RDONLY
            try:
                fd = os.open(real, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                if not write or error.errno != errno.EBUSY:
                    raise
                text = f"target {path} on host {self.config.name} is in use: one that is not mounted, and no part of"
                raise JobFailed(errno.EBUSY, f"{text} anything that is, was expected") from None
            try:
                if not stat.S_ISBLK((st := os.fstat(fd)).st_mode):
                    raise JobFailed(errno.ENOTBLK, f"{what} {path} is {file_kind(st)}: a block device was expected")
                if write:  # O_EXCL keeps mounts and mappings away; QEMU checks only its own locks
                    image_locks.lock_as_sole_writer(fd, f"target {path} on host {self.config.name}")
                    _expect_relatives_closed(fd, f"target {path} on host {self.config.name}")
            except BaseException:
                os.close(fd)
                raise
            return fd

    def open_dir(self, path: str, *, write: bool = True, what: str = "directory") -> int:
        """A descriptor of a directory beneath the roots; the directory can be synced."""
        root = self.root_of(path, write=write)
        with self._told(what, path):
            return self._open(root, path, os.O_RDONLY | os.O_DIRECTORY)

    def missing_dirs(self, base: str, path: str) -> list[str]:
        """The missing directories from below ``base`` down to ``path``, outermost first."""
        missing = []
        for directory in directories_between(base, path):
            try:
                os.close(self.open_dir(directory))
            except JobFailed as failed:
                if failed.errno != errno.ENOENT:
                    raise
                missing.append(directory)
        return missing

    def make_dirs(self, base: str, path: str, ours: Collection[str] = ()) -> list[str]:
        """Make every missing directory between ``base``, which must exist, and ``path``, durably.

        Returns the new directories. ``ours``: directories with the host's owner and mode for backups, also set if the
        maker of a directory died before setting them.
        """
        made = []
        parent = self.open_dir(base, what="target directory")
        try:
            for directory in directories_between(base, path):
                with self._told("directory", directory):
                    try:
                        os.mkdir(os.path.basename(directory), 0o700, dir_fd=parent)
                        os.fsync(parent)
                        made.append(directory)
                    except FileExistsError:
                        pass
                child = self.open_dir(directory)
                os.close(parent)
                parent = child
                if directory in ours:
                    with self._told("directory", directory):
                        self._give(child)
        finally:
            os.close(parent)
        return made

    def _give(self, directory: int) -> None:
        """Give a directory made by a job the host's owner and mode for backups."""
        st, (user, group) = os.fstat(directory), self.config.backup_ids
        if (user, group) not in ((-1, -1), (st.st_uid, st.st_gid)):
            os.fchown(directory, user, group)
        if stat.S_IMODE(st.st_mode) != self.config.directory_mode:
            os.fchmod(directory, self.config.directory_mode)
        os.fsync(directory)

    def _open(self, root: Root, path: str, flags: int) -> int:
        try:
            top = os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if root.path in self.config.target_roots:
                raise self.mounts.missing(root.path, path) from None
            raise
        try:
            self._expect_mounted(root, top, path)
            return _open_beneath(top, root.relative(path), flags | os.O_CLOEXEC)
        finally:
            os.close(top)

    def _expect_mounted(self, root: Root, top: int, path: str) -> None:
        """Refuse a path in a write root, or in a mount below a write root, on a changed file system."""
        for place in self.mounts.above(path):
            if place == root.path:
                self.mounts.expect(place, top)
            elif root.holds(place):
                try:
                    fd = _open_beneath(top, root.relative(place), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                except FileNotFoundError:
                    raise self.mounts.missing(place, path) from None
                try:
                    self.mounts.expect(place, fd)
                finally:
                    os.close(fd)

    def _expect_file(self, what: str, path: str, st: os.stat_result) -> None:
        if stat.S_ISLNK(st.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not stat.S_ISREG(st.st_mode):
            code = errno.EISDIR if stat.S_ISDIR(st.st_mode) else errno.EINVAL
            raise JobFailed(code, f"{what} {path} is {file_kind(st)}: a regular file was expected")

    @contextmanager
    def _told(self, what: str, path: str) -> Iterator[None]:
        """Turn the kernel's errors into texts that name the object, the path and the host."""
        try:
            yield
        except OSError as error:
            code = error.errno or errno.EIO
            match code:
                case errno.ENOENT:
                    text = f"{what} {path} does not exist on host {self.config.name}"
                case errno.ELOOP:
                    text = f"{what} {path} is or lies behind a symlink: a path without symlinks was expected"
                case errno.EXDEV:
                    text = f"{what} {path} leads out of the roots of host {self.config.name}"
                case errno.ENOTDIR:
                    text = f"{what} {path}: a part of it is not a directory"
                case _:
                    text = f"{what} {path} on host {self.config.name}: {os.strerror(code)}"
            raise JobFailed(code, text) from None


def _matches_pattern(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern, in which ``*`` stands for any part of one name."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(_same_name, parts, patterns))


def _same_name(name: str, pattern: str) -> bool:
    first, *middle = map(re.escape, pattern.split("*"))
    return re.fullmatch(".*".join((first, *middle)), name) is not None


def _expect_relatives_closed(fd: int, what: str) -> None:
    """Refuse a device while a guest has the disk below, a part of the device, or the file of the device open.

    Raises JobFailed.
    """
    relatives = open_relatives(fd)
    try:
        if any(map(image_locks.is_kept, relatives)):
            raise JobFailed(errno.EBUSY, f"{what} is in use: QEMU has a device or file open that shares bytes with it")
    finally:
        for relative in relatives:
            os.close(relative)


def _takes_no_writes(rdev: int) -> bool:
    """Whether the kernel marks a block device as read-only; False if not known: then a write will tell."""
    try:
        with open(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}/ro", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def file_kind(st: os.stat_result) -> str:
    """The kind of a file (``a FIFO``, ``a directory``...), for messages."""
    return _KINDS.get(stat.S_IFMT(st.st_mode), "of an unknown kind")


def directories_between(base: str, path: str) -> list[str]:
    """The directories below ``base`` down to and including ``path``, outermost first."""
    if not Root(base).holds(path):
        raise JobFailed(errno.EINVAL, f"{path} is not below {base}")
    inner = path[len(base) :].strip("/")
    parts = inner.split("/") if inner else []
    top = base.rstrip("/")
    return [f"{top}/{'/'.join(parts[: i + 1])}" for i in range(len(parts))]


def _open_beneath(top: int, relative: str, flags: int) -> int:
    """Open a path beneath an open directory, through no symlink."""
    try:
        return kernel.openat2(top, relative, flags, _BENEATH)
    except OSError as error:
        # Before Linux 5.6, and in containers whose seccomp filter does not know the call.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return _open_by_walking(top, relative, flags | os.O_NOFOLLOW)


def _open_by_walking(top: int, relative: str, flags: int) -> int:
    """Open a path as openat2 does, for kernels without openat2: part by part, following no link."""
    *parents, last = relative.split("/")
    here = os.dup(top)
    try:
        for part in parents:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, flags, dir_fd=here)
    finally:
        os.close(here)
