"""A program at a terminal of its own: type a line, read what it shows until it prompts again."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final

DEADLINE: Final = 30.0
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x07\r]")


class Terminal:
    def __init__(self, number: int, prompts: Sequence[str]) -> None:
        self._number = number
        self._prompts = tuple(prompts)

    def type(self, text: str) -> None:
        os.write(self._number, text.encode())

    def until(self, *ends: str) -> str:
        """What is shown up to one of these endings, or up to a prompt."""
        shown, deadline = "", monotonic() + DEADLINE
        while not shown.endswith(ends or self._prompts):
            left = deadline - monotonic()
            assert left > 0, f"neither of {ends or self._prompts} after {shown!r}"
            if select.select([self._number], [], [], left)[0]:
                shown += _ESCAPES.sub("", os.read(self._number, 65536).decode())
        return shown


@contextmanager
def terminal(argv: Sequence[str], prompts: Sequence[str], home: str) -> Iterator[Terminal]:
    """The program, on a terminal that is wide and dumb; ended with the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
    env = os.environ | {"HOME": home, "TERM": "dumb", "INPUTRC": os.devnull, "COLUMNS": "4000"}
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    try:
        yield Terminal(ours, prompts)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
