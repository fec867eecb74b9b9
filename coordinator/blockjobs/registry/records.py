"""The catalogue of the hashes in Redis: every named field, with its type, its writers and its meaning.

A record is named after its function in ``registry.keys``.  A field that ends with a colon or a hyphen is a family: the
name of a host, a volume, a run file or a number follows.  The deletion of a whole record, and the removal of the fields
of a finished try by a retry, count for no writer.  ``tests/unit/test_records.py`` compares the catalogue with the
scripts and the modules.

Times are milliseconds since the epoch by Redis' clock, and by the steady clock (``registry.clock``) where a decision
depends on the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FieldKind(StrEnum):
    """The form of a stored value."""

    TEXT = "text"
    NUMBER = "whole number"
    MS = "milliseconds by Redis' clock"
    STEADY_MS = "milliseconds by the steady clock"
    MICROSECONDS = "microseconds by Redis' clock"
    PACKED = "packed by registry.codec"
    FLAG = "present or absent, or 1 and 0"


class FieldWriter(StrEnum):
    """The process that writes or removes a field, by a script or by a direct call."""

    CLIENT = "client"
    COORDINATOR = "coordinator"
    FINALIZER = "finalizer"
    STEPS = "steps worker"
    COPY = "copy worker"


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field, or one family of fields, of a record in Redis."""

    record: str
    field: str
    kind: FieldKind
    writers: tuple[FieldWriter, ...]
    meaning: str

    @property
    def is_family(self) -> bool:
        """Whether further text follows the name."""
        return self.field.endswith((":", "-"))


_WRITERS: Final = {
    "C": FieldWriter.CLIENT,
    "O": FieldWriter.COORDINATOR,
    "F": FieldWriter.FINALIZER,
    "S": FieldWriter.STEPS,
    "W": FieldWriter.COPY,
}
_TEXT, _NUMBER, _FLAG, _PACKED = FieldKind.TEXT, FieldKind.NUMBER, FieldKind.FLAG, FieldKind.PACKED
_MS, _STEADY, _MICROS = FieldKind.MS, FieldKind.STEADY_MS, FieldKind.MICROSECONDS

