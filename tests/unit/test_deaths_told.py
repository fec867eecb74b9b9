"""How a process died, and where its log is, in words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from blockjobs.process.spawn import describe_end

SAID = {
    -signal.SIGKILL: "killed by SIGKILL", -signal.SIGSEGV: "killed by SIGSEGV", -63: "killed by signal 63",
    3: "ended with exit code 3", 0: "ended with exit code 0",
}  # fmt: skip


@pytest.mark.parametrize(("code", "words"), SAID.items())
def test_the_end_of_a_process_is_said_by_its_signal_or_its_exit_code(code, words):
    assert describe_end(code) == words


def find_log(stderr, **environment):
    """What a process with this standard error says of its log."""
    program = "from blockworker.attempt.deaths import find_log; print(find_log())"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=stderr, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def test_the_log_is_a_file_a_unit_s_journal_or_nobody_knows_where(tmp_path):
    with (tmp_path / "copy.log").open("wb") as log:
        assert find_log(log) == str(tmp_path / "copy.log")
    assert find_log(subprocess.PIPE) == find_log(subprocess.DEVNULL) == ""
    assert find_log(subprocess.PIPE, JOURNAL_STREAM="8:1").startswith("journalctl")
