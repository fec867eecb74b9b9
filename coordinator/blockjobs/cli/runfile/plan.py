"""From job drafts to the run: ids, transactions, volumes with their words replaced, and checks of the jobs together.

This is the only way from a run file to a RunPlan, used by ``check``, ``plan`` and ``run``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from blockjobs.cli.runfile import expansion
from blockjobs.cli.runfile.expansion import FleetFacts, Glob, JobDraft
from blockjobs.cli.runfile.fields import RunFile, Transaction
from blockjobs.cli.runfile.text import Fault, Text, parse_run_file
from blockjobs.cli.runfile.units import SALVAGED
from blockjobs.cli.runfile.yaml_places import yaml_text
from blockjobs.model import cuts, ids, mirrors, restores, runs, templates, verifications, volumespec
from blockjobs.model.errors import BadField, BadInput, HostsAway, Refused
from blockjobs.model.ids import RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import ALONE, RunFields, Skipped, Store, transaction_id
from blockjobs.model.runs import JobFault, Named, NameUsed, RunPlan
from blockjobs.settings import absolute_path

# built-in type -> accepted ``options``; the options of any other type are checked by its driver
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "backup": (), "mirror": (), restores.TYPE: (restores.FORCE, restores.KEEP_DIGESTS), verifications.TYPE: (),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFileRead:
    """A run file whose fields are valid."""

    text: Text
    file: RunFile
    only: frozenset[str] = frozenset()

    def plan(self, now: datetime, fleet: FleetFacts | None = None) -> RunPlan:
        """The run that starts now.

        Raises:
            BadInput: ``FILE:LINE: jobs[1].speed: what is wrong; what was expected``.
            NameUsed: a volume has a name, and ``fleet`` has no names.
            HostsAway: hosts are away that a transaction cannot do without.
        """
        drafts: list[JobDraft] = []
        try:
            drafts, skipped = expansion.draft_jobs(self.file, fleet or FleetFacts(), self.only)
            terms = _run_fields(self.file, self.text.path, skipped, self.only)
            return _plan_run(self.file, drafts, terms, now, fleet or FleetFacts())
        except NameUsed:
            raise
        except Fault as fault:
            raise self.text.bad(fault.place, fault.wrong) from None
        except JobFault as fault:
            raise self.text.bad(drafts[fault.position].at(fault.field), str(fault)) from None

    def globs(self) -> list[Glob]:
        """The globs that hosts have to answer before the plan."""
        return expansion.globs_to_resolve(self.file, self.only)


def load_run_file(path: Path, *, now: datetime) -> RunPlan:
    """The run described in ``path``, started at ``now``; raises as ``read_run_file`` and ``plan`` do."""
    return read_run_file(path).plan(now)


def read_run_file(path: Path, changes: Iterable[str] = (), only: Iterable[str] = ()) -> RunFileRead:
    """The content of ``path``, with changes of the command line; ``only``: names of the wanted transactions.

    Raises:
        BadInput: ``FILE:LINE: jobs[1].speed: what is wrong; what was expected``.
    """
    text, file = parse_run_file(path, changes)
    try:
        _check_consistency(file)
    except Fault as fault:
        raise text.bad(fault.place, fault.wrong) from None
    wanted = frozenset(only)
    known = [txn.name for txn in file.transactions]
    for name in wanted - set(known):
        there = ", ".join(known) or "none: the file has only jobs"
        raise BadInput(f"--only {name}: {path} has no such transaction; one of {there} was expected")
    return RunFileRead(text, file, wanted)


# --- checks of the whole file ------------------------------------------------------------------------


def _check_consistency(file: RunFile) -> None:
    """Raise Fault for valid fields that contradict one another."""
    if file.jobs and file.transactions:
        raise Fault(("jobs",), "not accepted beside transactions; a transaction with jobs of its own was expected")
    if not file.jobs and not file.transactions:
        raise Fault(("jobs",), "missing; a list of jobs, or of transactions, was expected")
    if file.transactions and "completion_mode" in file.model_fields_set:
        raise Fault(("completion-mode",), "not accepted beside transactions; each says its own")
    if file.hold_timeout and file.defaults.hold_timeout:
        raise Fault(("defaults", "hold-timeout"), "said twice; it is a field of the run or of the defaults")
    wrongs = [unknown_options(kind, file.defaults.options) for kind in _job_types(file)]
    if wrongs and all(wrongs):
        raise Fault(("defaults", "options"), wrongs[0])
    seen: set[str] = set()
    for at, txn in enumerate(file.transactions):
        for field, wrong in _of_transaction(file, txn, seen):
            raise Fault(("transactions", at, field), wrong)
        seen.add(txn.name)


def _job_types(file: RunFile) -> list[str]:
    """The types of the jobs of a file, without repetition."""
    long = [(job,) for job in file.jobs] + [(txn, job) for txn in file.transactions for job in txn.jobs]
    short = [(txn,) for txn in file.transactions if txn.sources]
    said = [
        [each.type for each in (file.defaults, *layers) if "type" in each.model_fields_set] for layers in long + short
    ]
    return list(dict.fromkeys(types[-1] if types else "backup" for types in said))


def _of_transaction(file: RunFile, txn: Transaction, before: set[str]) -> Iterator[tuple[str, str]]:
    if txn.name in before:
        yield "name", f"{yaml_text(txn.name)} is the name of another transaction; a name of its own was expected"
    if bool(txn.jobs) == bool(txn.sources):
        yield "sources" if txn.jobs else "name", "either jobs, or sources and hosts, were expected"
    if txn.sources and not txn.hosts:
        yield "hosts", "missing; the hosts that the sources are on were expected"
    if txn.jobs and txn.hosts:
        yield "hosts", "not accepted beside jobs, which name their own; sources were expected"
    if txn.sources and not (txn.target or file.defaults.target):
        yield "target", "missing; a path such as {store}/{host}/{run}/{name}, here or in defaults, was expected"
    if txn.store and txn.store not in file.stores:
        known = ", ".join(file.stores) or "none: the file has no stores"
        yield "store", f"{yaml_text(txn.store)} is no store; one of {known} was expected"
    if txn.completion_mode == "grouped":
        shares = () if txn.succeed_if == SALVAGED else ("succeed_if",)
        for name in [name for name in ("retry", "retry_wait", *shares) if name in txn.model_fields_set]:
            field = name.replace("_", "-")
            yield field, "not accepted by completion-mode 'grouped', which is all or nothing; 'individual' was expected"


# --- the run ------------------------------------------------------------------------------------------


def _plan_run(file: RunFile, drafts: list[JobDraft], terms: RunFields, now: datetime, fleet: FleetFacts) -> RunPlan:
    run = ids.run_id(file.name, now)
    specs = [
        _job_spec(at, draft, run=run, now=now, stores=terms.stores, named=fleet.named)
        for at, draft in enumerate(drafts)
    ]
    allowed = _in_place(file, drafts, specs)
    runs.check_together(specs, lambda at: drafts[at].called, allowed)
    here, skipped = [], list(terms.skipped)
    for draft, spec in zip(drafts, specs, strict=True):
        if spec.host not in fleet.absent:
            here.append(spec)
        elif draft.policy.offline.what == "skip":
            why = f"host '{spec.host}' {fleet.absent[spec.host]}"
            skipped.append(Skipped(transaction=draft.transaction, host=spec.host, jobs=(draft.name,), why=why))
        else:
            wanted = {s.host for d, s in zip(drafts, specs, strict=True) if d.policy.offline.what != "skip"}
            raise HostsAway({host: why for host, why in fleet.absent.items() if host in wanted})
    if not here:
        raise Refused(f"run '{file.name}' has nothing left to do: {skipped[0].why}")
    transactions: dict[TxnId, list[JobSpec]] = {}
    for spec in here:
        transactions.setdefault(spec.transaction, []).append(spec)
    return RunPlan(
        run,
        file.name,
        all(policy.grouped for policy in terms.policies.values()),
        tuple(map(tuple, transactions.values())),
        replace(terms, skipped=tuple(skipped)),
        allowed,
    )


def _in_place(file: RunFile, drafts: Iterable[JobDraft], specs: Iterable[JobSpec]) -> frozenset[TxnId]:
    """The groups that may have a target in place."""
    allowed = {txn.name for txn in file.transactions if txn.allow_in_place} | (
        {ALONE} if file.allow_in_place else set()
    )
    pairs = zip(drafts, specs, strict=True)
    return frozenset(spec.transaction for draft, spec in pairs if draft.transaction in allowed)


def _run_fields(file: RunFile, path: Path, skipped: Iterable[Skipped], only: frozenset[str]) -> RunFields:
    """The run's record of the file beside its jobs.

    A transaction is partial if names of a pattern are left out and the file does not say how much may be missing.
    """
    policies, without = expansion.transaction_policies(file, only), {left.transaction for left in skipped}
    return RunFields(
        policies={
            name: replace(policy, succeed_if=100.0)
            if name in without and policy.offline.what != "skip" and policy.succeed_if is None
            else policy
            for name, policy in policies.items()
        },
        stores={name: Store(path=s.path, jobs=s.jobs, speed=s.speed) for name, s in file.stores.items()},
        deadline=file.deadline,
        hold_timeout=file.hold_timeout or file.defaults.hold_timeout,
        on_overlap=file.on_overlap,
        file=str(absolute_path(path, "file")),
        notify=file.notify.said(),
        skipped=tuple(skipped),
        overdue=file.overdue,
        part=bool(only),
    )


def _job_spec(
    at: int, draft: JobDraft, *, run: RunId, now: datetime, stores: Mapping[str, Store], named: Named | None
) -> JobSpec:
    try:
        job_id = ids.job_id(f"{run}.{draft.name}")
        txn = transaction_id(run, draft.transaction, job_id, grouped=draft.policy.grouped)
        ids.job_id(txn)  # the id becomes part of file names, too
    except BadInput as wrong:
        raise JobFault(at, "id", f"{wrong}; at most {ids.LONGEST} characters with the run's id") from None
    options = expansion.options_of_draft(draft)
    source, target, base = runs.job_volumes(
        draft.source,
        _complete_target(at, draft, stores, named),
        templates.template_words(run, draft.name, now),
        position=at,
        named=named,
        form=expansion.format_of_draft(draft),
        compress=options.get("compress", False),
        in_place=options.get("in_place", False),
    )
    options["options"] = _own_driver_options(at, draft, options)
    return JobSpec(
        id=job_id,
        transaction=txn,
        run=run,
        source=source,
        target=target,
        target_base=base,
        store=_store_of_target(at, draft, volumespec.volume_path(target.volume), stores),
        **options,
    )


def _complete_target(at: int, draft: JobDraft, stores: Mapping[str, Store], named: Named | None) -> object:
    """The written target with its store put in, and with the source's host if the target is shared by many jobs."""
    target = draft.target
    if not target:
        raise JobFault(at, "target", "missing; a value was expected")
    if draft.store:
        target = templates.replace_word(target, "store", stores[draft.store].path)
    elif templates.has_word(target, "store") or str(target).startswith("{store}"):
        raise JobFault(at, "target", "'{store}' stands for the transaction's store, and it has none; one was expected")
    if not draft.inherited or volumespec.is_name(target):
        return target
    host = expansion.host_of(draft.source, named)
    if isinstance(target, Mapping):
        return {"host": host, **target}
    return f"{host}:{target}" if str(target).startswith("/") else target


