"""Every command that a document shows is one that the command line takes; where a sentence names one, that is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from blockjobs.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"^(?:    +)?(?:[$#] )?(?:sudo )?blockjobs ([^\n]*(?:\\\n[^\n]*)*)", re.M)  # on a line of its own
NAMED = re.compile(r"`blockjobs ([^`]+)`")


def words_of(line: str) -> list[str]:
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    end = next((at for at, word in enumerate(words) if word in ("|", "&&", "||", ">") or word.endswith(";")), None)
    return words[:end]


def wrong_with(words: list[str], *, whole: bool) -> str:
    """Why the command line does not take these words, "" where it does; not ``whole``: arguments may be missing."""
    command: click.Command = main.cli
    context = click.Context(command, info_name="blockjobs")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no such command: {words[0]}"
        command, context, words = found, click.Context(found, parent=context), words[1:]
    known = {each for param in command.get_params(context) for each in (*param.opts, *param.secondary_opts)}
    for option in (word.strip("[].").partition("=")[0] for word in words):
        if option.startswith("-") and option not in known:
            return f"no such option: {option}"
    try:
        if whole:
            command.parse_args(context, words)
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_command_line_takes_what_a_document_shows(document):
    text = document.read_text(encoding="utf-8")
    shown = [(words_of(line), True) for line in SHOWN.findall(text)]
    named = [(words_of(line), False) for line in NAMED.findall(" ".join(text.split()))]
    assert [(words, why) for words, whole in (*shown, *named) if (why := wrong_with(words, whole=whole))] == []


@pytest.mark.parametrize("line", ["frobnicate", "sweep --dry", "resolve --beside", "registry accept-loss x"])
def test_the_control_is_not_taken(line):
    assert SHOWN.findall(f"text\n\n    blockjobs {line}\n") == [line]
    assert wrong_with(words_of(line), whole=True)
