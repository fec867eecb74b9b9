"""Start of child processes that do not receive Ctrl-C and end with their parent; adoption of orphans."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: a child may not import


def spawn_child(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a new session, with the output appended to ``log``.

    The kernel sends the child SIGTERM when the *thread* that called this function ends, for any reason.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # signals blocked by a supervisor must reach its children
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call above: no signal will come
            os._exit(128 + signal.SIGTERM)

    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - system calls, all safe after a fork
        )


def describe_end(exitcode: int) -> str:
    """The end of a process in words: the signal (for a negative code), or the exit code."""
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"


def end_with_parent() -> None:
    """Have this process end with the thread that started it; to be called early in a child."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def adopt_orphans(*, wanted: bool) -> None:
    """Make orphaned descendants children of this process (or, with False, of init again)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
