"""NBD, the client's side: one connection to an export, one request at a time; fixed newstyle, structured replies.

Facts: the protocol's own document, ``doc/proto.md`` of the NBD project.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from blockworker.volumes.extents import RangeSet

CONTEXTS: Final = ("base:allocation", "qemu:allocation-depth")
LARGEST: Final = 1 << 30  # bytes of one request without data

_MAGIC, _HAVE_OPTION, _OPTION_REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_GO, _STRUCTURED, _SET_CONTEXT = 7, 8, 10  # options
_ACK, _INFO, _CONTEXT, _ERROR = 1, 3, 4, 1 << 31  # replies to options
_REQUEST, _SIMPLE, _CHUNK = 0x25609513, 0x67446698, 0x668E33EF
_READ, _WRITE, _DISCONNECT, _FLUSH, _ZERO, _STATUS = 0, 1, 2, 3, 6, 7
_DONE, _NONE, _DATA, _HOLE, _STATES, _FAILED = 1, 0, 1, 2, 5, 1 << 15  # chunks; errors have the highest bit
_LONGEST: Final = 1 << 16  # bytes of a text or of an option's answer
_MOST_STATES: Final = 1 << 24  # bytes of an answer about allocation
_ZERO_STATE: Final = 2  # flag of base:allocation: reads as zeros


class NbdError(Exception):
    """The server refused a request; ``errno`` is Linux's, as NBD uses the same numbers."""

    def __init__(self, code: int, text: str = "") -> None:
        self.errno, self.text = code, text or os.strerror(code)
        super().__init__(self.text)


