"""Check arguments as QEMU's QAPI does, with QEMU's texts: ``check_arguments`` walks the table of a command's members.

A table is written as in QEMU's schema: ``{"device": STR, "*speed": INT}``; ``*`` marks an optional member. Members are
checked in the order of the table, then the first unknown member is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from blockjobs.qmp.errors import QmpError

Members = Mapping[str, "Type"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A JSON value of a kind; an integer may have a range (``least``, ``most``; ``range`` is QEMU's name for it)."""

    word: str
    kind: type
    least: int = -(1 << 63)
    most: int = (1 << 63) - 1
    range: str = ""


@dataclass(frozen=True, slots=True)
class Enum:
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    members: Members


@dataclass(frozen=True, slots=True)
class ListOf:
    of: Type


@dataclass(frozen=True, slots=True)
class Union:
    """An object whose member ``tag`` selects further members; ``inner``: they are inside a member ``data``."""

    base: Members
    tag: str
    branches: Mapping[str, Members]
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """QEMU's ``BlockdevRef``: a node's name, or an inline definition; ``null``: null is allowed, and means none."""

    to: str  # a key of DEFINITIONS
    null: bool = False


Type = Scalar | Enum | Struct | ListOf | Union | Reference

STR: Final = Scalar("string", str)
INT: Final = Scalar("integer", int)
BOOL: Final = Scalar("boolean", bool)
UINT32: Final = Scalar("integer", int, 0, (1 << 32) - 1, "uint32_t")
UINT64: Final = Scalar("integer", int, 0, (1 << 64) - 1, "uint64_t")

DEFINITIONS: Final[dict[str, Union]] = {}  # the targets of References, which may contain themselves


def check_arguments(members: Members, arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments``, checked.

    Raises:
        QmpError: an argument is wrong; the text is QEMU's.
    """
    _check_members(members, arguments, "")
    return arguments


def _check_members(members: Members, value: dict[str, Any], path: str, *more: Members) -> None:
    known = set()
    for table in (members, *more):
        for marked, kind in table.items():
            name = marked.lstrip("*")
            known.add(name)
            if name in value:
                _check_value(kind, value[name], name, f"{path}{name}")
            elif not marked.startswith("*"):
                raise QmpError(f"Parameter '{path}{name}' is missing")
    for name in value:
        if name not in known:
            raise QmpError(f"Parameter '{path}{name[:200]}' is unexpected")


def _check_value(kind: Type, value: Any, name: str, path: str) -> None:
    match kind:
        case Scalar():
            _check_scalar(kind, value, name, path)
        case Enum(values):
            _expect_type(value, str, "string", path)
            if value not in values:
                raise QmpError(f"Parameter '{name}' does not accept value '{value[:200]}'")
        case Struct(members):
            _expect_type(value, dict, "object", path)
            _check_members(members, value, f"{path}.")
        case ListOf(of):
            _expect_type(value, list, "array", path)
            for n, element in enumerate(value):
                _check_value(of, element, "null", f"{path}[{n}]")
        case Union():
            _expect_type(value, dict, "object", path)
            _check_branch(kind, value, f"{path}.")
        case Reference(null=True) if value is None:
            pass
        case Reference(to):
            if isinstance(value, dict):
                _check_branch(DEFINITIONS[to], value, f"{path}.")
            elif not isinstance(value, str):
                raise QmpError(f"Invalid parameter type for '{path}', expected: {to}{'OrNull' if kind.null else ''}")


def check_union(kind: Union, value: dict[str, Any]) -> dict[str, Any]:
    """``value``, checked, for a command whose arguments are a union."""
    _check_branch(kind, value, "")
    return value


def _check_branch(kind: Union, value: dict[str, Any], path: str) -> None:
    tag = value.get(kind.tag)
    if isinstance(tag, str) and tag in kind.branches:
        branch = kind.branches[tag]
        _check_members(kind.base, value, path, {"data": Struct(branch)} if kind.inner else branch)
    else:  # the base's check reports the error of the tag
        _check_members(kind.base, value, path)


def _check_scalar(kind: Scalar, value: Any, name: str, path: str) -> None:
    _expect_type(value, kind.kind, kind.word, path)
    if kind.kind is int:
        if not -(1 << 63) <= value < 1 << 64 or (not kind.range and value > kind.most):
            raise QmpError(f"Invalid parameter type for '{path}', expected: integer")
        if not kind.least <= value <= kind.most:
            raise QmpError(f"Parameter '{name}' expects {kind.range}")


def _expect_type(value: Any, kind: type, word: str, path: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise QmpError(f"Invalid parameter type for '{path}', expected: {word}")
