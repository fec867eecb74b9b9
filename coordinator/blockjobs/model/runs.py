"""The content of one submit: a run, its transactions and jobs; and the rules between the jobs of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Final, TypedDict, Unpack

from blockjobs.model import ids, templates, volumespec
from blockjobs.model.errors import BadInput, Refused
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec, OnChange, OnDamage, OnError, RoomCheck
from blockjobs.model.policies import RunFields
from blockjobs.model.volumespec import DeviceVolume, FileVolume, HostedVolume

_FORMATS: Final = f"'format: {volumespec.FORMATS[0]}', or another"


class PlanOptions(TypedDict, total=False):
    """The options of a job; a missing key takes the default of ``JobSpec``."""

    type: str
    sync: str
    speed: int
    on_source_error: OnError
    on_target_error: OnError
    on_source_change: OnChange
    on_source_damage: OnDamage
    room: RoomCheck
    auto_finalize: bool
    auto_dismiss: bool
    overwrite: bool
    digests: bool
    compress: bool
    in_place: bool
    offset: int
    length: int
    snapshot: str
    live: bool
    stall_limit: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One start of a run file, ready for an atomic submit."""

    run: RunId
    name: str
    grouped: bool  # whether every transaction of the file is grouped
    transactions: tuple[tuple[JobSpec, ...], ...]  # per transaction its jobs, one job if individual
    fields: RunFields = field(default_factory=RunFields)
    allow_in_place: frozenset[TxnId] = frozenset()  # transactions of several jobs that may have a target in place
    retries: str = ""  # the earlier run with the failed jobs started again by this run

    @property
    def jobs(self) -> tuple[JobSpec, ...]:
        return tuple(job for members in self.transactions for job in members)


class JobFault(BadInput):
    """A fault of one job of a run; ``field`` is the faulty key of the run file."""

    def __init__(self, position: int, field: str, text: str) -> None:
        super().__init__(text)
        self.position, self.field = position, field


class NameUsed(JobFault):
    """A volume is the name of a node, and the caller gave no resolver of node names."""


Named = Callable[[str], HostedVolume]  # the volume of a node; raises Refused


def job_volumes(
    source: object,
    target: object,
    meaning: dict[str, str],
    *,
    default_host: str | None = None,
    position: int = 0,
    named: Named | None = None,
    form: str = "raw",
    compress: bool = False,
    in_place: bool = False,
) -> tuple[HostedVolume, HostedVolume, str]:
    """The two volumes of a job with words expanded, and the base directory of the target.

    ``form``: the target's format.  ``in_place``: the target is a device, even if given only as a path.

    Raises:
        JobFault: a volume is malformed, or the two do not go together.
    """
    parsed = []
    for side, value in (("source", source), ("target", target)):
        if volumespec.is_name(value):
            parsed.append(_volume_by_name(str(value), named, position, side))
            continue
        try:
            expanded = templates.expand_volume(value, meaning, default_host)
            parsed.append(volumespec.parse_volume(expanded, default_host=default_host))
        except RecursionError:
            raise JobFault(position, side, "the volume contains itself; a volume of its own was expected") from None
        except BadInput as wrong:
            raise JobFault(position, side, str(wrong)) from None
    read, written = parsed
    if in_place and form != "raw":
        text = f"{written.text} cannot be in format '{form}'; with 'in-place: true' a raw block device was expected"
        raise JobFault(position, "target", text)
    try:
        written = replace(written, volume=volumespec.in_format(written.volume, form))
    except BadInput as wrong:
        raise JobFault(position, "format", str(wrong)) from None
    if compress and volumespec.format_image(written.volume) is None:
        raise JobFault(position, "compress", f"a raw image holds no compressed data; {_FORMATS} was expected")
    if read.host != written.host:
        raise JobFault(
            position,
            "target",
            f"copying between hosts is not supported yet: source is on '{read.host}', target on '{written.host}'",
        )
    written = _in_place(written, position) if in_place else _checked_file_target(written, position)
    path = volumespec.volume_path(written.volume)
    if path is not None and path == volumespec.volume_path(read.volume):
        raise JobFault(position, "target", f"target equals source ({written.text}); another path was expected")
    if path is None:
        return read, written, ""
    if in_place:
        return read, written, ""
    base = path.rpartition("/")[0] or "/" if written.node else templates.base_directory(templates.path_text(target))
    return read, written, base


