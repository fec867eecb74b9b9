"""Cuts: the state of a source at an instant, for a copy to read; a cut is made at CUT and removed at SETTLE.

The journal entry of a member names the member's cut from OPEN on, before any file of the cut exists, and until the cut
is removed.  Every function here runs under the journal's lock.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from blockjobs.model import cuts, volumespec
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import BadInput, JobFailed, SourceChanged
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import FileVolume
from blockworker.host.host_commands import allowed_command, call_host_command
from blockworker.host.roots import Roots
from blockworker.records.files import unlink_if_exists
from blockworker.records.journal import CutRecord, Journal, MemberFiles
from blockworker.system import kernel
from blockworker.volumes.condition import REPLACED, UNSEEN, Identity, identity_of
from blockworker.volumes.in_use import is_torn, open_store

_PROBE: Final = 64 << 10  # bytes: a whole number of any file system's blocks
_LONGEST: Final = 255  # bytes of a name
_CREATE: Final = 60.0  # seconds; the barrier waits 120
# Reasons, by errno, for which a file system or a directory refuses a reflink.
_CANNOT: Final = {
    errno.EOPNOTSUPP: "its file system does not share blocks between files",
    errno.ENOTTY: "its file system does not share blocks between files",
    errno.ENOSYS: "its file system does not share blocks between files",
    errno.EXDEV: "a reflink cannot lie in another file system",
    errno.EINVAL: "its file system does not share blocks of this file",
    errno.ETXTBSY: "it is a swap file",
    errno.EACCES: "no file can be made beside it",
    errno.EPERM: "no file can be made beside it",
    errno.EROFS: "no file can be made beside it",
    errno.ENOSPC: "there is no space left beside it",
    errno.EDQUOT: "there is no space left beside it",
}

# The journal of each job whose cut is being made, while the journal's lock is held: commands inherit that lock.
_journals: Final[WeakValueDictionary[str, Journal]] = WeakValueDictionary()


def intended_cut(roots: Roots, spec: JobSpec, uuid: str) -> tuple[CutRecord | None, str]:
    """The cut that a job will have, or None and the reason why ``auto`` makes none.

    Raises:
        JobFailed: the job asks for a cut that this host cannot make.
    """
    if spec.snapshot == cuts.NONE:
        return None, ""
    path = volumespec.volume_path(spec.source.volume)
    if name := cuts.snapshot_command(spec.snapshot):
        allowed_command(roots.config, name)
        if path is None:
            raise JobFailed(errno.ENOTSUP, f"source {spec.source.text} has no path that '{spec.snapshot}' could cut")
        return CutRecord(how=spec.snapshot, source=path, id=uuid[:16]), ""
    why, file = "", f".{os.path.basename(path or '')}.{uuid[:8]}.cut"
    if path is None or not isinstance(volumespec.bottom_volume(spec.source.volume), FileVolume):
        why = "it is no file"
    elif len(os.fsencode(file)) > _LONGEST:
        why = "its name is too long for one beside it"
    else:
        with suppress(JobFailed):
            roots.expect_target(path)
            return CutRecord(how=cuts.REFLINK, source=path, id=uuid[:8], path=f"{os.path.dirname(path)}/{file}"), ""
        why = f"it is outside the write roots of host {roots.config.name}, and a reflink lies beside it"
    return None, refused_reflink(spec, why)


def refused_reflink(spec: JobSpec, why: str) -> str:
    """Say why ``auto`` makes no reflink.  Raises JobFailed when the job asked for the reflink by name."""
    if spec.snapshot != cuts.AUTO:
        raise JobFailed(errno.ENOTSUP, f"source {spec.source.text} cannot be cut by {spec.snapshot}: {why}")
    return f"no reflink: {why}"


def probe_reflink(roots: Roots, kept: CutRecord) -> str:
    """Create the cut's file, empty, and test a reflink into it; return "", or remove the file and return the reason."""
    try:
        with _opened_source_folder(roots, kept) as (directory, name, source):
            unlink_if_exists(directory, name)  # remains of an interrupted OPEN
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                with suppress(OSError):
                    kernel.like_its_source(fd, source)
                kernel.clone_range(fd, source, _PROBE if os.fstat(source).st_size > _PROBE else 0)
                os.ftruncate(fd, 0)
                os.fsync(directory)
            except BaseException:
                unlink_if_exists(directory, name)
                raise
            finally:
                os.close(fd)
    except OSError as error:
        if why := _CANNOT.get(error.errno or 0):
            return why
        raise _cut_failure(kept, error) from None
    return ""


def record_begun_cuts(journal: Journal, jobs: Collection[str]) -> None:
    """Record that the cuts of these jobs are about to be made: from now on, every cut has to be removed."""
    if journal.record is None:
        return
    for name in jobs:
        _journals[name] = journal
    begun = [
        replace(member, cut=replace(member.cut, begun=True))
        for member in map(journal.member, jobs)
        if member is not None and member.cut is not None and not member.cut.begun
    ]
    if begun:
        journal.put(*begun)


def write_back_source(roots: Roots, kept: CutRecord) -> None:
    """Write the source's dirty pages before a reflink has to.  No source is frozen meanwhile."""
    if kept.how == cuts.REFLINK:
        with suppress(OSError), _opened_source_folder(roots, kept) as (_, _, source):
            os.fdatasync(source)


def make_cut(roots: Roots, member: MemberFiles, spec: JobSpec, seen: Identity = UNSEEN) -> Cut:
    """Make a member's cut, anew on a repeated call: no copy has read the cut yet.  ``seen``: the source at OPEN.

    Raises:
        JobFailed: the cut cannot be made, or its size differs from the size of the source at OPEN.
        SourceChanged: another file or device is in the source's place.
    """
    torn = is_torn(spec, roots)
    made = _make_by_method(roots, member, spec, seen)
    return replace(made, consistency=cuts.CRASH) if torn or is_torn(spec, roots) else made