def _store_of_target(at: int, draft: JobDraft, path: str | None, stores: Mapping[str, Store]) -> str:
    """The store that contains a target: the target uses this store's budget, whether the file says so or not."""
    inside = [name for name, store in stores.items() if path and f"{path}/".startswith(f"{store.path}/")]
    if draft.store and draft.inherited and path and draft.store not in inside:
        raise JobFault(
            at,
            "target",
            f"{path} is not in store '{draft.store}' ({stores[draft.store].path}); "
            "a path such as {store}/{host}/{run}/{name} was expected",
        )
    return draft.store if draft.store in inside else max(inside, key=lambda name: len(stores[name].path), default="")


def _own_driver_options(at: int, draft: JobDraft, options: runs.PlanOptions) -> Mapping[str, Any]:
    """The options of the job's own driver, checked for built-in drivers."""
    kind, sync = options.get("type", "backup"), options.get("sync", "full")
    said, own = expansion.of_mirror(draft)
    _check_options(at, draft, kind)
    for key in ("offset", "length"):
        if options.get(key) and kind == "backup":
            raise JobFault(at, key, f"not accepted by type '{kind}'; type '{restores.TYPE}' was expected")
    if options.get("compress") and kind != "backup":
        raise JobFault(at, "compress", f"not accepted by type '{kind}'; type 'backup' was expected")
    if kind == "mirror":
        for key in ("snapshot", "live"):
            if key in draft.layers[-1].model_fields_set:
                raise JobFault(at, key, "not accepted by type 'mirror', which follows its source")
        try:
            return mirrors.mirror_options(said, sync=sync)
        except BadField as wrong:
            raise JobFault(at, wrong.field, str(wrong)) from None
    if kind == "backup":
        quiesce = str(said.get("quiesce") or "")
        own.pop("quiesce", None)
        if quiesce and options.get("snapshot") == cuts.NONE:
            raise JobFault(at, "quiesce", "a source is frozen for its cut: a 'snapshot' was expected")
    for key in own:
        raise JobFault(at, key, f"not accepted by type '{kind}'; type 'mirror' was expected")
    if kind == "backup" and sync != "full":
        raise JobFault(at, "sync", f"{yaml_text(sync)} is not accepted; 'full' was expected")
    if kind == "backup":
        return {"quiesce": quiesce} if quiesce else {}
    given = options.get("options", {})
    return {name: given[name] for name in OPTIONS.get(kind, given) if name in given}


def _check_options(at: int, draft: JobDraft, kind: str) -> None:
    """Raise JobFault if an option of this job, or of its transaction, is unknown to the job's type."""
    for layer in draft.layers[1:]:
        if wrong := unknown_options(kind, layer.options):
            raise JobFault(at, "options", wrong)


def unknown_options(kind: str, given: Mapping[str, Any]) -> str:
    """The error in the ``options`` of a job of a type; "" without an error, or if only hosts can tell."""
    known = OPTIONS.get(kind, tuple(given))
    for name, value in given.items():
        if name not in known:
            expected = f"one of {', '.join(known)}" if known else "a type of which you have a driver"
            return f"option {yaml_text(name)} is not accepted by type '{kind}'; {expected} was expected"
        if kind in OPTIONS and not isinstance(value, bool):
            return f"option {yaml_text(name)}: {yaml_text(value)} is not accepted; true or false was expected"
    return ""
