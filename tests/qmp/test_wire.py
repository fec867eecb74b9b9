"""Bytes to messages: however they are cut, whatever they are, a mistake costs one clear error and no connection."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talk import Plain

from blockjobs.qmp import wire
from blockjobs.qmp.errors import QmpError

WRONG = {  # as QEMU 7.2 answers, but for the last five
    b"foo": "JSON parse error, invalid keyword 'foo'",
    b"}": "JSON parse error, expecting value",
    b'{"a": tru}': "JSON parse error, invalid keyword 'tru'",
    b'{"execute" "query-jobs"}': "JSON parse error, missing : in object pair",
    b'{"execute": "query-jobs",}': "JSON parse error, expecting value",
    b'{1: 2}': "JSON parse error, key is not a string in object",
    b'{"a": 1, "a": 2}': "JSON parse error, duplicate key",
    b"[1]": "QMP input must be a JSON object",
    b"1": "QMP input must be a JSON object",
    b'"x"': "QMP input must be a JSON object",
    b"{}": "QMP input lacks member 'execute'",
    b'{"execute": 1}': "QMP input member 'execute' must be a string",
    b'{"execute": "query-jobs", "arguments": 1}': "QMP input member 'arguments' must be an object",
    b'{"execute": "query-jobs", "x": 1}': "QMP input member 'x' is unexpected",
    b'{"exec-oob": "query-jobs"}': "QMP input member 'exec-oob' is unexpected",
    b'"\x80"': "JSON parse error, invalid UTF-8 sequence in byte 1",
    b"\xff": r"JSON parse error, stray '\xff'",
    b'{"execute": "query-\x01': r"JSON parse error, stray '\x01'",
    b"[" * 1025: "JSON nesting depth limit exceeded",
    b'{"a": "b': "JSON parse error, a string goes over the end of a line",
    b"[" * 5000 + b"]" * 5000: "JSON nesting depth limit exceeded",
    b'{"execute": "\\ud800"}': "JSON parse error, half of a surrogate pair is not a character",
    b'{"id": 1e999}': "JSON parse error, the number 1e999 is too large",
    b'{"execute": "a' + b"x" * wire.LONGEST + b'"}':
        "JSON token size limit exceeded: a message of at most 65536 bytes was expected",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:20].decode(errors="replace"))
def test_what_is_no_request_is_refused_with_a_reason_and_the_next_one_is_answered(face, text):
    with Plain(face.path) as plain:
        assert plain.say(text) == {"error": {"class": "GenericError", "desc": WRONG[text]}}
        assert plain.say(b'{"execute": "query-jobs", "id": 7}') == {"return": [], "id": 7}


@pytest.mark.parametrize("before", [b"", b"foo", b'{"a": "b', b"[" * 2000, b"[{", b'"x\\', b'"' + b"x" * 70_000])
def test_behind_a_byte_that_no_message_has_everything_begins_anew(before):
    splitter = wire.Splitter()
    *wrong, last = splitter.feed(before + b"\xff" + b'{"execute": "query-jobs"}')
    assert wire.decode_message(last) == {"execute": "query-jobs"}
    assert isinstance(wrong[-1], QmpError)


def test_a_client_is_greeted_and_has_to_negotiate_first(face):
    with Plain(face.path, negotiate=False) as plain:
        assert plain.greeting["QMP"]["capabilities"] == []
        assert set(plain.greeting["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}
        assert plain.say(b'{"execute": "query-jobs", "id": "x"}') == {
            "error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"},
            "id": "x",
        }
        text = plain.say(b'{"execute": "qmp_capabilities", "arguments": {"enable": ["bogus"]}}')["error"]["desc"]
        assert text == "Parameter 'null' does not accept value 'bogus'"
        assert plain.say(b'{"execute": "qmp_capabilities"}') == {"return": {}}
        assert plain.say(b'{"execute": "qmp_capabilities"}')["error"] == {
            "class": "CommandNotFound",
            "desc": "Capabilities negotiation is already complete, command ignored",
        }


def test_any_id_comes_back_as_it_was(face):
    with Plain(face.path) as plain:
        for id_ in (None, True, 1.5, "x", [1, {"a": None}], {"é": "ü"}):
            request = json.dumps({"id": id_, "execute": "query-jobs"}).encode()
            assert plain.say(request) == {"return": [], "id": id_}
            assert plain.say(json.dumps({"id": id_, "execute": "no"}).encode())["id"] == id_


def test_only_its_owner_may_come_to_the_socket(face):
    assert face.path.stat().st_mode & 0o777 == 0o600


OBJECTS = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers() | st.lists(st.text(max_size=3))),
    min_size=1,
    max_size=5,
)


@given(objects=OBJECTS, data=st.data(), newline=st.sampled_from(["", "\n", "\r\n", " "]))
def test_messages_are_the_same_however_their_bytes_arrive(objects, data, newline):
    text = newline.join(json.dumps(each, indent=data.draw(st.none() | st.just(1))) for each in objects).encode() + b"\n"
    splitter = wire.Splitter()
    found = []
    while text:
        size = data.draw(st.integers(1, 40))
        found += list(splitter.feed(text[:size]))
        text = text[size:]
    assert [wire.decode_message(each) for each in found] == objects


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b'{"a":', b'"', b"}", b"\n", b"[", b"\\", b"1"]), max_size=20)
)
def test_no_bytes_break_the_splitter_nor_the_parser(pieces):
    splitter = wire.Splitter()
    for text in [each for piece in pieces for each in splitter.feed(piece)]:
        with suppress(QmpError):
            wire.decode_message(text)
