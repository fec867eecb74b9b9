"""Backups found by a rescan of a host: validity, and order among the known backups.  Pure.

A manifest is untrusted data, and so is a host's answer.  Both are believed only about the host with the write root
above the manifest.  The source of a found backup is therefore a source of that host, under any name in the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from blockjobs.model import ids, volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import Host, RunId
from blockjobs.model.keep import PublishedTarget

KINDS: Final = ("read", "written", "zero", "skipped")  # kinds of bytes, as the record of a run sums them up
_RUN: Final = re.compile(r"(?P<name>.+)-(?P<at>\d{8}T\d{6})(?:\.\d{6})?Z", re.ASCII)
_SEAL: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
MOST_LAYERS: Final = 64
_LONGEST: Final = 4400  # characters of a volume's text: a path and a host
_NOTHING: Final = "null-co"  # driver of a source without a lock


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBackup:
    """A published image with its manifest.  ``ended``: the end of the copy, ms; 0: not known.

    ``named``: the host named in the manifest; ``seal``: a digest of the manifest's text.
    """

    host: Host
    named: Host
    path: str
    run: RunId
    job: str
    transaction: str
    source: str
    size: int
    seal: str
    ended: int
    salvaged: bool
    bytes: Mapping[str, int]
    layers: tuple[str, ...] = ()  # the paths of the layers below the image

    @classmethod
    def of(cls, row: Mapping[str, Any], host: Host) -> FoundBackup:
        """Parse a host's answer about a manifest.

        Raises:
            BadInput: no job could have published this backup there.
        """
        run = RunId(_id_field(row, "run"))
        start_of(run)
        named, _, _ = _text_field(row, "target").partition(":")
        at, colon, source = _text_field(row, "source").partition(":")
        if at != named or not colon:
            source, target = _shortened_value(row["source"]), _shortened_value(row["target"])
            raise BadInput(f"source '{source}' and target '{target}' are not of one host")
        if not _SEAL.fullmatch(_text_field(row, "seal")):
            raise BadInput("seal: a digest was expected")
        return cls(
            host=host,
            named=ids.checked_host_name(named),
            path=volumespec.checked_path(_text_field(row, "path")),
            run=run,
            job=_id_field(row, "job"),
            transaction=_id_field(row, "transaction"),
            source="" if source == _NOTHING else f"{host}:{source}",
            size=_number_field(row, "size"),
            seal=row["seal"],
            ended=_number_field(row, "ended"),
            salvaged=bool(row.get("salvaged")),
            layers=tuple(volumespec.checked_path(path) for path in row.get("layers", ())[:MOST_LAYERS]),
            bytes={kind: _number_field(row.get("bytes", {}), kind) for kind in KINDS},
        )

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.path

    @property
    def entry(self) -> str:
        """The key of the backup in the record of its run; no job id contains an ``@``."""
        return f"{self.job}@{self.host}"

    @property
    def at(self) -> float:
        """The start of the run, in seconds since the epoch."""
        return start_of(self.run).timestamp()

    @property
    def base(self) -> str:
        """The directory that existed before the run: the parent of the first directory named after the run."""
        parts = self.path.split("/")[:-1]
        made = next((at for at, part in enumerate(parts) if self.run in part), len(parts))
        return "/".join(parts[:made]) or "/"


def name_of(run: RunId) -> str:
    """The name of the run file, from a run id.  Raises BadInput for a malformed run id."""
    return _run_id_parts(run)["name"]


def start_of(run: RunId) -> datetime:
    """The start of a run, from its id.  Raises BadInput for a malformed run id."""
    try:
        return datetime.strptime(_run_id_parts(run)["at"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise BadInput(f"run '{_shortened_value(run)}': the time in its name is none") from None


def _run_id_parts(run: str) -> re.Match[str]:
    found = _RUN.fullmatch(run)
    if found is None:
        raise BadInput(f"run '{_shortened_value(run)}': a name like nightly-20261122T103000Z was expected")
    return found


def _text_field(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise BadInput(f"{key}: {_shortened_value(value)}: a string was expected")
    return value


def _id_field(row: Mapping[str, Any], key: str) -> str:
    try:
        return ids.job_id(_text_field(row, key))
    except BadInput:
        raise BadInput(f"{key}: {_shortened_value(row.get(key))}: an id was expected") from None


def _number_field(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key, 0)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise BadInput(f"{key}: {_shortened_value(value)}: a whole number was expected")
    return value


def _shortened_value(value: object) -> str:
    return volumespec.printable_text(str(value)[:60])


# --- how a found backup stands -----------------------------------------------------------------------------------


class BackupStanding(StrEnum):
    """The relation of a found backup to the registry."""

    NEW = "found"
    KNOWN = "known"
    MOVED = "moved"  # known at another path or host, by an entry that may be obsolete
    FOREIGN = "of another host"
    GOING = "going"  # the run is not over


@dataclass(frozen=True, slots=True)
class Judgement:
    """``why``: an explanation for the user; ``known``: the entry of the same backup in the registry."""

    standing: BackupStanding
    why: str = ""
    known: PublishedTarget | None = None


def judge_found(
    found: FoundBackup, entries: Iterable[PublishedTarget], *, going: bool, hosts: Collection[str], moved_from: str = ""
) -> Judgement:
    """Judge a found backup.

    ``entries``: targets published by its run, as known to the registry; ``going``: the run is not over.  ``hosts``: the
    hosts known to the registry.  ``moved_from``: the former host of the backups now found.
    """
    mine = [entry for entry in entries if entry.job == found.job]
    if same := next((entry for entry in mine if entry.place == found.place), None):
        return Judgement(BackupStanding.KNOWN, known=same)
    if found.named not in (found.host, moved_from) and found.named in hosts:
        way = f"`blockjobs hosts rename {found.named} {found.host}`, or `--moved-from {found.named}`"
        return Judgement(BackupStanding.FOREIGN, f"of host {found.named}; if {found.host} has them for good: {way}")
    if going:
        return Judgement(BackupStanding.GOING)
    for entry in mine:
        if entry.host in (found.host, moved_from):
            return Judgement(BackupStanding.MOVED, known=entry)
    for entry in mine:
        if found.seal == entry.seal:
            return Judgement(BackupStanding.KNOWN, f"known on host {entry.host}", entry)
        if entry.host == found.named:  # a host that is not known here any more: the name that this one had
            way = f"`blockjobs hosts rename {entry.host} {found.host}`, or `--moved-from {entry.host}`"
            return Judgement(BackupStanding.FOREIGN, f"known on host {entry.host}: {way}", entry)
    return Judgement(BackupStanding.NEW)


def number_among(at: float, known: Iterable[PublishedTarget], now: float) -> int:
    """The number that orders a found backup: the number of the last known backup of the name that is surely not newer.

    Decisions have numbers, but manifests do not record the numbers.  A found backup is therefore placed behind the
    backups begun earlier, as far as their times rise with their numbers, and before the rest; every later commit is
    newer.  ``at``: the start of the run; ``now``: a time beyond ``now`` is wrong and ignored.
    """
    number = 0
    for target in sorted(known, key=lambda target: target.order):
        if target.at <= now:
            if target.at > at:
                break
            number = target.number
    return number
