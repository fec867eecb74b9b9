"""Freeze the sources, and thaw them in every case: a separate process that outlives the process that started it.

    python freezer.py '{"argv": [...], "paths": [...], "limit": 10, "patience": 60}'

The process uses the standard library only and is run by its path.  The process calls the command with ``freeze``,
prints ``frozen``, and then waits for a byte or the end of standard input (the end: the starter is dead), or for the
end of ``limit``, and calls ``thaw``.  Lines on standard output:

    frozen
    failed CODE STDERR                of the freeze (CODE "-": the freeze took too long); thaw was called as well
    thawed SECONDS                    thawed on request
    late SECONDS                      ``limit`` passed before the request
    stuck CODE STDERR                 no thaw succeeded
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

CALL = 60.0  # seconds that a thaw may take
TRIES = 3  # number of thaws, a second apart
DEATH = 2.0  # seconds to wait for a killed freeze before the thaw; a call stuck in the kernel takes longer


class FreezeCall:
    """A call of the command with a single word, in a separate process group: a kill ends the command's children too."""

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
        """Wait for the exit code, 127 if the start failed; None after ``seconds``, or once ``until`` is readable."""
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
        report_to_worker("frozen")
        frozen, left = time.monotonic(), limit - (time.monotonic() - began)
        asked = select.select([0], [], [], None if left == float("inf") else max(0.0, left))[0]
        word, failure = ("thawed" if asked else "late"), thaw_sources(argv, paths)
        report_to_worker(f"stuck {failure}" if failure else f"{word} {time.monotonic() - frozen:.6f}")
        return
    why = freeze.told(code)
    freeze.kill()
    gone = freeze.wait(DEATH) is not None
    failure = thaw_sources(argv, paths)
    if not gone:  # the freeze is stuck in the kernel: when the call returns, the source is frozen after all
        freeze.wait(float("inf"))
        failure = thaw_sources(argv, paths)
    report_to_worker(f"stuck {failure}" if failure else f"failed {why}")


def thaw_sources(argv: list[str], paths: list[str]) -> str:
    """Thaw the sources; "" or the reason for failure."""
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


def report_to_worker(text: str) -> None:
    with contextlib.suppress(OSError):  # the reader is gone
        os.write(1, text.encode(errors="replace") + b"\n")


if __name__ == "__main__":
    # A service manager that ends the starter may signal this process too: thaw first, end afterwards.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # no SIG_IGN: the commands would inherit the ignored signals
    _child, _tell = os.pipe()
    os.set_blocking(_child, False)
    os.set_blocking(_tell, False)
    signal.set_wakeup_fd(_tell, warn_on_full_buffer=False)
    main()
