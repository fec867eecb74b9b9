"""OPEN on a host: look at everything that could refuse a target, then make its staging file.

The journal is told before anything is made, so that after a crash nothing lies about unknown; called again
it finds what it made, or makes it anew.  A refusal removes everything it made, directories too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid4

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.restores import KEEP_DIGESTS
from blockjobs.model.restores import TYPE as RESTORE
from blockjobs.model.volumespec import FormatVolume, Volume
from blockworker.copy.digests import digest_size
from blockworker.host import boot_id
from blockworker.identity import which_file
from blockworker.inuse import expect_still
from blockworker.roots import Root, Roots, between, kind_of
from blockworker.targets import cuts
from blockworker.targets import journal as journals
from blockworker.targets.entries import Member, Record, Replaced
from blockworker.targets.files import failing, has_staging_file, remove_files, stat_of, unlink
from blockworker.targets.folder import FOLDER
from blockworker.targets.images import Contents, look_into, words_for
from blockworker.targets.journal import Journal
from blockworker.targets.madedirs import note_dirs, own_dirs, remove_made_dirs
from blockworker.targets.names import SUFFIXES
from blockworker.targets.replaced import expect_replaceable
from blockworker.targets.reserved import reserve_name, reserved_name
from blockworker.volumes.qemuimg import ImageTool

_LONGEST_NAME: Final = 230  # bytes; with ".", a uuid and ".manifest" around it 255 is the end


def target_path(spec: JobSpec) -> str:
    """The path of the staged target."""
    bottom = volumespec.bottom(spec.target.volume)
    if not isinstance(bottom, volumespec.FileVolume):
        raise JobFailed(
            errno.EINVAL, f"target {spec.target.text}: a file was expected, a {bottom.driver} is not staged"
        )
    return bottom.filename


def find_member(roots: Roots, spec: JobSpec) -> Member | None:
    """The job's entry in its journal; None if it was never opened, or is settled and swept into the tombstone."""
    root = journals.place_of(roots, target_path(spec), spec.transaction, spec.id)
    return journals.read_member(roots, root, spec.transaction, spec.id)


class Room:
    """The room on the file systems of some targets, and how much of it they are going to need, in bytes."""

    def __init__(self, roots: Roots, needed: Mapping[int, int] | None = None) -> None:
        """``needed``: of targets that were opened before, by file system."""
        self._roots = roots
        self._needed = dict(needed or {})
        self._free: dict[int, int] = {}  # as it was when the first target was looked at

    def add(self, directory: str, needed: int) -> tuple[int, str]:
        """Add the need of one more target in this directory: the number of its file system, and what is too little.

        The text is "" where there is room for all of them.
        """
        existing = directory
        while True:
            try:
                fd = self._roots.open_dir(existing)
                break
            except JobFailed as failed:
                if failed.errno != errno.ENOENT or existing == self._roots.root_of(existing, write=True).path:
                    raise
                existing = os.path.dirname(existing)  # a directory that OPEN is going to make
        try:
            dev, room = os.fstat(fd).st_dev, os.fstatvfs(fd)
        finally:
            os.close(fd)
        total = self._needed.get(dev, 0) + needed
        free = self._free.setdefault(dev, room.f_bavail * room.f_frsize)
        self._needed[dev] = total
        where = f"{directory} on host {self._roots.config.name}"
        return dev, f"the file system of {where} needs {total} bytes, {free} are free" if total > free else ""

    def take(self, directory: str, needed: int) -> None:
        """Add the need of one more target in this directory.

        Raises:
            JobFailed: ENOSPC: the targets of its file system need more than is free.
        """
        if wrong := self.add(directory, needed)[1]:
            raise JobFailed(errno.ENOSPC, wrong)


def check_space(roots: Roots, needs: Iterable[tuple[str, int]]) -> None:
    """Refuse what cannot fit: the directories' needs in bytes, added up by file system.  Raises JobFailed."""
    room = Room(roots)
    for directory, needed in needs:
        room.take(directory, needed)


