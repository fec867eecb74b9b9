"""Settlement on an abandoned host after the host's return: members ended without the host, and files of the members.

The decision of a transaction is carried out as usual, from the journals alone; no process waits for the result.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Final

from blockjobs.model.barriers import Decision
from blockjobs.model.errors import BlockjobsError, JobFailed
from blockjobs.model.ids import TxnId
from blockjobs.process.quarantine import Quarantine
from blockjobs.registry.answers import Answers
from blockworker.host.mounts import RootAway
from blockworker.host.roots import Roots
from blockworker.records import devices, owed
from blockworker.records import journal as journals
from blockworker.records.folder import LockBusy
from blockworker.records.highest_decision import Highest
from blockworker.targets import inplace
from blockworker.targets.madedirs import forget_notes
from blockworker.targets.settle import abort_member, clean_transaction, close_settled, commit_member
from blockworker.targets.staged import StagingBusy

log = logging.getLogger(__name__)

TOMBSTONE: Final = 7 * 24 * 3600.0  # seconds a tombstone stays: no message comes later


def settle_beneath_root(answers: Answers, roots: Roots, highest: Highest, path: str) -> list[TxnId]:
    """Settle beneath one write root every transaction ended without this host.

    Returns the transactions with nothing left beneath the root. Devices lie beneath no root, and are settled with the
    first root; ``path`` "": the host has no root.
    """
    done = []
    for txn in answers.abandoned():
        decision, number, incarnation = answers.decision(txn)
        if not decision:
            continue
        try:
            highest.raise_to(incarnation, number)
            if path:
                _settle_transaction(roots, path, txn, decision, number)
            if path in ("", *roots.config.target_roots[:1]):
                _settle_devices(roots, txn, decision, number)
        except (JobFailed, OSError, LockBusy, StagingBusy) as error:
            log.warning("transaction %s: what it left here is not settled yet: %s", txn, error)
        else:
            done.append(txn)
    return done


def visit_root(roots: Roots, path: str) -> None:
    """Take over the news of a write root: the file system, records of earlier versions, and a return of the root."""
    try:
        # without a state directory, the content of the first root is as in earlier versions
        if roots.config.state:
            roots.remember_root(path)
        devices.carry_over(roots, path)
        settle_owed(roots, path)
    except RootAway as away:
        log.log(logging.WARNING if roots.mounts.is_news(path) else logging.DEBUG, "%s", away)
    except (BlockjobsError, OSError) as error:
        log.warning("write root %s: %s", path, error)


def settle_owed(roots: Roots, path: str) -> None:
    """Carry out the aborts of transactions that may have begun beneath a write root while the root was away.

    Raises:
        RootAway: the root is still away.
        JobFailed: a file of a transaction cannot be removed.
    """
    for txn, number in owed.read_owed_aborts(roots.config).get(path, {}).items():
        os.close(roots.open_dir(path))
        _settle_transaction(roots, path, TxnId(txn), Decision.ABORT, number)
        owed.strike_owed_abort(roots.config, path, txn)
        log.info("transaction %s: write root %s is back; abort carried out", txn, path)


def sweep_roots(roots: Roots) -> None:
    """Sweep every write root of the host."""
    for path in roots.config.target_roots:
        sweep_root(roots, path)


def sweep_root(roots: Roots, path: str) -> dict[str, str]:
    """Close settled journals still open beneath a write root, and remove old tombstones.

    Journals are handled one by one; returns the failed journals with the errors.
    """
    aside = Quarantine()
    aside.handle(f"sweep of write root {path}", partial(_sweep_root, roots, path, aside))
    return aside.told()


def _sweep_root(roots: Roots, path: str, aside: Quarantine) -> None:
    root = roots.root_of(path, write=True)
    close_settled(roots, root, aside.handle)
    if next(journals.scan_open_journals(roots, root, aside.handle), None) is None and not aside.told():
        forget_notes(roots, root)
    journals.keep_room(roots, root, aside.handle)
    journals.sweep_tombstones(roots, root, TOMBSTONE, each=aside.handle)


def _settle_transaction(roots: Roots, path: str, txn: TxnId, decision: str, number: int) -> None:
    root = roots.root_of(path, write=True)
    record = journals.read_journal(roots, root, txn)
    if record is None or record.clean:
        return
    for member in journals.read_members(roots, root, txn):
        if decision == Decision.COMMIT:
            commit_member(roots, member, number)
        else:
            abort_member(roots, member, number)
    clean_transaction(roots, txn, root)


def _settle_devices(roots: Roots, txn: TxnId, decision: str, number: int) -> None:
    for record in devices.device_records(roots):
        if record.transaction != txn:
            continue
        if decision == Decision.COMMIT:
            inplace.commit_device(roots, record, number)
        elif left := inplace.abort_device(roots, record.job, number):
            log.warning("transaction %s: %s", txn, left)
