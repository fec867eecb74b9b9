"""The verbs and the queries.  The registry makes the lookups and the checks, in order, in one script a verb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from blockjobs.model.errors import NoSuchJob, VerbRefused
from blockjobs.model.ids import RunId
from blockjobs.model.states import ACCEPTS, Verb
from blockjobs.qmp.errors import NOT_ACTIVE, QmpError
from blockjobs.qmp.events import system_error_text
from blockjobs.qmp.fleet import Backend
from blockjobs.registry.verbs import Verbs
from blockjobs.registry.views import JobView

Arguments = dict[str, Any]
_SHOWN: Final = (  # of BlockJobInfo
    "type", "device", "len", "offset", "busy", "paused", "speed", "io-status", "ready", "status", "auto-finalize",
    "auto-dismiss",
)  # fmt: skip


def undismissed_jobs(fleet: Backend) -> list[JobView]:
    """The jobs that are not dismissed, newest first."""
    views = fleet.registry.views
    found = sorted(views.jobs(views.all()), key=lambda job: (job.created, job.run))
    order: dict[str, dict[str, int]] = {}
    for one, other in pairwise(found):
        if one.run == other.run and one.run not in order:
            order[one.run] = {place.job: n for n, place in enumerate(views.places(RunId(one.run)))}
    return sorted(found, key=lambda job: (job.created, job.run, order.get(job.run, {}).get(job.id, 0)), reverse=True)


def query_jobs(fleet: Backend, _: Arguments) -> list[dict[str, Any]]:
    return [
        {
            "id": job.id,
            "type": job.type,
            "status": str(job.status),
            "current-progress": job.offset,
            "total-progress": job.len,
            **_error_member(job),
        }
        for job in undismissed_jobs(fleet)
    ]


def query_block_jobs(fleet: Backend, _: Arguments) -> list[dict[str, Any]]:
    found = []
    for job in undismissed_jobs(fleet):
        record = job.to_json()
        more = {"actively-synced": False} if job.type == "mirror" else {}
        found.append({name: record[name] for name in _SHOWN} | more | _error_member(job))
    return found


def _error_member(job: JobView) -> dict[str, str]:
    return {"error": system_error_text(job.error)} if job.ret else {}


def generic_job_command(act: Callable[[Verbs, str], object]) -> Callable[[Backend, Arguments], Any]:
    """A ``job-*`` command."""

    def run(fleet: Backend, arguments: Arguments) -> Any:
        with translate_missing_job("Job not found"):
            act(fleet.registry.verbs, arguments["id"])
        return {}

    return run


def block_job_command(name: str, act: Callable[[Verbs, str, Arguments], object]) -> Callable[[Backend, Arguments], Any]:
    """A ``block-job-*`` command; ``name``: the argument with the job's id."""

    def run(fleet: Backend, arguments: Arguments) -> Any:
        job = arguments[name]
        with translate_missing_job(f"Block job '{job}' not found", NOT_ACTIVE):
            act(fleet.registry.verbs, job, arguments)
        return {}

    return run


def refuse_change(fleet: Backend, arguments: Arguments) -> Any:
    """Refuse every change: only a mirror can change, and only to a mode that needs the writes of a guest."""
    name = arguments["id"]
    with translate_missing_job(f"Block job '{name}' not found", NOT_ACTIVE):
        job = fleet.registry.views.job(name)
    if job.status not in ACCEPTS[Verb.CHANGE]:
        raise VerbRefused(name, str(job.status), Verb.CHANGE)
    if job.type != "mirror":
        raise QmpError("Job type does not support change")
    if (mode := arguments["copy-mode"]) != "background":
        raise QmpError(f"Change to copy mode '{mode}' is not implemented")
    return {}


@contextmanager
def translate_missing_job(text: str, kind: str = "GenericError") -> Iterator[None]:
    """Turn NoSuchJob into the error text of the command."""
    try:
        yield
    except NoSuchJob:
        raise QmpError(text, kind) from None
