"""What a clean installation brings: every module that is imported belongs to a package that pyproject.toml names."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = {"blockjobs": ROOT / "coordinator", "blockworker": ROOT / "workers"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_EXTRAS = {  # the only modules that import what an extra brings -> the extra
    "blockjobs.server": "embedded",
    "blockjobs.cli.dashboard": "flower",
    "blockjobs.notify.by_apprise": "notify",
}


def declared(lines):
    return {canonicalize_name(Requirement(line).name) for line in lines}


ALWAYS = declared(PROJECT["dependencies"])
EXTRAS = {name: declared(lines) for name, lines in PROJECT["optional-dependencies"].items() if name != "dev"}
BRINGS = metadata.packages_distributions()  # module -> the distributions that have it


def foreign(text):
    """The top-level modules that a text imports, at its top or later, and that are neither Python's nor ours."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(PACKAGES)


def undeclared(module, text):
    """The modules that a text imports and no declared dependency has."""
    allowed = ALWAYS | EXTRAS.get(OF_EXTRAS.get(module, ""), set())
    return {name for name in foreign(text) if not allowed & {canonicalize_name(each) for each in BRINGS.get(name, ())}}


def modules():
    for root in PACKAGES.values():
        for path in sorted(root.rglob("*.py")):
            yield ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"), path.read_text()


def test_every_import_is_of_a_package_that_is_declared():
    assert {module: missing for module, text in modules() if (missing := undeclared(module, text))} == {}


@pytest.mark.parametrize(
    ("module", "text"),
    [("blockjobs.registry.codec", "import pytest"),
     ("blockworker.app", "def later():\n    from packaging import version"),
     ("blockjobs.cli.up", "import flower.app"), ("blockjobs.cli.dashboard", "import apprise"),
     ("blockjobs.notify.by_apprise", "import no_such_module")],
)  # fmt: skip
def test_the_control_names_what_a_clean_installation_has_not(module, text):
    assert undeclared(module, text) == foreign(text) != set()


def test_every_dependency_is_imported_and_has_its_reason():
    """``hiredis`` and ``redis`` of kombu come as extras of what is imported."""
    imported = {canonicalize_name(each) for _, text in modules() for name in foreign(text) for each in BRINGS[name]}
    assert ALWAYS | set().union(*EXTRAS.values()) <= imported
    reasons = (
        (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2].replace("ruamel.yaml", "ruamel-yaml")
    )
    assert [name for name in sorted(ALWAYS | set().union(*EXTRAS.values())) if name not in reasons] == []
