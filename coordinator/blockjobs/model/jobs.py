"""The fixed facts of a job, given at submit: its driver, volumes and policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.numbers import milliseconds_of, whole_number
from blockjobs.model.volumespec import HostedVolume

MOST_SALVAGED: Final = 1000  # ranges listed individually; the bound keeps checkpoints and manifests small


class OnError(StrEnum):
    """QEMU's ``BlockdevOnError``: the effect of an I/O error.  ``auto`` is ``enospc``.

    ``skip`` is an addition for sources of backups only: an unreadable range becomes zeros in the target and is
    recorded.
    """

    REPORT = "report"
    IGNORE = "ignore"
    ENOSPC = "enospc"
    STOP = "stop"
    AUTO = "auto"
    SKIP = "skip"


QEMU_POLICIES: Final = tuple(policy for policy in OnError if policy is not OnError.SKIP)


class OnChange(StrEnum):
    """The effect on the job of a source that changed under the copy."""

    FAIL = "fail"
    REPORT = "report"


class OnDamage(StrEnum):
    """The effect on the job of a source that is a damaged image of a format."""

    FAIL = "fail"
    REPORT = "report"


class RoomCheck(StrEnum):
    """The effect of too little room at OPEN: ``check`` refuses the job, ``warn`` goes on with a warning."""

    CHECK = "check"
    WARN = "warn"


class IoStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job, as submitted.  Sizes in bytes, speed in bytes/s (0: no limit)."""

    id: JobId
    transaction: TxnId
    run: RunId
    type: str = "backup"
    sync: str = "full"
    source: HostedVolume
    target: HostedVolume
    target_base: str = ""  # the directory that must exist; OPEN makes the directories below
    speed: int = 0
    on_source_error: OnError = OnError.REPORT
    on_target_error: OnError = OnError.REPORT
    on_source_change: OnChange = OnChange.FAIL
    on_source_damage: OnDamage = OnDamage.FAIL
    room: RoomCheck = RoomCheck.CHECK
    auto_finalize: bool = True
    auto_dismiss: bool = False
    overwrite: bool = False
    digests: bool = True
    compress: bool = False  # the target, an image of a format
    in_place: bool = False  # the target, a device: its content is overwritten from the first byte on
    offset: int = 0  # of a restore: the range of the image, in bytes; both 0: the whole image
    length: int = 0
    snapshot: str = "auto"  # the way of cutting the source: model/cuts.py
    live: bool = False  # a source in use may be read uncut
    store: str = ""  # the store of the target, by its name in the run file; decides the limits
    options: Mapping[str, Any] = field(default_factory=dict)  # options of the driver only
    stall_limit: int = 600  # seconds without progress before the attempt counts as hung

    def __post_init__(self) -> None:
        for name, number in (("speed", self.speed), ("offset", self.offset), ("length", self.length)):
            whole_number(number, f"job '{self.id}': {name}")
        milliseconds_of(self.stall_limit, f"job '{self.id}': stall-limit")

    @property
    def host(self) -> Host:
        """The host whose worker runs the job: the host of the target."""
        return self.target.host

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id, "transaction": self.transaction, "run": self.run, "type": self.type, "sync": self.sync,
            "source": volumespec.to_dict(self.source), "target": volumespec.to_dict(self.target),
            "target-base": self.target_base, "speed": self.speed, "on-source-error": str(self.on_source_error),
            "on-target-error": str(self.on_target_error), "on-source-change": str(self.on_source_change),
            "on-source-damage": str(self.on_source_damage), "room": str(self.room),
            "auto-finalize": self.auto_finalize, "auto-dismiss": self.auto_dismiss, "overwrite": self.overwrite,
            "digests": self.digests, "compress": self.compress, "stall-limit": self.stall_limit,
            "in-place": self.in_place, "offset": self.offset, "length": self.length,
            "snapshot": self.snapshot, "live": self.live, "store": self.store, "options": dict(self.options),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any]) -> JobSpec:
        return cls(
            id=JobId(keys["id"]),
            transaction=TxnId(keys["transaction"]),
            run=RunId(keys["run"]),
            type=keys["type"],
            sync=keys["sync"],
            source=volumespec.parse_volume(keys["source"]),
            target=volumespec.parse_volume(keys["target"]),
            target_base=keys["target-base"],
            speed=keys["speed"],
            on_source_error=OnError(keys["on-source-error"]),
            on_target_error=OnError(keys["on-target-error"]),
            on_source_change=OnChange(keys["on-source-change"]),
            on_source_damage=OnDamage(keys.get("on-source-damage", "fail")),
            room=RoomCheck(keys.get("room", "check")),
            auto_finalize=keys["auto-finalize"],
            auto_dismiss=keys["auto-dismiss"],
            overwrite=keys["overwrite"],
            digests=keys["digests"],
            compress=keys.get("compress", False),
            stall_limit=keys["stall-limit"],
            in_place=keys.get("in-place", False),
            offset=keys.get("offset", 0),
            length=keys.get("length", 0),
            snapshot=keys.get("snapshot", "auto"),
            live=keys.get("live", False),
            store=keys.get("store", ""),
            options=dict(keys.get("options", {})),
        )


@dataclass(frozen=True, slots=True)
class Salvaged:
    """The unreadable parts of a source, zeros in the target.

    ``ranges``: half-open byte ranges; ``more``: the number of ranges beyond the first ``MOST_SALVAGED``; ``bytes``: the
    sum over all ranges.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    more: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return self.bytes > 0

    def having(self, found: Iterable[tuple[int, int]]) -> Salvaged:
        """This value extended by all ranges ``found`` so far, including the ranges already listed."""
        ranges = tuple(found)
        unlisted = self.bytes - _ranges_length(self.ranges)
        more = self.more + max(0, len(ranges) - MOST_SALVAGED)
        return Salvaged(ranges[:MOST_SALVAGED], more, unlisted + _ranges_length(ranges))

    def to_dict(self) -> dict[str, Any]:
        """The keys of a manifest and of a job's result; none where nothing was salvaged."""
        if not self:
            return {}
        listed = {"salvaged": [list(pair) for pair in self.ranges], "salvaged-bytes": self.bytes}
        return listed | ({"salvaged-more": self.more} if self.more else {})


WHOLE: Final = Salvaged()  # everything could be read


def _ranges_length(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in ranges)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The durable part of a copy: chunk-aligned half-open byte ranges of the staging file ``staging`` (a uuid).

    ``salvaged``: the parts within these ranges that could not be read from the source.
    """

    staging: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    salvaged: Salvaged = WHOLE


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders for the copy loop, returned by a checkpoint."""

    cancel: bool = False  # by force
    soft: bool = False  # a soft cancel of a ready job: finish, with a consistent copy
    pause: bool = False
    park: bool = False  # while paused: give the slot back, for a drain or a move
    complete: bool = False
    speed: int = 0
