"""OPEN on a host: check every condition that could refuse a target, then make the target's staging file.

The journal records each file before the file is made, so that no file is unknown after a crash.  A repeated call finds
the files of the first call, or makes the files anew.  A refused OPEN removes its files and directories.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid4

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.restores import KEEP_DIGESTS
from blockjobs.model.restores import TYPE as RESTORE
from blockjobs.model.volumespec import FormatVolume
from blockworker.cuts import cut_files
from blockworker.host.roots import Root, Roots, directories_between
from blockworker.records import journal as journals
from blockworker.records.batch import Batch
from blockworker.records.entries import JournalRecord, MemberFiles
from blockworker.records.files import has_staging_file, remove_files, stat_of, target_errors_as_failure
from blockworker.records.folder import FOLDER
from blockworker.records.journal import Journal
from blockworker.records.reserved import reserved_name, reserving_name
from blockworker.system.together import Durably, do_alone
from blockworker.targets.existing import expect_free_or_replaceable, open_existing
from blockworker.targets.images import words_for
from blockworker.targets.layout import creating_files, lay_out_file
from blockworker.targets.madedirs import note_dirs, own_dirs, remove_made_dirs
from blockworker.targets.names import SUFFIXES
from blockworker.volumes.in_use import expect_still

_LONGEST_NAME: Final = 230  # bytes; with ".", a uuid and ".manifest" around the name, 255 is the limit


def target_path(spec: JobSpec) -> str:
    """The path of the staged target."""
    bottom = volumespec.bottom_volume(spec.target.volume)
    if not isinstance(bottom, volumespec.FileVolume):
        raise JobFailed(
            errno.EINVAL, f"target {spec.target.text}: a file was expected, a {bottom.driver} is not staged"
        )
    return bottom.filename


def find_member(roots: Roots, spec: JobSpec) -> MemberFiles | None:
    """The job's entry in its journal; None if the job was never opened, or is settled and swept into the tombstone."""
    root = journals.journal_root(roots, target_path(spec), spec.transaction, spec.id)
    return journals.read_member(roots, root, spec.transaction, spec.id)


def open_member(roots: Roots, spec: JobSpec, *, size: int, **more: Any) -> MemberFiles:
    """Run ``opening_member`` for a single member."""
    with Batch(roots) as batch:
        return do_alone(opening_member(batch, spec, size=size, **more))


