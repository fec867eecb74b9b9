"""Hand-over of a job to a second host: one script re-keys every record of the job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from blockjobs.model import errors
from blockjobs.model.ids import Host
from blockjobs.model.jobs import JobSpec
from blockjobs.model.states import Status
from blockjobs.model.volumespec import HostedVolume
from blockjobs.registry import codec, keys
from blockjobs.registry.connection import Client
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.views import JobView

MOVE: Final = "move:"


def job_on_host(spec: JobSpec, to: Host) -> JobSpec:
    """The job with the volumes of its host moved to host ``to``, under the same paths."""

    def seen(volume: HostedVolume) -> HostedVolume:
        return replace(volume, host=to) if volume.host == spec.host else volume

    return replace(spec, source=seen(spec.source), target=seen(spec.target))


class Moves:
    def __init__(self, client: Client, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def identity(self, job: JobView) -> list[Any]:
        """The identity of the source found by OPEN."""
        opened = self._redis.hget(keys.job(job.host, job.id), "opened")
        return list(codec.unpack_value(opened)["identity"]) if opened else ["none"]

    def move(self, job: JobView, to: Host, *, reads: str = "", writes: str = "") -> Status:
        """Hand over a parked job held by the move; ``reads``, ``writes``: the job's locks on the new host, by identity.

        Raises:
            Refused: the job does not rest, is decided already, or the volumes are in use on the new host.
        """
        spec, old, txn = job_on_host(job.spec, to), job.host, job.transaction
        names = [
            keys.job(old, job.id), keys.holds(old, job.id), keys.wake(old, job.id), keys.tally(old, txn),
            keys.members(old, txn), keys.ready(old), keys.rung(old), keys.locks(old),
            keys.job(to, job.id), keys.holds(to, job.id), keys.ready(to), keys.tally(to, txn),
            keys.members(to, txn), keys.locks(to),
            keys.txn(txn), keys.order(txn), keys.run_jobs(job.run), keys.ids(), keys.texts(), keys.events(),
            keys.holding(),
        ]  # fmt: skip
        args = [
            job.id, txn, old, to, codec.pack_value(spec.to_dict()), spec.source.lock, spec.target.lock, reads, writes,
        ]  # fmt: skip
        match self._scripts.call("hand_over", names, args):
            case [b"moved", status]:
                return Status(status.decode())
            case [b"refused", status]:
                raise errors.Refused(f"Job '{job.id}' in state '{status.decode()}' cannot be moved")
            case [b"busy"]:
                raise errors.Refused(f"job '{job.id}' does not rest: it cannot be moved")
            case [b"decided"]:
                raise errors.Refused(f"the transaction of job '{job.id}' is decided: it cannot be moved")
            case [b"drained"]:
                raise errors.Refused(f"host '{to}' is drained: it cannot take job '{job.id}'")
            case [b"locked", text, holder]:
                raise errors.VolumeBusy(text.decode(), holder.decode(), job.type)
            case _:
                raise errors.NoSuchJob(job.id)
