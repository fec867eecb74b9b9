"""A run file, read: YAML 1.2 to a RunPlan, or one line that says where it is wrong and what was expected.

``{run}`` and the other words are expanded here, once; what is submitted holds only plain paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from blockjobs.cli.places import Path as Place
from blockjobs.cli.places import compose, line_of, shown
from blockjobs.model import ids, mirrors, runs, templates
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import TxnId
from blockjobs.model.jobs import JobSpec, OnChange, OnError
from blockjobs.model.policies import RunFields, Store
from blockjobs.model.runs import JobFault, Named, NameUsed, RunPlan

LARGEST: Final = 16 << 20  # bytes of YAML; 10,000 jobs are about 2 MB
MOST: Final = 1 << 62  # bytes, or bytes a second: what fits a signed 64-bit number with room to add
UNITS: Final = {
    "": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
TIMES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)(?:/s)?", re.ASCII)
_SIZE_EXPECTED: Final = "a number of bytes, 0 or more, or a text such as 200MiB or 1.5GiB/s was expected"


def size(value: object) -> int:
    """Bytes (or bytes a second) from a number or from a text with a unit.

    Raises:
        ValueError: says what was expected.
    """
    number: Decimal | int = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2] in UNITS:
        number = Decimal(match[1]) * UNITS[match[2]]
    if not 0 <= number <= MOST:
        raise ValueError(f"{shown(value)} is not a size; {_SIZE_EXPECTED}")
    return int(number)


def duration(value: object) -> int:
    """Seconds from ``90s``, ``30m``, ``6h``, ``2d`` or ``1h30m``."""
    seconds = 0
    if isinstance(value, str) and re.fullmatch(r"(?:[0-9]{1,9}[smhd])+", value.strip()):
        seconds = sum(int(n) * TIMES[unit] for n, unit in re.findall(r"([0-9]+)([smhd])", value))
    if not 0 < seconds <= 366 * 86400:
        raise ValueError(f"{shown(value)} is not a time; a text such as 90s, 30m, 6h or 1h30m was expected")
    return seconds


# --- the fields ---------------------------------------------------------------------------------------


def _volume(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"{shown(value)} is not a volume; 'HOST:/PATH' or a mapping with 'driver' was expected")
    return value


def _version(value: object) -> int:
    if value != 1 or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not supported; 1 was expected")
    return 1


def _text(value: object, check: Callable[[str], str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not accepted; a text was expected")
    try:
        return check(value)
    except BadInput as wrong:
        raise ValueError(str(wrong)) from None


Size = Annotated[int, PlainValidator(size)]
Volume = Annotated[object, PlainValidator(_volume)]
ErrorPolicy = Literal["report", "ignore", "enospc", "stop", "auto"]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )


class Options(_Model):
    """What ``defaults`` may hold and every job may override; QEMU's argument names, plus ours."""

    type: Annotated[str, PlainValidator(lambda value: _text(value, ids.run_name))] = "backup"  # hosts know which exist
    sync: Annotated[str, PlainValidator(lambda value: _text(value, ids.run_name))] = "full"
    speed: Size = 0
    on_source_error: ErrorPolicy = "report"
    on_target_error: ErrorPolicy = "report"
    on_source_change: Literal["fail", "report"] = "fail"
    auto_finalize: bool = True
    auto_dismiss: bool = False
    overwrite: bool = False
    digests: bool = True
    format: Literal["raw", "qcow2", "vmdk"] = "raw"
    compress: bool = False
    stall_limit: Annotated[int, Field(ge=1, le=7 * 86400)] = 600
    granularity: Size = 0
    buf_size: Size = 0
    copy_mode: Literal["background"] = "background"
    quiesce: Annotated[str, PlainValidator(lambda value: _text(value, ids.run_name))] = ""
    options: dict[str, Any] = Field(default_factory=dict)  # for drivers of others

    def given(self) -> runs.Options:
        """What the file says, and nothing that it leaves to the defaults."""
        kinds = {"on_source_error": OnError, "on_target_error": OnError, "on_source_change": OnChange}
        given: runs.Options = {}
        for name in self.model_fields_set & runs.Options.__annotations__.keys():
            given[name] = kinds.get(name, lambda value: value)(getattr(self, name))  # type: ignore[literal-required]
        return given

    def of_mirror(self) -> dict[str, Any]:
        """Those that only a mirror has."""
        fields = type(self).model_fields
        named = {fields[name].alias or name: name for name in self.model_fields_set}
        return {alias: getattr(self, name) for alias, name in named.items() if alias in mirrors.KEYS}


