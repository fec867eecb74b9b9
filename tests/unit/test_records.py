"""The catalogue of the records in Redis has every field that the registry spells, and no field besides."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockjobs.registry import keys
from blockjobs.registry.records import FIELDS, FieldKind, RecordField

REGISTRY = Path(keys.__file__).parent
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((REGISTRY / "lua").glob("*.lua"))}
MODULES = {
    path.name: ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(REGISTRY.glob("*.py"))
    if path.name != "records.py"
}
CATALOGUE = {(row.record, row.field) for row in FIELDS}
RECORDS = {row.record for row in FIELDS}
# Hashes whose fields are ids, names or reasons: no field of theirs is spelled by the code.
BY_NAME = {
    "abandoned", "attempts", "fences", "ids", "left", "lines", "nodes", "sizes", "targets", "terms",
}  # fmt: skip
# Fields that calls get from a variable or a list; the text stands elsewhere in the registry.
BY_VARIABLE = {
    ("tally", "open"), ("tally", "prepare"), ("hosts", "steps:"), ("hosts", "copy:"), ("daemons", "coordinator"),
    ("daemons", "finalizer"), ("holds", "all:"), ("holding", "all:"), ("lifting", "all:"), ("lifting", "drain:"),
}  # fmt: skip

ONE, MANY, PAIRS = ("hget", "hexists", "hsetnx", "hincrby"), ("hmget", "hdel"), ("hset",)
CALL = re.compile(r'redis\.p?call\("(H\w+)", |(?<!function )add_up\(')  # the function of the prelude adds to a field
LITERAL = re.compile(r'"([^"\n]*)"')
# Names of keys in the heads of scripts and of variables in scripts -> record; a key of another name may be any record.
LUA_NAMES = {
    "anchors": "clock_anchors", "the run's notices": "run_notices", "job hash": "job", "share": "tally",
    "txn": "txn", "job": "job", "run": "run", "card": "card", "hosts": "hosts", "names": "names", "holds": "holds",
    "daemons": "daemons", "store": "store", "restart": "restart", "locks": "locks", "texts": "texts",
    "HOSTS": "hosts", "string.format(CARD, host)": "card", "string.format(RUN, waiting)": "run",
    "string.format(TXN, txn)": "txn", "string.format(TXN, of)": "txn", "holding": "holding", "lifting": "lifting",
}  # fmt: skip


def split_arguments(text: str) -> list[str]:
    """The arguments of a call in Lua, from the text behind its opening bracket."""
    depth, quoted, start, found = 1, False, 0, []
    for i, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif not quoted and char in "([{":
            depth += 1
        elif not quoted and char in ")]}":
            depth -= 1
        if not quoted and (depth == 0 or (depth == 1 and char == ",")):
            found.append(" ".join(text[start:i].split()))
            start = i + 1
            if depth == 0:
                return found
    raise AssertionError(f"a call without an end: {text[:60]}")


def keys_of_head(script: str) -> dict[str, str]:
    """The records behind KEYS[n], as far as the comment at the head of a script names them."""
    head = "\n".join(line for line in script.splitlines() if line.startswith("--"))
    rows = re.findall(r"\[(\d+)\] +([a-z']+(?: [a-z']+)*)", head.split("ARGV")[0])
    return {f"KEYS[{n}]": LUA_NAMES[name] for n, name in rows if name in LUA_NAMES}


def pick_fields(command: str, arguments: list[str]) -> list[str]:
    """The arguments of a command that are fields."""
    kind = command.lower()
    if kind in ONE:
        return arguments[:1]
    return arguments if kind in MANY else arguments[::2] if kind in PAIRS else []


def fields_of_script(script: str) -> Iterator[tuple[str, str]]:
    """The fields that a script spells, with their record ("": not clear from the names)."""
    named = LUA_NAMES | keys_of_head(script)
    code = re.sub(r"(?m)(^|\s)--.*$", "", script)
    for call in CALL.finditer(code):
        key, *rest = split_arguments(code[call.end() :])
        for argument in pick_fields(call[1] or "HINCRBY", rest):
            for field in LITERAL.findall(re.sub(r"\b(unpack|format)\(.*", "", argument)):
                if re.search("[a-z]", field):  # else a separator between two variables
                    yield named.get(key, ""), field


def constants_of(tree: ast.Module) -> dict[str, ast.expr]:
    """What a module assigns to names, as far as one expression of literals says it."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return {name: value for name, value in found.items() if isinstance(value, ast.Constant | ast.Tuple | ast.List)}


def literals_of(node: ast.expr, constants: dict[str, ast.expr]) -> list[str]:
    """The fields that an argument in Python spells; of a formatted text, its beginning."""
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name() as name), ast.Constant() as rest, *_]):
            return [start + str(rest.value) for start in literals_of(name, constants)]
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name() as first), *_]):
            return literals_of(first, constants)
        case ast.JoinedStr(values=[first, *_]):
            return literals_of(first, constants)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [text for part in parts for text in literals_of(part, constants)]
        case ast.ListComp(elt=part):
            return literals_of(part, constants)
        case ast.BoolOp(values=[first, *_]):
            return literals_of(first, constants)
        case ast.Name(id=name) if name in constants:
            return literals_of(constants[name], {})
    return []


