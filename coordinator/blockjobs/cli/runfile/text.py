"""From the text of a run file to the checked fields, and from an error to the line.

``--set`` changes the content before the check, so that changes are checked like the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from ruamel.yaml.nodes import Node

from blockjobs.cli.runfile import amounts, fields, limits, tree
from blockjobs.cli.runfile.fields import RunFile
from blockjobs.cli.runfile.yaml_places import Path as Place
from blockjobs.cli.runfile.yaml_places import YamlLines, yaml_text
from blockjobs.model.errors import BadInput
from blockjobs.model.policies import RunFields
from blockjobs.settings import absolute_path

LONGEST: Final = 120  # characters of a ``--set`` change in a message
EXPECTED: Final = {  # pydantic's name of an error -> the expected value; {field} of its context
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
    "defaults": fields.Defaults, "jobs": fields.RunFileJob, "transactions": fields.Transaction, "keep": fields.Keep,
    "stores": fields.StoreSaid, "notify": fields.Notify,
}  # fmt: skip


class Fault(Exception):
    """An error at a place of the file, and the expected value."""

    def __init__(self, place: Place, wrong: str) -> None:
        super().__init__(wrong)
        self.place, self.wrong = place, wrong


@dataclass(frozen=True, slots=True)
class Text:
    """A file and the content; ``set``: the changes of the command line, with places in the content."""

    path: Path
    root: Node | None
    set: tuple[tuple[str, Place], ...] = ()

    def bad(self, place: Place, wrong: str) -> BadInput:
        """``FILE:LINE: jobs[1].speed: what is wrong``; for a value of the command line ``--set KEY=VALUE: ...``."""
        field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
        said = next((said for said, at in reversed(self.set) if place[: len(at)] == at), "")
        where = _name_of_change(said) if said else f"{self.path}:{YamlLines(self.root).of(place)}"
        return BadInput(f"{where}: {field + ': ' if field else ''}{wrong}")


def parse_run_file(path: Path, changes: Iterable[str] = ()) -> tuple[Text, RunFile]:
    """The content of a file, each field checked alone; ``changes``: ``KEY=VALUE``, KEY a path with dots.

    Raises:
        BadInput: the place of the error, and the expected value.
    """
    root, content = _parse_yaml(path, _read_text(path))
    if content is None:
        raise BadInput(f"{path}: nothing is in it; a run file was expected")
    whole = Text(path, root, tuple(_all_set(content, changes)))
    if too_many := amounts.first_excess(content):
        raise whole.bad(*too_many)
    try:
        return whole, RunFile.model_validate(content)
    except ValidationError as invalid:
        raise whole.bad(*_first_error(root, invalid)) from None


def read_whom(path: Path) -> tuple[str, RunFields] | None:
    """The name, the notify URLs and the overdue time of a run file, despite errors elsewhere in the file.

    None if these parts cannot be read either.
    """
    try:
        content = _parse_yaml(path, _read_text(path))[1]
    except BadInput:
        return None
    if not isinstance(content, dict) or amounts.first_excess(content):
        return None
    parts = {name: content[name] for name in ("name", "notify", "overdue") if name in content}
    for left_out in ((), ("overdue",)):
        try:
            said = fields.Whom.model_validate({name: parts[name] for name in parts if name not in left_out})
        except ValidationError:
            continue
        return said.name, RunFields(
            file=str(absolute_path(path, "file")), notify=said.notify.said(), overdue=said.overdue
        )
    return None


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(limits.FILE + 1)
        if len(content) > limits.FILE:
            raise BadInput(f"{path}: the file is larger than {limits.FILE} bytes; a run file was expected")
        return content.decode("utf-8")
    except OSError as unreadable:
        raise BadInput(f"{path}: {unreadable.strerror}; a run file was expected") from None
    except UnicodeDecodeError as wrong:
        raise BadInput(f"{path}: byte {wrong.start} is not UTF-8; a run file in UTF-8 was expected") from None


def _parse_yaml(said: Path | str, text: str) -> tuple[Node | None, Any]:
    """The nodes of a text and their values; ``said``: the name of the text in a message."""
    try:
        root, scalar = tree.compose_nodes(text)
        return root, tree.values_of_nodes(root, scalar)
    except tree.Malformed as wrong:
        where = wrong.where if isinstance(said, Path) else ""
        raise BadInput(f"{said}{where}: {wrong}") from None


# --- --set --------------------------------------------------------------------------------------------


def _name_of_change(said: str) -> str:
    """The name of a ``--set`` change in a message."""
    return f"--set {said}" if len(said) <= LONGEST else f"--set {said[: LONGEST - 3]}..."


def _all_set(content: Any, changes: Iterable[str]) -> Iterator[tuple[str, Place]]:
    """Put the values of the command line into the content; yield every change with the place in the content."""
    nodes = tree.count_keys_and_values(content)
    for said in changes:
        value = _parse_yaml(_name_of_change(said), said.partition("=")[2])[1]
        nodes += tree.count_keys_and_values(value)
        if nodes > limits.NODES:
            wrong = f"with it there are {nodes} keys and values; at most {limits.NODES} were expected"
            raise BadInput(f"{_name_of_change(said)}: {wrong}")
        yield said, _set_value(content, said, value)


def _set_value(content: Any, said: str, value: object) -> Place:
    """Put a value of the command line into the content; return the value's place."""
    key, equals, _ = said.partition("=")
    steps = key.split(".")
    if len(steps) > limits.DEPTH:
        raise BadInput(f"{_name_of_change(said)}: KEY has {len(steps)} parts; at most {limits.DEPTH} were expected")
    if not equals or not all(steps):
        raise BadInput(
            f"{_name_of_change(said)}: KEY=VALUE was expected, KEY such as defaults.speed or transactions.web.retry"
        )
    node, place = content, []
    for step in steps[:-1]:
        at = _key_or_position(node, step, said)
        if isinstance(node, dict):
            node.setdefault(at, {})
        node = node[at]
        place.append(at)
    last = _key_or_position(node, steps[-1], said)
    node[last] = value
    return (*place, last)


