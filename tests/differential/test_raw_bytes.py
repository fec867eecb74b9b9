"""Bytes on the socket, right and wrong: the original and ours answer them alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import stages
from rawbytes import exchange

HELLO = b'{"execute": "qmp_capabilities"}\n'
COMMAND = b'{"execute": "query-jobs", "id": "it"}\n'
STRAY = [b"\xff", b"\xfe", b"\x00", b"\x01", b"\x1b", b"\x1f", b"\x7f"]  # the last one may stand in a string
BYTES: dict[str, list[bytes]] = {
    "nothing": [],
    "a command before the negotiation": [b'{"execute": "query-jobs", "id": 1}'],
    "an unknown command before the negotiation": [b'{"execute": "bogus"}'],
    "the negotiation": [b'{"execute": "qmp_capabilities", "id": "hello"}'],
    "the negotiation twice": [HELLO, HELLO],
    "a capability that is unknown": [b'{"execute": "qmp_capabilities", "arguments": {"enable": ["bogus"]}}'],
    "capabilities of a wrong type": [b'{"execute": "qmp_capabilities", "arguments": {"enable": "oob"}}'],
    "ids of every kind": [
        HELLO,
        *(b'{"execute": "query-jobs", "id": %s}\n' % kind for kind in (b"1", b'"x"', b"[1]", b'{"a": null}', b"true")),
    ],
    "an id with an error": [HELLO, b'{"execute": "bogus", "id": 7}'],
    "two commands on a line": [HELLO, b'{"execute": "query-jobs"} {"execute": "query-block-jobs"}'],
    "a command on many lines": [HELLO, b'{\n"execute"\n:\n"query-jobs"\n}\n'],
    "arguments that are none": [HELLO, b'{"execute": "query-jobs", "arguments": {}}'],
    "arguments of a wrong type": [HELLO, b'{"execute": "query-jobs", "arguments": []}'],
    "a command of a wrong type": [HELLO, b'{"execute": 1, "id": 3}'],
    "no command": [HELLO, b'{"id": 1}'],
    "an empty object": [HELLO, b"{}"],
    "a member too many": [HELLO, b'{"execute": "query-jobs", "more": 1, "id": 4}'],
    "an array": [HELLO, b"[]"],
    "a number": [HELLO, b"1\n"],
    "a text": [HELLO, b'"text"\n'],
    "a word": [HELLO, b"query-jobs\n"],
    "a missing brace": [HELLO, b'{"execute": "query-jobs"]\n'],
    "a comma too many": [HELLO, b'{"execute": "query-jobs",}'],
    "a key twice": [HELLO, b'{"execute": "query-jobs", "execute": "query-jobs"}'],
    **{f"a stray {byte!r} before a command": [HELLO, byte, COMMAND] for byte in STRAY},
    **{f"a stray {byte!r} in an object": [HELLO, b'{"execute": ', byte, b"\n", COMMAND] for byte in STRAY},
    **{f"a stray {byte!r} in a string": [HELLO, b'{"execute": "query-', byte, b"\n", COMMAND] for byte in STRAY[:-1]},
    "DEL in a string": [HELLO, b'{"execute": "query-jobs", "id": "a\x7fb"}'],
    "a stray byte behind a backslash": [HELLO, b'{"execute": "query-\\\x01', b"\n", COMMAND],
    "a tab in a string": [HELLO, b'{"execute": "query-jobs\t"', b"\n", COMMAND],
    "many stray bytes": [HELLO, b"\xff\xff\x01\x00", COMMAND],
    "a string without an end": [HELLO, b'{"execute": "query-jobs', b"\n", COMMAND],
    "what is passed over behind a stray byte": [HELLO, b'"ab\xffcd', COMMAND],
    "a command behind a word": [HELLO, b"word", COMMAND],
    "a command behind a number": [HELLO, b"1", COMMAND],
    "a command behind a string": [HELLO, b'"text"', COMMAND],
    "a character that is encoded too long": [HELLO, b'{"execute": "query-jobs", "id": "\xc0\xaf"}', COMMAND],
    "a character of a code that was cut off": [HELLO, b'{"execute": "query-jobs", "id": "\xe2\x82"}', COMMAND],
    "half of a surrogate pair": [HELLO, rb'{"execute": "query-jobs", "id": "\ud800"}', COMMAND],
    "half of a surrogate pair as bytes": [HELLO, b'{"execute": "query-jobs", "id": "\xed\xa0\x80"}', COMMAND],
    "a surrogate pair": [HELLO, rb'{"execute": "query-jobs", "id": "\ud83d\ude00"}', COMMAND],
    "an escape that is none": [HELLO, rb'{"execute": "query-jobs", "id": "\x"}', COMMAND],
    "arrays as deep as they may be": [HELLO, b"[" * 900 + b"]" * 900, COMMAND],
    "arrays that are too deep": [HELLO, b"[" * 1025, b"\n", COMMAND],
    "objects that are too deep": [HELLO, b'{"a":' * 1024 + b"{", b"\n", COMMAND],
    "arrays without an end, and a reset": [HELLO, b"[" * 100, b"\xff", COMMAND],
}  # fmt: skip


BROKEN = "JSON"  # parse error, nesting depth limit exceeded, ...


def answers(path: Path, sent: list[bytes]) -> list[Any]:
    """All but the greeting, whose version is the server's own; what is no JSON is told once, in any words."""
    found: list[Any] = []
    for reply in exchange(path, sent)[1:]:
        broken = reply.get("error", {}).get("desc", "").startswith(BROKEN)
        if not broken or BROKEN not in found:
            found.append(BROKEN if broken else reply)
    return found


@pytest.mark.parametrize("name", BYTES)
def test_bytes_are_answered_alike(name: str, their_stage: stages.Stage, our_stage: stages.Stage) -> None:
    assert answers(our_stage.socket, BYTES[name]) == (theirs := answers(their_stage.socket, BYTES[name]))
    if COMMAND in BYTES[name]:
        assert {"return": [], "id": "it"} in theirs


def test_what_only_looks_like_json_is_refused(our_stage: stages.Stage) -> None:
    assert BROKEN in answers(our_stage.socket, [HELLO, b"{'execute': 'query-jobs'}"])


def test_only_the_owner_may_open_the_socket(our_stage: stages.Stage) -> None:
    assert our_stage.socket.stat().st_mode & 0o777 == 0o600