class Job(Options):
    id: Annotated[str, PlainValidator(lambda value: _text(value, ids.job_id))]
    source: Volume
    target: Volume


class StoreSaid(_Model):
    path: str
    jobs: Annotated[int, Field(ge=0, le=100_000)] = 0
    speed: Size = 0


class RunFile(_Model):
    version: Annotated[int, PlainValidator(_version)]
    name: Annotated[str, PlainValidator(lambda value: _text(value, ids.run_name))]
    completion_mode: Literal["grouped", "individual"] = "grouped"
    deadline: Annotated[int, PlainValidator(duration)] = 0
    on_overlap: Literal["refuse", "queue", "skip"] = "refuse"
    hold_timeout: Annotated[int, PlainValidator(duration)] = 0
    stores: dict[str, StoreSaid] = Field(default_factory=dict)
    defaults: Options = Options()
    jobs: Annotated[list[Job], Field(min_length=1)]


EXPECTED: Final = {  # pydantic's name of what is wrong -> what was expected; {field} of its context
    "bool_type": "true or false",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "literal_error": "{expected}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} of them",
}


# --- from text to plan --------------------------------------------------------------------------------


def load(path: Path, *, now: datetime) -> RunPlan:
    """The run that ``path`` describes, started at ``now``; raises as ``read`` does."""
    return read(path)(now)


class PlanAt(Protocol):
    def __call__(self, now: datetime, named: Named | None = None) -> RunPlan:
        """The run that starts now; ``named`` knows the volumes that are given by name (without it: NameUsed)."""


def read(path: Path) -> PlanAt:
    """What ``path`` describes: given a time, the run that starts then.  Both raise.

    Raises:
        BadInput: ``FILE:LINE: jobs[1].speed: what is wrong; what was expected``.
    """
    text = _read(path)
    content = _parse(path, text)
    if content is None:
        raise BadInput(f"{path}: nothing is in it; a run file was expected")
    try:
        file = RunFile.model_validate(content)
    except ValidationError as invalid:
        place, wrong = _first(text, invalid)
        raise _bad(path, text, place, wrong) from None

    def start(now: datetime, named: Named | None = None) -> RunPlan:
        try:
            return _plan(file, now, named)
        except NameUsed:
            raise
        except JobFault as fault:
            raise _bad(path, text, ("jobs", fault.position, fault.field), str(fault)) from None

    return start


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise BadInput(f"{path}: the file is larger than {LARGEST} bytes; a run file was expected")
        return content.decode("utf-8")
    except OSError as unreadable:
        raise BadInput(f"{path}: {unreadable.strerror}; a run file was expected") from None
    except UnicodeDecodeError as wrong:
        raise BadInput(f"{path}: byte {wrong.start} is not UTF-8; a run file in UTF-8 was expected") from None


def _parse(path: Path, text: str) -> object:
    try:
        return YAML(typ="safe", pure=True).load(text)  # pure: the C parser speaks YAML 1.1
    except MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = " ".join(str(wrong.problem or wrong.context or "malformed YAML").split())
        raise BadInput(f"{where}: {what}; YAML 1.2 was expected") from None
    except (YAMLError, ValueError, TypeError) as wrong:
        what = "a number is too long" if "int_max_str_digits" in str(wrong) else str(wrong).splitlines()[0]
        raise BadInput(f"{path}: {what}; YAML 1.2 was expected") from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply; a run file was expected") from None


