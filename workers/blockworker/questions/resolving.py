"""A host's part in ``blockjobs resolve``: resolve, as a user says, a committed job that could not be published."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

from blockjobs.model.barriers import Decision, Step
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.resolutions import Resolution
from blockjobs.registry.answers import Answers
from blockworker.drivers.staged import is_staged
from blockworker.host.roots import Roots
from blockworker.records.folder import LockBusy
from blockworker.records.highest_decision import Highest
from blockworker.targets.resolve import resolution_fields, resolve_member

log = logging.getLogger(__name__)


def resolve_committed(
    answers: Answers,
    roots: Roots,
    highest: Highest,
    *,
    txn: TxnId,
    job: JobId,
    how: Resolution,
    permitted: Callable[[], bool],
) -> dict[str, Any] | None:
    """Resolve a job; return the result, or an errno and a text; None without a permit.

    The job's settle, which is rung for again, reports the result to the registry.
    """
    try:
        member = next((each for each in answers.members(txn) if each.spec.id == job), None)
        decision, number, incarnation = answers.decision(txn)  # from the registry, never from a message
        if member is None or decision != Decision.COMMIT or member.passed == Step.SETTLE or member.claimed:
            raise JobFailed(errno.EINVAL, f"job '{job}' is not one that is committed and waits for its settling")
        if not is_staged(member.spec):
            raise JobFailed(
                errno.EINVAL, f"target {member.spec.target.text} is written in place: it has no name to give"
            )
        highest.raise_to(incarnation, number)
        resolved = resolve_member(roots, member.spec, how, number, permitted)
        if resolved is None:
            return None
        log.info("job %s: resolved by %s, as somebody asked", job, how)
        return resolution_fields(resolved, member.spec) or {"resolved": "", "published-as": member.spec.target.text}
    except JobFailed as failed:
        return {"errno": failed.errno, "text": failed.text}
    except LockBusy as busy:
        return {"errno": errno.EBUSY, "text": str(busy)}
