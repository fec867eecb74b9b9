"""``query-qmp-schema``: the argument tables in the form of QEMU's introspection.

Types have numbers for names, as in QEMU; replies are not described: every reply is an object of a separate type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blockjobs.qmp import qapi
from blockjobs.qmp.events import FIELDS

_BUILTIN: Final = {"string": "str", "integer": "int", "boolean": "bool"}
_JSON: Final = {"str": "string", "int": "int", "bool": "boolean", "null": "null", "any": "value"}
_NUMBERS: Final = frozenset({"len", "offset", "speed"})


class Schema:
    """Collect the entities of a schema, every type once."""

    def __init__(self) -> None:
        self.entities: list[dict[str, Any]] = []
        self._known: dict[Any, str] = {}
        # types are named by the id() of the members, so the members have to live on
        self._kept: list[qapi.Members] = []

    def command(self, name: str, arguments: qapi.Members | qapi.Union) -> None:
        kind = arguments if isinstance(arguments, qapi.Union) else qapi.Struct(arguments)
        self.entities.append(
            {"name": name, "meta-type": "command", "arg-type": self.type(kind), "ret-type": self._builtin("any")}
        )

    def event(self, name: str, fields: tuple[str, ...]) -> None:
        members: dict[str, qapi.Type] = {field: qapi.INT if field in _NUMBERS else qapi.STR for field in fields}
        if name == "BLOCK_JOB_COMPLETED":
            members["*error"] = qapi.STR
        self.entities.append({"name": name, "meta-type": "event", "arg-type": self.type(qapi.Struct(members))})

    def type(self, kind: qapi.Type) -> str:
        """The name of a type."""
        match kind:
            case qapi.Scalar(word):
                return self._builtin(_BUILTIN[word])
            case qapi.Enum(values):
                return self._new(
                    kind, {"meta-type": "enum", "members": [{"name": v} for v in values], "values": [*values]}
                )
            case qapi.ListOf(of):
                element = self.type(of)
                return self._new(f"[{element}]", {"meta-type": "array", "element-type": element}, f"[{element}]")
            case qapi.Struct(members):
                return self._object(members)
            case qapi.Union():
                return self._union(kind)
            case qapi.Reference(to, null):
                return self._reference(to, null=null)

    def _builtin(self, name: str) -> str:
        return self._new(name, {"meta-type": "builtin", "json-type": _JSON[name]}, name)

    def _object(self, members: qapi.Members, **more: Any) -> str:
        return self._new(id(members), {"meta-type": "object", **more}, members=members)

    def _union(self, kind: qapi.Union) -> str:
        variants = [
            {
                "case": case,
                "type": self._object({"data": qapi.Struct(branch)}) if kind.inner else self._object(branch),
            }
            for case, branch in kind.branches.items()
        ]
        return self._new(id(kind), {"meta-type": "object", "tag": kind.tag, "variants": variants}, members=kind.base)

    def _reference(self, to: str, *, null: bool) -> str:
        if (known := self._known.get((to, null))) is not None:
            return known
        name = self._known[to, null] = str(len(self._known))
        choices = [{"type": self.type(qapi.DEFINITIONS[to])}, {"type": self._builtin("str")}]
        choices += [{"type": self._builtin("null")}] * null
        self.entities.append({"name": name, "meta-type": "alternate", "members": choices})
        return name

    def _new(self, key: Any, entity: Mapping[str, Any], name: str = "", members: qapi.Members | None = None) -> str:
        if (known := self._known.get(key)) is not None:
            return known
        if members is not None:
            self._kept.append(members)
        name = self._known[key] = name or str(len(self._known))
        shown = {"name": name, **entity}
        if members is not None:
            shown["members"] = [
                {"name": m.lstrip("*"), "type": self.type(k), **({"default": None} if m.startswith("*") else {})}
                for m, k in members.items()
            ]
        self.entities.append(shown)
        return name


def describe_schema(commands: Mapping[str, qapi.Members | qapi.Union]) -> list[dict[str, Any]]:
    """Every command, event and type."""
    schema = Schema()
    for name, arguments in commands.items():
        schema.command(name, arguments)
    for name, fields in FIELDS.items():
        schema.event(name, fields)
    return schema.entities