def _in_place(written: HostedVolume, position: int) -> HostedVolume:
    """The target as a device: a path under ``/dev`` is a device, even if written as a file."""
    volume = written.volume
    if isinstance(volume, FileVolume) and volumespec.is_device_path(volume.filename):
        return replace(written, volume=DeviceVolume(volume.filename))
    if volumespec.format_image(volume) is not None:
        text = f"{written.text} is an image of a format; with 'in-place: true' a raw block device was expected"
        raise JobFault(position, "target", text)
    if not isinstance(volumespec.bottom_volume(volume), DeviceVolume):
        text = f"{written.text} is no block device; with 'in-place: true' a path under /dev/ was expected"
        raise JobFault(position, "target", text)
    return written


def _checked_file_target(written: HostedVolume, position: int) -> HostedVolume:
    path = volumespec.volume_path(written.volume) or ""
    if volumespec.is_device_path(path) or isinstance(volumespec.bottom_volume(written.volume), DeviceVolume):
        text = f"{written.text} is a block device; a file was expected as target, or 'in-place: true'"
        raise JobFault(position, "target", text)
    return written


def _volume_by_name(name: str, named: Named | None, position: int, field: str) -> HostedVolume:
    if named is None:
        raise NameUsed(position, field, f"volume '{name}': 'HOST:/PATH' was expected")
    try:
        return named(name)
    except Refused:
        raise JobFault(
            position, field, f"no volume is named '{name}'; 'HOST:/PATH' or a name of `volumes list` was expected"
        ) from None


def check_together(
    jobs: Iterable[JobSpec], called: Callable[[int], str] = "jobs[{}]".format, allow_in_place: Collection[TxnId] = ()
) -> None:
    """Check the jobs of one run together: every id occurs once, and no job writes a volume used by another job.

    ``called``: the text for a job in a message, by position.  A device written in place cannot be restored after an
    abort: a transaction of several jobs may have one only if listed in ``allow_in_place``.

    Raises:
        JobFault: names the first job, by position, in conflict with an earlier or later job.
    """
    members = list(jobs)
    ids_seen: dict[JobId, int] = {}
    written: dict[str, int] = {}
    read = {job.source.text: at for at, job in enumerate(members) if volumespec.volume_path(job.source.volume)}
    sizes = Counter(job.transaction for job in members)
    for at, job in enumerate(members):
        if job.id in ids_seen:
            raise JobFault(
                at, "id", f"duplicate id '{job.id}': {called(ids_seen[job.id])} has it; another was expected"
            )
        ids_seen[job.id] = at
        if job.in_place and sizes[job.transaction] > 1 and job.transaction not in allow_in_place:
            raise JobFault(
                at,
                "in-place",
                f"an abort of the group would leave {job.target.text} undefined; 'allow-in-place: true' of the group, "
                "or 'completion-mode: individual' was expected",
            )
        if volumespec.volume_path(job.target.volume) is None:
            continue
        where = job.target.text
        if where in written:
            raise JobFault(
                at, "target", f"{called(written[where])} has the same target {where}; a target of its own was expected"
            )
        if where in read:
            raise JobFault(at, "target", f"{where} is the source of {called(read[where])}; another path was expected")
        written[where] = at


def plan_backup(
    source: object,
    target: object,
    *,
    now: datetime,
    job_id: str | None = None,
    default_host: str | None = None,
    named: Named | None = None,
    form: str = "raw",
    source_form: str = "raw",
    **options: Unpack[PlanOptions],
) -> RunPlan:
    """A run of one job: ``blockjobs backup SOURCE TARGET``; ``type`` in ``options`` selects the kind of job.

    The job's id is ``job_id`` if given, else the run's id plus the target's file name.  ``{name}`` in the target stands
    for ``job_id`` if given, else for the source's file name.  ``form``: the target's format, ``source_form``: the
    source's.

    Raises:
        BadInput: names the fault and the expected form.
    """
    kind = options.get("type", "backup")
    run = ids.run_id(kind, now)
    name = path_as_id_word(str(source) if volumespec.is_name(source) else templates.path_text(source))
    words = templates.template_words(run, name if job_id is None else job_id, now)
    read, written, base = job_volumes(
        source, target, words, default_host=default_host, named=named, form=form,
        compress=options.get("compress", False), in_place=options.get("in_place", False),
    )  # fmt: skip
    read = replace(read, volume=volumespec.read_as(read.volume, source_form))
    job = JobSpec(
        id=ids.job_id(
            f"{run}.{path_as_id_word(volumespec.volume_label(written.volume))}"[: ids.LONGEST]
            if job_id is None
            else job_id
        ),
        transaction=TxnId(run),
        run=run,
        source=read,
        target=written,
        target_base=base,
        **options,
    )
    return RunPlan(run, kind, grouped=True, transactions=((job,),))


def path_as_id_word(path: str) -> str:
    """The last part of a path as a word valid inside an id."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(path).name) or "volume"