class NbdServerGone(NbdError):
    """The connection broke, or the server does not speak NBD; no further request is possible."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


class NbdState(NamedTuple):
    """A range of the export: whether it has to be read, and the layer of its bytes (1: the top; 0: none)."""

    start: int
    length: int
    data: bool
    depth: int


class Connection:
    """One connection; owns the socket. For one thread at a time.

    A reply that does not match its request exactly breaks the connection: later bytes could be misread. From then on
    every request raises the same ``NbdServerGone``.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Connect to the export. Raises NbdServerGone: the server did not complete the handshake."""
        self._sock = sock
        self._contexts: dict[int, str] = {}
        self._handle = 0
        self._refused = -1  # the last refused request
        self.broken: NbdServerGone | None = None
        with self._unbroken():
            self.size = self._negotiate()

    # --- requests -----------------------------------------------------------------------------------------

    def read(self, view: memoryview, offset: int) -> None:
        """Fill ``view``."""
        filled = RangeSet()
        with self._unbroken():
            self._send(_READ, offset, len(view))
            for kind, length in self._chunks():
                if kind == _DATA and length > 8:
                    at, n = struct.unpack(">Q", self._receive(8))[0] - offset, length - 8
                    self._into(_chunk_view(view, at, n, filled))
                elif kind == _HOLE and length == 12:
                    at, n = struct.unpack(">QI", self._receive(12))
                    at -= offset
                    _chunk_view(view, at, n, filled)[:] = bytes(n)
                else:
                    raise NbdServerGone(f"an unexpected chunk {kind} of {length} bytes")
                filled.add(at, at + n)
            if not filled.covers(0, len(view)):
                raise NbdServerGone(f"the server sent {filled.total()} of the {len(view)} bytes that were asked for")

    def write(self, view: memoryview, offset: int) -> None:
        with self._unbroken():
            self._send(_WRITE, offset, len(view), view)
            self._expect_done()

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, as a hole if the server can."""
        for start in range(offset, offset + length, LARGEST):
            with self._unbroken():
                self._send(_ZERO, start, min(LARGEST, offset + length - start))
                self._expect_done()

    def flush(self) -> None:
        """Make durable every write answered before, on any connection."""
        with self._unbroken():
            self._send(_FLUSH, 0, 0)
            self._expect_done()

    def states(self, start: int, length: int) -> list[NbdState]:
        """The states of the range, in order and without gaps, from ``start`` on as far as one answer goes."""
        with self._unbroken():
            found = self._status(start, min(length, LARGEST))
        known = min(sum(n for n, _ in runs) for runs in found.values())
        states = []
        for n, flags, depth in _merge_descriptions(found[CONTEXTS[0]], found[CONTEXTS[1]], known):
            states.append(NbdState(start, n, not flags & _ZERO_STATE, depth))
            start += n
        return states

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """One exchange with the server. Raises NbdServerGone, also for any fault caused in the parser."""
        if self.broken is not None:
            raise self.broken
        try:
            yield
        except NbdServerGone as gone:
            self.broken = gone
            raise
        except NbdError:
            raise  # refused in good order
        except OSError as broken:
            self.broken = _server_gone_error(broken)
            raise self.broken from None
        except (struct.error, ValueError, LookupError) as nonsense:
            self.broken = NbdServerGone(f"the server sent something that is not NBD: {nonsense}")
            raise self.broken from nonsense
        except BaseException:
            self.broken = NbdServerGone("an exchange with the server was broken off")
            raise

    def close(self) -> None:
        """Disconnect; the server ends with its last connection."""
        try:
            with suppress(NbdServerGone), self._unbroken():
                self._send(_DISCONNECT, 0, 0)
        finally:
            self._sock.close()

    # --- beginning ----------------------------------------------------------------------------------------

    def _negotiate(self) -> int:
        """Choose the export without a name; return its size in bytes."""
        if self._receive(8) != _MAGIC or self._receive(8) != _HAVE_OPTION:
            raise NbdServerGone("not an NBD server")
        flags = struct.unpack(">H", self._receive(2))[0]
        if not flags & _FIXED_NEWSTYLE:
            raise NbdServerGone("the server does not speak the fixed newstyle of NBD")
        self._sock.sendall(struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
        for _ in self._option(_STRUCTURED, b""):
            pass
        names = b"".join(struct.pack(">I", len(name)) + name.encode() for name in CONTEXTS)
        for kind, text in self._option(_SET_CONTEXT, struct.pack(">II", 0, len(CONTEXTS)) + names):
            if kind == _CONTEXT:
                self._contexts[struct.unpack(">I", text[:4])[0]] = text[4:].decode()
        size = -1
        for kind, text in self._option(_GO, struct.pack(">IH", 0, 0)):
            if kind == _INFO and text[:2] == b"\0\0":
                size = struct.unpack(">Q", text[2:10])[0]
        if not 0 <= size < 1 << 63 or sorted(self._contexts.values()) != sorted(CONTEXTS):
            raise NbdServerGone("the server does not offer what is needed")
        return int(size)

    def _option(self, option: int, text: bytes) -> Iterator[tuple[int, bytes]]:
        """The replies to an option, without the last."""
        self._sock.sendall(_HAVE_OPTION + struct.pack(">II", option, len(text)) + text)
        while True:
            magic, answered, kind, length = struct.unpack(">QIII", self._receive(20))
            if magic != _OPTION_REPLY or answered != option or length > _LONGEST:
                raise NbdServerGone("a reply to something that was not asked")
            said = self._receive(length)
            if kind & _ERROR:
                raise NbdServerGone(said.decode(errors="replace") or f"option {option} was refused")
            if kind == _ACK:
                return
            yield kind, said

    # --- requests and replies -----------------------------------------------------------------------------

    def _send(self, command: int, offset: int, length: int, data: memoryview | None = None) -> None:
        self._handle += 1
        self._sock.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, self._handle, offset, length))
        if data is not None:
            self._sock.sendall(data)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Kind and length of every chunk of a reply; the caller receives the content.

        Raises:
            NbdError: the server's refusal, after the last chunk.
        """
        failed: NbdError | None = None
        while True:
            magic = struct.unpack(">I", self._receive(4))[0]
            if magic == _SIMPLE:
                code, handle = struct.unpack(">IQ", self._receive(12))
                flags, kind, length = _DONE, _NONE, 0
                failed = NbdError(code) if code else failed
            else:
                flags, kind, handle, length = struct.unpack(">HHQI", self._receive(16))
            if magic == _CHUNK and handle == self._refused and length <= _LONGEST:
                self._receive(length)  # QEMU ends a refused request once for every requested context
                continue
            if magic not in (_SIMPLE, _CHUNK) or handle != self._handle:
                raise NbdServerGone("a reply to something that was not asked")
            if kind & _FAILED:
                if not 6 <= length <= _LONGEST:
                    raise NbdServerGone(f"an error of {length} bytes")
                code = struct.unpack(">IH", self._receive(6))[0]
                self._receive(length - 6)  # the error text, and perhaps an offset
                failed = failed or NbdError(code or errno.EIO)
            elif kind != _NONE:
                yield kind, length
            elif length or not flags & _DONE:
                raise NbdServerGone("a chunk of nothing that is not the last one")
            if flags & _DONE:
                if failed is not None:
                    self._refused = handle
                    raise failed
                return

    def _expect_done(self) -> None:
        for kind, _ in self._chunks():
            raise NbdServerGone(f"an unexpected chunk {kind}")

    def _status(self, start: int, length: int) -> dict[str, list[tuple[int, int]]]:
        """By context: runs of ``(length, value)`` from ``start`` on; no run is empty."""
        found: dict[str, list[tuple[int, int]]] = {}
        self._send(_STATUS, start, length)
        for kind, size in self._chunks():
            if kind != _STATES or not 12 <= size <= _MOST_STATES or size % 8 != 4:
                raise NbdServerGone(f"an unexpected chunk {kind} of {size} bytes")
            text = self._receive(size)
            name = self._contexts.get(struct.unpack(">I", text[:4])[0], "")
            runs = [(n, value) for n, value in struct.iter_unpack(">II", text[4:])]
            if not name or name in found:
                raise NbdServerGone("the server tells of something that was not asked")
            if min(n for n, _ in runs) == 0 or sum(n for n, _ in runs) > length:
                raise NbdServerGone("the server tells of ranges that were not asked for")
            found[name] = runs
        if len(found) != len(CONTEXTS):
            raise NbdServerGone("the server does not tell what is allocated")
        return found

    def _receive(self, n: int) -> bytes:
        text = bytearray(n)
        self._into(memoryview(text))
        return bytes(text)

    def _into(self, view: memoryview) -> None:
        while view:
            got = self._sock.recv_into(view)
            if not got:
                raise NbdServerGone("the server is gone")
            view = view[got:]


def _server_gone_error(broken: OSError) -> NbdServerGone:
    if isinstance(broken, TimeoutError):
        return NbdServerGone("the server did not answer in time")
    return NbdServerGone(broken.strerror or str(broken))


def _chunk_view(view: memoryview, start: int, length: int, filled: RangeSet) -> memoryview:
    """The part of ``view`` for a chunk. Raises NbdServerGone: the chunk is outside the request, or was sent before."""
    if length <= 0 or start < 0 or start + length > len(view) or filled.meets(start, start + length):
        raise NbdServerGone("data that was not asked for")
    return view[start : start + length]


def _merge_descriptions(
    allocation: list[tuple[int, int]], depths: list[tuple[int, int]], length: int
) -> Iterator[tuple[int, int, int]]:
    """Two descriptions of one range merged: ``(length, flags, depth)``, over exactly ``length`` bytes."""
    ones, others = iter(allocation), iter(depths)
    (left, flags), (right, depth) = next(ones), next(others)
    while length:
        n = min(left, right, length)
        yield n, flags, depth
        left, right, length = left - n, right - n, length - n
        if length and not left:
            left, flags = next(ones)
        if length and not right:
            right, depth = next(others)
