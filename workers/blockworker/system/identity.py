"""Lasting names for files, file systems and devices, unchanged after a remount and a reboot.

The kernel gives out ``st_dev`` anew at each mount, an inode number as soon as a file is removed, and the name of a
device at each boot. The names in this module come from properties of the object: the uuid of a file system, the file
handle (inode number and generation), the serial number of a disk.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from blockjobs.process.clock import read_boot_id
from blockworker.system import kernel
from blockworker.system.filesystem import KINDS, filesystem_kind

# The kinds with file handles for the life of a file, never given to another file. On other kinds a handle may be made
# of numbers of a single mount (FUSE), or may not exist (overlayfs).
_HANDLED: Final = frozenset(
    {"ext4", "xfs", "btrfs", "tmpfs", "f2fs", "bcachefs", "nfs", "ceph", "ocfs2", "gfs2", "zfs"}
)
# The kinds with a new inode number whenever an inode comes into memory: only the birth time belongs to the file.
_UNNUMBERED: Final = frozenset({"vfat", "exfat"})
# The kinds with an f_fsid (statfs) made of the uuid, and not of the number of a device.
_FSID_OF_UUID: Final = frozenset({"ext4", "zfs", "ceph"})
_LOCAL: Final = dict(KINDS.values())

_GET_UUID: Final = 0x80111500  # FS_IOC_GETFSUUID, Linux 6.9: the length, then 16 bytes
_XFS_GEOMETRY: Final = 0x80705864  # XFS_IOC_FSGEOMETRY_V1: 112 bytes, the uuid from byte 64 on
_BTRFS_INFO: Final = 0x8400941F  # BTRFS_IOC_FS_INFO: 1024 bytes, the uuid from byte 16 on
_BTRFS_LOOKUP: Final = 0xD0009412  # BTRFS_IOC_INO_LOOKUP: 4096 bytes, the tree's id first
_BTRFS_TOP: Final = 256  # the inode of a subvolume's top, open to questions of every user

# Properties of a device below /sys/dev/block/MAJOR:MINOR, the most telling first; numbers are given out anew.
_DEVICE_NAMES: Final = ("dm/uuid", "loop/backing_file", "wwid", "device/wwid", "device/serial", "serial", "md/uuid")
_THIS_BOOT: Final = " @"  # the part of a name after this mark is comparable within one boot only


# --- files --------------------------------------------------------------------------------------------


def file_system_of(fd: int) -> str:
    """A name of the file system (on Btrfs: of the subvolume) of an open file or directory.

    ``uuid:HEX`` for a file system with a uuid, ``mount:KIND:SOURCE`` for a network file system, ``device:NAME`` for a
    disk with a name of its own, else ``boot:BOOT:DEVICE``, valid until the next mount. Raises OSError.
    """
    kind, _ = filesystem_kind(fd)
    device = os.fstat(fd).st_dev
    if kind == "btrfs" and (name := _btrfs_uuid(fd)):
        return name
    if name := _own_uuid(fd) or (kind == "xfs" and _xfs_uuid(fd)) or _linked_uuid(device):
        return f"uuid:{name}"
    if kind in _FSID_OF_UUID and (number := os.fstatvfs(fd).f_fsid):
        return f"fsid:{number:x}"
    if not _LOCAL.get(kind, False) and (name := _mount_source(device)):
        return f"mount:{name}"
    if os.path.exists(_sys_of(device)) and not (name := identify_device(device, "")).startswith("path:"):
        return f"device:{name}"
    return f"boot:{read_boot_id()}:{device:x}"


def handle_of(fd: int) -> str:
    """A name to tell a file from all present and later files of the file system. Raises OSError.

    ``TYPE-HEX`` of the file handle. Without a lasting handle: the inode number and the birth time, as far as known.
    """
    kind, _ = filesystem_kind(fd)
    if kind in _HANDLED:
        with suppress(OSError):
            number, handle = kernel.file_handle(fd)
            return f"{number}-{handle.hex()}"
    born = kernel.birth_time(fd)
    inode = "" if kind in _UNNUMBERED else f"inode-{os.fstat(fd).st_ino}"
    return ",".join(part for part in (inode, f"born-{born}" if born else "") if part) or "unnamed"


def which_file(fd: int) -> str:
    """The name of an open file: equal for one file at two times, different for two files. Raises OSError."""
    return f"{file_system_of(fd)}/{handle_of(fd)}"


def same_thing(one: str, other: str) -> bool:
    """Whether two names denote the same file or device.

    Parts valid within one boot are not compared with parts of another boot. On a network file system only the handles
    are compared: the server gives out handles, and two hosts may mount the file system under two names.
    """
    if one.startswith("mount:") and other.startswith("mount:"):
        return one.rpartition("/")[2] == other.rpartition("/")[2]
    (first, first_boot), (second, second_boot) = _split_at_boot_mark(one), _split_at_boot_mark(other)
    if first_boot and second_boot and first_boot[0] == second_boot[0]:
        return first == second and first_boot == second_boot
    return first == second


def _split_at_boot_mark(name: str) -> tuple[str, tuple[str, ...]]:
    lasting, mark, passing = name.rpartition(_THIS_BOOT)  # the last mark: a path may contain the mark, too
    return (lasting, tuple(passing.split(":", 1))) if mark else (name, ())


def _own_uuid(fd: int) -> str:
    try:
        found = fcntl.ioctl(fd, _GET_UUID, bytes(17))
    except OSError:
        return ""  # an older kernel, or a file system without a uuid
    return _hex_of_uuid(found[1 : 1 + found[0]])


def _hex_of_uuid(uuid: bytes) -> str:
    """A uuid as hexadecimal digits; "" for a uuid of zeros, which is no name."""
    return uuid.hex() if any(uuid) else ""


def _xfs_uuid(fd: int) -> str:
    try:
        return _hex_of_uuid(fcntl.ioctl(fd, _XFS_GEOMETRY, bytes(112))[64:80])
    except OSError:
        return ""


def _btrfs_uuid(fd: int) -> str:
    tree = bytearray(struct.pack("QQ", 0, _BTRFS_TOP).ljust(4096, b"\0"))  # 0: the tree of the file
    try:
        uuid = fcntl.ioctl(fd, _BTRFS_INFO, bytes(1024))[16:32].hex()
        fcntl.ioctl(fd, _BTRFS_LOOKUP, tree)
    except OSError:
        return ""
    return f"uuid:{uuid}:{struct.unpack_from('Q', tree)[0]}"


def _linked_uuid(device: int) -> str:
    """The uuid in udev's name of a file system's block device; "" if udev has none."""
    folder = "/dev/disk/by-uuid"
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            with suppress(OSError):
                found = os.stat(f"{folder}/{name}")
                if stat.S_ISBLK(found.st_mode) and found.st_rdev == device:
                    return name.replace("-", "").lower()
    return ""


def _mount_source(device: int) -> str:
    """``KIND:SOURCE`` of the mount whose files have this ``st_dev``; "" if no source is lasting."""
    for kind, source in _mounts_of(device):
        if source not in ("", "none") and not source.startswith("/dev/"):
            return f"{kind}:{source}"
    return ""


def is_mounted(device: int) -> bool:
    """Whether a file system with this ``st_dev`` is mounted now, as far as this process sees."""
    return any(True for _ in _mounts_of(device))


def _mounts_of(device: int) -> Iterator[tuple[str, str]]:
    """Kind and source of every mount whose files have this ``st_dev``, as far as this process sees."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == number:
                kind, source, *_ = [*rest.split(), "", ""]
                yield kind, source


