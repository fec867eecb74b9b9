"""A rerun: the jobs without a commit, with the same specs, as a new run of the same name.

Pure.  The words in the run file were expanded at submit.  The old values of ``{run}``, ``{date}`` and ``{time}`` follow
from the id of the old run; they are replaced in the target path behind ``target_base``, the directory without words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from blockjobs.model import ids, templates
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import Policy, RunFields, Skipped, transaction_id, transaction_name
from blockjobs.model.runs import RunPlan, check_together
from blockjobs.model.volumespec import DebugVolume, FileVolume, FormatVolume, Volume

_STAMP: Final = re.compile(r"-(\d{8}T\d{6}Z)$", re.ASCII)


def time_in_run_id(run: str) -> datetime | None:
    """The time in a run's id; None in an id given by hand, without a time."""
    found = _STAMP.search(run)
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) if found else None
    except ValueError:
        return None


def plan_rerun(
    run: RunId,
    name: str,
    jobs: Iterable[JobSpec],
    fields: RunFields,
    now: datetime,
    *,
    grouped: bool,
    more: Iterable[JobSpec] = (),
    skipped: tuple[Skipped, ...] = (),
) -> RunPlan:
    """Plan the run that starts these jobs of run ``run`` again, now.

    ``more``: jobs left out by run ``run`` and planned for the new run; ``skipped``: jobs left out by the new run.

    Raises:
        BadInput: an id would be too long.
        JobFault: two jobs do not go together.
    """
    new = ids.run_id(name, now)
    renew = _word_renewer(run, new, now)
    specs = [*(_renew_job(spec, run, new, renew, fields.policies) for spec in jobs), *more]
    check_together(specs)
    transactions: dict[TxnId, list[JobSpec]] = {}
    for spec in specs:
        transactions.setdefault(spec.transaction, []).append(spec)
    names = {transaction_name(new, txn, fields.policies) for txn in transactions}
    kept = {each: policy for each, policy in fields.policies.items() if each in names}
    return RunPlan(
        new,
        name,
        grouped,
        tuple(map(tuple, transactions.values())),
        replace(fields, policies=kept, skipped=skipped),
        retries=run,
    )


def _renew_job(
    spec: JobSpec, run: RunId, new: RunId, renew: Callable[[str], str], policies: Mapping[str, Policy]
) -> JobSpec:
    job = ids.job_id(_renew_id(spec.id, run, new))
    name = transaction_name(run, spec.transaction, policies)
    if name in policies and not policies[name].grouped:  # an individual transaction, or a retry of one
        txn: str = transaction_id(new, name, JobId(job), grouped=False)
    else:
        txn = job if str(spec.transaction) == spec.id else ids.job_id(_renew_id(spec.transaction, run, new))
    target = replace(spec.target, volume=_renew_volume(spec.target.volume, spec.target_base, renew))
    return replace(spec, id=JobId(job), transaction=TxnId(txn), run=new, target=target)


def _renew_id(name: str, run: RunId, new: RunId) -> str:
    """An id of the old run as an id of the new run; an id given by hand is unchanged."""
    return new + name.removeprefix(run) if name == run or name.startswith(f"{run}.") else name


def _word_renewer(run: RunId, new: RunId, now: datetime) -> Callable[[str], str]:
    """A function that replaces the old values of the words by the new values, in the part of a path behind its base."""
    then = time_in_run_id(run)
    meant = templates.template_words(run, "", then) if then else {"run": run}
    means = templates.template_words(new, "", now)
    known = {meant[word]: means[word] for word in ("run", "date", "time") if word in meant}
    pattern = re.compile("|".join(re.escape(text) for text in sorted(known, key=len, reverse=True)))
    return lambda path: pattern.sub(lambda found: known[found[0]], path)


def _renew_volume(volume: Volume, base: str, renew: Callable[[str], str]) -> Volume:
    match volume:
        case FileVolume(filename):
            if not base or not filename.startswith(base.rstrip("/") + "/"):
                return volume
            return replace(volume, filename=base + renew(filename.removeprefix(base)))
        case DebugVolume(image=below):
            return replace(volume, image=_renew_volume(below, base, renew))
        case FormatVolume(file=below):
            return replace(volume, file=_renew_volume(below, base, renew))
        case _:
            return volume
