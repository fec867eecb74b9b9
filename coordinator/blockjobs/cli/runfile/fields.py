"""The fields of a run file, their types and defaults.  This module knows no lines, hosts or runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, PlainValidator, model_validator

from blockjobs.cli.runfile import limits, units
from blockjobs.cli.runfile.yaml_places import yaml_text
from blockjobs.model import cuts, ids, mirrors, runs, volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.jobs import OnChange, OnDamage, OnError, RoomCheck
from blockjobs.model.notices import MOST as MOST_URLS
from blockjobs.model.policies import RETRY_WAIT, Offline
from blockjobs.notify import by_apprise

GLOB: Final = re.compile(r"[*?\[]")
WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)  # no dot: a dot ends a name within an id


def _checked_text(value: object, check: Callable[[str], str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{yaml_text(value)} is not accepted; a text was expected")
    try:
        return check(value)
    except BadInput as wrong:
        raise ValueError(str(wrong)) from None


def _checked_volume(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"{yaml_text(value)} is not a volume; 'HOST:/PATH' or a mapping with 'driver' was expected")
    return value


def _checked_version(value: object) -> int:
    if value != 1 or isinstance(value, bool):
        raise ValueError(f"{yaml_text(value)} is not supported; 1 was expected")
    return 1


def _checked_word(value: object) -> str:
    if not isinstance(value, str) or not WORD.fullmatch(value) or len(value) > 60:
        raise ValueError(f"{yaml_text(value)} is not a name; a letter, then letters, digits, '-' and '_' was expected")
    return value


def _checked_source(value: object) -> str:
    """A path of the short form, maybe a glob: the same path on every host."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{yaml_text(value)} is not a source; an absolute path, the same on each host, was expected")
    if GLOB.search(value) and re.search(r"[{}]", value):
        raise ValueError(
            f"{yaml_text(value)} is a pattern, in which no word is replaced; one without braces was expected"
        )
    return _checked_text(value, volumespec.checked_path)


def _checked_path(value: object) -> str:
    return _checked_text(value, volumespec.checked_path)


def _checked_hosts(value: object) -> tuple[str, ...]:
    """Names, ranges and groups, as written: only the whole file defines the groups."""
    given = value if isinstance(value, list) else [value]
    if not given:
        raise ValueError(f"{yaml_text(value)} is not accepted; at least 1 of them was expected")
    for each in given:
        units.expand_hosts(each)
    return tuple(given)


def _group_members(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host for each in _checked_hosts(value) for host in units.expand_hosts(each)))


def _storable_options(value: object) -> object:
    """Driver options that the registry can store.

    Accepted are texts, numbers of 64 bits, true, false, null, and lists and mappings of these.
    """
    match value:
        case dict():
            for key in value:
                _checked_text(key, str)
            return {key: _storable_options(each) for key, each in value.items()}
        case list():
            return [_storable_options(each) for each in value]
        case int() if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"{yaml_text(value)} is not accepted; a number of at most 64 bits was expected")
        case str() | int() | float() | None:
            return value
    raise ValueError(f"{yaml_text(str(value))} is not accepted; a text, in quotation marks, was expected")


