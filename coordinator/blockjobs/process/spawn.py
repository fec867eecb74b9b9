"""Starting a child process that neither hears our Ctrl-C nor outlives us, and taking in the children of a dead one."""

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


def spawn(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own, its output appended to ``log``.

    The kernel sends it SIGTERM when the *thread* that called this ends, however it ends.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what a supervisor blocks, its children must hear
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above: nobody is left to send the signal
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
    """The end of a process in words: by which signal (a negative code), or with which exit code."""
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"


def end_with_parent() -> None:
    """Called by a child, early: it is to end when the thread that started it does."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def adopt_orphans(*, wanted: bool) -> None:
    """Have descendants whose parent dies become our children (or, again, those of init)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
