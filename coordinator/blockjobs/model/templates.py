"""``{run} {date} {time} {host} {name} {store}`` in the paths of a run file: expanded once, at submit, and stored.

``{{`` and ``}}`` stand for the braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from blockjobs.model.errors import BadInput
from blockjobs.model.ids import RunId

WORDS: Final = ("run", "date", "time", "host", "name")
_BELOW: Final = ("image", "file", "backing")  # the keys of a volume with a nested volume
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def template_words(run: RunId, name: str, at: datetime) -> dict[str, str]:
    """The values of the words for one job; times are UTC, as in the run's id.  ``{host}`` is added with the volume."""
    now = at.astimezone(UTC)
    return {"run": run, "name": name, "date": f"{now:%Y-%m-%d}", "time": f"{now:%H%M%SZ}"}


def expand_words(text: str, meaning: Mapping[str, str]) -> str:
    """``text`` with its words replaced.

    Raises:
        BadInput: an unknown word, or a brace alone.
    """

    def replaced(token: re.Match[str]) -> str:
        match token[0]:
            case "{{" | "}}":
                return token[0][0]
            case "{" | "}":
                raise BadInput(f"path '{text}' has a single brace; '{{{{' or '}}}}' was expected for a literal one")
        if token[1] not in meaning:
            known = " ".join(f"{{{word}}}" for word in WORDS)
            raise BadInput(f"unknown word '{token[0]}' in '{text}'; one of {known} was expected")
        return meaning[token[1]]

    return _TOKEN.sub(replaced, text)


def replace_word(value: object, word: str, text: str) -> object:
    """A path or a volume with ``word`` replaced by the literal ``text``, before the expansion of other words."""
    if isinstance(value, str):
        plain = text.replace("{", "{{").replace("}", "}}")
        return _TOKEN.sub(lambda token: plain if token[1] == word else token[0], value)
    if isinstance(value, Mapping):
        inner = {name: replace_word(value[name], word, text) for name in ("filename", *_BELOW) if name in value}
        return {**value, **inner}
    return value


def has_word(value: object, word: str) -> bool:
    """Whether the path of a volume contains a word."""
    return any(token[1] == word for token in _TOKEN.finditer(path_text(value)))


def base_directory(text: str) -> str:
    """The directory that must exist: the longest parent directory of a path without words.

    ``/backup/{run}/root.img`` and ``/backup/data-{date}.img`` both give ``/backup``.
    """
    end = next((token.start() for token in _TOKEN.finditer(text) if token[1] is not None), len(text))
    fixed = expand_words(text[:end], {})
    return fixed.rpartition("/")[0] or "/"


def expand_volume(value: object, meaning: Mapping[str, str], default_host: str | None = None) -> object:
    """A volume as a user writes a volume (``HOST:/PATH`` or keys), with words in file names replaced."""
    if isinstance(value, str):
        host, colon, path = ("", "", value) if value.startswith("/") else value.partition(":")
        return host + colon + expand_words(path, {**meaning, "host": host or default_host or ""})
    if isinstance(value, Mapping):
        return _expand_keys(value, {**meaning, "host": str(value.get("host", default_host or ""))})
    return value


def _expand_keys(keys: Mapping[str, Any], meaning: Mapping[str, str]) -> dict[str, Any]:
    expanded = dict(keys)
    if isinstance(keys.get("filename"), str):
        expanded["filename"] = expand_words(keys["filename"], meaning)
    for name in _BELOW:
        if isinstance(keys.get(name), Mapping):
            expanded[name] = _expand_keys(keys[name], meaning)
    return expanded


def path_text(value: object) -> str:
    """The path of a volume as written, with words; empty for a volume without a path."""
    if isinstance(value, str):
        return value if value.startswith("/") else value.partition(":")[2]
    if isinstance(value, Mapping):
        return str(value.get("filename") or path_text(value.get("image") or value.get("file")))
    return ""
