"""The effect of an I/O error on a job: QEMU's ``block_job_error_action``, without its side effects."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from blockjobs.model.jobs import IoStatus, OnError
from blockworker.system.kernel import NO_SPACE


class Action(StrEnum):
    """The words of BLOCK_JOB_ERROR."""

    REPORT = "report"
    IGNORE = "ignore"
    STOP = "stop"


def action_on_error(policy: OnError, code: int) -> tuple[Action, IoStatus]:
    """The action for the error ``code`` (a positive errno), and the io-status of a stopped job."""
    status = IoStatus.NOSPACE if code in NO_SPACE else IoStatus.FAILED
    match policy:
        case OnError.REPORT | OnError.SKIP:  # ``action_on_error`` is never called for skipped errors
            return Action.REPORT, status
        case OnError.IGNORE:
            return Action.IGNORE, status
        case OnError.STOP:
            return Action.STOP, status
        case OnError.ENOSPC | OnError.AUTO:
            return (Action.STOP if code in NO_SPACE else Action.REPORT), status
        case _:
            assert_never(policy)
