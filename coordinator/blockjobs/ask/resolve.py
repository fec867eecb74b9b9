"""Resolution of a committed image that cannot be published, by the job's host, with a short wait for the answer.

The order is one question to the host.  The host takes the question's permit before the first change: the order is
carried out at most once, and never after the asker gave up.  The host records the resolution in its journal, and
reports it with the job's settle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model.barriers import Decision, Step
from blockjobs.model.errors import HostDown, Refused
from blockjobs.model.resolutions import Resolution
from blockjobs.model.states import Status
from blockjobs.registry.doors import Registry
from blockjobs.registry.hosts import check_host
from blockjobs.registry.views import JobView

PATIENCE: Final = 30.0  # seconds; removing a large file takes time


class Resolve:
    def __init__(self, registry: Registry, doorbell: Doorbell, patience: float = PATIENCE) -> None:
        self._registry, self._doorbell, self._patience = registry, doorbell, patience

    def __call__(self, job_id: str, how: Resolution) -> Mapping[str, Any]:
        """Resolve; return ``resolved`` and ``published-as`` from the host.

        Raises:
            Refused: the job is not committed and unpublished, or the host does not allow the resolution.
            HostDown: the host is down, or did not answer in time.
        """
        job = self._registry.views.job(job_id)
        self._expect_stuck(job)
        host, questions = job.host, self._registry.questions
        check_host(host, self._registry.hosts.known().get(host))
        what = {"ask": "resolve", "transaction": job.transaction, "job": job.id, "how": str(how)}
        question = put_question(questions, self._doorbell, host, what, patience=self._patience, changes=True)
        answer: Mapping[str, Any] | None = questions.wait(host, question, self._patience)
        if answer is None:
            undone = questions.take_permit(host, question)
            told = "nothing was done" if undone else "it may still be at it: `blockjobs show` says what came of it"
            raise HostDown(host, f"did not answer within {self._patience:.0f} s: {told}")
        if answer.get("errno"):
            raise Refused(str(answer["text"]))
        if self._registry.bells.note(host, Step.SETTLE, job.transaction):
            self._doorbell.step(host, Step.SETTLE, job.transaction)
        return answer

    def _expect_stuck(self, job: JobView) -> None:
        txn = self._registry.views.transaction(job.transaction)
        decided = txn.decision if txn is not None else ""
        if job.status is Status.CONCLUDED or decided != Decision.COMMIT or not job.unsettled:
            raise Refused(
                f"job '{job.id}' is not one that is committed and cannot be published (status '{job.status}', "
                f"decision '{decided or 'none'}'): `blockjobs show {job.id}` says what it waits for"
            )