def open_member(
    roots: Roots,
    spec: JobSpec,
    *,
    size: int,
    token_uuid: Callable[[], UUID] = uuid4,
    wanted: Callable[[], bool] = lambda: True,
    cutting: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Member:
    """Make the job's staging file, or find the one it made before.  ``cutting``: its source is to be cut, if it can be.

    ``attributes``: what the source has besides its content; PREPARE finds it in the journal.
    ``wanted`` is asked under the lock, after which nobody can settle the job: whether OPEN is still owed.
    A worker that was stopped for an hour between reading its message and coming here makes nothing.
    """
    path = target_path(spec)
    roots.expect_target(path, restore=spec.type == RESTORE)
    root = roots.root_of(path, write=True)
    if path == root.path:
        raise JobFailed(errno.EISDIR, f"target {path} is a write root itself: a file beneath it was expected")
    base = spec.target_base or os.path.dirname(path)
    _check_name(path)
    between(base, os.path.dirname(path))
    roots.remember_mount(base)
    _check_target(roots, spec, path)
    place = journals.place_of(roots, path, spec.transaction, spec.id)
    with failing(path), journals.held(roots, place, spec.transaction) as journal:
        record = journal.record or Record(spec.transaction)
        if record.decision is not None or record.state != "open" or not wanted():
            raise JobFailed(errno.ECANCELED, f"transaction '{spec.transaction}' is already decided: nothing is opened")
        member = journal.member(spec.id)
        if member is not None and member.ino:
            return _found(roots, journal, member, size)
        replaces = _check_target(roots, spec, path)  # again, now that nobody of ours can interfere
        if member is None:
            member = _intent(spec, path, size, token_uuid().hex)
        if image := volumespec.formatted(spec.target.volume):
            words = _words(roots, image, path, size, compress=spec.compress)
            member = replace(member, format=image.driver, words=words)
        member = replace(
            member, size=size, attributes=attributes, replaces=replaces,
            made_dirs=own_dirs(roots, place, base, os.path.dirname(path)),
        )  # fmt: skip
        if cutting:
            cut, uncut = cuts.intend(roots, spec, member.uuid)
            member = replace(member, cut=cut, uncut=uncut)
            expect_still(spec.source.volume, roots, live=spec.live, cut=cut is not None)
        return _make(roots, journal, member, spec=spec, base=base, place=place)


def _check_name(path: str) -> None:
    name = os.path.basename(path)
    if name.endswith(SUFFIXES):
        raise JobFailed(errno.EINVAL, f"target {path}: names ending in {', '.join(SUFFIXES)} are ours")
    if FOLDER in path.split("/"):
        raise JobFailed(errno.EINVAL, f"target {path}: {FOLDER} is the folder of the journals")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise JobFailed(errno.ENAMETOOLONG, f"target {path}: a name of at most {_LONGEST_NAME} bytes was expected")


def _check_target(roots: Roots, spec: JobSpec, path: str) -> Replaced | None:
    """Refuse a target that exists, unless it may be replaced; which file it is then."""
    try:
        directory = roots.open_dir(os.path.dirname(path))
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return None  # it will be made
        raise
    try:
        name = os.path.basename(path)
        st, seen = stat_of(directory, name), None
        if st is not None and stat.S_ISREG(st.st_mode) and _may_overwrite(roots, spec):
            seen = expect_replaceable(directory, path)
        if st is None:
            for suffix in SUFFIXES[1:]:
                if stat_of(directory, name + suffix) is not None and not _may_overwrite(roots, spec):
                    raise JobFailed(errno.EEXIST, f"{path}{suffix} exists already: it would belong to target {path}")
            return None
    finally:
        os.close(directory)
    if _source_identity(roots, spec) == (st.st_dev, st.st_ino):
        raise JobFailed(errno.EINVAL, f"target {path} is the source itself, or a hard link of it")
    if not stat.S_ISREG(st.st_mode):
        raise JobFailed(errno.EEXIST, f"target {path} exists already and is {kind_of(st)}")
    if not _may_overwrite(roots, spec):
        why = f"host {roots.config.name} does not allow overwriting" if spec.overwrite else "'overwrite' was not asked"
        raise JobFailed(errno.EEXIST, f"target {path} exists already and {why}")
    if st.st_nlink != 1:
        raise JobFailed(errno.EEXIST, f"target {path} has {st.st_nlink} hard links: a file with one was expected")
    return seen


def _may_overwrite(roots: Roots, spec: JobSpec) -> bool:
    return spec.overwrite and roots.config.allow_overwrite


def _source_identity(roots: Roots, spec: JobSpec) -> tuple[int, int] | None:
    bottom = volumespec.bottom(spec.source.volume)
    if not isinstance(bottom, volumespec.FileVolume) or spec.source.host != spec.target.host:
        return None
    fd = (roots.open_published if spec.type == RESTORE else roots.open_source)(bottom.filename)
    try:
        st = os.fstat(fd)
        return st.st_dev, st.st_ino
    finally:
        os.close(fd)


def _intent(spec: JobSpec, path: str, size: int, uuid: str) -> Member:
    stem = f".{os.path.basename(path)}.{uuid[:8]}"
    return Member(
        job=spec.id,
        transaction=spec.transaction,
        target=path,
        staging=f"{stem}.part",
        digests=f"{stem}.blake3" if spec.digests else "",
        manifest=f"{stem}.manifest",
        uuid=uuid,
        size=size,
        overwrite=spec.overwrite,
        keep_digests=spec.type != RESTORE or bool(spec.options.get(KEEP_DIGESTS)),
        run=spec.run,
        reserved=reserved_name(os.path.basename(path)),
    )


def _words(roots: Roots, image: FormatVolume, path: str, size: int, *, compress: bool) -> tuple[str, ...]:
    """How the image is to be made: as the one that it replaces."""
    fd = open_existing(roots, path)
    try:
        return words_for(image, size, fd, compress=compress, cage=roots.cage)
    finally:
        if fd is not None:
            os.close(fd)


def open_existing(roots: Roots, path: str) -> int | None:
    """A descriptor, for reading, of the file that a target would replace; None where there is none."""
    try:
        directory = roots.open_dir(os.path.dirname(path), what="target directory")
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return None
        raise
    try:
        return os.open(
            os.path.basename(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)


def existing(roots: Roots, volume: Volume) -> Contents | None:
    """What a target's file holds now, as its format has it; None where there is none."""
    fd = open_existing(roots, volumespec.label(volume))
    if fd is None:
        return None
    try:
        image = volumespec.formatted(volume)
        return Contents(os.fstat(fd).st_size) if image is None else look_into(fd, image, roots.cage)
    finally:
        os.close(fd)


def _make(roots: Roots, journal: Journal, member: Member, *, spec: JobSpec, base: str, place: Root) -> Member:
    try:
        journal.put(member)
        note_dirs(roots, place, member.made_dirs)
        if member.cut is not None and member.cut.path and (why := cuts.probe(roots, member.cut)):
            member = replace(member, cut=None, uncut=cuts.refused(spec, why))
            expect_still(spec.source.volume, roots, live=spec.live)
        member = _create(roots, member, base)
        journal.put(member)
        return member
    except BaseException:
        _undo(roots, journal, member, place)
        raise


def _create(roots: Roots, member: Member, base: str) -> Member:
    for _ in range(10):
        roots.make_dirs(base, member.directory, member.made_dirs)
        try:
            directory = roots.open_dir(member.directory)
            try:
                return _create_in(roots, directory, member)
            finally:
                os.close(directory)
        except (JobFailed, FileNotFoundError) as error:
            # An abort of another job found the directory empty, and removed it before we were in.
            if error.errno != errno.ENOENT:
                raise
    raise JobFailed(errno.ENOENT, f"directory {member.directory} is removed again and again")


def _create_in(roots: Roots, directory: int, member: Member) -> Member:
    """Make the files of the member; the member with the identity of its staging file."""
    if member.reserved:
        reserve_name(directory, member, roots.config.name, roots.registry)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for name in filter(None, (member.staging, member.digests)):
        # The intent names it and no inode is recorded: what lies there is of an interrupted OPEN, nobody wrote to it.
        unlink(directory, name)
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        if name == member.staging:
            st = os.fstat(fd)
            member = replace(member, which=which_file(fd), dev=st.st_dev, ino=st.st_ino, boot=boot_id())
        _lay_out(roots, fd, name, member)
    os.fsync(directory)
    return member


def _lay_out(roots: Roots, fd: int, name: str, member: Member) -> None:
    """Give a file of the member's its size, durably, and close it."""
    try:
        if name == member.digests:
            os.ftruncate(fd, digest_size(member.size))
        elif member.format:
            lay_out_image(roots, fd, member)
        else:
            os.ftruncate(fd, member.size)
        os.fsync(fd)
    finally:
        os.close(fd)


def lay_out_image(roots: Roots, fd: int, member: Member) -> None:
    """Make the open staging file an empty image, whatever is in it."""
    image = ImageTool(fd, member.format, member.target, cage=roots.cage)
    below = _parent_of(roots, member)
    try:
        image.create(member.size, member.words, member.name, below)
    finally:
        if below is not None:
            os.close(below)


def _parent_of(roots: Roots, member: Member) -> int | None:
    """The layer that a vmdk is going to lie on: QEMU opens it by its name, and the cage lets it open this one file."""
    if member.format != "vmdk" or "-b" not in member.words:
        return None
    return roots.open_source(member.words[member.words.index("-b") + 1])


def _undo(roots: Roots, journal: Journal, member: Member, place: Root) -> None:
    """Take back an OPEN that was refused half-way.  What cannot be taken back stays in the journal, for the abort."""
    with suppress(OSError, JobFailed):
        remove_files(roots, member)
        if member.cut is not None:
            cuts.remove(roots, member.cut)
        remove_made_dirs(roots, place, member.directory, member.made_dirs)
        journal.drop(member.job)


def _found(roots: Roots, journal: Journal, member: Member, size: int) -> Member:
    """The staging file of an OPEN that came through before."""
    directory = roots.open_dir(member.directory)
    try:
        st = stat_of(directory, member.staging)
        if st is None or not has_staging_file(member, directory, member.staging):
            raise JobFailed(errno.ENOENT, f"staging file {member.directory}/{member.staging} is gone or replaced")
        if member.reserved:
            reserve_name(directory, member, roots.config.name, roots.registry)  # a power cut may have taken it
        if size == member.size and (member.format or st.st_size == size):
            return member
        if member.token:
            raise JobFailed(errno.EBUSY, f"the source of {member.target} changed its size from {member.size} to {size}")
        member = replace(member, size=size)
        for name in filter(None, (member.staging, member.digests)):
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            _lay_out(roots, fd, name, member)
    finally:
        os.close(directory)
    journal.put(member)
    return member
