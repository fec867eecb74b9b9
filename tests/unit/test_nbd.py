"""Replies of an NBD server that are not what was asked for: each breaks the connection, and none is believed."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress

import pytest

from blockworker.volumes.nbd import CONTEXTS, Connection, NbdError, NbdServerGone

MIB = 1 << 20


def option(number, kind, text=b""):
    return struct.pack(">QIII", 0x3E889045565A9, number, kind, len(text)) + text


def context(number, name):
    return option(10, 4, struct.pack(">I", number) + name.encode())


GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
OFFERED = b"".join(context(number, name) for number, name in enumerate(CONTEXTS, 1)) + option(10, 1)
EXPORT = option(7, 3, struct.pack(">HQH", 0, MIB, 1)) + option(7, 1)
BEGUN = GREETING + option(8, 1) + OFFERED + EXPORT


@contextmanager
def server(*replies):
    """A client's socket to a server that says these bytes, whatever it is told, and then nothing more."""
    ours, theirs = socket.socketpair()

    def say():
        with theirs, suppress(OSError):
            for reply in replies:
                theirs.sendall(reply)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(4096):
                pass

    thread = threading.Thread(target=say)
    thread.start()
    ours.settimeout(10)
    with ours:
        yield ours
    thread.join()


def chunk(kind, text=b"", *, handle=1, done=True, magic=0x668E33EF, length=None):
    return struct.pack(">IHHQI", magic, int(done), kind, handle, len(text) if length is None else length) + text


def data(at, text, *, done=True):
    return chunk(1, struct.pack(">Q", at) + text, done=done)


def runs(number, *values, done=True):
    return chunk(5, struct.pack(">I", number) + b"".join(struct.pack(">II", n, v) for n, v in values), done=done)


def simple(code=0, handle=1):
    return struct.pack(">IIQ", 0x67446698, code, handle)


READS = {
    "less than was asked": data(0, b"Y" * 1000),
    "the middle is missing": data(0, b"Y" * 1000, done=False) + data(2000, b"Y" * 2096),
    "nothing": chunk(0),
    "a simple answer": simple() + b"Y" * 4096,
    "twice the same": data(0, b"Y" * 4096, done=False) + data(0, b"Z" * 4096),
    "an overlap": data(0, b"Y" * 3000, done=False) + data(2999, b"Z" * 1097),
    "a hole over data": data(0, b"Y" * 4096, done=False) + chunk(2, struct.pack(">QI", 0, 512)),
    "beyond the end": data(0, b"Y" * 5000),
    "before the beginning": data(-4096 & (1 << 64) - 1, b"Y" * 4096),
    "no bytes": data(0, b"", done=False) + data(0, b"Y" * 4096),
    "an empty hole": chunk(2, struct.pack(">QI", 0, 0), done=False) + data(0, b"Y" * 4096),
    "a hole with more behind it": chunk(2, struct.pack(">QI", 0, 4096) + b"more"),
    "an answer about what is allocated": runs(1, (4096, 0)),
    "another handle": chunk(1, struct.pack(">Q", 0) + b"Y" * 4096, handle=7),
    "another magic": chunk(1, magic=0x12345678),
    "an error of two bytes": chunk(0x8001, b"\0\5"),
    "an error of a gigabyte": chunk(0x8001, length=1 << 30),
    "nothing, with content": chunk(0, b"Y" * 8),
    "nothing, and no end": chunk(0, done=False) + data(0, b"Y" * 4096),
}
STATUSES = {
    "one context of two": runs(1, (4096, 0)),
    "the other one": runs(2, (4096, 1)),
    "one of them twice": runs(1, (4096, 0), done=False) + runs(1, (4096, 0)),
    "an unknown context": runs(1, (4096, 0), done=False) + runs(9, (4096, 0)),
    "no runs": chunk(5, struct.pack(">I", 1), done=False) + runs(2, (4096, 1)),
    "no context": chunk(5, b"", done=False) + runs(2, (4096, 1)),
    "half a run": chunk(5, struct.pack(">III", 1, 4096, 0) + b"\0" * 4, done=False) + runs(2, (4096, 1)),
    "a run of no bytes": runs(1, (0, 0), (4096, 0), done=False) + runs(2, (4096, 1)),
    "more than was asked": runs(1, (4096, 0), done=False) + runs(2, (8192, 1)),
    "data": data(0, b"Y" * 4096),
    "nothing": chunk(0),
    "a simple answer": simple(),
}
BEGINNINGS = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "the old style": b"NBDMAGICIHAVEOPT" + struct.pack(">H", 0),
    "a context without a number": GREETING + option(8, 1) + option(10, 4, b"\1") + option(10, 1) + EXPORT,
    "a context that is no text": GREETING + option(8, 1) + option(10, 4, b"\0\0\0\1\xff\xfe") + option(10, 1) + EXPORT,
    "one context": GREETING + option(8, 1) + context(1, CONTEXTS[0]) + option(10, 1) + EXPORT,
    "a size of four bytes": GREETING + option(8, 1) + OFFERED + option(7, 3, b"\0\0\0\0\0\1") + option(7, 1),
    "a size below zero": GREETING + option(8, 1) + OFFERED + option(7, 3, b"\0\0" + b"\xff" * 10) + option(7, 1),
    "an answer to another option": GREETING + option(3, 1),
    "an answer without an end": GREETING + struct.pack(">QIII", 0x3E889045565A9, 8, 1, 1 << 31),
}


@pytest.mark.parametrize("reply", READS.values(), ids=READS)
def test_a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one(reply):
    with server(BEGUN, reply) as sock:
        connection = Connection(sock)
        with pytest.raises(NbdServerGone) as first:
            connection.read(memoryview(bytearray(4096)), 0)
        for again in (lambda: connection.states(0, 4096), connection.flush, lambda: connection.zero(0, 512)):
            with pytest.raises(NbdServerGone) as next_:
                again()
            assert next_.value is first.value, "what comes behind a broken reply is not listened to"


@pytest.mark.parametrize("reply", STATUSES.values(), ids=STATUSES)
def test_an_answer_about_what_is_allocated_covers_what_it_is_about(reply):
    with server(BEGUN, reply) as sock, pytest.raises(NbdServerGone):
        Connection(sock).states(0, 4096)


@pytest.mark.parametrize("said", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_server_that_begins_wrongly_is_not_talked_to(said):
    with server(said) as sock, pytest.raises(NbdServerGone):
        Connection(sock)


def test_what_a_server_tells_of_less_than_was_asked_is_asked_for_again():
    answer = runs(1, (1024, 0), (3072, 2), done=False) + runs(2, (2048, 1))
    with server(BEGUN, answer) as sock:
        assert Connection(sock).states(0, 4096) == [(0, 1024, True, 1), (1024, 1024, False, 1)]


def test_a_refusal_in_good_order_breaks_nothing():
    refusal = chunk(0x8001, struct.pack(">IH", 5, 0))
    with server(BEGUN, refusal, chunk(1, struct.pack(">Q", 0) + b"Y" * 512, handle=2)) as sock:
        connection = Connection(sock)
        with pytest.raises(NbdError) as failed:
            connection.read(memoryview(bytearray(512)), 0)
        assert not isinstance(failed.value, NbdServerGone)
        view = bytearray(512)
        connection.read(memoryview(view), 0)
        assert view == b"Y" * 512
