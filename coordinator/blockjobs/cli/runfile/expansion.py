"""Turn the fields of a run file into job drafts: the jobs of ``jobs``, and every source on every host.

Pure: the matches of globs, and the absent hosts, are passed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from blockjobs.cli.runfile import limits, units
from blockjobs.cli.runfile.fields import GLOB, JobOptions, RunFile, RunFileJob, Transaction
from blockjobs.cli.runfile.naming import shape_of, word_of, word_of_match
from blockjobs.cli.runfile.text import Fault
from blockjobs.cli.runfile.yaml_places import Path as Place
from blockjobs.model import ids, runs, volumespec
from blockjobs.model.ids import Host
from blockjobs.model.policies import ALONE, Policy, Skipped
from blockjobs.model.runs import Named


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern on a host."""

    host: Host
    pattern: str


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """Facts that only the fleet knows.

    ``found``: the matches of a glob, or why they are unknown.  ``left_out``: matches that are no possible job name,
    each with the reason.  ``absent``: why a host is away.  Without ``named`` a volume's name raises NameUsed; a glob
    without an entry stands for one job.
    """

    named: Named | None = None
    found: Mapping[Glob, tuple[str, ...] | str] = field(default_factory=dict)
    left_out: Mapping[Glob, Sequence[tuple[str, str]]] = field(default_factory=dict)
    absent: Mapping[Host, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobDraft:
    """A job to be.  ``layers``: sources of options, the last layer wins; ``place``: the job's place in the file."""

    name: str
    transaction: str
    policy: Policy
    source: object
    target: object
    layers: tuple[JobOptions, ...]
    place: Place
    inherited: bool  # the target is on the host of the source
    store: str = ""
    short: Mapping[str, Place] = field(default_factory=dict)  # of the short form: field -> place
    host: str = ""

    def at(self, field: str) -> Place:
        return self.short.get(field, self.place[:2] if self.short else (*self.place, field))

    @property
    def called(self) -> str:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.place).removeprefix(".")
        return f"{where} on {self.host}" if self.host else where


def chosen_transactions(file: RunFile, only: frozenset[str]) -> list[tuple[int, Transaction]]:
    """The chosen transactions (every transaction without ``only``), with their positions in the file."""
    return [(at, txn) for at, txn in enumerate(file.transactions) if not only or txn.name in only]


def globs_to_resolve(file: RunFile, only: frozenset[str]) -> list[Glob]:
    """The globs that hosts have to answer."""
    return [
        Glob(host, source)
        for _, txn in chosen_transactions(file, only)
        for host in hosts_of_transaction(file, txn)
        for source in txn.sources
        if GLOB.search(source)
    ]


def hosts_of_transaction(file: RunFile, txn: Transaction) -> list[Host]:
    """The hosts of a transaction: a word is a group, or, without a group of that name, a host or a range."""
    found = (host for word in txn.hosts for host in file.hosts.get(word) or units.expand_hosts(word))
    return [Host(host) for host in dict.fromkeys(found)]


def transaction_policies(file: RunFile, only: frozenset[str]) -> dict[str, Policy]:
    if file.jobs:
        return {ALONE: Policy(grouped=file.completion_mode == "grouped")}
    return {
        txn.name: Policy(
            grouped=txn.completion_mode == "grouped",
            offline=txn.offline,
            retry=txn.retry,
            retry_wait=txn.retry_wait,
            succeed_if=txn.succeed_if if isinstance(txn.succeed_if, float) else None,
            salvaged=txn.succeed_if == units.SALVAGED,
            keep={name: number for name, number in txn.keep.model_dump().items() if number},
        )
        for _, txn in chosen_transactions(file, only)
    }


def draft_jobs(file: RunFile, fleet: FleetFacts, only: frozenset[str]) -> tuple[list[JobDraft], list[Skipped]]:
    """The drafts of the jobs, in the order of the file, and the sources that a transaction skips because of a glob.

    Raises:
        Fault: a glob matches nothing, or its matches are unknown, and the transaction may not skip the glob.
    """
    drafts: list[JobDraft] = []
    skipped: list[Skipped] = []
    known = transaction_policies(file, only)
    for at, job in enumerate(file.jobs):
        target = job.target or file.defaults.target
        drafts.append(
            JobDraft(
                job.id,
                ALONE,
                known[ALONE],
                job.source,
                target,
                (file.defaults, job),
                ("jobs", at),
                inherited=not job.target,
            )
        )
    names = _Names(file)
    for at, txn in chosen_transactions(file, only):
        drafts += _long_form_drafts(file, at, txn, known[txn.name])
        for host, source, place in _hosts_and_sources(file, at, txn):
            glob = Glob(host, source)
            paths = _source_paths(glob, fleet)
            if isinstance(paths, str):
                if txn.offline.what != "skip":
                    raise Fault(place, paths)
                skipped.append(Skipped(transaction=txn.name, host=host, jobs=(source,), why=paths))
                continue
            if len(drafts) + len(paths) > limits.JOBS:
                many = f"with the files that {source} matches on host {host} there are {len(drafts) + len(paths)} jobs"
                raise Fault(place, f"{many}; at most {limits.JOBS} were expected")
            for path in paths:
                name = names.of(glob, place, path)
                drafts.append(
                    _short_form_draft(
                        file, at, Glob(host, _escaped_source(glob, path)), place, name=name, policy=known[txn.name]
                    )
                )
            skipped += [
                Skipped(transaction=txn.name, host=host, jobs=(path,), why=why)
                for path, why in fleet.left_out.get(glob, ())
            ]
    return drafts, skipped