def _plan(file: RunFile, now: datetime, named: Named | None) -> RunPlan:
    run = ids.run_id(file.name, now)
    grouped = file.completion_mode == "grouped"
    specs = []
    for at, job in enumerate(file.jobs):
        try:
            job_id = ids.job_id(f"{run}.{job.id}")
        except BadInput as wrong:
            raise JobFault(at, "id", f"{wrong}; at most {ids.LONGEST} characters with the run's id") from None
        meaning = templates.words(run, job.id, now)
        options: runs.Options = {**file.defaults.given(), **job.given()}
        form = job.format if "format" in job.model_fields_set else file.defaults.format
        source, target, base = runs.volumes(
            job.source,
            job.target,
            meaning,
            position=at,
            named=named,
            form=form,
            compress=options.get("compress", False),
        )
        options["options"] = _own(at, file.defaults, job, options)
        specs.append(
            JobSpec(
                id=job_id, transaction=TxnId(run if grouped else job_id), run=run,
                source=source, target=target, target_base=base, **options,
            )
        )  # fmt: skip
    runs.check_together(specs)
    terms = RunFields(
        stores={name: Store(path=s.path, jobs=s.jobs, speed=s.speed) for name, s in file.stores.items()},
        deadline=file.deadline, hold_timeout=file.hold_timeout, on_overlap=file.on_overlap,
    )  # fmt: skip
    return RunPlan(run, file.name, grouped, (tuple(specs),) if grouped else tuple((spec,) for spec in specs), terms)


def _own(at: int, defaults: Options, job: Job, options: runs.Options) -> Mapping[str, Any]:
    """The options of the job's own driver, checked where it is one of ours."""
    kind, sync = options.get("type", "backup"), options.get("sync", "full")
    own = job.of_mirror()
    if options.get("compress") and kind != "backup":
        raise JobFault(at, "compress", f"not accepted by type '{kind}'; type 'backup' was expected")
    if kind == "mirror":
        try:
            return mirrors.options({**defaults.of_mirror(), **own}, sync=sync)
        except BadInput as wrong:
            field = next((key for key in mirrors.KEYS if f"'{key}'" in str(wrong)), "sync")
            raise JobFault(at, field, str(wrong)) from None
    for key in own:
        raise JobFault(at, key, f"not accepted by type '{kind}'; type 'mirror' was expected")
    if kind == "backup" and sync != "full":
        raise JobFault(at, "sync", f"{shown(sync)} is not accepted; 'full' was expected")
    return {} if kind == "backup" else options.get("options", {})


# --- from pydantic's words to ours --------------------------------------------------------------------


def _bad(path: Path, text: str, place: Place, wrong: str) -> BadInput:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
    return BadInput(f"{path}:{line_of(compose(text), place)}: {where + ': ' if where else ''}{wrong}")


def _first(text: str, invalid: ValidationError) -> tuple[Place, str]:
    """The error that stands first in the file."""
    errors = invalid.errors(include_url=False)
    root = compose(text)
    first = min(errors, key=lambda error: line_of(root, error["loc"]))
    return first["loc"], _wording(first["type"], first["loc"], first["input"], first.get("ctx", {}))


def _wording(kind: str, place: Place, value: object, context: dict[str, Any]) -> str:
    match kind:
        case "extra_forbidden":
            return f"unknown field; one of {', '.join(sorted(_fields(place[:-1])))} was expected"
        case "missing":
            return "missing; a value was expected"
        case "value_error":
            return str(context["error"])
        case _ if kind in EXPECTED:
            return f"{shown(value)} is not accepted; {EXPECTED[kind].format(**context)} was expected"
    return f"{shown(value)} is not accepted ({kind.replace('_', ' ')})"


def _fields(place: Place) -> set[str]:
    models: dict[str, type[BaseModel]] = {"defaults": Options, "jobs": Job}
    model = models[str(place[0])] if place else RunFile
    return {field.alias or name for name, field in model.model_fields.items()}