def _driver_options(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{yaml_text(value)} is not accepted; a mapping was expected")
    return _storable_options(value)


def _checked_names(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        _checked_word(name)
    return value


Text = Annotated[str, PlainValidator(lambda value: _checked_text(value, ids.run_name))]
Word = Annotated[str, PlainValidator(_checked_word)]
Size = Annotated[int, PlainValidator(units.parse_size)]
Duration = Annotated[int, PlainValidator(units.parse_duration)]
Volume = Annotated[object, PlainValidator(_checked_volume)]
Source = Annotated[str, PlainValidator(_checked_source)]
Urls = Annotated[
    list[Annotated[str, PlainValidator(lambda url: _checked_text(url, by_apprise.check_url))]],
    Field(max_length=MOST_URLS),
]
ErrorPolicy = Literal["report", "ignore", "enospc", "stop", "auto"]
SourceErrorPolicy = Literal["report", "ignore", "enospc", "stop", "auto", "skip"]
Mode = Literal["grouped", "individual"]
Kept = Annotated[int, Field(ge=0, le=100_000)]


class Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )

    @model_validator(mode="before")
    @classmethod
    def few_unknown(cls, value: Any) -> Any:
        """Drop all but the first few unknown fields: each unknown field costs an error, and only one error is shown."""
        if not isinstance(value, dict) or len(value) <= limits.UNKNOWN:
            return value
        known = {field.alias for field in cls.model_fields.values()}
        surplus = set([key for key in value if key not in known][limits.UNKNOWN :])
        return {key: each for key, each in value.items() if key not in surplus}


class JobOptions(Model):
    """The options of a job, or of its transaction and ``defaults``: QEMU's argument names, plus the fleet's own."""

    type: Text = "backup"  # the hosts know the accepted types
    sync: Text = "full"
    speed: Size = 0
    on_source_error: SourceErrorPolicy = "report"
    on_target_error: ErrorPolicy = "report"
    on_source_change: Literal["fail", "report"] = "fail"
    on_source_damage: Literal["fail", "report"] = "fail"
    room: Literal["check", "warn"] = "check"
    auto_finalize: bool = True
    auto_dismiss: bool = False
    overwrite: bool = False
    digests: bool = True
    format: Literal["raw", "qcow2", "vmdk"] = "raw"
    compress: bool = False
    in_place: bool = False
    offset: Size = 0
    length: Size = 0
    snapshot: Annotated[str, PlainValidator(lambda value: _checked_text(value, cuts.checked_snapshot))] = "auto"
    live: bool = False
    stall_limit: Annotated[int, Field(ge=1, le=7 * 86400)] = 600
    granularity: Size = 0
    buf_size: Size = 0
    copy_mode: Literal["background"] = "background"
    quiesce: Text = ""
    # For the drivers of plugins, and a few built-in options (``plan.OPTIONS``).
    options: Annotated[dict[str, Any], PlainValidator(_driver_options)] = Field(default_factory=dict)

    def given(self) -> runs.PlanOptions:
        """The options that the file gives, without the defaults."""
        kinds = {
            "on_source_error": OnError, "on_target_error": OnError, "on_source_change": OnChange,
            "on_source_damage": OnDamage, "room": RoomCheck,
        }  # fmt: skip
        given: runs.PlanOptions = {}
        for name in self.model_fields_set & runs.PlanOptions.__annotations__.keys():
            given[name] = kinds.get(name, lambda value: value)(getattr(self, name))  # type: ignore[literal-required]
        return given

    def of_mirror(self) -> dict[str, Any]:
        """The given options of mirrors."""
        fields = type(self).model_fields
        named = {fields[name].alias or name: name for name in self.model_fields_set}
        return {alias: getattr(self, name) for alias, name in named.items() if alias in mirrors.KEYS}


class RunFileJob(JobOptions):
    id: Annotated[str, PlainValidator(lambda value: _checked_text(value, ids.job_id))]
    source: Volume
    target: Volume = ""  # "": the target of the transaction, or of the defaults


class Defaults(JobOptions):
    target: Volume = ""
    hold_timeout: Duration = 0


class Keep(Model):
    last: Kept = 0
    daily: Kept = 0
    weekly: Kept = 0
    monthly: Kept = 0


class Transaction(JobOptions):
    """Jobs that belong together: listed jobs (``jobs``), or every source on every host."""

    name: Word
    completion_mode: Mode = "grouped"
    allow_in_place: bool = False  # of a group
    hosts: Annotated[tuple[str, ...], PlainValidator(_checked_hosts)] = ()
    sources: Annotated[list[Source], Field(min_length=1), FailFast()] = Field(default_factory=list)
    target: Volume = ""
    jobs: Annotated[list[RunFileJob], Field(min_length=1), FailFast()] = Field(default_factory=list)
    store: str = ""
    keep: Keep = Keep()
    offline: Annotated[Offline, PlainValidator(units.parse_offline)] = Offline()
    retry: Annotated[int, Field(ge=0, le=100)] = 0
    retry_wait: Duration = RETRY_WAIT
    succeed_if: Annotated[float | str | None, PlainValidator(units.share_or_salvaged)] = None


class StoreSaid(Model):
    path: Annotated[str, PlainValidator(_checked_path)]
    jobs: Annotated[int, Field(ge=0, le=100_000)] = 0
    speed: Size = 0


class Notify(Model):
    """URLs to notify of a run's end; ``partial`` is ``failure`` unless given.

    ``attention``: URLs to notify of conditions that need a person.
    """

    failure: Urls = Field(default_factory=list)
    partial: Urls = Field(default_factory=list)
    success: Urls = Field(default_factory=list)
    attention: Urls = Field(default_factory=list)

    def said(self) -> dict[str, tuple[str, ...]]:
        """The URLs by outcome, also an outcome given without URLs."""
        return {name: tuple(urls) for name, urls in self if name in self.model_fields_set}


class Whom(Model):
    """The part of a run file with its name and its URLs to notify."""

    name: Text
    notify: Notify = Notify()
    overdue: Duration = 0


Groups = Annotated[
    dict[str, Annotated[tuple[str, ...], PlainValidator(_group_members)]], AfterValidator(_checked_names)
]


class RunFile(Model):
    version: Annotated[int, PlainValidator(_checked_version)]
    name: Text
    deadline: Duration = 0
    on_overlap: Literal["refuse", "queue", "skip"] = "refuse"
    hold_timeout: Duration = 0
    overdue: Duration = 0
    completion_mode: Mode = "grouped"
    allow_in_place: bool = False  # of a group
    hosts: Groups = Field(default_factory=dict)
    stores: Annotated[dict[str, StoreSaid], AfterValidator(_checked_names)] = Field(default_factory=dict)
    defaults: Defaults = Defaults()
    jobs: Annotated[list[RunFileJob], Field(min_length=1), FailFast()] = Field(default_factory=list)
    transactions: Annotated[list[Transaction], Field(min_length=1), FailFast()] = Field(default_factory=list)
    notify: Notify = Notify()