class _Names:
    """The ids of the jobs named by source in the file, chosen or not."""

    def __init__(self, file: RunFile) -> None:
        self._taken = {job.id for txn in file.transactions for job in txn.jobs}
        self._written: dict[tuple[Host, Place], str] = {}
        self._others: dict[tuple[Host, Place], int] = {}  # how many of the host's shapes stand before a pattern
        pairs = [pair for at, txn in enumerate(file.transactions) for pair in _hosts_and_sources(file, at, txn)]
        own = self._taken.copy()
        self._shapes: dict[Host, list[str]] = {}
        shapes = self._shapes
        for host, source, place in pairs:
            if not GLOB.search(source):
                self._written[host, place] = name = ids.free_name(f"{host}-{word_of(source)}", self._taken)
                self._taken.add(name)
                shapes.setdefault(host, []).append(name.removeprefix(f"{host}-"))
        for host in {host for host, _, _ in pairs}:
            shapes.setdefault(host, []).extend(
                name.removeprefix(f"{host}-") for name in own if name.startswith(f"{host}-")
            )
        for host, source, place in pairs:
            if GLOB.search(source):
                self._others[host, place] = len(shapes[host])
                shapes[host].append(shape_of(source))

    def of(self, glob: Glob, place: Place, path: str) -> str:
        """The id of the job for a file of a source."""
        if (glob.host, place) in self._written:
            return self._written[glob.host, place]
        others = islice(self._shapes[glob.host], self._others[glob.host, place])
        word = word_of_match(glob.pattern, path, others)
        name = ids.free_name(f"{glob.host}-{word}", self._taken)
        self._taken.add(name)
        return name


def _long_form_drafts(file: RunFile, at: int, txn: Transaction, policy: Policy) -> Iterator[JobDraft]:
    for number, job in enumerate(txn.jobs):
        yield JobDraft(
            job.id,
            txn.name,
            policy,
            job.source,
            job.target or _written_target(file, txn),
            (file.defaults, txn, job),
            ("transactions", at, "jobs", number),
            inherited=not job.target,
            store=txn.store,
        )


def _short_form_draft(file: RunFile, at: int, one: Glob, place: Place, *, name: str, policy: Policy) -> JobDraft:
    txn = file.transactions[at]
    target: Place = ("transactions", at, "target") if txn.target else ("defaults", "target")
    return JobDraft(
        name,
        txn.name,
        policy,
        f"{one.host}:{one.pattern}",
        _written_target(file, txn),
        (file.defaults, txn),
        place,
        inherited=True,
        store=txn.store,
        short={"source": place, "id": place, "target": target},
        host=one.host,
    )


def _hosts_and_sources(file: RunFile, at: int, txn: Transaction) -> Iterator[tuple[Host, str, Place]]:
    for host in hosts_of_transaction(file, txn):
        for number, source in enumerate(txn.sources):
            yield host, source, ("transactions", at, "sources", number)


def _source_paths(glob: Glob, fleet: FleetFacts) -> tuple[str, ...] | str:
    """The paths of a source on a host, or an error text."""
    if not GLOB.search(glob.pattern):
        return (glob.pattern,)
    if glob.host in fleet.absent:
        return f"host '{glob.host}' {fleet.absent[glob.host]}"
    found = fleet.found.get(glob, (GLOB.sub("x", glob.pattern),))
    if isinstance(found, str):
        return found
    if found:
        return found
    left = "".join(f"; {path} is left out: {why}" for path, why in fleet.left_out.get(glob, ()))
    return f"{glob.pattern} matches no file on host {glob.host}; at least one was expected{left}"


def _escaped_source(glob: Glob, path: str) -> str:
    """A source in its written form: braces in a path found by a pattern are escaped, as no word is replaced."""
    return path if path == glob.pattern else path.replace("{", "{{").replace("}", "}}")


def _written_target(file: RunFile, txn: Transaction) -> object:
    return txn.target or file.defaults.target


# --- how a draft is run -------------------------------------------------------------------------------


def options_of_draft(draft: JobDraft) -> runs.PlanOptions:
    """The options that the file gives a job, in any layer."""
    said: runs.PlanOptions = {}
    for layer in draft.layers:
        said = {**said, **layer.given()}
    return said


def format_of_draft(draft: JobDraft) -> str:
    said = (layer.format for layer in reversed(draft.layers) if "format" in layer.model_fields_set)
    return next(said, "raw")


def of_mirror(draft: JobDraft) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mirror options of a draft: from every layer, and the part from the job itself."""
    said: dict[str, Any] = {}
    for layer in draft.layers:
        said |= layer.of_mirror()
    last = draft.layers[-1]
    return said, last.of_mirror() if isinstance(last, RunFileJob) else {}


def host_of(source: object, named: Named | None) -> str:
    """The host of a source, or "" if the source names no host."""
    if isinstance(source, Mapping):
        return str(source.get("host", ""))
    if volumespec.is_name(source):
        return str(named(str(source)).host) if named else ""
    return str(source).partition(":")[0] if not str(source).startswith("/") else ""