def _make_by_method(roots: Roots, member: MemberFiles, spec: JobSpec, seen: Identity) -> Cut:
    if (kept := member.cut) is None:
        raise JobFailed(errno.ENOENT, f"no journal knows a cut of {spec.source.text}")
    if name := cuts.snapshot_command(kept.how):
        source = open_store(volumespec.files_and_devices(spec.source.volume)[0], roots)
        try:
            _expect_seen(source, spec, seen)
        finally:
            os.close(source)
        return _cut_by_command(roots, member, kept, name, spec)
    try:
        with _opened_source_folder(roots, kept) as (directory, cut, source):
            fd = os.open(cut, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                _expect_ours(fd, kept)
                _expect_seen(source, spec, seen)
                os.ftruncate(fd, 0)
                kernel.clone_file(fd, source)
                return _cut_of_open_file(member, kept, kept.path, fd, spec)
            finally:
                os.close(fd)
    except OSError as error:
        raise _cut_failure(kept, error) from None


def _expect_seen(fd: int, spec: JobSpec, seen: Identity) -> None:
    """Expect the file or device that OPEN saw; writes to the file since OPEN are allowed."""
    now = replace(identity_of(fd, volumespec.volume_label(spec.source.volume), still=True), size=seen.size)
    if (what := replace(seen, layers=()).changed(now)) in REPLACED:
        raise SourceChanged(f"source {spec.source.text}", str(what))


def make_cut_durable(roots: Roots, kept: CutRecord) -> None:
    """Make a cut durable: after a power failure the cut exists with the same content."""
    if kept.how != cuts.REFLINK:
        return
    fd = roots.open_source(kept.path)
    try:
        os.fsync(fd)
    except OSError as error:
        raise _cut_failure(kept, error) from None
    finally:
        os.close(fd)


def remove_cut(roots: Roots, kept: CutRecord) -> None:
    """Remove every trace of a cut; a repeated call is harmless.  Raises JobFailed."""
    if name := cuts.snapshot_command(kept.how):
        if kept.begun:
            try:
                call_host_command(name, allowed_command(roots.config, name), "remove", kept.source, kept.id)
            except JobFailed as failed:
                raise JobFailed(failed.errno, f"the cut of {kept.source} is not removed: {failed.text}") from None
        return
    try:
        directory = roots.open_dir(os.path.dirname(kept.path))
    except JobFailed as failed:
        if failed.errno == errno.ENOENT:
            return
        raise
    try:
        unlink_if_exists(directory, os.path.basename(kept.path))
        os.fsync(directory)
    except OSError as error:
        code = error.errno or errno.EIO
        raise JobFailed(code, f"the cut of {kept.source} is not removed: {kept.path}: {os.strerror(code)}") from None
    finally:
        os.close(directory)


def _cut_by_command(roots: Roots, member: MemberFiles, kept: CutRecord, name: str, spec: JobSpec) -> Cut:
    """Make a cut with the host's command; the copy reads the path that the command prints, if the host allows it."""
    # The command may outlive this process: the command holds the journal's lock, so that no other process removes the
    # cut before the command has ended.
    fence = journal.lock if (journal := _journals.get(spec.id)) is not None else -1
    said = call_host_command(
        name, allowed_command(roots.config, name), "create", kept.source, kept.id, limit=_CREATE, fence=fence
    )
    path = said.strip()
    try:
        volumespec.checked_path(path)
    except BadInput as wrong:
        raise JobFailed(errno.EINVAL, f"command '{name}' printed no path to read on create: {wrong}") from None
    fd = roots.open_device(path) if volumespec.is_device_path(path) else roots.open_source(path)
    try:
        return _cut_of_open_file(member, kept, path, fd, spec)
    finally:
        os.close(fd)


def _cut_of_open_file(member: MemberFiles, kept: CutRecord, path: str, fd: int, spec: JobSpec) -> Cut:
    made = identity_of(fd, path, still=True)
    size = made.size
    if volumespec.format_image(spec.source.volume):
        size = member.size  # the size of the disk inside the format, checked when the image is opened
    if size != member.size:
        raise JobFailed(errno.EBUSY, f"source {kept.source} changed its size from {member.size} to {size} bytes")
    return Cut(how=kept.how, path=path, identity=tuple(replace(made, size=size).to_list()))


@contextmanager
def _opened_source_folder(roots: Roots, kept: CutRecord) -> Iterator[tuple[int, str, int]]:
    """The directory of a source and its cut, the cut's name, and the open source."""
    directory = roots.open_dir(os.path.dirname(kept.source))
    try:
        name = os.path.basename(kept.source)
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            yield directory, os.path.basename(kept.path), source
        finally:
            os.close(source)
    finally:
        os.close(directory)


def _expect_ours(fd: int, kept: CutRecord) -> None:
    """Expect the file that OPEN made: other users may be able to write to the directory and replace the file."""
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode) or (st.st_nlink, st.st_uid, stat.S_IMODE(st.st_mode)) != (1, os.geteuid(), 0o600):
        raise JobFailed(errno.ENOENT, f"the cut {kept.path} is not the file that was made: it was replaced")


def _cut_failure(kept: CutRecord, error: OSError) -> JobFailed:
    code = error.errno or errno.EIO
    return JobFailed(code, f"source {kept.source} cannot be cut by {kept.how}: {os.strerror(code)}")