# Per record: field, type, writers (Client, cOordinator, Finalizer, Steps worker, copy Worker), meaning.
# fmt: off
_TABLE: Final[Mapping[str, tuple[tuple[str, FieldKind, str, str], ...]]] = {
    "job": (
        # From the submit.
        ("txn",           _TEXT,   "CF",    "Transaction of the job; a retry gives the job a new transaction."),
        ("run",           _TEXT,   "C",     "Run of the job."),
        ("host",          _TEXT,   "C",     "Host that does the job; a move, or a new name of the host, changes it."),
        ("spec",          _PACKED, "CF",    "Whole description of the job (`model.jobs.JobSpec`)."),
        ("type",          _TEXT,   "C",     "Kind of job, as in the description."),
        ("speed",         _NUMBER, "C",     "Limit of the job in bytes per second, set by its user; 0 means no limit."),
        ("auto-finalize", _FLAG,   "C",     "0: the job waits for a user before PREPARE."),
        ("auto-dismiss",  _FLAG,   "C",     "1: the record is deleted when the job concludes."),
        ("source",        _TEXT,   "C",     "Lock name of the source (`host:path`), empty without one."),
        ("target",        _TEXT,   "C",     "Lock name of the target (`host:path`), empty without one."),
        ("store",         _TEXT,   "C",     "Store that limits the copies to the target; absent without a store."),
        ("backup",        _PACKED, "CF",    "Facts of the target for history; empty if the job makes no backup."),
        ("created",       _MS,     "C",     "Time of the submit."),
        # State.
        ("status",        _TEXT,   "COFSW", "State of the job (`model.states.Status`)."),
        ("passed",        _TEXT,   "CFSW",  "Last step that the job has passed; empty at the beginning."),
        ("ret",           _NUMBER, "COFSW", "Result of a failed or cancelled job: an errno, negative."),
        ("error",         _TEXT,   "COFSW", "Text to the result."),
        ("iostatus",      _TEXT,   "COFW",  "`ok`, or the kind of the I/O error that stopped the job."),
        ("warnings",      _TEXT,   "S",     "Deviations from the request without effect on the job, one per line."),
        ("ended",         _MS,     "F",     "Time when the job concluded."),
        # Steps.
        ("opened",        _PACKED, "S",     "Findings of OPEN."),
        ("cut",           _PACKED, "S",     "Result of CUT."),
        ("made",          _PACKED, "S",     "Result of PREPARE, with the series and the bytes of a backup."),
        ("reads",         _TEXT,   "CS",    "Lock names of the volumes to read, one per line; gone with the locks."),
        ("writes",        _TEXT,   "CS",    "Lock names of the volumes to write, one per line; gone with the locks."),
        ("begun",         _MS,     "F",     "Time when the job went from CREATED to RUNNING."),
        ("stopped",       _FLAG,   "CF",    "The job has passed the step STOP of an aborting transaction."),
        ("unsettled",     _TEXT,   "CS",    "Why the last try to settle the job failed; a successful try removes it."),
        ("undefined",     _TEXT,   "S",     "Why the content of a target is unknown after the settle."),
        ("resolved",      _TEXT,   "S",     "How a user resolved a committed image that could not be published."),
        ("published-as",  _TEXT,   "CS",    "Place of the resolved image (`HOST:/PATH`)."),
        # Attempts.
        ("attempt",       _TEXT,   "CFSW",  "Id of the attempt that holds the job; empty without an attempt."),
        ("token",         _NUMBER, "CW",    "Token of the last claim; every claim adds 1."),
        ("attempts",      _NUMBER, "CW",    "Number of claims."),
        ("started",       _MS,     "W",     "Time of the first claim."),
        ("beat",          _NUMBER, "CFW",   "Counter of the checkpoints, which the coordinator watches."),
        ("told",          _MS,     "W",     "Time of the last checkpoint."),
        ("lost",          _NUMBER, "CFSW",  "Attempts lost in a row without new durable data."),
        ("busy",          _FLAG,   "CFSW",  "1: an attempt holds the job and is not at rest."),
        ("offset",        _NUMBER, "CFW",   "Progress: work done, out of `len`."),
        ("len",           _NUMBER, "CFSW",  "Progress: whole work; OPEN writes the size in bytes."),
        ("bytes",         _PACKED, "W",     "Bytes by kind, such as read, written, zero and skipped."),
        ("durable",       _PACKED, "W",     "Last durable checkpoint, where the next attempt goes on."),
        ("result",        _PACKED, "W",     "Result of the copy, written at the end of the last attempt."),
        ("finished",      _TEXT,   "W",     "Id of the attempt that ended the job; a repeated call changes nothing."),
        ("hangs",         _TEXT,   "W",     "A call that does not return: time since when in ms, and the path."),
        ("stalled",       _TEXT,   "W",     "Id of the attempt whose standstill was reported by an event."),
        ("judged",        _TEXT,   "W",     "Attempt and number of the last recorded I/O error."),
        ("died",          _TEXT,   "W",     "Cause of death of the last dead attempt, and the place of its log."),
        ("ready",         _FLAG,   "W",     "1: the mirror has become READY."),
        ("diverged",      _TEXT,   "W",     "Last report of a mirror without convergence, to notice a repeated call."),
        ("diverging",     _TEXT,   "W",     "Rates of such a mirror in bytes per second: changed, and copied."),
        # Orders.
        ("cancelled",     _TEXT,   "COF",   "Order to cancel: `soft` or `force`; absent without an order."),
        ("cancel-at",     _MS,     "COF",   "Time of the first order to cancel by force."),
        ("complete",      _FLAG,   "C",     "Order to a ready mirror to finish."),
        ("operations",    _TEXT,   "CO",    "Ids of the last 16 calls of verbs, to notice a repeated call."),
        ("off",           _TEXT,   "O",     "Why the job was called off."),
        ("off-errno",     _NUMBER, "O",     "Errno of a job called off as failed; 0: called off as cancelled."),
        ("held-at",       _STEADY, "CFW",   "Time of the first hold in force, apart from the hold of the submit."),
        ("stopped-at",    _STEADY, "COW",   "Time when an I/O error stopped the job; a resume by a user removes it."),
        ("stopped-by",    _TEXT,   "W",     "Text of the error that stopped the job."),
        ("stopped-errno", _NUMBER, "W",     "Errno of the error that stopped the job."),
        # Shares of budgets, and retries.
        ("limit",         _NUMBER, "O",     "Share of the budgets of store and host, in bytes per second; 0: none."),
        ("felt",          _NUMBER, "W",     "Limit handed to the attempt: the lower of `speed` and `limit`."),
        ("full",          _FLAG,   "O",     "The store had no place when the host was last to be rung for the job."),
        ("vacated",       _FLAG,   "O",     "The place in the store was given back, as the host is not up."),
        ("try",           _NUMBER, "F",     "Number of the current try; absent in the first try."),
        ("failed-with",   _TEXT,   "F",     "Error of the try before."),
    ),
    "holds": (
        ("created",       _FLAG,   "CF",    "Hold from the submit, or from a retry, until the start of the members."),
        ("user",          _TEXT,   "COW",   "Pause by a user, or stop at an I/O error; the value is the cause."),
        ("all:",          _TEXT,   "CO",    "Hold of every live job under a name; the value is the cause."),
        ("drain:",        _TEXT,   "COF",   "Drain of a host or of a volume; the value is the cause."),
        ("move:",         _TEXT,   "CO",    "Move of the job to the named host; the value is the cause."),
    ),
    "tally": (
        ("open",          _NUMBER, "CFS",   "Members of the host that owe OPEN."),
        ("cut",           _NUMBER, "CFS",   "Members that owe CUT."),
        ("start",         _NUMBER, "CF",    "Members that owe the start."),
        ("run",           _NUMBER, "CFW",   "Members that owe the end of their copy."),
        ("pend",          _NUMBER, "CF",    "Members that owe the move to PENDING."),
        ("prepare",       _NUMBER, "CFS",   "Members that owe PREPARE."),
        ("stop",          _NUMBER, "CF",    "Members that an abort has not stopped."),
        ("settle",        _NUMBER, "CFS",   "Members that owe SETTLE."),
        ("conclude",      _NUMBER, "CF",    "Members that the finalizer has not concluded."),
        ("failed",        _NUMBER, "COFSW", "Failed, cancelled and abandoned members."),
        ("cut-begin",     _MICROS, "S",     "First instant of the cuts of the host."),
        ("cut-end",       _MICROS, "S",     "Last instant of the cuts of the host."),
        ("cut-crash",     _NUMBER, "S",     "Cuts without a single instant."),
        ("need:",         _NUMBER, "S",     "Bytes that opened members need, by device number of the file system."),
    ),
    "txn": (
        ("run",           _TEXT,   "CF",    "Run of the transaction."),
        ("name",          _TEXT,   "CF",    "Name of the transaction in the run file; empty without a name."),
        ("jobs",          _NUMBER, "CF",    "Number of members."),
        ("host:",         _FLAG,   "CF",    "The named host has members."),
        ("rev",           _NUMBER, "COF",   "Counter of changes that matter to a decision, which needs it unchanged."),
        ("manual",        _FLAG,   "CF",    "A member waits for a user before PREPARE."),
        ("finalized",     _FLAG,   "C",     "A user has let the transaction go on to the decision."),
        ("barrier",       _TEXT,   "F",     "Current step, for readers."),
        ("since",         _MS,     "CF",    "Time of the last change of the step; at first, time of the submit."),
        ("stands-since",  _STEADY, "F",     "Time of the last change of the step, for the needs."),
        ("doubt",         _TEXT,   "F",     "Why the transaction is not decided."),
        ("decision",      _TEXT,   "F",     "`commit` or `abort`, written once."),
        ("number",        _NUMBER, "F",     "Number of the decision."),
        ("why",           _TEXT,   "F",     "Reason of the decision."),
        ("cursor",        _NUMBER, "F",     "Position of the last concluded member, for a finalizer that goes on."),
        ("cut-begin",     _MICROS, "F",     "First instant of all cuts."),
        ("cut-end",       _MICROS, "F",     "Last instant of all cuts; absent if a cut has no single instant."),
        ("retry",         _NUMBER, "COF",   "Retries left for the only member; removed by a cancel."),
        ("try",           _NUMBER, "F",     "Number of the try; absent in the first try."),
        ("begins",        _STEADY, "FO",    "Time of the retry, until the retry begins."),
    ),
    "run": (
        ("state",         _TEXT,   "C",     "`staged` or `published`."),
        ("fields",        _PACKED, "C",     "Name and terms of the run file (`model.policies.RunFields`)."),
        ("owner",         _TEXT,   "C",     "Id of the submit that stages the run."),
        ("published",     _MS,     "C",     "Time of publishing."),
        ("jobs",          _NUMBER, "CO",    "Number of jobs; the coordinator removes staged jobs of a dead client."),
        ("open",          _NUMBER, "CF",    "Jobs that are not concluded."),
        ("failed",        _NUMBER, "CF",    "Failed jobs."),
        ("cancelled",     _NUMBER, "CF",    "Cancelled jobs."),
        ("skipped",       _NUMBER, "C",     "Jobs of the run file that the start left out."),
        ("retried",       _NUMBER, "F",     "Retries of the jobs, in total."),
        ("salvaged",      _NUMBER, "CF",    "Committed jobs with unreadable parts in the source."),
        ("salvaged:",     _NUMBER, "F",     "The same, by transaction of the run file."),
        ("bad:",          _NUMBER, "F",     "Failed and cancelled jobs, by transaction of the run file."),
        ("sum:",          _NUMBER, "CF",    "Sums over the concluded jobs: bytes by kind, `len`, and attempts."),
        ("why",           _TEXT,   "F",     "Error of the first failed job."),
        ("began",         _MS,     "CF",    "Time of the first claim."),
        ("ended",         _MS,     "CF",    "Time of the end; a rescan writes the end of the last backup."),
        ("ended-steady",  _STEADY, "F",     "Time of the end, for the limit between two successes of the name."),
        ("tells",         _FLAG,   "C",     "The end has recipients, or the name has a limit between successes."),
        ("line",          _TEXT,   "C",     "Name of the line that the run is in; absent without a line."),
        ("queued",        _TEXT,   "CO",    "Active run of the name, until its end launches this run."),
        ("replaced",      _TEXT,   "C",     "Later run that took the place in the line."),
        ("late",          _MS,     "O",     "Time when an event reported the passed deadline."),
        ("pruned",        _NUMBER, "CO",    "Targets that were pruned, or replaced by targets of later runs."),
        ("pruned-at",     _MS,     "CO",    "Time of the last prune or replacement."),
        ("layered",       _FLAG,   "C",     "A backup found by a rescan has layers below."),
        ("found",         _FLAG,   "C",     "A rescan made the record from manifests."),
        ("slim",          _FLAG,   "CO",    "The record stays, without jobs, only for the targets."),
    ),
    "run_notices": (
        ("count",         _NUMBER, "CO",    "Number of notices; each following family has one field per notice."),
        ("message",       _PACKED, "O",     "Message of the notices about the end of the run."),
        ("message:",      _PACKED, "CO",    "Message of a notice about needs."),
        ("about:",        _TEXT,   "CO",    "Message of a notice about needs, in short."),
        ("outcome:",      _TEXT,   "CO",    "Outcome in the run file that names the recipient, or `attention`."),
        ("url:",          _TEXT,   "CO",    "Recipient."),
        ("state:",        _TEXT,   "CO",    "`waiting`, `sent` or `failed`."),
        ("tries:",        _NUMBER, "CO",    "Number of tries."),
        ("taker:",        _TEXT,   "O",     "Coordinator's mark of the try in progress; empty without a try."),
        ("error:",        _TEXT,   "O",     "Error of the last try."),
        ("at:",           _MS,     "O",     "Time of the last take, or of the end of the last try."),
        ("told:",         _TEXT,   "O",     "Mark of the last announced episode of the named need."),
    ),
    "names": (
        ("overdue:",      _NUMBER, "C",     "Seconds within which a run of the name has to succeed."),
        ("about:",        _PACKED, "C",     "Path of the run file, and the recipients."),
        ("since:",        _STEADY, "C",     "Time of the first declaration of the limit."),
        ("good:",         _TEXT,   "CO",    "End of the last successful run in ms by the steady clock, and its id."),
        ("told:",         _TEXT,   "CO",    "Mark of the last notice; `refused NAME` or `overdue NAME` follows."),
    ),
    "card": (
        ("machine",       _TEXT,   "S",     "Machine of the steps worker."),
        ("process",       _TEXT,   "S",     "Process of the steps worker."),
        ("beat",          _NUMBER, "S",     "Counter of the beats of the steps worker."),
        ("state",         _TEXT,   "SW",    "`here`, `left`, or `lost` to a second machine."),
        ("since",         _MS,     "S",     "Time of the last change of state, machine or process."),
        ("copy-",         _TEXT,   "SW",    "The same five fields of the copy worker."),
        ("slots",         _NUMBER, "S",     "Number of slots of the host."),
        ("facts",         _PACKED, "S",     "Facts of the host for clients and daemons."),
        ("claims",        _NUMBER, "W",     "Counter of the claims."),
    ),
    "hosts": (
        ("state:",        _TEXT,   "CO",    "Judgement of the host: `up`, `down` or `left`."),
        ("since:",        _MS,     "CO",    "Time of the last change of the judgement."),
        ("steps:",        _TEXT,   "CO",    "Judgement of the steps worker, and its time in ms."),
        ("copy:",         _TEXT,   "CO",    "Judgement of the copy worker, and its time in ms."),
        ("speed:",        _NUMBER, "C",     "Limit of all copies of the host, in bytes per second; 0: no limit."),
        ("standing:",     _TEXT,   "CO",    "Start of a standstill of the line (steady clock), and `claims` then."),
        ("refused:",      _NUMBER, "COF",   "Number of events in the host's stream that no worker writes."),
        ("refused-at:",   _MS,     "COF",   "Time of the last such event."),
        ("renaming:",     _TEXT,   "C",     "New name of the host, while a rename is in progress."),
    ),
    "store": (
        ("path",          _TEXT,   "C",     "Path of the store."),
        ("jobs",          _NUMBER, "C",     "Copies to the store at once; 0: any number."),
        ("speed",         _NUMBER, "C",     "Limit of all copies to the store, in bytes per second; 0: no limit."),
        ("since",         _MS,     "C",     "Time of the last change."),
        ("by",            _TEXT,   "C",     "Author of the last change."),
        ("flow",          _NUMBER, "O",     "Current flow into the store, in bytes per second."),
    ),
    "daemons": (
        ("coordinator",   _STEADY, "O",     "Time of the last loop of a coordinator."),
        ("finalizer",     _STEADY, "F",     "Time of the last loop of a finalizer."),
        ("seq:",          _TEXT,   "O",     "Last event that the named daemon has read."),
        ("aside:",        _PACKED, "OF",    "Items that the named daemon has put aside, with the errors."),
        ("attention",     _PACKED, "O",     "Thresholds for needs."),
        ("apprise:",      _STEADY, "O",     "Last report of a coordinator with (`yes`) or without (`no`) apprise."),
    ),
    "holding": (
        ("all:",          _PACKED, "CO",    "Hold of every job in force: start, cause, owner and end."),
        ("drain:",        _PACKED, "CO",    "Drain of a host or of a volume in force: start, cause, owner and end."),
    ),
    "lifting": (
        ("all:",          _PACKED, "CO",    "Hold of every job that is being lifted, as in `holding`."),
        ("drain:",        _PACKED, "CO",    "Drain that is being lifted, as in `holding`."),
    ),
    "locks": (
        ("w:",            _TEXT,   "CS",    "Job that writes the volume."),
        ("r:",            _NUMBER, "CS",    "Number of jobs that read the volume."),
        ("v:",            _NUMBER, "CS",    "Number of jobs that write volumes on top of the volume."),
        ("s:",            _NUMBER, "CS",    "Number of jobs that read volumes on top of the volume."),
    ),
    "texts": (
        ("w:",            _TEXT,   "COF",   "Job that writes the volume, or the holder of a reservation."),
        ("r:",            _NUMBER, "COF",   "Number of jobs that read the volume."),
    ),
    "restart": (
        ("run",           _TEXT,   "F",     "Run id of Redis at the last start that a finalizer has noted."),
        ("decisions",     _NUMBER, "F",     "Number of decisions at that start."),
        ("beat:",         _NUMBER, "F",     "Beat of the named host at that start, until the host beats again."),
        ("lost:",         _NUMBER, "CF",    "Highest decision that the named host knows and this registry has lost."),
    ),
    "clock_anchors": (
        ("boot:",         _STEADY, "O",     "Time of the named boot of a coordinator's machine."),
    ),
}
# fmt: on

FIELDS: Final = tuple(
    RecordField(record, field, kind, tuple(_WRITERS[letter] for letter in writers), meaning)
    for record, rows in _TABLE.items()
    for field, kind, writers, meaning in rows
)
