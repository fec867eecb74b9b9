"""Freeze, and thaw for sure: a process of its own, which outlives whoever started it.

    python freezer.py '{"argv": [...], "paths": [...], "limit": 10}'     standard library only; run by its path

It calls the command with ``freeze`` and says ``frozen``; then it waits for any byte on its standard input, for that to
be closed (whoever started it is dead), or for its time to be over, and calls ``thaw``.  On standard output a line each:

    frozen
    failed CODE STDERR                of the freeze (CODE "-": it took too long); thawed all the same
    thawed SECONDS                    as it was told to
    late SECONDS                      its time was over before it was told to
    stuck CODE STDERR                 no thaw came through
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

CALL = 60.0  # seconds that one thaw may take
TRIES = 3  # thaws, a second apart
DEATH = 2.0  # seconds that a killed freeze is waited for before the thaw; a call stuck in the kernel takes longer


class FreezeCall:
    """The command, called with one word; a process group of its own, so that all of it can be ended."""

    def __init__(self, argv: list[str], word: str, paths: list[str]) -> None:
        self._said = os.memfd_create("said")
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [*argv, word, *paths], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._process = None
            os.write(self._said, (error.strerror or "").encode())

    def wait(self, seconds: float, *, until: int | None = None) -> int | None:
        """Its exit code, 127 for one that never started; None after so long, or once ``until`` can be read."""
        deadline = time.monotonic() + seconds
        while True:
            code = 127 if self._process is None else self._process.poll()
            if code is not None or (left := deadline - time.monotonic()) <= 0:
                return code
            if select.select([_child] + ([until] if until is not None else []), [], [], left)[0] == [until]:
                return None
            with contextlib.suppress(BlockingIOError):
                os.read(_child, 64)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def told(self, code: int | None) -> str:
        lines = os.pread(self._said, 4096, 0).decode(errors="replace").strip().splitlines()
        return f"{'-' if code is None else code} {lines[-1] if lines else ''}"


def main() -> None:
    told = json.loads(sys.argv[1])
    argv, paths, limit = told["argv"], told["paths"], told["limit"] or float("inf")
    began = time.monotonic()
    freeze = FreezeCall(argv, "freeze", paths)
    code = freeze.wait(min(limit, told["patience"]), until=0)
    if code == 0:
        say("frozen")
        frozen, left = time.monotonic(), limit - (time.monotonic() - began)
        asked = select.select([0], [], [], None if left == float("inf") else max(0.0, left))[0]
        word, failure = ("thawed" if asked else "late"), thaw(argv, paths)
        say(f"stuck {failure}" if failure else f"{word} {time.monotonic() - frozen:.6f}")
        return
    why = freeze.told(code)
    freeze.kill()
    gone = freeze.wait(DEATH) is not None
    failure = thaw(argv, paths)
    if not gone:  # stuck in the kernel: once it comes out it has frozen after all
        freeze.wait(float("inf"))
        failure = thaw(argv, paths)
    say(f"stuck {failure}" if failure else f"failed {why}")


def thaw(argv: list[str], paths: list[str]) -> str:
    """Let everything go on; "" or why it could not be."""
    failure = ""
    for left in reversed(range(TRIES)):
        call = FreezeCall(argv, "thaw", paths)
        code = call.wait(CALL)
        if code == 0:
            return ""
        failure = call.told(code)
        call.kill()
        if left:
            time.sleep(1)
    return failure


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, text.encode(errors="replace") + b"\n")


if __name__ == "__main__":
    # Whoever ends our starter may end us with it, as service managers do: not before everything goes on again.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # not ignored: that would be handed on to the commands
    _child, _tell = os.pipe()
    os.set_blocking(_child, False)
    os.set_blocking(_tell, False)
    signal.set_wakeup_fd(_tell, warn_on_full_buffer=False)
    main()
