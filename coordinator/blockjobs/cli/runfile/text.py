"""From the text of a run file to its checked fields, and from what is wrong with one to its line.

``--set`` changes the content before it is checked, so that it is checked as the file is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from blockjobs.cli.places import Path as Place
from blockjobs.cli.places import compose, line_of, shown
from blockjobs.cli.runfile import fields
from blockjobs.cli.runfile.fields import RunFile
from blockjobs.model.errors import BadInput

LARGEST: Final = 16 << 20  # bytes of YAML; 10,000 jobs are about 2 MB
EXPECTED: Final = {  # pydantic's name of what is wrong -> what was expected; {field} of its context
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "a text",
    "list_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "literal_error": "{expected}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}
MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "defaults": fields.Defaults, "jobs": fields.Job, "transactions": fields.Transaction, "keep": fields.Keep,
    "stores": fields.StoreSaid, "notify": fields.Notify,
}  # fmt: skip


class Fault(Exception):
    """What is wrong at a place of the file, and what was expected."""

    def __init__(self, place: Place, wrong: str) -> None:
        super().__init__(wrong)
        self.place, self.wrong = place, wrong


@dataclass(frozen=True, slots=True)
class Text:
    """A file and what it says; ``set``: what the command line says instead, and where that is."""

    path: Path
    text: str
    set: tuple[tuple[str, Place], ...] = ()

    def bad(self, place: Place, wrong: str) -> BadInput:
        """``FILE:LINE: jobs[1].speed: what is wrong``; of a value of the command line ``--set KEY=VALUE: ...``."""
        field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
        said = next((said for said, at in reversed(self.set) if place[: len(at)] == at), "")
        where = f"--set {said}" if said else f"{self.path}:{line_of(compose(self.text), place)}"
        return BadInput(f"{where}: {field + ': ' if field else ''}{wrong}")


def parse(path: Path, changes: Iterable[str] = ()) -> tuple[Text, RunFile]:
    """What a file says, each field by itself; ``changes``: ``KEY=VALUE``, KEY a path with dots.

    Raises:
        BadInput: where it is wrong, and what was expected.
    """
    text = _read(path)
    content = _parse(path, text)
    if content is None:
        raise BadInput(f"{path}: nothing is in it; a run file was expected")
    said = tuple((each, _set(content, each)) for each in changes)
    whole = Text(path, text, said)
    try:
        return whole, RunFile.model_validate(content)
    except ValidationError as invalid:
        raise whole.bad(*_first(text, invalid)) from None


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


def _parse(path: Path | str, text: str) -> Any:
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


# --- --set --------------------------------------------------------------------------------------------


def _set(content: Any, said: str) -> Place:
    """Put a value of the command line where it belongs; returns where that is."""
    key, equals, value = said.partition("=")
    steps = key.split(".")
    if not equals or not all(steps):
        raise BadInput(f"--set {said}: KEY=VALUE was expected, KEY such as defaults.speed or transactions.web.retry")
    node, place = content, []
    for step in steps[:-1]:
        at = _step(node, step, said)
        if isinstance(node, dict):
            node.setdefault(at, {})
        node = node[at]
        place.append(at)
    last = _step(node, steps[-1], said)
    node[last] = _parse(f"--set {said}", value)
    return (*place, last)


def _step(node: Any, step: str, said: str) -> int | str:
    """A key of a mapping; of a list a position, or the item's ``name`` or ``id``."""
    match node:
        case dict():
            return step
        case list():
            called = [item.get("name", item.get("id")) if isinstance(item, dict) else None for item in node]
            if step in called:
                return called.index(step)
            if re.fullmatch(r"[0-9]{1,6}", step) and int(step) < len(node):
                return int(step)
            known = ", ".join(str(name) for name in called if name) or f"0 to {len(node) - 1}"
            raise BadInput(f"--set {said}: nothing is at '{step}'; one of {known} was expected")
    raise BadInput(f"--set {said}: nothing can be below '{step}'; a mapping or a list was expected in the file")


# --- from pydantic's words to ours --------------------------------------------------------------------


def _first(text: str, invalid: ValidationError) -> tuple[Place, str]:
    """The error that stands first in the file."""
    errors = invalid.errors(include_url=False)
    root = compose(text)
    first = min(errors, key=lambda error: line_of(root, error["loc"]))
    return first["loc"], _wording(first["type"], first["loc"], first["input"], first.get("ctx", {}))


def _wording(kind: str, place: Place, value: object, context: dict[str, Any]) -> str:
    said = "this" if place[:1] == ("notify",) else shown(value)  # a URL may hold a secret
    match kind:
        case "extra_forbidden":
            return f"unknown field; one of {', '.join(sorted(_fields(place[:-1])))} was expected"
        case "missing":
            return "missing; a value was expected"
        case "value_error":
            return str(context["error"])
        case _ if kind in EXPECTED:
            return f"{said} is not accepted; {EXPECTED[kind].format(**context)} was expected"
    return f"{said} is not accepted ({kind.replace('_', ' ')})"


def _fields(place: Place) -> set[str]:
    model: type[BaseModel] = RunFile
    steps = iter(place)
    for step in steps:
        model = MODELS.get(str(step), model)
        if step == "stores":
            next(steps, None)  # its name, which may be any
    return {field.alias or name for name, field in model.model_fields.items()}
