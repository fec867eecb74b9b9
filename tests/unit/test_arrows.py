"""Who may import whom: the data plane knows the control plane, never the reverse; the model knows nobody."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTROL = ROOT / "coordinator" / "blockjobs"
DATA = ROOT / "workers" / "blockworker"

ALLOWED = {  # room of blockjobs -> the rooms and loose files of blockjobs that it may import (itself is understood)
    "model":   set(),
    "registry":   {"model"},
    "process": {"registry"},
    "notify":  {"model", "process"},
    "broker":  {"model", "registry"},
    "ask":     {"model", "registry", "process", "broker"},
    "client":  {"model", "registry", "ask", "settings"},
    "daemons": {"model", "registry", "process", "notify", "broker", "ask"},
    "qmp":     {"model", "registry", "process", "client"},
    "settings": {"model", "registry"},
    "server":  {"model", "process"},
}  # fmt: skip
# Rooms of blockworker, from the ground up: each imports from those before it only.  ``app`` is the one loose file.
ROOMS = (
    "system", "host", "records", "volumes", "copy", "cuts", "targets", "drivers", "attempt", "questions", "watch",
    "steps", "app", "commands",
)  # fmt: skip
PURE = ("redis", "celery", "kombu", "click", "rich", "psutil", "subprocess", "socket", "time", "random")


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or later; ``from a import b`` counts as ``a`` and ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def folders(path: Path) -> set[str]:
    """The rooms and loose files of blockjobs that a file imports from."""
    known = {each.stem for each in CONTROL.iterdir()}
    parts = [name.split(".") for name in imports(path)]
    return {name[1] for name in parts if name[0] == "blockjobs" and len(name) > 1 and name[1] in known}


def files_of(plane: Path, room: str) -> list[Path]:
    """The files of a room, or a loose file; at least one."""
    found = [*(plane / room).rglob("*.py"), *plane.glob(f"{room}.py")]
    assert found, f"{room} is neither a room nor a file"
    return found


def test_the_control_plane_does_not_know_the_data_plane():
    for path in CONTROL.rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "blockworker"], path


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_lies_below_it(folder):
    for path in files_of(CONTROL, folder):
        assert folders(path) <= ALLOWED[folder] | {folder}, path


def test_every_file_of_the_control_plane_has_a_row_but_those_at_the_top():
    known = {each.stem for each in CONTROL.iterdir() if each.suffix == ".py" or (each / "__init__.py").is_file()}
    assert known - {"__init__", "__main__", "cli"} == set(ALLOWED)


def test_only_the_command_line_imports_the_command_line():
    for path in [*CONTROL.rglob("*.py"), *DATA.rglob("*.py")]:
        if not {CONTROL / "cli", DATA / "commands"} & set(path.parents) and path.name != "__main__.py":
            assert not [name for name in imports(path) if f"{name}.".startswith("blockjobs.cli.")], path


def test_no_command_imports_another_command():
    shared = ("@click.command", "@click.group")
    files = [path for path in (CONTROL / "cli").glob("*.py") if any(word in path.read_text() for word in shared)]
    assert len(files) > 30
    commands = {f"blockjobs.cli.{path.stem}" for path in files}
    for path in files:
        assert not imports(path) & commands, path


def test_the_model_has_no_input_no_output_and_no_clock():
    for path in (CONTROL / "model").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] in PURE], path


def rooms(path: Path) -> set[str]:
    """The rooms of blockworker that a file imports from."""
    parts = [name.split(".") for name in imports(path)]
    return {name[1] for name in parts if name[0] == "blockworker" and len(name) > 1}


def test_every_file_of_the_data_plane_lies_in_a_room():
    packages = {path.name for path in DATA.iterdir() if (path / "__init__.py").is_file()}
    assert packages == set(ROOMS) - {"app"}
    assert {path.name for path in DATA.glob("*.py")} == {"__init__.py", "app.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_data_plane_imports_nothing_upward(room):
    below = set(ROOMS[: ROOMS.index(room) + 1])
    for path in files_of(DATA, room):
        assert rooms(path) <= below, path


def test_the_data_plane_takes_of_the_control_plane_what_both_have_in_common():
    for path in DATA.rglob("*.py"):
        if DATA / "commands" not in path.parents:  # which are commands of one command line
            assert folders(path) <= {"model", "registry", "process", "broker", "settings"}, path


def strings(path: Path) -> list[str]:
    """Every text of a file's code, parts of formatted ones included."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_only_one_file_spells_the_keys_of_the_registry():
    titles = DATA / "system" / "processname.py"  # of processes, which have the same beginning
    spelling = {path for path in [*CONTROL.rglob("*.py"), *DATA.rglob("*.py")]
                if any(text.startswith("bj:") for text in strings(path))}  # fmt: skip
    assert spelling - {titles} == {CONTROL / "registry" / "keys.py"}


def test_both_planes_were_looked_at():
    assert (CONTROL / "model" / "jobs.py").is_file()
    assert (DATA / "__init__.py").is_file()
