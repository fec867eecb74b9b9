"""The figures and file names of docs/operating.md are those of the code.

What the figures do is shown by the tests of the parts; here nothing but that a reader is told the right ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from blockjobs.ask import checkup as fleet_checkup
from blockjobs.ask import probe
from blockjobs.cli import gather
from blockjobs.daemons import coordinator, finalizer, remembered, rollcall, silence
from blockjobs.model import clock as steady_clock
from blockjobs.process import quarantine
from blockjobs.registry import attempts, attention, clock, codec, hosts
from blockjobs.settings import DAY, Settings
from blockworker.attempt import control, farewell
from blockworker.host import machine, mounts, ownership, state
from blockworker.host.config import STATE, HostConfig
from blockworker.questions import checkup, strays
from blockworker.records import folder, highest_decision, journal, owed
from blockworker.steps import board, cut, lanes
from blockworker.system import processname, threads
from blockworker.watch import abandoned, heartbeat, pulse, watcher

TEXT = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
WORDS = {0.5: "half a second", 2: "two", 3: "three", 8: "eight", 10: "ten"}
HOURS = f"{coordinator.UNCERTAIN / 3600:.0f} h"
OPEN, CUT, PREPARE = [f"{finalizer.DEADLINES[step]:g}" for step in ("open", "cut", "prepare")]
DEFAULT = HostConfig(name="h", read_roots=(), write_roots=())  # type: ignore[arg-type]
SETTINGS = Settings.model_construct()
with pytest.raises(ValueError, match="format version") as UNREADABLE:
    codec.unpack_value(b"\x02")

SENTENCES = {
    "a copy without Redis": f"copies go on for up to {attempts.LEASE - control.MARGIN:g} s, then stand still",
    "down": f"the host counts as down after {rollcall.HOST_LEASE:g} s",
    "records": f"the records of the newest {fleet_checkup.RUNS} runs and of all jobs that are not over",
    "asked": f"is asked directly, for at most {WORDS[checkup.LIMIT]} seconds",
    "deadlines": f"OPEN, CUT and PREPARE have deadlines ({OPEN}, {CUT} and {PREPARE} s)",
    "watcher": f"notices the death within {WORDS[watcher.LOOK]} ({WORDS[watcher.IDLE]}, if",
    "idle": f"or `{processname.IDLE}`",
    "named": f"`{processname.PREFIX}` and the beginning of the attempt's uuid",
    "lease": f"no checkpoint for {attempts.LEASE:g} s; the coordinator orders a fence",
    "lost in a row": f"{WORDS[attempts.POISON].capitalize()} attempts lost in a row without new durable data",
    "one worker": f"A host with a worker that did not beat for {rollcall.HOST_LEASE:g} s is down",
    "beats": f"Both workers of a host beat, once in {WORDS[heartbeat.INTERVAL]} seconds",
    "stands still": f"without a checkpoint for {attempts.LEASE:g} s, stands still by itself",
    "deaf": f"as the last line of the log and exit code {threads.SOFTWARE},",
    "a message to itself": f"no message was taken for {pulse.LOOK:g} s and a process is free",
    "its end": f"one in {pulse.LOOK:g} s, and ends when none of these messages was taken for {pulse.PATIENCE:g} s",
    "a step again": f"sent again: a message for a step after {finalizer.RING_AGAIN:g} s,",
    "a copy again": f"a message for a copy after {coordinator.DOORBELL_LOST // 1000} s.",
    "machine": f"(`{machine.NAME}` in its state directory)",
    "takeover": f"stood still for {heartbeat.TAKEOVER:g} s under the eyes of the new machine",
    "jump": f"a difference of {clock.JUMP // 1000} s or more is a jump",
    "off": f"is off by {WORDS[steady_clock.UNWATCHED // 1000]} seconds at most",
    "unwatched": f"the steady clock stands still after {WORDS[steady_clock.UNWATCHED // 1000]} seconds",
    "uncertain": f"Nothing is forgotten for {HOURS} after a jump, nor for {HOURS} after a day without a coordinator",
    "absence": f"after an absence of more than {silence.GAP:g} s every host has its whole time again",
    "pauses": f"that grow from {quarantine.FIRST:g} s to {quarantine.LONGEST / 60:g} minutes",
    "parts": f"after {quarantine.LONGEST_OF_A_PART:g} s at most",
    "most aside": f"of at most {hosts.MOST_ASIDE} a daemon or host",
    "lanes": f"A lane has at most {WORDS[board.WIDTH]} errands under way.",
    "a file system": f"A file system on which {WORDS[board.WIDTH]} errands hang gets no more",
    "errands": f"At most {WORDS[board.MOST]} errands are under way at once on a host",
    "slots": f"A host with {DEFAULT.slots} slots has at most {2 * DEFAULT.slots} processes that copy",
    "cut": f"is given up after {cut.LIMIT:g} s",
    "hangs": f"A call that has lasted for {WORDS[lanes.PATIENCE]} seconds is said to hang",
    "questions": f"A question of QMP and of `move` is answered in its {WORDS[probe.PATIENCE]} seconds,",
    "questions of a run file": f"one of `plan` and `run` in its {gather.PATIENCE:g};",
    "no deadline": "RUN has none." * ("run" not in finalizer.DEADLINES) or "?",
    "farewell": f"(a call that lasts for {control.HANGS_AFTER:g} s): the worker ends {farewell.LAST_COPIES:g} s after",
    "highest": f"the registry's identity, in `{highest_decision.NAME}` of its",
    "decisions": f"in `{remembered.NAME}` of the directory `--state`",
    "state": f"by default `{STATE}/NAME`",
    "records of a host": f"the records lie in `{state.FOLDER}` beneath the first write root",
    "roots": f"| `{mounts.NAME}` | the file system of each write root",
    "owed": f"| `{owed.NAME}` | transactions with an abort",
    "strays": "the file is older than a day," * (strays.AGE == 24 * 3600) or "?",
    "few": f"a transaction with more than {['', '', '', '', 'four'][journal.FEW]} jobs beneath the root",
    "made": f"`{folder.MADE_DIRS}/` has a note for each directory",
    "tombstones": "in the folder `settled` for seven days" * (abandoned.TOMBSTONE == 7 * 24 * 3600) or "?",
    "tombstones kept": f"| tombstones in `ROOT/.blockjobs/{folder.SETTLED}/`, a small file a transaction | 7 days |",
    "closed": "or within the hour" * (watcher.SWEEP == 3600) or "?",
    "mode": f"belong to the worker's user and have mode {DEFAULT.backup_mode:04o}.",
    "directories": f"may search its directory ({ownership.mode_of_directories(0o640):04o} for 0640)",
    "runs": f"| {SETTINGS.keep_runs_days} days; its figures longer, while a rule of `keep` keeps a backup of it |",
    "runs by": f"`BLOCKJOBS_KEEP_RUNS_DAYS={SETTINGS.keep_runs_days}`",
    "events": f"| events | {SETTINGS.keep_events_days} days; longer, while",
    "events by": f"`BLOCKJOBS_KEEP_EVENTS_DAYS={SETTINGS.keep_events_days}`",
    "unreadable": f"db1-data cannot be read: {UNREADABLE.value}, and is left out",
    "notices": f"| notices of a refused start or an overdue name | {attention.KEPT // DAY} days |",
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_document_gives_the_figure_that_the_code_has(sentence):
    assert SENTENCES[sentence] in " ".join(TEXT.split())
