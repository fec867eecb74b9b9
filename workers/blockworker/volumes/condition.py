"""The identity of a source as one value: the file or device, the size, and the condition.

The identity is taken at OPEN, stored with the job, and taken again by every attempt before and after the copy. The
comparison always shows a replaced file or device, and a new size; the absence of writes is known only if time stamps
prove it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from blockjobs.model.errors import JobFailed
from blockworker.system import kernel
from blockworker.system.filesystem import filesystem_kind
from blockworker.system.identity import same_thing, which_device, which_file

# Differences other than a write. No policy lets a job go on then: the target belongs to another source.
REPLACED: Final = ("another file", "another device", "another layer", "size")


class Proof(StrEnum):
    """Evidence that a file was not written to between two looks."""

    TIMES = "times"  # mtime and ctime are unchanged: every write moves them
    CONTENT = "content"  # only an unchanged content: a write through a shared mapping moves no time
    NOTHING = "nothing"


# Kinds of file systems, with the evidence. Any other kind proves nothing: FAT has no ctime, and writes of other
# machines to a file system of the network are seen late. tmpfs has no writeback: a page of a shared mapping stays
# writable for ever. overlayfs may lie on a tmpfs.
_PROOFS: Final[Mapping[str, Proof]] = {
    **dict.fromkeys(("ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs"), Proof.TIMES),
    **dict.fromkeys(("tmpfs", "ramfs", "overlayfs"), Proof.CONTENT),
}
_COARSE_CLOCK: Final = 5  # CLOCK_REALTIME_COARSE, the clock of time stamps; it goes on by ticks of up to 10 ms
_SECOND: Final = 1_000_000_000  # ns; for file systems with stamps in whole seconds
_REST: Final = 0.002  # seconds
_LOOKS: Final = 3  # at a file that is being written


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity and condition of a source. ``kind``: ``file``, ``device`` or ``none`` (nothing of this host).

    ``size``: bytes of the content. ``dev`` and ``ino`` are valid only for the moment: they name locks, and are not used
    to compare two identities. ``layers``: the files below an image, the topmost first.
    """

    kind: str
    dev: int = 0
    ino: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    which: str = ""  # blockworker.system.identity; "" in records of earlier versions
    proof: Proof = Proof.TIMES
    layers: tuple[Identity, ...] = ()

    def changed(self, other: Identity) -> str | None:
        """The difference to ``other``: ``""`` for a proven equality, None if nothing differs but nothing is proven.

        A word of ``REPLACED``: a replaced file or device, or a new size. Any other word: the source was written to.
        """
        return _first_difference(self._replaced(other), self.layers_changed(other), _sign_of_write(self, other))

    def layers_changed(self, other: Identity) -> str | None:
        """The difference as in ``changed``, for the layers below alone."""
        if not (self.which and other.which):  # a record without these fields
            return None if self.layers or other.layers else ""
        if len(self.layers) != len(other.layers) or not all(map(_is_same_file, self.layers, other.layers)):
            return "another layer"
        return _first_difference(
            *(_sign_of_write(*pair, below=True) for pair in zip(self.layers, other.layers, strict=True))
        )

    def proved_by_content(self) -> bool:
        """Whether the content has to be compared: some time stamps prove nothing, and the rest are proof."""
        proofs = {each.proof for each in (self, *self.layers)}
        return Proof.CONTENT in proofs and Proof.NOTHING not in proofs

    def _replaced(self, other: Identity) -> str:
        if "none" in (self.kind, other.kind):
            known = self.kind == other.kind and self.size and other.size
            return "size" if known and self.size != other.size else ""
        if not _is_same_file(self, other):
            return f"another {self.kind}"
        return "size" if self.size != other.size else ""

    def to_list(self) -> list[Any]:
        layers = [layer.to_list() for layer in self.layers]
        return [
            self.kind,
            self.dev,
            self.ino,
            self.size,
            self.mtime_ns,
            self.ctime_ns,
            self.which,
            str(self.proof),
            layers,
        ]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Identity:
        """Read the values made by ``to_list`` of this version, the first version (six values), or a later version."""
        given = [*values, *("none", 0, 0, 0, 0, 0, "", Proof.TIMES, ())[len(values) :]]
        kind, dev, ino, size, mtime, ctime, which, proof, layers = given[:9]
        numbers = {"dev": int(dev), "ino": int(ino), "size": int(size), "mtime_ns": int(mtime), "ctime_ns": int(ctime)}
        known = Proof(proof) if proof in set(Proof) else Proof.NOTHING
        return cls(str(kind), **numbers, which=str(which), proof=known, layers=tuple(map(cls.from_list, layers)))