# --- devices ------------------------------------------------------------------------------------------


def identify_device(rdev: int, path: str) -> str:
    """A device's identity, equal for all paths of the device and, if the device has its own name, after a reboot."""
    place = _sys_of(rdev)
    part = _read_line(f"{place}/partition")
    if part:
        place = os.path.dirname(os.path.realpath(place))
    for name in _DEVICE_NAMES:
        if text := _read_line(f"{place}/{name}"):
            more = [_read_line(f"{place}/loop/{each}") for each in ("offset", "sizelimit")] if "loop" in name else []
            return ":".join([name, text, *more, *(["part", part] if part else [])])
    return f"path:{os.path.realpath(path)}"


def which_device(rdev: int, path: str) -> str:
    """The name of a block device: ``identify_device``, and the properties that tell two devices of the same name apart.

    The name of a partition includes the first sector, the name of a loop device the file behind the device, and the
    name of a device without a name of its own the number that the kernel has given this disk since the boot.
    """
    place = _sys_of(rdev)
    name = identify_device(rdev, path)
    if start := _read_line(f"{place}/start"):
        name += f":from:{start}"
        place = os.path.dirname(os.path.realpath(place))
    if name.startswith("loop/"):
        with suppress(OSError):
            name += _loop_file_identity(_read_line(f"{place}/loop/backing_file"))
    if name.startswith("path:") and (sequence := _read_line(f"{place}/diskseq")):
        name += f"{_THIS_BOOT}{read_boot_id()}:{sequence}"
    return name


def _loop_file_identity(path: str) -> str:
    """Inode and handle of the file behind a loop device: a new file of the same name may get the same inode.

    Earlier versions did not note the handle. The handle is written like the parts valid within one boot, and therefore
    names of earlier versions still match.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return f":inode:{os.fstat(fd).st_ino}{_THIS_BOOT}{read_boot_id()}:{handle_of(fd)}"
    finally:
        os.close(fd)


def backing_file(rdev: int) -> str:
    """The path of the file behind a loop device."""
    return _read_line(f"{_sys_of(rdev)}/loop/backing_file")


def _sys_of(rdev: int) -> str:
    return f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}"


def _read_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
