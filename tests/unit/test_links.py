"""Every link of a document leads to a file that is there, and to one of its headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), ROOT / "deploy" / "README.md", *(ROOT / "docs").rglob("*.md")]


def anchors(document: Path) -> set[str]:
    """The headings of a document, as a link names them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path, text: str) -> list[str]:
    """The links of a text that lead nowhere."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        if not path.startswith(("https:", "http:")) and (
            not target.exists() or (heading and heading not in anchors(target))
        ):
            found.append(link)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    assert broken(document, document.read_text(encoding="utf-8")) == []


def test_the_control_leads_nowhere():
    text = "[a](docs/none.md) [b](README.md#none) [c](README.md) [d](https://example.com/#x)"
    assert broken(ROOT / "README.md", text) == ["docs/none.md", "README.md#none"]
