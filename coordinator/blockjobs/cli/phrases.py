"""Times, events and names in words for people.  Pure: the clock is passed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from blockjobs.model.cuts import CRASH
from blockjobs.model.hanging import HangingPath
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import replaced_text
from blockjobs.registry.events import Event


def time_of_day(seconds: float, now: float) -> str:
    """A time of day, with the date if it is not today, in this machine's time zone."""
    at, today = (datetime.fromtimestamp(each).astimezone() for each in (seconds, now))
    return f"{at:%H:%M:%S}" if at.date() == today.date() else f"{at:%Y-%m-%d %H:%M:%S}"


def duration_text(seconds: float) -> str:
    """12 -> ``12 s``, 75 -> ``1 min 15 s``, 7300 -> ``2 h 1 min``, 200000 -> ``2 d 7 h``."""
    whole = max(0, int(seconds))
    for (long, unit), (short, below) in zip(
        ((86400, "d"), (3600, "h"), (60, "min")), ((3600, "h"), (60, "min"), (1, "s")), strict=True
    ):
        if whole >= long:
            return f"{whole // long} {unit} {whole % long // short} {below}"
    return f"{whole} s"


def since_text(seconds: float, now: float) -> str:
    """``since 12:01:03 (12 s)``."""
    return f"since {time_of_day(seconds, now)} ({duration_text(now - seconds)})"


def hanging_path_text(each: HangingPath, now: float) -> str:
    """``/backup hangs since 14:03 (2 min): OPEN of transaction ...``."""
    return f"{each.path} hangs {since_text(each.since, now)}" + (f": {each.about}" if each.about else "")


def speed_text(limit: int) -> str:
    return f"{size_text(limit)}/s" if limit else "no limit"


def short_duration_text(seconds: float) -> str:
    """``0.8 ms``, ``12 ms``, ``1.3 s``."""
    if seconds < 1:
        return f"{1000 * seconds:.{1 if seconds < 0.01 else 0}f} ms"
    return f"{seconds:.1f} s"


def counted_noun(number: int, noun: str, nouns: str = "") -> str:
    """``1 job``, ``8 jobs``; ``nouns``: an irregular plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or f'{noun}s'}"


def name_within_run(job_id: str, run_id: str) -> str:
    """A job's name within its run."""
    return job_id.removeprefix(f"{run_id}.")


def event_line(event: Event, now: float) -> str:
    """An event as one line."""
    return f"{time_of_day(event.at, now)} {event.id}: {event_sentence(event)}"


def event_sentence(event: Event) -> str:
    """The sentence for an event, without its subject (the job, the run, the transaction or the host)."""
    told = SENTENCES.get(event.name)
    if told is None:
        return " ".join([event.name, *(f"{name}={value}" for name, value in event.fields.items())])
    return told(event.fields)


CRASHED: Final = "QEMU has it open for writing and nothing was quiesced: the cut is what a power cut would have left"


def _status_sentence(f: Mapping[str, str]) -> str:
    return f"{f['from']} -> {f['status']}"


def _hold_sentence(f: Mapping[str, str]) -> str:
    return f"held by {f['reason']}" + (f": {f['cause']}" if f.get("cause") else "")


def _cut_sentence(f: Mapping[str, str]) -> str:
    frozen = float(f["frozen"])
    stood = f", the source was frozen for {short_duration_text(frozen)}" if frozen else ""
    said = f"its source is cut: {f['how']}, in {short_duration_text(float(f['end']) - float(f['begin']))}{stood}"
    return f"{said}; {CRASHED}" if f.get("consistency") == CRASH else said


def _all_cut(f: Mapping[str, str]) -> str:
    if f.get("consistency") != CRASH:
        return f"its sources are cut, within {short_duration_text(float(f['skew']))}"
    number = counted_noun(int(f["crash"]), "image")
    return f"warning: its sources are cut, but not at one instant: {number} had a writer in QEMU; {CRASHED}"


def _run_end_sentence(f: Mapping[str, str]) -> str:
    tried = f", {counted_noun(int(f['retried']), 'further try', 'further tries')}" if "retried" in f else ""
    ends = f"{f['failed']} failed, {f['cancelled']} cancelled"
    return f"ended: {counted_noun(int(f['jobs']), 'job')}, {ends}{_left_out(f)}{tried}"


def _left_out(f: Mapping[str, str]) -> str:
    return f", {f['skipped']} skipped" if "skipped" in f else ""


def _job_completed_sentence(f: Mapping[str, str]) -> str:
    return f"failed: {f['error']}" if "error" in f else f"completed, {size_text(int(f['len']))}"


