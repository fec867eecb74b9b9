"""stdout and stderr of a command, robust against full disks, closed descriptors, gone readers and odd encodings.

Only the printed text suffers from these faults.  stderr drops unwritable text.  An unwritable stdout ends the command,
because most commands exist for the output, unless the command has called ``bear_lost_output`` to go on with more
important work.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Final, TextIO

import click

STDOUT: Final = 1
STDERR: Final = 2


class OutputLost(Exception):
    """stdout cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"stdout cannot be written: {error.strerror}")
        self.errno = error.errno


class Outlet(io.RawIOBase):
    """A writer to a descriptor that drops data after a failure.  ``required``: raises OutputLost, once."""

    def __init__(self, fd: int, *, required: bool, closed: bool) -> None:
        self.required = required
        self.name = ("stdout", "stderr")[fd == STDERR]
        self._fd = fd
        self._error = OSError(errno.EBADF, os.strerror(errno.EBADF)) if closed else None
        self._told = False

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # TextIOWrapper gives nothing but bytes
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another process with this open file made it non-blocking
                select.select((), (self._fd,), ())
            except OSError as error:
                self._error = error
        if rest and self._error is not None and not self._told:
            self._told = True
            self._tell(OutputLost(self._error))
        return len(data)

    def _tell(self, lost: OutputLost) -> None:
        if self.required:
            raise lost
        if self._fd == STDOUT:
            click.echo(f"blockjobs: {lost}; nothing more is printed there", err=True)


def open_outlets() -> None:
    """Let this process write to stdout and stderr by outlets; to be called before anything is opened."""
    closed = {STDOUT: sys.stdout is None, STDERR: sys.stderr is None}
    for fd in (0, STDOUT, STDERR):  # a free descriptor would be the next file's or socket's
        try:
            os.fstat(fd)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - the system's signature
    sys.stdout = _text_stream(sys.stdout, Outlet(STDOUT, required=True, closed=closed[STDOUT]))
    sys.stderr = _text_stream(sys.stderr, Outlet(STDERR, required=False, closed=closed[STDERR]))


def _text_stream(before: TextIO | None, outlet: Outlet) -> io.TextIOWrapper:
    """A text stream in the encoding of ``before``; a character missing in the encoding is written as ``\\u2026``."""
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(outlet, encoding, "backslashreplace", line_buffering=True)


def bear_lost_output() -> None:
    """Let this command go on to a normal end, even with an unwritable stdout."""
    outlet = getattr(sys.stdout, "buffer", None)
    if isinstance(outlet, Outlet):
        outlet.required = False


def flush_output() -> None:
    """Write the buffered output; raises OutputLost."""
    if sys.stdout is not None:
        sys.stdout.flush()