UNSEEN: Final = Identity("none")  # for jobs without a record of OPEN


def _first_difference(*found: str | None) -> str | None:
    """The first difference; without a difference None if any comparison proves nothing, else ""."""
    return next(filter(None, found), None if None in found else "")


def _sign_of_write(one: Identity, other: Identity, *, below: bool = False) -> str | None:
    """The time stamp (or size, for a layer below) that shows a write to a file."""
    if (one.kind, other.kind) != ("file", "file"):
        return None
    for name in ("mtime_ns", "ctime_ns", "size"):
        if getattr(one, name) != getattr(other, name) and (below or name != "size"):
            return name.removesuffix("_ns") + (" of a layer below" if below else "")
    return "" if one.proof is other.proof is Proof.TIMES else None


def _is_same_file(one: Identity, other: Identity) -> bool:
    """Whether two identities are of the same file or device, as far as both contain a name."""
    if one.which and other.which:
        return one.kind == other.kind and same_thing(one.which, other.which)
    return one.ino == other.ino or (one.kind, other.kind) != ("file", "file")


def identity_of(fd: int, path: str, *, still: bool = False) -> Identity:
    """The identity of an open file or device. ``still``: the file is ours, and no process writes to the file.

    The time stamps of a file exclude a write only if the next write moves them. Therefore dirty pages are written back
    first, or a program with a mapped page could write to the file without moving a stamp; and after a very recent
    write, the function waits until the clock of the stamps goes on.

    Raises:
        JobFailed: the file system, or the server, gives no answer about the file.
    """
    try:
        return _identity_of(fd, path, still=still)
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"source {path}: it cannot be said which one it is: {os.strerror(code)}") from None


def _identity_of(fd: int, path: str, *, still: bool) -> Identity:
    st = os.fstat(fd)
    if stat.S_ISBLK(st.st_mode):
        size, name = os.lseek(fd, 0, os.SEEK_END), which_device(st.st_rdev, path)
        return Identity("device", st.st_rdev, 0, size, which=name, proof=Proof.NOTHING)
    proof = Proof.TIMES if still else _PROOFS.get(filesystem_kind(fd)[0], Proof.NOTHING)
    match proof:
        case Proof.TIMES if not still:
            st, proof = _clean_file_state(fd)
        case Proof.NOTHING:
            kernel.refresh_from_server(fd)
            st = os.fstat(fd)
    return Identity(
        "file", st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns, which=which_file(fd), proof=proof
    )


def identity_of_image(files: Mapping[int, str], size: int) -> Identity:
    """The identity of an image of a format: its file, with the layers below; ``size``: bytes of the content."""
    top, *below = [identity_of(fd, path) for fd, path in files.items()]
    return replace(top, size=size, layers=tuple(below))


def _clean_file_state(fd: int) -> tuple[os.stat_result, Proof]:
    """The state of a file without dirty pages; without proof if the file is written all the time."""
    for _ in range(_LOOKS):
        before = os.fstat(fd)
        _wait_past_ctime(before.st_ctime_ns)
        try:
            kernel.write_back(fd)
        except OSError:
            return os.fstat(fd), Proof.NOTHING  # the disk takes no writes: the copy reads as much as possible
        after = os.fstat(fd)
        # A page dirtied after the writeback has moved the time, or else it would be writable without a trace.
        if _size_and_times(before) == _size_and_times(after):
            return after, Proof.TIMES
    return after, Proof.NOTHING


def _size_and_times(st: os.stat_result) -> tuple[int, int, int]:
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns


def _wait_past_ctime(stamp: int) -> None:
    """Wait until a write would get a ctime later than ``stamp`` (ns)."""
    # a stamp in whole seconds may come from a file system that keeps only seconds
    grain = 1 if stamp % _SECOND else _SECOND
    while stamp >= (now := time.clock_gettime_ns(_COARSE_CLOCK)) // grain * grain:
        if stamp > now + 2 * _SECOND:
            return  # the stamp of a clock that was wrong: the same stamp does not come again
        time.sleep(_REST)
