"""Bytes to messages and back: JSON objects one behind the other, however they were cut into lines.

The texts are those of QEMU's JSON parser where it has one for the mistake.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from blockjobs.qmp.errors import QmpError

LONGEST: Final = 64 << 10  # bytes of one message
_STRUCTURE: Final = re.compile(rb'["\n{}\[\]]')
_IN_STRING: Final = re.compile(rb'["\\\n]')
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_TEXTS: Final = {  # of Python's parser -> of QEMU's
    "Expecting ':' delimiter": "missing : in object pair",
    "Expecting ',' delimiter": "expected separator",
    "Illegal trailing comma before end of object": "expecting value",
    "Illegal trailing comma before end of array": "expecting value",
    "Unterminated string starting at": "a string goes over the end of a line",
    "Invalid control character at": "a string goes over the end of a line",
}


class Splitter:
    """Cuts a stream of bytes into messages by their brackets; what stands outside of any ends with its line."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._at = self._depth = 0
        self._quoted = self._too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The messages that ``data`` completes; None for one that is longer than ``LONGEST``."""
        self._text += data
        while True:
            found = (_IN_STRING if self._quoted else _STRUCTURE).search(self._text, self._at)
            if found is None:
                self._at = len(self._text)
                break
            self._at = found.end()
            if found[0] == b"\\":
                self._at += 1
                if self._at > len(self._text):
                    self._at = found.start()  # its other half is still to come
                    break
            elif self._ends(found[0]):
                yield from self._cut()
        if len(self._text) > LONGEST:
            self._too_long = True
            self._text.clear()
            self._at = 0

    def _ends(self, mark: bytes) -> bool:
        """Whether a message ends behind ``mark``."""
        if mark == b"\n":
            broken = self._quoted  # no string goes over the end of a line: begin anew
            if broken or self._too_long:
                self._quoted, self._depth = False, 0
            return self._depth == 0
        if mark == b'"':
            self._quoted = not self._quoted
            return False
        self._depth += 1 if mark in b"{[" else -1
        if self._depth <= 0:
            self._depth = 0
            return True
        return False

    def _cut(self) -> Iterator[bytes | None]:
        text = bytes(self._text[: self._at]).strip()
        del self._text[: self._at]
        self._at = 0
        if self._too_long or len(text) > LONGEST:
            self._too_long = False
            yield None
        elif text:
            yield text


def decode(text: bytes | None) -> Any:
    """The value of one message.

    Raises:
        QmpError: what is wrong with it.
    """
    if text is None:
        raise QmpError(f"JSON token size limit exceeded: a message of at most {LONGEST} bytes was expected")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as wrong:
        raise QmpError(f"JSON parse error, invalid UTF-8 sequence in byte {wrong.start}") from None
    except UnicodeEncodeError:
        raise QmpError("JSON parse error, half of a surrogate pair is not a character") from None
    except json.JSONDecodeError as wrong:
        raise QmpError(f"JSON parse error, {_why(wrong)}") from None
    except RecursionError:
        raise QmpError("JSON nesting depth limit exceeded") from None
    except ValueError as wrong:  # an integer of thousands of digits
        raise QmpError(f"JSON parse error, {wrong}") from None
    return value


def encode(message: dict[str, Any]) -> bytes:
    """One message, a line."""
    return json.dumps(message, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\r\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise QmpError("JSON parse error, duplicate key")
    return value


def _constant(word: str) -> Any:
    raise QmpError(f"JSON parse error, invalid keyword '{word}'")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise QmpError(f"JSON parse error, the number {text[:40]} is too large")
    return value


def _why(wrong: json.JSONDecodeError) -> str:
    word = _WORD.match(wrong.doc, wrong.pos)
    if wrong.msg == "Expecting value" and word:
        return f"invalid keyword '{word[0][:60]}'"
    if wrong.msg == "Expecting property name enclosed in double quotes":
        ends = wrong.doc[wrong.pos : wrong.pos + 1] in ("}", ",")
        return "expecting value" if ends else "key is not a string in object"
    return _TEXTS.get(wrong.msg, wrong.msg[:1].lower() + wrong.msg[1:])


def request(message: Any) -> tuple[str, Any]:
    """The command of a request and its arguments, not looked into yet.

    Raises:
        QmpError: it is none.
    """
    if not isinstance(message, dict):
        raise QmpError("QMP input must be a JSON object")
    for member, value in message.items():
        match member:
            case "execute" if not isinstance(value, str):
                raise QmpError("QMP input member 'execute' must be a string")
            case "arguments" if not isinstance(value, dict):
                raise QmpError("QMP input member 'arguments' must be an object")
            case "execute" | "arguments" | "id":
                pass
            case _:
                raise QmpError(f"QMP input member '{member[:200]}' is unexpected")
    if "execute" not in message:
        raise QmpError("QMP input lacks member 'execute'")
    return message["execute"], message.get("arguments", {})