def _job_cancelled_sentence(f: Mapping[str, str]) -> str:
    why = f": {f['reason']}" if "reason" in f else ""
    return f"cancelled at {size_text(int(f['offset']))} of {size_text(int(f['len']))}{why}"


def _submission_sentence(f: Mapping[str, str]) -> str:
    behind = f", queued behind {f['behind']}" if "behind" in f else ""
    return f"submitted, {counted_noun(int(f['jobs']), 'job')}{_left_out(f)}{behind}"


def _store_sentence(f: Mapping[str, str]) -> str:
    jobs = f"{f['jobs']} at once" if f["jobs"] != "0" else "any number of copies"
    return f"store takes {jobs}, {speed_text(int(f['speed']))}, set by {f['by']}"


SENTENCES: Final[dict[str, Callable[[Mapping[str, str]], str]]] = {
    "RUN_PUBLISHED":       _submission_sentence,
    "RUN_LAUNCHED":        lambda _: "leaves the queue and starts",
    "CLOCK_JUMPED":        lambda f: f"clock put {float(f['seconds']):+.1f} s; deadlines and retries stay as far away",
    "RUN_REPLACED":        lambda f: f"skipped: {replaced_text(f['by'])}",
    "RUN_LATE":            lambda f: f"{f['reason']}: undecided transactions are cancelled",
    "RUN_ENDED":           _run_end_sentence,
    "TRANSACTION_CUT":     _all_cut,
    "NOTICE_SENT":         lambda f: f"notification '{f['outcome']}' sent to {f['url']}",
    "NOTICE_FAILED":       lambda f: f"notification '{f['outcome']}' could not be sent to {f['url']}: {f['error']}",
    "TRANSACTION_DECIDED": lambda f: f"decided: {f['decision']} ({f['why']})",
    "JOB_STATUS_CHANGE":   _status_sentence,
    "JOB_HELD":            _hold_sentence,
    "JOB_UNHELD":          lambda f: f"no longer held by {f['reason']}",
    "JOB_RETRIED":         lambda f: f"try {f['try']} of {f['of']} begins in {duration_text(float(f['delay']))}",
    "JOB_MOVED":           lambda f: f"moved from host {f['from']} to host {f['to']}",
    "JOB_CUT":             _cut_sentence,
    "JOB_SPEED":           lambda f: f"speed: {speed_text(int(f['speed']))}",
    "JOB_CALLED_OFF":      lambda f: f"called off: {f['reason']}",
    "JOB_FINALIZED":       lambda _: "finalize was requested",
    "JOB_UNSETTLED":       lambda f: f"cannot be settled yet: {f['error']}",
    "JOB_WARNING":         lambda f: f"warning: {f['text']}",
    "JOB_RESOLVED":        lambda f: f"resolved by {f['how']}, as {f['published-as']}",
    "TARGET_UNDEFINED":    lambda f: f["reason"],
    "ATTEMPT_CLAIMED":     lambda f: f"attempt {f['attempt']} runs",
    "ATTEMPT_DIED":        lambda f: f"its attempt died: {f['how']}" + (f"; log: {f['log']}" if f["log"] else ""),
    "ATTEMPT_RELEASED":    lambda f: f"its attempt ended: {f['reason']}",
    "BLOCK_JOB_PENDING":   lambda _: "waits for finalize",
    "BLOCK_JOB_COMPLETED": _job_completed_sentence,
    "BLOCK_JOB_CANCELLED": _job_cancelled_sentence,
    "BLOCK_JOB_ERROR":     lambda f: f"{f['operation']} error, {f['action']}: {f['reason']}",
    "TARGET_PRUNED":       lambda f: f"{f['target']} was pruned" if not f["why"] else f"{f['target']} was {f['why']}",
    "TARGET_LEFT":         lambda f: f"{f['target']} was not pruned: {f['why']}",
    "TARGET_FOUND":        lambda f: f"{f['target']} was found by a rescan",
    "TARGET_MOVED":        lambda f: f"the backup now lies at {f['target']}",
    "TARGET_COUNTED":      lambda f: f"{f['target']} was found by a rescan, and `keep` applies to it from now on",
    "STORE_SET":           _store_sentence,
    "STORE_REMOVED":       lambda f: f"store removed by {f['by']}",
    "HOST_LIMITED":        lambda f: f"limited to {speed_text(int(f['speed']))} by {f['by']}",
    "HOST_RENAMED":        lambda f: f"host was renamed to {f['to']} by {f['by']}",
    "HOST_REMOVED":        lambda f: f"host was removed by {f['by']}",
    "HOST_UP":             lambda _: "host is up",
    "HOST_DOWN":           lambda f: f"host is {f['state']}",
    "HOST_REGISTERED":     lambda _: "host has registered",
    "HOST_LEFT":           lambda _: "host has left",
}  # fmt: skip
