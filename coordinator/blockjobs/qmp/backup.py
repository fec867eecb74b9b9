"""Commands that create jobs, and transactions of them: every check in QEMU's order, then all or nothing.

What an action needs from its host is asked for before the first check, of all hosts at once; nothing is created
before the last check of the last action.  So there is nothing to undo, and a failing action cannot leave a job
that never started (where QEMU waits for ever).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from blockjobs.model import ids, volumespec
from blockjobs.model.errors import BadInput, JobExists, NoSuchJob, VolumeBusy
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec, OnError
from blockjobs.model.runs import RunPlan
from blockjobs.model.volumespec import HostedVolume
from blockjobs.qmp import drives
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Backend, Sight
from blockjobs.qmp.launch import launch
from blockjobs.qmp.nodes import check_filter, why
from blockjobs.registry.nodes import Node

Arguments = dict[str, Any]
Seen = dict[tuple[str, HostedVolume], Sight]
CLUSTER: Final = 64 << 10  # bytes that QEMU's backup copies at least
BUSY: Final = "Node '{}' is busy: block device is in use by block job: {}"


@dataclass(frozen=True, slots=True)
class BackupDraft:
    """A job that passed every check."""

    id: JobId
    source: Node
    target: Node
    arguments: Arguments


def blockdev_backup(fleet: Backend, arguments: Arguments) -> Any:
    return create(fleet, [("blockdev-backup", arguments)], grouped=True)


def drive_backup(fleet: Backend, arguments: Arguments) -> Any:
    return create(fleet, [("drive-backup", arguments)], grouped=True)


def transaction(fleet: Backend, arguments: Arguments) -> Any:
    actions = [(action["type"], action["data"]) for action in arguments["actions"]]
    mode = arguments.get("properties", {}).get("completion-mode", "individual")
    return create(fleet, actions, grouped=mode == "grouped")


def create(fleet: Backend, actions: Sequence[tuple[str, Arguments]], *, grouped: bool) -> Any:
    seen = fleet.look(_sights(fleet, actions))
    drafts: list[BackupDraft] = []
    for kind, arguments in actions:
        if kind == "abort":
            raise QmpError("Transaction aborted using Abort action")
        drafts.append(check(fleet, kind, arguments, seen, drafts))
    if drafts:
        plan = _plan(drafts, grouped=grouped)
        try:
            launch(fleet, plan)
        except JobExists as exists:
            raise QmpError(str(exists)) from None
        except VolumeBusy as busy:
            raise QmpError(_busy(fleet, drafts, busy)) from None
    return {}


def _sights(fleet: Backend, actions: Iterable[tuple[str, Arguments]]) -> Iterable[tuple[str, HostedVolume]]:
    """What the checks will want to know: only of nodes that are there."""
    for kind, arguments in actions:
        if kind != "abort":
            with suppress(QmpError):
                source, target = _nodes(fleet, kind, arguments)
                if source.name != target.name:
                    yield "source", source.volume
                    yield drives.side(arguments) if kind == "drive-backup" else "target", target.volume


def _nodes(fleet: Backend, kind: str, arguments: Arguments) -> tuple[Node, Node]:
    source = fleet.node(arguments["device"])
    return source, drives.target(source, arguments) if kind == "drive-backup" else fleet.node(arguments["target"])


def check(fleet: Backend, kind: str, arguments: Arguments, seen: Seen, earlier: Sequence[BackupDraft]) -> BackupDraft:
    """Every check of one backup, in QEMU's order.

    Raises:
        QmpError: the first that fails.
    """
    source, target = _nodes(fleet, kind, arguments)
    _bitmap(arguments)
    if source.name == target.name or (source.volume.lock and source.volume.lock == target.volume.lock):
        raise QmpError("Source and target cannot be the same")
    if arguments.get("compress") and volumespec.formatted(target.volume.volume) is None:
        raise QmpError("Compression is not supported for this drive ")
    _not_busy(fleet, source, target, earlier)
    _perf(arguments.get("x-perf", {}))
    there = _fitting(source, target, seen)
    _inserted(fleet, target, arguments)
    if kind == "drive-backup":
        target = drives.on_its_layer(target, arguments, there)
    if arguments["sync"] == "none":
        raise QmpError("Sync mode 'none' not supported")
    return BackupDraft(job_id(fleet, arguments, earlier), source, target, arguments)


def _bitmap(arguments: Arguments) -> None:
    """There are no bitmaps: the checks that say so, and those that come before."""
    sync, bitmap, mode = arguments["sync"], arguments.get("bitmap"), arguments.get("bitmap-mode")
    if sync in ("incremental", "bitmap") and bitmap is None:
        raise QmpError(f"must provide a valid bitmap name for '{sync}' sync mode")
    if sync == "incremental" and mode not in (None, "on-success"):
        raise QmpError("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'")
    if bitmap is not None:
        raise QmpError(f"Bitmap '{bitmap}' could not be found")
    if mode is not None:
        raise QmpError("Cannot specify bitmap sync mode without a bitmap")


def _not_busy(fleet: Backend, source: Node, target: Node, earlier: Sequence[BackupDraft]) -> None:
    nodes = fleet.registry.nodes
    for node in (source, target):
        if writer := nodes.writer(node.volume):
            raise QmpError(BUSY.format(node.name, nodes.type_of(writer)))
    if nodes.readers(target.volume):
        raise QmpError(BUSY.format(target.name, "backup"))
    for draft in earlier:
        for node, held in ((source, draft.target), (target, draft.target), (target, draft.source)):
            if node.name == held.name or (node.volume.lock and node.volume.lock == held.volume.lock):
                raise QmpError(BUSY.format(node.name, "backup"))


def _perf(perf: Arguments) -> None:
    if not 1 <= perf.get("max-workers", 1) < 1 << 31:
        raise QmpError("max-workers must be between 1 and 2147483647")
    if perf.get("max-chunk", 0) < 0:
        raise QmpError("max-chunk must be zero (which means no limit) or positive")
    least = perf.get("min-cluster-size", 0)
    if least & (least - 1):
        raise QmpError("min-cluster-size needs to be a power of 2")


def _fitting(source: Node, target: Node, seen: Seen) -> Sight:
    """What is there, if the source fits into it."""
    here, there = opened(source, target, seen)
    if there.size != here.size:
        raise QmpError("Source and target image have different sizes")
    return there


def _inserted(fleet: Backend, target: Node, arguments: Arguments) -> None:
    """What QEMU says where it cannot make the filter that a backup puts on its source, or not with these clusters."""
    try:
        check_filter(fleet, arguments)
        if target.read_only:
            raise QmpError("Block node is read-only")
    except QmpError as wrong:
        raise QmpError(f"Could not create node: {wrong}") from None
    perf = arguments.get("x-perf", {})
    most, cluster = perf.get("max-chunk", 0), max(CLUSTER, perf.get("min-cluster-size", 0))
    if 0 < most < cluster:
        raise QmpError(f"Required max-chunk ({most}) is less than backup cluster size ({cluster})")


def opened(source: Node, target: Node, seen: Seen) -> tuple[Sight, Sight]:
    """What the host sees of both, if it could open them."""
    if source.volume.host != target.volume.host:
        raise QmpError(
            f"copying between hosts is not supported yet: '{source.name}' is on '{source.volume.host}', "
            f"'{target.name}' is on '{target.volume.host}'"
        )
    here, made = seen["source", source.volume], seen.get(("new", target.volume))
    there = made or seen["target", target.volume]
    for node, sight in ((target, there), (source, here)):
        if sight.errno:
            verb = "create" if sight is made else "open"
            raise QmpError(
                f"Could not {verb} '{volumespec.label(node.volume.volume)}': {why(sight.errno, sight.text)}"
            )  # fmt: skip
    return here, here if made else there  # what will be made fits


def job_id(fleet: Backend, arguments: Arguments, earlier: Sequence[BackupDraft]) -> JobId:
    """The id, checked last of all but the speed."""
    text = arguments.get("job-id", "")
    try:
        name = ids.job_id(text)
    except BadInput:
        raise QmpError(f"Invalid job ID '{text}'") from None
    try:
        taken = bool(fleet.registry.views.place(name))
    except NoSuchJob:
        taken = any(draft.id == name for draft in earlier)
    if taken:
        raise QmpError(f"Job ID '{name}' already in use")
    if arguments.get("speed", 0) < 0:
        raise QmpError("Parameter 'speed' expects a non-negative value")
    return name


def _plan(drafts: Sequence[BackupDraft], *, grouped: bool) -> RunPlan:
    run, name = run_of(drafts)
    whole = grouped or len(drafts) == 1
    specs = [spec(draft, run, TxnId(run if whole else f"{run}.{draft.id}")) for draft in drafts]
    return RunPlan(run, name, whole, (tuple(specs),) if whole else tuple((each,) for each in specs))


def run_of(drafts: Sequence[BackupDraft]) -> tuple[RunId, str]:
    """A run of its own for each command, named by its job."""
    name = drafts[0].id[:60] if len(drafts) == 1 else "transaction"
    return RunId(f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"), name


def spec(draft: BackupDraft, run: RunId, txn: TxnId, **more: Any) -> JobSpec:
    arguments = draft.arguments
    path = volumespec.path(draft.target.volume.volume)
    return JobSpec(
        id=draft.id, transaction=txn, run=run, sync=arguments["sync"], source=draft.source.volume,
        target=draft.target.volume, target_base="" if path is None else os.path.dirname(path),
        speed=arguments.get("speed", 0), on_source_error=OnError(arguments.get("on-source-error", "report")),
        on_target_error=OnError(arguments.get("on-target-error", "report")),
        auto_finalize=arguments.get("auto-finalize", True), auto_dismiss=arguments.get("auto-dismiss", True),
        overwrite=True, compress=arguments.get("compress", False), live=True,  # as every node of a VM's is
        **more,
    )  # fmt: skip


def _busy(fleet: Backend, drafts: Iterable[BackupDraft], busy: VolumeBusy) -> str:
    """Somebody was faster: the text names the node, not the place."""
    names = [
        node.name for draft in drafts for node in (draft.target, draft.source) if node.volume.lock == busy.volume
    ]  # fmt: skip
    return BUSY.format(names[0] if names else busy.volume, fleet.registry.nodes.type_of(busy.holder))