def opening_member(
    batch: Batch,
    spec: JobSpec,
    *,
    size: int,
    token_uuid: Callable[[], UUID] = uuid4,
    wanted: Callable[[], bool] = lambda: True,
    cutting: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Durably[MemberFiles]:
    """Make the job's staging file, or find the file of an earlier call.  ``cutting``: the source is cut if possible.

    ``attributes``: the source's attributes besides its content, recorded in the journal for PREPARE.  ``wanted`` asks
    whether OPEN is still owed; the call is made under the lock, so that no process can settle the job afterwards.  A
    worker that was stopped for an hour between receiving its message and this call makes no file.
    """
    roots, path = batch.roots, target_path(spec)
    roots.expect_target(path, restore=spec.type == RESTORE)
    root = roots.root_of(path, write=True)
    if path == root.path:
        raise JobFailed(errno.EISDIR, f"target {path} is a write root itself: a file beneath it was expected")
    base = spec.target_base or os.path.dirname(path)
    _check_name(path)
    directories_between(base, os.path.dirname(path))
    batch.once(("mount", base), lambda: roots.remember_mount(base))
    expect_free_or_replaceable(roots, spec, path)
    place = batch.place_of(path, spec.transaction, spec.id)
    with target_errors_as_failure(path):
        journal = batch.hold(place, spec.transaction)
        yield ()  # until every member of the batch holds its lock: the registry is asked once for the batch
        record = journal.record or JournalRecord(spec.transaction)
        if record.decision is not None or record.state != "open" or not wanted():
            raise JobFailed(errno.ECANCELED, f"transaction '{spec.transaction}' is already decided: nothing is opened")
        member = journal.member(spec.id)
        if member is not None and member.ino:
            return (yield from _recorded_staging_file(roots, journal, member, size))
        replaces = expect_free_or_replaceable(roots, spec, path)  # again: under the lock no other job interferes
        if member is None:
            member = _intended_member(spec, path, size, token_uuid().hex)
        if image := volumespec.format_image(spec.target.volume):
            words = _image_tool_options(roots, image, path, size, compress=spec.compress)
            member = replace(member, format=image.driver, words=words)
        directory = os.path.dirname(path)
        made = batch.once(("dirs", place, base, directory), lambda: own_dirs(roots, place, base, directory))
        member = replace(member, size=size, attributes=attributes, replaces=replaces, made_dirs=made)
        if cutting:
            cut, uncut = cut_files.intended_cut(roots, spec, member.uuid)
            member = replace(member, cut=cut, uncut=uncut)
            expect_still(spec.source.volume, roots, live=spec.live, cut=cut is not None)
        return (yield from _make_member_files(batch, journal, member, spec=spec, base=base, place=place))


def _check_name(path: str) -> None:
    name = os.path.basename(path)
    if name.endswith(SUFFIXES):
        raise JobFailed(errno.EINVAL, f"target {path}: names ending in {', '.join(SUFFIXES)} are ours")
    if FOLDER in path.split("/"):
        raise JobFailed(errno.EINVAL, f"target {path}: {FOLDER} is the folder of the journals")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise JobFailed(errno.ENAMETOOLONG, f"target {path}: a name of at most {_LONGEST_NAME} bytes was expected")


def _intended_member(spec: JobSpec, path: str, size: int, uuid: str) -> MemberFiles:
    stem = f".{os.path.basename(path)}.{uuid[:8]}"
    return MemberFiles(
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


def _image_tool_options(roots: Roots, image: FormatVolume, path: str, size: int, *, compress: bool) -> tuple[str, ...]:
    """Options for the tool to make the image like the image it replaces."""
    fd = open_existing(roots, path)
    try:
        return words_for(image, size, fd, compress=compress, cage=roots.cage)
    finally:
        if fd is not None:
            os.close(fd)


def _make_member_files(
    batch: Batch, journal: Journal, member: MemberFiles, *, spec: JobSpec, base: str, place: Root
) -> Durably[MemberFiles]:
    roots = batch.roots
    try:
        yield from journal.putting(member)
        batch.once(("notes", place, member.made_dirs), lambda: note_dirs(roots, place, member.made_dirs))
        if member.cut is not None and member.cut.path and (why := cut_files.probe_reflink(roots, member.cut)):
            member = replace(member, cut=None, uncut=cut_files.refused_reflink(spec, why))
            expect_still(spec.source.volume, roots, live=spec.live)
        member = yield from creating_files(batch, member, base)
        yield from journal.putting(member)
        return member
    except BaseException:
        _undo_open(batch, journal, member, place)
        raise


def _undo_open(batch: Batch, journal: Journal, member: MemberFiles, place: Root) -> None:
    """Undo an OPEN that was refused half-way.  Files that cannot be removed stay in the journal, for the abort."""
    roots = batch.roots
    batch.forget(("notes", place, member.made_dirs))  # the removal below may remove the folder of notes
    with suppress(OSError, JobFailed):
        remove_files(roots, member)
        if member.cut is not None:
            cut_files.remove_cut(roots, member.cut)
        remove_made_dirs(roots, place, member.directory, member.made_dirs)
        journal.drop(member.job)


def _recorded_staging_file(roots: Roots, journal: Journal, member: MemberFiles, size: int) -> Durably[MemberFiles]:
    """The staging file of an earlier OPEN that was completed."""
    directory = roots.open_dir(member.directory)
    try:
        st = stat_of(directory, member.staging)
        if st is None or not has_staging_file(member, directory, member.staging):
            raise JobFailed(errno.ENOENT, f"staging file {member.directory}/{member.staging} is gone or replaced")
        if member.reserved:  # a power failure may have removed the reservation
            yield from reserving_name(directory, member, roots.config.name, roots.registry)
        if size == member.size and (member.format or st.st_size == size):
            return member
        if member.token:
            raise JobFailed(errno.EBUSY, f"the source of {member.target} changed its size from {member.size} to {size}")
        member = replace(member, size=size)
        for name in filter(None, (member.staging, member.digests)):
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                lay_out_file(roots, fd, name, member)
                yield (fd,)
            finally:
                os.close(fd)
    finally:
        os.close(directory)
    yield from journal.putting(member)
    return member
