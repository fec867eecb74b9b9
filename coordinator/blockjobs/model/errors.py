"""Every error of this project, under one root.  The message is one line for an operator; the parts are attributes."""

from __future__ import annotations

import errno as codes
import os
from collections.abc import Mapping
from typing import Final

from blockjobs.model.exits import Exit


class BlockjobsError(Exception):
    """Root of the errors that this project raises on purpose.  ``exit_code`` is the exit code of the CLI."""

    exit_code: int = Exit.FAILED


# --- the user's mistakes: refused, nothing was changed ------------------------------------------------


class Refused(BlockjobsError):
    """The request cannot be granted; nothing was created or changed."""

    exit_code = Exit.REFUSED


class BadInput(Refused):
    """A field of a run file, a command line or a dict is wrong; the message names the field and the expected form."""


class BadField(BadInput):
    """One field of a dict is wrong; ``field``: its name, as its author wrote it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class NoSuchJob(Refused):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"Block job '{job_id}' not found")
        self.job_id = job_id


class NoSuchRun(Refused):
    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run and no job is named '{run_id}'")
        self.run_id = run_id


class VerbRefused(Refused):
    """The job is in a state that does not accept the verb (text of QEMU's ``job_apply_verb``)."""

    def __init__(self, job_id: str, state: str, verb: str) -> None:
        super().__init__(f"Job '{job_id}' in state '{state}' cannot accept command verb '{verb}'")
        self.job_id, self.state, self.verb = job_id, state, verb


class JobExists(Refused):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job ID '{job_id}' already in use")
        self.job_id = job_id


class RunExists(Refused):
    """A run of this name was started within the same second."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run '{run_id}' exists already: wait a second and start it again")
        self.run_id = run_id


class VolumeBusy(Refused):
    """Another job holds the volume (text of QEMU's op blocker).

    ``holder`` is empty for readers, as readers are only counted.
    """

    def __init__(self, volume: str, holder: str, job_type: str) -> None:
        who = f"(job '{holder}')" if holder else "(a job reads it)"
        super().__init__(f"Node '{volume}' is busy: block device is in use by block job: {job_type} {who}")
        self.volume, self.holder = volume, holder


class RunGoing(Refused):
    """A run of the same name is not over, and ``on-overlap: refuse`` allows one run at a time."""

    def __init__(self, name: str, going: str) -> None:
        super().__init__(f"run '{name}': {going} is still going, and on-overlap is refuse; nothing was started")
        self.name, self.going = name, going


class RunSkipped(RunGoing):
    """A run of the same name is active and ``on-overlap: skip`` is set; the command exits with 0."""

    exit_code = Exit.ALL

    def __init__(self, name: str, going: str) -> None:
        Refused.__init__(self, f"run '{name}': skipped, {going} is still going")
        self.name, self.going = name, going


class NoSuchStore(Refused):
    def __init__(self, name: str) -> None:
        super().__init__(f"no store is named '{name}'; a name of `blockjobs stores` was expected")
        self.name = name


class StoreBusy(Refused):
    """Unfinished jobs use a store."""

    def __init__(self, name: str, jobs: list[str]) -> None:
        users = f"{len(jobs)} jobs that are not over use it, {min(jobs)} among them" if len(jobs) > 1 else ""
        super().__init__(f"store '{name}' is in use: {users or f'{jobs[0]} is not over'}")
        self.name, self.jobs = name, jobs


class HostDown(Refused):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"host '{host}' {why}")
        self.host, self.why = host, why


class HostsAway(Refused):
    """Hosts required by a run are away; ``why``: the reason by host."""

    def __init__(self, why: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"host '{host}' {text}" for host, text in why.items()))
        self.why = dict(why)


# --- errors of a running job: the job fails with an errno and a text -----------------------------------


class JobFailed(BlockjobsError):
    """A job's failure: a positive errno and the error text of the job's record."""

    def __init__(self, errno: int, text: str = "") -> None:
        super().__init__(text or os.strerror(errno))
        self.errno = errno
        self.text = text or os.strerror(errno)


class VolumeError(JobFailed):
    """An I/O error of a volume, with the operation and the byte range, for the error policy."""

    def __init__(self, errno: int, text: str, *, operation: str, offset: int, length: int) -> None:
        super().__init__(errno, text)
        self.operation, self.offset, self.length = operation, offset, length


class SourceChanged(JobFailed):
    def __init__(self, volume: str, what: str) -> None:
        super().__init__(codes.EBUSY, f"{volume} changed under the copy ({what})")


# --- errors that end an attempt without failing the job -----------------------------------------------


class JobCancelled(BlockjobsError):
    """Unwinds a copy loop whose job was cancelled."""


class LeaseLost(BlockjobsError):
    """This attempt may no longer write; the attempt unwinds and touches no file any more."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job '{job_id}': another attempt holds the lease")
        self.job_id = job_id


class Parked(BlockjobsError):
    """Unwinds a copy loop of a job that gives its slot back: data durable, files closed, ready to continue later."""


# --- the environment ----------------------------------------------------------------------------------


class NoRedis(BlockjobsError):
    """Redis is not reachable, or is configured to lose acknowledged writes."""

    exit_code = Exit.NO_REDIS


class StartUnknown(BlockjobsError):
    """Redis went away during the start of a run, and did not come back in time."""

    exit_code = Exit.LOST_SIGHT

    def __init__(self, run: str, why: str) -> None:
        super().__init__(
            f"Redis does not answer ({why}): whether run '{run}' was started is not known; once Redis is back, "
            f"`blockjobs status {run}` says so"
        )


class SightLost(BlockjobsError):
    """The followed run or job goes on, but its follower can no longer see it."""

    exit_code = Exit.LOST_SIGHT

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"lost sight of {what}, which goes on: {why}")


class RunGone(BlockjobsError):
    """The followed run or job is no longer in the registry."""

    exit_code = Exit.GONE

    def __init__(self, id_: str) -> None:
        super().__init__(
            f"'{id_}' is gone from the registry, and the outcome is unknown: it was removed, or Redis came back "
            "without it; `blockjobs doctor` says how the registry is"
        )
        self.id = id_


class WaitTimedOut(BlockjobsError):
    """The time for waiting is over and an awaited run or job is not; nothing was changed."""

    exit_code = Exit.TIMED_OUT

    def __init__(self, ids: list[str], awaited: str = "concluded") -> None:
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        super().__init__(f"timed out; not {awaited} yet: {', '.join(ids[:3])}{more}")
        self.ids = ids


def unexpected_error_text(error: BaseException) -> str:
    """The job error text for an unexpected exception, with its class."""
    return f"internal error: {error!r}"


ECANCELED_TEXT: Final = "Operation canceled"
