"""What an I/O error does to a job, by its policy: QEMU's table."""

from __future__ import annotations

import errno

import pytest

from blockjobs.model.jobs import OnError
from blockworker.attempt.error_policy import action_on_error


@pytest.mark.parametrize(
    ("policy", "on_eio", "on_enospc"),
    [
        ("report", "report", "report"),
        ("ignore", "ignore", "ignore"),
        ("stop",   "stop",   "stop"),
        ("enospc", "report", "stop"),
        ("auto",   "report", "stop"),
    ],
)  # fmt: skip
def test_each_policy_does_what_qemus_does(policy, on_eio, on_enospc):
    assert action_on_error(OnError(policy), errno.EIO) == (on_eio, "failed")
    assert action_on_error(OnError(policy), errno.ENOSPC) == (on_enospc, "nospace")
    assert action_on_error(OnError(policy), errno.EDQUOT) == (on_enospc, "nospace"), "a quota that is spent"


def test_there_is_no_policy_beside_these():
    assert {str(policy) for policy in OnError} == {"report", "ignore", "enospc", "stop", "auto", "skip"}


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ETIMEDOUT, errno.EFBIG])
def test_only_a_full_device_is_out_of_space(code):
    assert action_on_error(OnError.STOP, code) == ("stop", "failed")
