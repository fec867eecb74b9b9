"""The exit codes of the commands: the single table, shown in docs/unattended.md."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """The exit code of a command."""

    ALL = 0
    FAILED = 1
    REFUSED = 2
    NO_REDIS = 3
    PARTIAL = 4
    TIMED_OUT = 5
    GONE = 6
    LOST_SIGHT = 7
    FAULT = 70  # as sysexits.h has it
    OUTPUT_LOST = 74  # as sysexits.h has it
    INTERRUPTED = 130  # the exit codes of a shell for SIGINT, SIGPIPE and SIGTERM
    READER_GONE = 141
    TERMINATED = 143


SUCCESS, FAILURE = "success", "failure"

# code: (meaning, class for systemd)
MEANINGS: Final[Mapping[Exit, tuple[str, str]]] = {
    Exit.ALL: ("every job committed; of other commands: done", SUCCESS),
    Exit.FAILED: (
        "a job failed or was cancelled, or a transaction aborted; of other commands: something is not in order",
        FAILURE,
    ),
    Exit.REFUSED: (
        "refused: the file is wrong, a host is away, a volume is in use; nothing was started or changed", FAILURE,
    ),
    Exit.NO_REDIS: (
        "Redis does not answer, refuses, or would lose what it acknowledges; nothing was started", FAILURE,
    ),
    Exit.PARTIAL: (
        "partly committed, accepted by the run file (`succeed-if`, `offline: skip`); or replaced by a later start",
        f"{SUCCESS} (`SuccessExitStatus=4`)",
    ),
    Exit.TIMED_OUT: ("the time of `--timeout` passed before the awaited end", FAILURE),
    Exit.GONE: ("the run is gone from the registry, and its outcome is unknown", FAILURE),
    Exit.LOST_SIGHT: (
        "Redis was away for longer than `--patience`: the run goes on, or the message says that this is not known",
        FAILURE,
    ),
    Exit.FAULT: ("a fault in blockjobs itself, with a traceback; a run that was started goes on", FAILURE),
    Exit.OUTPUT_LOST: (
        "what a command had to print could not be written to stdout (a full disk, a closed descriptor)", FAILURE,
    ),
    Exit.INTERRUPTED: ("Ctrl-C: detached; the run goes on", FAILURE),
    Exit.READER_GONE: ("whoever read stdout went away (a broken pipe)", FAILURE),
    Exit.TERMINATED: ("SIGTERM: detached; the run goes on", f"{SUCCESS} (`SuccessExitStatus=143`)"),
}  # fmt: skip
