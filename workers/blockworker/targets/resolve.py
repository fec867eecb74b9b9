"""Committed members that cannot be published, resolved as a user decides: noted in the journal, then carried out.

After a crash half-way the next settle of the job finds the note, and completes the resolution.  Rule: a foreign file is
never lost: ``replace`` renames the file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.resolutions import Resolution
from blockworker.host.roots import Roots
from blockworker.records import journal as journals
from blockworker.records.entries import MemberFiles
from blockworker.records.files import target_errors_as_failure
from blockworker.targets.opening import target_path
from blockworker.targets.proof import MANIFEST
from blockworker.targets.settle import commit_member

NAME_MAX: Final = 255  # bytes: NAME_MAX of <linux/limits.h>


def resolve_member(
    roots: Roots, spec: JobSpec, how: Resolution, number: int, permitted: Callable[[], bool] = lambda: True
) -> MemberFiles | None:
    """Resolve a member of a transaction committed by decision ``number``; return the member's entry afterwards.

    ``permitted`` is asked before the note is written; if the answer is no, the result is None and no file is changed.

    Raises:
        JobFailed: the host does not allow the resolution, or no journal knows the job.
        NotPublished: the chosen resolution is impossible too: the user may choose another resolution.
    """
    path, host = target_path(spec), roots.config.name
    if how is Resolution.REPLACE and not roots.config.allow_overwrite:
        text = f"host {host} does not allow overwriting: 'allow-overwrite = true' in its host.toml was expected"
        raise JobFailed(errno.EACCES, f"target {path}: {text}")
    place = journals.journal_root(roots, path, spec.transaction, spec.id)
    with target_errors_as_failure(path), journals.locked_open_journal(roots, place, spec.transaction) as journal:
        member = journal.member(spec.id) if journal is not None else None
        if journal is None or journal.record is None or member is None:
            raise JobFailed(errno.ENOENT, f"target {path}: no journal on host {host} knows its staging file")
        if journal.record.decision == "abort":
            raise JobFailed(errno.ECANCELED, f"transaction '{spec.transaction}' is aborted on this host")
        if not member.published and not member.discarded:
            if not permitted():
                return None
            _expect_names_fit(path, spec.run, how)
            target = f"{path}.{spec.run}" if how is Resolution.BESIDE else path
            journal.decide("commit", number)
            member = replace(member, resolution=str(how), target=target, run=spec.run)
            journal.put(member)
    commit_member(roots, member, number)
    return journals.read_member(roots, place, spec.transaction, spec.id) or member


def _expect_names_fit(path: str, run: str, how: Resolution) -> None:
    """Refuse a resolution that would make a file name too long for a file system, before a file becomes visible."""
    name = os.path.basename(path)
    longest = {Resolution.BESIDE: f"{name}.{run}", Resolution.REPLACE: f"{name}.replaced-{run}"}.get(how, "") + MANIFEST
    if len(os.fsencode(longest)) > NAME_MAX:
        text = f"with --{how} a file would be called {longest}, which is longer than {NAME_MAX} bytes"
        raise JobFailed(errno.ENAMETOOLONG, f"target {path}: {text}: --discard was expected")


def resolution_of(roots: Roots, spec: JobSpec) -> dict[str, str]:
    """A member's resolution and the path of its image, for the registry; {} if the member was not resolved."""
    place = journals.journal_root(roots, target_path(spec), spec.transaction, spec.id)
    member = journals.read_member(roots, place, spec.transaction, spec.id)
    return resolution_fields(member, spec) if member is not None and (member.published or member.discarded) else {}


def resolution_fields(member: MemberFiles, spec: JobSpec) -> dict[str, str]:
    """The fields of a resolution in the registry."""
    if not member.resolution:
        return {}
    return {"resolved": member.resolution, "published-as": f"{spec.target.host}:{member.target}"}
