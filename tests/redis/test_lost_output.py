"""A stdout that is full, closed, left or of an odd encoding changes nothing about a run, its follower and their end."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import run_command
from puppets import ALPHA, RUN, spec
from test_exit_codes import BACKUP, carry_out, meanwhile

from blockjobs.model.exits import Exit
from blockjobs.registry.connection import connect_client

pytestmark = pytest.mark.durable

LOST = {
    "full": "stdout cannot be written: No space left on device; nothing more is printed there",
    "closed": "stdout cannot be written: Bad file descriptor; nothing more is printed there",
    "without a reader": "stdout cannot be written: Broken pipe; nothing more is printed there",
    "in Latin-1": "",
}
FOLLOWERS = {"run": BACKUP, "run --json": (*BACKUP, "--json"), "wait": ("wait", "j"),
             "status --watch": ("status", "--watch", RUN)}  # fmt: skip


@pytest.mark.parametrize(("follower", "errno"), [*((each, 0) for each in FOLLOWERS), ("run", 5)])
@pytest.mark.parametrize("stdout", LOST)
def test_a_follower_follows_to_the_end_and_ends_as_its_run_does(stdout, follower, errno, server, fleet):
    fleet.registry.hosts.judge(ALPHA, "up")
    words = FOLLOWERS[follower]
    job = "mine" if "mine" in words else "j"
    if job == "j":
        fleet.submit(spec("j"))
    with meanwhile(lambda: carry_out(fleet, job, errno=errno)):
        ended = run_command(*words, url=server.url, stdout=stdout)
    assert fleet.status(job) == "concluded"
    wanted = Exit.ALL if follower == "status --watch" or not errno else Exit.FAILED
    assert (ended.returncode, "Traceback" in ended.stderr) == (wanted, False), ended.stderr
    assert ended.stderr.count("stdout cannot be written") <= 1
    if errno == 0 and follower != "status --watch":  # else it may have had nothing to say
        assert LOST[stdout] in ended.stderr


CODES = {"full": Exit.OUTPUT_LOST, "closed": Exit.OUTPUT_LOST, "without a reader": Exit.READER_GONE,
         "in Latin-1": Exit.ALL}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "stdout"),
    [
        *((words, stdout) for words in (("events",), ("show", RUN, "--json")) for stdout in CODES),
        (("history",), "full"),
    ],
)
def test_a_command_that_only_prints_says_when_nobody_could_read_it(words, stdout, server, fleet):
    code = CODES[stdout]
    fleet.registry.hosts.judge(ALPHA, "up")
    fleet.submit(spec("j"))
    ended = run_command(*words, url=server.url, stdout=stdout)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
    assert (ended.stderr.count("\n") == 1) is (code == Exit.OUTPUT_LOST)


def test_a_verb_takes_effect_on_all_of_its_jobs_whoever_reads_what_it_prints(server, fleet):
    fleet.submit(spec("j"), spec("k"))
    ended = run_command("pause", "j", "k", url=server.url, stdout="full")
    assert (ended.returncode, fleet.registry.views.job("k").paused) == (Exit.ALL, True)


@pytest.mark.parametrize(("encoding", "written"), [("ascii", b"\xe2\x80\xa6"), ("latin-1", b"\\u2026")])
def test_a_character_that_the_encoding_lacks_is_written_all_the_same(encoding, written, server, fleet):
    fleet.submit(spec("j"))
    fleet.registry.verbs.pause("j", cause="wait…")
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "blockjobs", "show", "j"], capture_output=True, check=False,
        env={"PYTHONIOENCODING": encoding, "BLOCKJOBS_REDIS_URL": server.url},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"wait" + written in ended.stdout


def test_what_cannot_be_printed_to_a_closed_descriptor_goes_nowhere_else(server, fleet):
    """Descriptor 1 would be the next one to be opened: that of the connection to Redis."""
    fleet.submit(spec("j"))
    script = 'exec "$0" -P -m blockjobs status >&-'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable], capture_output=True, check=False,
        env={"BLOCKJOBS_REDIS_URL": server.url},
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (Exit.OUTPUT_LOST, b"")
    assert ended.stderr == b"blockjobs: stdout cannot be written: Bad file descriptor\n"
    with connect_client(server.url) as client:
        assert client.ping()