def fields_of_module(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The fields that a module spells in calls of Redis, with their record ("": not clear from the call)."""
    constants = constants_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        key, *rest = node.args
        match key:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="keys"), attr=record)):
                pass
            case _:
                record = ""
        command = node.func.attr
        picked = rest[:1] if command in (*ONE, *PAIRS) else rest if command in MANY else []
        yield from ((record, text) for argument in picked for text in literals_of(argument, constants))


def is_listed(record: str, field: str) -> bool:
    """Whether the catalogue has a field, by itself or by its family."""
    return any(
        (not record or record == row.record) and (field.startswith(row.field) if row.is_family else field == row.field)
        for row in FIELDS
    )


def found_fields() -> list[tuple[str, str, str]]:
    """Every field that the registry spells: file, record, field."""
    found = [(name, *pair) for name, text in SCRIPTS.items() for pair in fields_of_script(text)]
    return found + [(name, *pair) for name, tree in MODULES.items() for pair in fields_of_module(tree)]


FOUND = found_fields()


def missing_fields(found: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The found fields that the catalogue lacks."""
    return [(name, record, field) for name, record, field in found if not is_listed(record, field)]


def spelled_texts() -> set[str]:
    """Every text of the scripts and modules, whatever it is for."""
    nodes = (node for tree in MODULES.values() for node in ast.walk(tree) if isinstance(node, ast.Constant))
    texts = {node.value for node in nodes if isinstance(node.value, str)}
    return texts | {text for script in SCRIPTS.values() for text in LITERAL.findall(script)}


def is_spelled(row: RecordField) -> bool:
    """Whether a call spells a field of the catalogue, or the text of a field that calls get from a variable."""
    if (row.record, row.field) in BY_VARIABLE:
        return row.field in spelled_texts()
    return any(
        record in ("", row.record) and (field.startswith(row.field) if row.is_family else field == row.field)
        for _, record, field in FOUND
    )


def hashes() -> set[str]:
    """The functions of ``keys`` that name a hash."""
    functions = [node for node in MODULES["keys.py"].body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if (ast.get_docstring(node) or "").startswith("hash")}


def test_every_field_that_a_script_or_a_module_spells_is_in_the_catalogue():
    assert missing_fields(FOUND) == []


def test_the_fields_were_found():
    assert len({(record, field) for _, record, field in FOUND if record}) > 150
    assert len({name for name, _, _ in FOUND if name.endswith(".lua")}) > 40
    assert len({name for name, _, _ in FOUND if name.endswith(".py")}) > 12
    assert RECORDS - {record for _, record, _ in FOUND} == {"lifting"}  # whose fields are reasons, never in parts


def test_every_field_of_the_catalogue_is_spelled_by_the_registry():
    assert [(row.record, row.field) for row in FIELDS if not is_spelled(row)] == []
    assert BY_VARIABLE <= CATALOGUE


def test_a_field_that_the_registry_does_not_spell_is_no_field():
    assert not is_spelled(RecordField("job", "colour", FieldKind.TEXT, (), "A made-up field."))
    assert not is_spelled(RecordField("job", "owner", FieldKind.TEXT, (), "A field of another record."))


@pytest.mark.parametrize(
    "script",
    [
        '-- KEYS[1] job\nredis.call("HSET", KEYS[1], "status", f(1, "x"), "colour", "")',
        'redis.call("HGET", job, "colour")',
        'redis.call("HMGET", unpack(KEYS, 1, 2), "status", "colour")',
        'redis.pcall("HINCRBY", share, "colour:" .. name, 1)',
        'redis.call("HDEL", KEYS[1], "status",\n  "colour")',
        'redis.call("HSETNX", txn, "owner", 1)',  # a field of another record
    ],
)
def test_an_unknown_field_of_a_script_is_found(script: str):
    found = [("made-up.lua", *pair) for pair in fields_of_script(script)]
    assert [field.rstrip(":") for _, _, field in missing_fields(found)] in (["colour"], ["owner"])


@pytest.mark.parametrize(
    "call",
    [
        'pipe.hget(keys.job(host, job), "colour")',
        'pipe.hmget(keys.job(host, job), "status", "colour")',
        'pipe.hmget(keys.job(host, job), ["status", "colour"])',
        'NAMES = ("status", "colour")\npipe.hmget(keys.job(host, job), NAMES)',
        'pipe.hset(keys.hosts(), f"colour{host}", word)',
        'pipe.hdel(keys.card(host), "colour")',
        'pipe.hincrby(keys.store(name), "colour", 1)',
    ],
)
def test_an_unknown_field_of_a_module_is_found(call: str):
    found = [("made_up.py", *pair) for pair in fields_of_module(ast.parse(call))]
    assert [field for _, _, field in missing_fields(found)] == ["colour"]


def test_the_catalogue_has_every_hash_with_named_fields_and_no_field_twice():
    assert hashes() == RECORDS | BY_NAME
    assert not RECORDS & BY_NAME
    assert len(CATALOGUE) == len(FIELDS)


def test_every_row_of_the_catalogue_is_a_sentence_with_a_writer():
    for row in FIELDS:
        assert row.kind in FieldKind
        assert row.writers, row
        assert row.meaning.endswith("."), row
