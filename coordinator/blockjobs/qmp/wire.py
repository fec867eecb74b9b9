"""Bytes to messages and back: a sequence of JSON objects, however split into lines.

The error texts are the texts of QEMU's JSON parser, if QEMU has a text for the mistake.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from blockjobs.qmp.errors import QmpError

LONGEST: Final = 64 << 10  # bytes of a message
DEEPEST: Final = 1024  # nested arrays and objects
# The significant bytes outside of a string, and in a string.  A byte that JSON does not allow (a control character,
# 0xFE, 0xFF) begins everything anew: a client that has lost track of its own output sends such a byte, and waits for
# the error.
_STRUCTURE: Final = re.compile(rb'["\n{}\[\]\x00-\x08\x0b\x0c\x0e-\x1f\x7f\xfe\xff]')
_IN_STRING: Final = re.compile(rb'["\\\x00-\x1f\xfe\xff]')
_BEHIND_STRAY: Final = re.compile(rb'["{}\[\]:,\x00-\x1f\xfe\xff]')  # the end of the bytes skipped after a stray byte
_TOO_LONG: Final = f"JSON token size limit exceeded: a message of at most {LONGEST} bytes was expected"
_TOO_DEEP: Final = "JSON nesting depth limit exceeded"
_ENDLESS: Final = "JSON parse error, a string goes over the end of a line"
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
    """Cut a stream of bytes into messages by their brackets; text outside of brackets ends with its line."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._at = self._depth = 0
        self._quoted = self._passing = False
        self._fault = ""  # error of the text being read, reported at its end

    def feed(self, data: bytes) -> Iterator[bytes | QmpError]:
        """The messages that ``data`` completes; an error in place of each malformed message."""
        self._text += data
        while mark := self._next_mark():
            yield from self._take(mark)
        if len(self._text) > LONGEST:
            self._spoil(_TOO_LONG)

    def _next_mark(self) -> bytes:
        """The next significant byte, now passed; empty while more bytes are needed."""
        if self._passing:
            behind = _BEHIND_STRAY.search(self._text)
            del self._text[: len(self._text) if behind is None else behind.start()]
            self._passing = behind is None
        while found := (_IN_STRING if self._quoted else _STRUCTURE).search(self._text, self._at):
            self._at = found.end()
            if found[0] != b"\\":
                return bytes(found[0])
            if self._at == len(self._text):  # the escaped character is still to come
                self._at = found.start()
                return b""
            self._at += self._text[self._at] in b'\\"'
        self._at = len(self._text)
        return b""

    def _take(self, mark: bytes) -> Iterator[bytes | QmpError]:
        if mark == b'"':
            self._quoted = not self._quoted
        elif mark == b"\n" and not self._quoted:
            if not self._depth or self._fault:
                yield from self._cut()
        elif mark in b"{[":
            if not self._depth:
                yield from self._cut(1)
            self._depth += 1
            if self._depth > DEEPEST:
                self._spoil(_TOO_DEEP)
        elif mark in b"}]":
            self._depth -= 1
            if self._depth <= 0:
                yield from self._cut()
        else:
            yield from self._stray(mark)

    def _stray(self, mark: bytes) -> Iterator[bytes | QmpError]:
        """Begin anew after a byte that JSON does not allow."""
        if not self._depth and not self._quoted:
            yield from self._cut(1)
        yield QmpError(self._fault or (_ENDLESS if mark == b"\n" else f"JSON parse error, stray '\\x{mark.hex()}'"))
        del self._text[: self._at]
        self._at = self._depth = 0
        self._quoted, self._passing, self._fault = False, True, ""

    def _spoil(self, why: str) -> None:
        """Mark the text being read as no message: only its end matters."""
        self._fault = why
        del self._text[: self._at]
        self._at = 0

    def _cut(self, behind: int = 0) -> Iterator[bytes | QmpError]:
        """Take the text read, without the last ``behind`` bytes, as a message."""
        end = self._at - behind
        text = bytes(self._text[:end]).strip()
        del self._text[:end]
        self._at, self._depth = behind, 0
        if fault := self._fault or (_TOO_LONG if len(text) > LONGEST else ""):
            self._fault = ""
            yield QmpError(fault)
        elif text:
            yield text


def decode_message(text: bytes | QmpError) -> Any:
    """The value of a message.

    Raises:
        QmpError: the message is malformed; the text says how.
    """
    if isinstance(text, QmpError):
        raise text
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_object_of_pairs,
            parse_constant=_refuse_constant,
            parse_float=_finite_number,
        )
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as wrong:
        raise QmpError(f"JSON parse error, invalid UTF-8 sequence in byte {wrong.start}") from None
    except UnicodeEncodeError:
        raise QmpError("JSON parse error, half of a surrogate pair is not a character") from None
    except json.JSONDecodeError as wrong:
        raise QmpError(f"JSON parse error, {_parse_error_text(wrong)}") from None
    except RecursionError:
        raise QmpError(_TOO_DEEP) from None
    except ValueError as wrong:  # an integer of thousands of digits
        raise QmpError(f"JSON parse error, {wrong}") from None
    return value


def encode_message(message: dict[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\r\n"


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise QmpError("JSON parse error, duplicate key")
    return value


def _refuse_constant(word: str) -> Any:
    raise QmpError(f"JSON parse error, invalid keyword '{word}'")


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise QmpError(f"JSON parse error, the number {text[:40]} is too large")
    return value


def _parse_error_text(wrong: json.JSONDecodeError) -> str:
    word = _WORD.match(wrong.doc, wrong.pos)
    if wrong.msg == "Expecting value" and word:
        return f"invalid keyword '{word[0][:60]}'"
    if wrong.msg == "Expecting property name enclosed in double quotes":
        ends = wrong.doc[wrong.pos : wrong.pos + 1] in ("}", ",")
        return "expecting value" if ends else "key is not a string in object"
    return _TEXTS.get(wrong.msg, wrong.msg[:1].lower() + wrong.msg[1:])


def parse_request(message: Any) -> tuple[str, Any]:
    """The command of a request, and its unchecked arguments.

    Raises:
        QmpError: the message is no request.
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
