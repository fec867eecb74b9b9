"""The steps of each driver that leaves one image: in a staged file, on a device in place, or nowhere (``null-co``)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Final

from blockjobs.model import cuts, volumespec
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import JobFailed, SourceChanged
from blockjobs.model.jobs import WHOLE, Checkpoint, JobSpec, OnChange, OnError, Salvaged
from blockjobs.model.volumespec import FileVolume, NullVolume, OtherVolume
from blockjobs.registry.attempts import Claim
from blockworker.copy.digests import DigestFile
from blockworker.cuts.cut_files import make_cut, make_cut_durable, refused_reflink, write_back_source
from blockworker.cuts.quiesce import Quiesce
from blockworker.drivers.base import Driver, Opened
from blockworker.drivers.examined import SourceFindings, examine_copied, examine_source, manifest_keys
from blockworker.host.roots import Roots
from blockworker.records.batch import Batch
from blockworker.records.journal import CutRecord, MemberFiles
from blockworker.system.cage.limits import PATIENCE
from blockworker.system.cage.tool import Idle
from blockworker.system.together import Durably, do_alone
from blockworker.targets import inplace, manifest, replaced, settle
from blockworker.targets.attributes import Attributes
from blockworker.targets.given import Prepared, attributes_of_backups, attributes_of_source
from blockworker.targets.images import cluster_size, is_rewritable
from blockworker.targets.inplace import HOLE_STEP, DeviceTarget
from blockworker.targets.opening import opening_member, target_path
from blockworker.targets.prepare import preparing_member
from blockworker.targets.salvaged import expect_no_whole_image
from blockworker.targets.staged import StagedTarget
from blockworker.volumes import Identity, Source, Target, filter_target, open_source, open_target
from blockworker.volumes.base import Mortal
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.formats import FormatTarget
from blockworker.volumes.in_use import SourceWatch, expect_still
from blockworker.volumes.overlap import lock_text, spans_of_volume

CHANGED: Final = "changed"  # the result of an attempt whose source was written to during the copy
LONGEST_HOLE: Final = 1 << 30  # largest hole, in bytes, written as zeros at once in a file that may have old content


@dataclass(frozen=True, slots=True)
class Attached:
    """The open volumes of an attempt; ``done``: ranges that an earlier attempt made durable in this very staging file.

    ``whole``: bytes of a block that is always written whole, 0: none.  ``lanes``: pieces copied at once.
    ``hole_step``: largest hole copied as a single piece, in bytes, 0: no limit.
    """

    source: Source
    target: Target
    digests: DigestFile | None
    done: RangeSet
    staging: str  # the uuid of the staging file or the device
    untouched: int = 0  # bytes of a device outside the copy
    watch: SourceWatch | None = None  # notices writers of the source during the copy
    locks: ExitStack = field(default_factory=ExitStack)  # locks on files that must not change until the attempt ends
    whole: int = 0
    lanes: int = 2
    hole_step: int = 0
    examine: Callable[[Idle], tuple[str, ...]] = lambda _: ()  # returns the source's damage, if OPEN could not check
    salvaged: Salvaged = WHOLE  # the ranges of ``done`` that could not be read

    def check_alive(self) -> None:
        """Raise VolumeError if a volume is gone."""
        for volume in (self.source, self.target):
            if isinstance(volume, Mortal):
                volume.check_alive()

    def close(self) -> None:
        self.source.close()
        self.target.close()
        self.locks.close()


@dataclass(frozen=True, slots=True)
class _Looked:
    """A source as OPEN saw the source.  ``allocated``: most bytes that a copy occupies; None: unknown."""

    size: int
    identity: Identity
    allocated: int | None


class Staged(Driver):
    """A copy of a whole volume into a staged file that commit publishes, or onto a device."""

    salvages: ClassVar[bool] = False  # whether the job may skip unreadable ranges
    cuts: ClassVar[bool] = True  # whether the job copies a cut of its source, if a cut is possible
    follows: ClassVar[bool] = False  # whether the job expects writes to its source during the copy

    def source(self, roots: Roots, spec: JobSpec) -> Source:
        """Open the source.  Raises JobFailed."""
        # QEMU may write to a source that will be cut; a source without a cut is opened alone.
        return open_source(
            spec.source.volume, roots, top_only=spec.sync == "top", shared=self.cuts, answer=PATIENCE.glance
        )

    def attributes(self, roots: Roots, spec: JobSpec) -> Attributes:
        """Attributes of the source besides its content: of a file, or of an image's top file; none for a device."""
        bottom = volumespec.bottom_volume(spec.source.volume)
        return attributes_of_source(roots, bottom.filename) if isinstance(bottom, FileVolume) else Attributes()

    def allocated(self, spec: JobSpec, source: Source) -> int | None:
        """Most bytes that a copy occupies: the allocation of a raw file; None: unknown."""
        volume = spec.source.volume
        raw = volumespec.format_image(volume) is None and isinstance(volumespec.bottom_volume(volume), FileVolume)
        return source.allocated() if raw else None

    def wanted(self, roots: Roots, member: MemberFiles) -> Attributes:  # noqa: ARG002
        """The owner, permissions and other attributes of the published image, unless the image replaces a file."""
        return attributes_of_backups(roots.config)

    def told(self, spec: JobSpec, result: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """Further keys of the manifest."""
        return {}

    def open(self, roots: Roots, spec: JobSpec, wanted: Callable[[], bool]) -> Opened:
        with Batch(roots) as batch:
            return do_alone(self.opening(batch, spec, wanted))

    def opening(self, batch: Batch, spec: JobSpec, wanted: Callable[[], bool]) -> Durably[Opened]:
        roots = batch.roots
        source = self.source(roots, spec)
        try:
            if spec.on_source_error is OnError.SKIP and not self.salvages:
                text = f"job {spec.id}: 'on-source-error: skip' is for a backup, a {spec.type} reads all or nothing"
                raise JobFailed(errno.EINVAL, text)
            self.check(roots, spec, source)
            found = self.findings(roots, spec)
            looked = _Looked(source.size, source.identity(), self.allocated(spec, source))
        finally:
            source.close()
        yield ()  # the source may be slow: no journal is locked before every member of the batch is this far
        opened = yield from self._open_target(batch, spec, looked, wanted)
        return replace(opened, notes=found.notes, damage=found.damage, unchecked=found.unchecked)

    def findings(self, roots: Roots, spec: JobSpec) -> SourceFindings:
        """Examine the source: notes for people, and damage.  Raises JobFailed: the source is damaged."""
        return examine_source(roots, spec)

    def _open_target(self, batch: Batch, spec: JobSpec, looked: _Looked, wanted: Callable[[], bool]) -> Durably[Opened]:
        roots, identity, size = batch.roots, looked.identity, looked.size
        reads = _source_locks(roots, spec, identity)
        if is_null(spec):
            return Opened(size, 0, identity, reads, "", uncut=self._uncut(roots, spec))
        if spec.in_place:
            uncut = self._uncut(roots, spec)
            _, writes = inplace.open_target(roots, spec, size=size, source=identity, wanted=wanted)
            return Opened(size, None, identity, reads, writes, uncut=uncut)
        member = yield from opening_member(
            batch, replace(spec, digests=spec.digests and not _is_layer(spec)), size=size,
            wanted=batch.wanted(spec.id, wanted), cutting=self.cuts, attributes=self.attributes(roots, spec).to_json(),
        )  # fmt: skip
        if self.cuts and member.cut is None:
            _expect_no_freeze(roots, spec, member.uncut)
        return Opened(
            size,
            looked.allocated,
            identity,
            reads,
            _target_lock(roots, member),
            cut=member.cut.how if member.cut else "",
            uncut=member.uncut,
        )

    def _uncut(self, roots: Roots, spec: JobSpec) -> str:
        """Explain why no cut is made for a target outside our files: no journal could record the cut."""
        if not self.cuts:
            return ""
        why = "" if spec.snapshot == cuts.NONE else refused_reflink(spec, "its target is written in place")
        expect_still(spec.source.volume, roots, live=spec.live)
        _expect_no_freeze(roots, spec, why)
        return why

    def brace(self, roots: Roots, spec: JobSpec) -> None:
        write_back_source(roots, _journaled_cut(roots, spec))

    def cut(self, roots: Roots, spec: JobSpec, opened: Mapping[str, Any]) -> Cut:
        return make_cut(
            roots, _opened_member(roots, spec), spec, Identity.from_list(opened.get("identity") or ["none"])
        )

    def keep(self, roots: Roots, spec: JobSpec, cut: Cut) -> None:  # noqa: ARG002
        make_cut_durable(roots, _journaled_cut(roots, spec))

    def check(self, roots: Roots, spec: JobSpec, source: Source) -> None:
        """Refuse a job that this driver cannot do, before any file is made.  Raises JobFailed."""

    def prepare(
        self, roots: Roots, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> Prepared:
        with Batch(roots) as batch:
            return do_alone(self.preparing(batch, spec, durable, opened, result))

    def preparing(
        self, batch: Batch, spec: JobSpec, durable: Checkpoint, opened: Mapping[str, Any], result: Mapping[str, Any]
    ) -> Durably[Prepared]:
        roots = batch.roots
        if is_null(spec):
            return Prepared()
        place = inplace.find_device_record(roots, spec) if spec.in_place else _opened_in(batch, spec)
        if durable.staging != place.uuid:
            raise JobFailed(errno.EIO, f"{spec.target.text}: what was copied is not in the file that was opened")
        self._expect_promised(spec, place.size, opened, result)
        record = manifest.build_manifest(
            replace(spec, digests=False) if spec.in_place else spec, size=place.size,
            identity=Identity.from_list(opened["identity"]), source_change=result["source-change"],
            cut=opened.get("cut", {}),
            attempts=[{"number": result["attempts"], "token": result["token"]}], counts=result["counts"],
            started=datetime.fromtimestamp(result["started"], UTC),
            finished=datetime.fromtimestamp(result["finished"], UTC),
        )  # fmt: skip
        record = {**record, **durable.salvaged.to_dict(), **manifest_keys(opened, result), **self.told(spec, result)}
        if isinstance(place, MemberFiles):
            if durable.salvaged:
                expect_no_whole_image(roots, place)
            record["attributes"] = place.attributes or None
            made = yield from preparing_member(batch, place, durable.ranges, record, self.wanted(roots, place))
        else:
            inplace.prepare_device(roots, place, durable, record)
            made = Prepared()
        return replace(made, warnings=(*result.get("damage", ()), *made.warnings))

    def _expect_promised(self, spec: JobSpec, size: int, opened: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Raises SourceChanged: the copy is not of the source that OPEN saw, whatever the attempt's policy was."""
        if size != opened.get("size", size):
            raise SourceChanged(f"source {spec.source.text}", "size")
        if result["source-change"] == CHANGED and spec.on_source_change is OnChange.FAIL and not self.follows:
            raise SourceChanged(f"source {spec.source.text}", "it was written to")

    def commit(self, roots: Roots, spec: JobSpec, number: int) -> None:
        with Batch(roots) as batch:
            do_alone(self.committing(batch, spec, number))

    def committing(self, batch: Batch, spec: JobSpec, number: int) -> Durably[None]:
        if spec.in_place:
            inplace.commit_device(batch.roots, inplace.find_device_record(batch.roots, spec), number)
        elif not is_null(spec):
            yield from settle.committing_job(batch, spec, number)

    def abort(self, roots: Roots, spec: JobSpec, number: int, *, opened: bool) -> str | None:
        if spec.in_place:
            return inplace.abort_device(roots, spec.id, number)
        if not is_null(spec):
            settle.abort_job(roots, spec, number, opened=opened)
        return None

    def clean(self, roots: Roots, spec: JobSpec) -> None:
        if not is_null(spec) and not spec.in_place:
            root = roots.root_of(volumespec.volume_label(spec.target.volume), write=True)
            settle.clean_transaction(roots, spec.transaction, root)


def open_for_attempt(roots: Roots, claim: Claim, *, source: Source | None = None, still: bool = False) -> Attached:
    """Open both volumes for an attempt; the lock of the staging file or device is held until ``close``.

    ``source``: the source, if already open.  ``still``: the source is read without a cut, and a process that begins to
    write to the source ends the attempt.
    """
    spec = claim.spec
    with ExitStack() as stack:
        if spec.overwrite and not spec.in_place and not is_null(spec):
            stack.enter_context(replaced.locked_replaced_file(roots, _opened_member(roots, spec)))
        watch = None
        if source is None:
            cut = bool(cut_of(claim))
            watch = SourceWatch(spec.source.volume, roots, live=spec.live or not still, cut=cut)
            stack.callback(watch.close)
        # QEMU's own lock would keep a guest from starting: QEMU's server takes no lock, and the watch notices the
        # guest.
        attached = _open_by_target(roots, claim, source=source, shared=still)
        return replace(attached, watch=watch, locks=stack.pop_all(), examine=_source_examination(roots, claim))


def _source_examination(roots: Roots, claim: Claim) -> Callable[[Idle], tuple[str, ...]]:
    """The attempt's check of the source for damage; an empty check if OPEN did the check."""
    if not claim.opened.get("unchecked"):
        return lambda _: ()
    return partial(examine_copied, roots, claim.spec, cut_of(claim))


def _open_by_target(roots: Roots, claim: Claim, *, source: Source | None, shared: bool) -> Attached:
    spec = claim.spec
    cut = cut_of(claim)
    if source is None:
        volume = volumespec.relocate_volume(spec.source.volume, cut.path) if cut else spec.source.volume
        source = open_source(volume, roots, top_only=spec.sync == "top", shared=shared)
    try:
        if is_null(spec):
            target = open_target(spec.target.volume, roots, source.size)
            done = _durable_ranges(claim.durable, spec.id)
            lost = claim.durable.salvaged if done.total() else WHOLE
            others = isinstance(
                volumespec.bottom_volume(spec.target.volume), OtherVolume
            )  # the cost of a zero is unknown
            return Attached(source, target, None, done, spec.id, salvaged=lost, hole_step=HOLE_STEP if others else 0)
        if spec.in_place:
            return _in_place(roots, claim, source)
        member = _opened_member(roots, spec)
        staged = StagedTarget.take(roots, member, claim.token)
        try:
            return _open_with_staging_file(roots, claim, source, member, staged)
        except BaseException:
            staged.close()
            raise
    except BaseException:
        source.close()
        raise


def _in_place(roots: Roots, claim: Claim, source: Source) -> Attached:
    spec = claim.spec
    device = DeviceTarget.take(roots, spec, claim.token)
    target = filter_target(spec.target.volume, device)
    done, untouched = _durable_ranges(claim.durable, device.record.uuid), device.record.untouched
    return Attached(
        source,
        target,
        None,
        done,
        device.record.uuid,
        untouched=untouched,
        hole_step=HOLE_STEP,
        salvaged=claim.durable.salvaged if done.total() else WHOLE,
    )


def _open_with_staging_file(
    roots: Roots, claim: Claim, source: Source, member: MemberFiles, staged: StagedTarget
) -> Attached:
    spec, done = claim.spec, _durable_ranges(claim.durable, member.uuid)
    image = volumespec.format_image(spec.target.volume)
    again = image is None or is_rewritable(image, compress=spec.compress)
    if not staged.fresh and not (again and done.total()):
        staged.start_over(roots)  # no durable byte is in the file: an empty file needs no zeros
        done = RangeSet()
    target = filter_target(
        spec.target.volume, staged, lambda volume: FormatTarget(volume, staged, roots, compress=spec.compress)
    )
    return Attached(
        source,
        target,
        staged.digests,
        done,
        member.uuid,
        whole=cluster_size(member.words) if spec.compress else 0,
        lanes=2 if again else 1,
        hole_step=0 if staged.fresh else LONGEST_HOLE,
        salvaged=claim.durable.salvaged if done.total() else WHOLE,
    )


def cut_of(claim: Claim) -> Cut:
    """The cut that an attempt reads instead of its source, if the source is cut."""
    return Cut.from_dict(claim.opened.get("cut", {}))


def _expect_no_freeze(roots: Roots, spec: JobSpec, why: str) -> None:
    """Raises JobFailed: a source is to be frozen for a cut, and no cut is made."""
    if Quiesce.of(roots.config, spec).given:
        said = f" ({why})" if why else ""
        raise JobFailed(errno.ENOTSUP, f"source {spec.source.text} is not cut{said}: it cannot be quiesced for that")


def _is_layer(spec: JobSpec) -> bool:
    """Whether only the top of several layers is copied: the target alone can then not be compared with digests."""
    image = volumespec.format_image(spec.source.volume)
    return spec.sync == "top" and image is not None and image.backing is not None


def is_null(spec: JobSpec) -> bool:
    """Whether the target is outside our files: ``null-co``, or a foreign volume, written in place."""
    return isinstance(volumespec.bottom_volume(spec.target.volume), NullVolume | OtherVolume)


def is_staged(spec: JobSpec) -> bool:
    """Whether the target is a file that commit publishes."""
    return not is_null(spec) and not spec.in_place


def _opened_member(roots: Roots, spec: JobSpec) -> MemberFiles:
    with Batch(roots) as batch:
        return _opened_in(batch, spec)


def _opened_in(batch: Batch, spec: JobSpec) -> MemberFiles:
    member = batch.find_member(target_path(spec), spec.transaction, spec.id)
    if member is None:
        raise JobFailed(errno.ENOENT, f"{spec.target.text} was never opened, or is settled already")
    return member


def _journaled_cut(roots: Roots, spec: JobSpec) -> CutRecord:
    kept = _opened_member(roots, spec).cut
    if kept is None:
        raise JobFailed(errno.ENOENT, f"no journal knows a cut of {spec.source.text}")
    return kept


def _durable_ranges(durable: Checkpoint, staging: str) -> RangeSet:
    """The ranges that an earlier attempt made durable; the ranges count only for the file that was written."""
    return RangeSet(durable.ranges if durable.staging == staging else ())


def _source_locks(roots: Roots, spec: JobSpec, identity: Identity) -> str:
    """The names of the source in the lock table, a line per name: no job may write a volume with a locked name."""
    volume = spec.source.volume
    if identity.kind == "none" or isinstance(volume, FileVolume):  # a file's disk is mounted: never written in place
        return "" if identity.kind == "none" else f"{identity.dev}:{identity.ino}"
    return lock_text(spans_of_volume(roots, volume))


def _target_lock(roots: Roots, member: MemberFiles) -> str:
    """The name of the target in the lock table: its directory's identity and its last part."""
    directory = roots.open_dir(member.directory)
    try:
        st = os.fstat(directory)
        return f"{st.st_dev}:{st.st_ino}/{member.name}"
    finally:
        os.close(directory)
