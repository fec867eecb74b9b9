"""What an abandoned host finds when it is back after all: members that ended without it, and their files.

The decision of each transaction is carried out as it would have been, from the journals alone; nobody waits for it.
"""

from __future__ import annotations

import logging

from blockjobs.model.barriers import Decision
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import TxnId
from blockjobs.store.answers import Answers
from blockworker.highest import Highest
from blockworker.roots import Roots
from blockworker.targets import devices, inplace, publish
from blockworker.targets import journal as journals
from blockworker.targets.folder import LockBusy
from blockworker.targets.staged import StagingBusy

log = logging.getLogger(__name__)


def settle(answers: Answers, roots: Roots, highest: Highest) -> None:
    """Settle every transaction that was ended without this host; what cannot be settled yet stays on the list."""
    for txn in answers.abandoned():
        decision, number, incarnation = answers.decision(txn)
        if not decision:
            continue
        try:
            highest.raise_to(incarnation, number)
            for path in roots.config.write_roots:
                _settle(roots, path, txn, decision, number)
            _settle_devices(roots, txn, decision, number)
        except (JobFailed, OSError, LockBusy, StagingBusy) as error:
            log.warning("transaction %s: what it left here is not settled yet: %s", txn, error)
        else:
            log.info("transaction %s: this host was abandoned; %s carried out", txn, decision)
            answers.settled(txn)


def _settle(roots: Roots, path: str, txn: TxnId, decision: str, number: int) -> None:
    root = roots.root_of(path, write=True)
    record = journals.read(roots, root, txn)
    if record is None or record.clean:
        return
    for member in record.members.values():
        if decision == Decision.COMMIT:
            publish.commit_member(roots, member, number)
        else:
            publish.abort_member(roots, member, number)
    publish.clean_transaction(roots, txn, root)


def _settle_devices(roots: Roots, txn: TxnId, decision: str, number: int) -> None:
    for record in devices.every(roots):
        if record.transaction != txn:
            continue
        if decision == Decision.COMMIT:
            inplace.commit(roots, record, number)
        elif left := inplace.abort(roots, record.job, number):
            log.warning("transaction %s: %s", txn, left)
