"""The table of exit codes is one: that of the code, which the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path

from blockjobs.model.exits import MEANINGS, Exit

DOC = Path(__file__).parents[2] / "docs" / "unattended.md"


def test_the_documented_exit_codes_are_those_of_the_code():
    section = DOC.read_text(encoding="utf-8").partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert [(int(code), (means, systemd)) for code, means, systemd in rows] == [*MEANINGS.items()]


def test_every_exit_code_has_its_meaning():
    assert [*MEANINGS] == [*Exit]