def _key_or_position(node: Any, step: str, said: str) -> int | str:
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
            raise BadInput(f"{_name_of_change(said)}: nothing is at '{step}'; one of {known} was expected")
    raise BadInput(
        f"{_name_of_change(said)}: nothing can be below '{step}'; a mapping or a list was expected in the file"
    )


# --- from pydantic's words to ours --------------------------------------------------------------------


def _first_error(root: Node | None, invalid: ValidationError) -> tuple[Place, str]:
    """The first error in the order of the file."""
    errors, lines = invalid.errors(include_url=False), YamlLines(root)
    first = min(errors, key=lambda error: lines.of(error["loc"]))
    return first["loc"], _error_text(first["type"], first["loc"], first["input"], first.get("ctx", {}))


def _error_text(kind: str, place: Place, value: object, context: dict[str, Any]) -> str:
    said = "this" if place[:1] == ("notify",) else yaml_text(value)  # a URL may hold a secret
    match kind:
        case "extra_forbidden":
            return f"unknown field; one of {', '.join(sorted(_field_names(place[:-1])))} was expected"
        case "missing":
            return "missing; a value was expected"
        case "value_error":
            return str(context["error"])
        case _ if kind in EXPECTED:
            return f"{said} is not accepted; {EXPECTED[kind].format(**context)} was expected"
    return f"{said} is not accepted ({kind.replace('_', ' ')})"


def _field_names(place: Place) -> set[str]:
    model: type[BaseModel] = RunFile
    steps = iter(place)
    for step in steps:
        model = MODELS.get(str(step), model)
        if step == "stores":
            next(steps, None)  # the name of the store, which is arbitrary
    return {field.alias or name for name, field in model.model_fields.items()}
