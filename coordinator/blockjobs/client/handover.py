"""Hand-over: a job comes to rest on one host and goes on upon another, from the last durable byte.

Ask first whether the new host sees the same source and the staging file; then hold the job, wait for the end of the
attempt, and re-key.  After a failure in between, the job goes on unmoved.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.probe import Probe
from blockjobs.model import ids
from blockjobs.model.errors import Refused
from blockjobs.model.ids import Host
from blockjobs.model.states import STARTED, Status
from blockjobs.registry.handover import MOVE, job_on_host
from blockjobs.registry.views import JobView

WITHIN: Final = 60.0  # seconds

if TYPE_CHECKING:
    from blockjobs.client.fleet import Fleet


def hand_over(fleet: Fleet, job_id: str, to: str, timeout: float | None) -> Status:
    """See ``Fleet.move``."""
    host, job = ids.checked_host_name(to), fleet.get(job_id)
    if job.status not in STARTED:
        raise Refused(f"Job '{job_id}' in state '{job.status}' cannot be moved")
    if job.host == host:
        raise Refused(f"job '{job_id}' is on host '{host}' already")
    seen = ask_next_host(fleet, job, host)
    verbs, reason = fleet.registry.verbs, MOVE + host
    if reason not in job.holds:  # else: an earlier process died during the same move
        seconds = (timeout or WITHIN) + WITHIN  # if this process dies, the hold ends, and the job goes on unmoved
        verbs.pause(job_id, reason=reason, cause=f"on its way from host {job.host}", seconds=seconds)
    try:
        fleet.wait_quiescent([job_id], timeout, parked=True)
        return fleet.registry.moves.move(fleet.get(job_id), host, reads=seen["reads"], writes=seen["writes"])
    except BaseException:  # also Ctrl-C
        with suppress(Refused, redis.RedisError):
            verbs.resume(job_id, reason=reason)
        raise


def ask_next_host(fleet: Fleet, job: JobView, host: Host) -> dict[str, Any]:
    """The new host's answer about the volumes of the job.

    Raises:
        HostDown: the new host is not up, or does not answer.
        Refused: the new host does not see the volumes of the job.
    """
    look = {
        "as": "member", "spec": job_on_host(job.spec, host).to_dict(), "identity": fleet.registry.moves.identity(job),
        "cut": job.cut.to_dict() if job.cut else {},
    }  # fmt: skip
    seen: dict[str, Any] = Probe(fleet.registry, Doorbell(fleet.url))({host: [look]})[host][0]
    if "errno" in seen:
        raise Refused(f"host '{host}' cannot take job '{job.id}': {seen['text']}")
    return seen
