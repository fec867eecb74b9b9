"""Commands for jobs, and transactions of jobs: every check in QEMU's order, then every job or none.

Before the first check, the facts about the volumes are asked from the hosts, in parallel; nothing is created before the
last check of the last action.  A failed check therefore needs no undo, and no failing action leaves a job that never
started (where QEMU waits for ever).
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
from blockjobs.qmp.launch import launch_run
from blockjobs.qmp.nodes import check_filter, open_error_text
from blockjobs.registry.nodes import Node

Arguments = dict[str, Any]
Seen = dict[tuple[str, HostedVolume], Sight]
CLUSTER: Final = 64 << 10  # bytes: the smallest piece that QEMU's backup copies
BUSY: Final = "Node '{}' is busy: block device is in use by block job: {}"


@dataclass(frozen=True, slots=True)
class BackupDraft:
    """A job that passed every check, not yet submitted."""

    id: JobId
    source: Node
    target: Node
    arguments: Arguments


def blockdev_backup(fleet: Backend, arguments: Arguments) -> Any:
    return start_backups(fleet, [("blockdev-backup", arguments)], grouped=True)


def drive_backup(fleet: Backend, arguments: Arguments) -> Any:
    return start_backups(fleet, [("drive-backup", arguments)], grouped=True)


def start_transaction(fleet: Backend, arguments: Arguments) -> Any:
    actions = [(action["type"], action["data"]) for action in arguments["actions"]]
    mode = arguments.get("properties", {}).get("completion-mode", "individual")
    return start_backups(fleet, actions, grouped=mode == "grouped")


def start_backups(fleet: Backend, actions: Sequence[tuple[str, Arguments]], *, grouped: bool) -> Any:
    seen = fleet.look(_volumes_to_check(fleet, actions))
    drafts: list[BackupDraft] = []
    for kind, arguments in actions:
        if kind == "abort":
            raise QmpError("Transaction aborted using Abort action")
        drafts.append(check_backup(fleet, kind, arguments, seen, drafts))
    if drafts:
        plan = _plan_run(drafts, grouped=grouped)
        try:
            launch_run(fleet, plan)
        except JobExists as exists:
            raise QmpError(str(exists)) from None
        except VolumeBusy as busy:
            raise QmpError(_busy_text(fleet, drafts, busy)) from None
    return {}


def _volumes_to_check(fleet: Backend, actions: Iterable[tuple[str, Arguments]]) -> Iterable[tuple[str, HostedVolume]]:
    """The volumes that the checks ask hosts about, as (side, volume); an unknown node yields nothing."""
    for kind, arguments in actions:
        if kind != "abort":
            with suppress(QmpError):
                source, target = _backup_nodes(fleet, kind, arguments)
                if source.name != target.name:
                    yield "source", source.volume
                    yield drives.target_side(arguments) if kind == "drive-backup" else "target", target.volume


def _backup_nodes(fleet: Backend, kind: str, arguments: Arguments) -> tuple[Node, Node]:
    source = fleet.node(arguments["device"])
    return source, drives.target_node(source, arguments) if kind == "drive-backup" else fleet.node(arguments["target"])


def check_backup(
    fleet: Backend, kind: str, arguments: Arguments, seen: Seen, earlier: Sequence[BackupDraft]
) -> BackupDraft:
    """Make every check of a backup, in QEMU's order.

    Raises:
        QmpError: the first failed check.
    """
    source, target = _backup_nodes(fleet, kind, arguments)
    _check_bitmap(arguments)
    if source.name == target.name or (source.volume.lock and source.volume.lock == target.volume.lock):
        raise QmpError("Source and target cannot be the same")
    if arguments.get("compress") and volumespec.format_image(target.volume.volume) is None:
        raise QmpError("Compression is not supported for this drive ")
    _not_busy(fleet, source, target, earlier)
    _check_perf(arguments.get("x-perf", {}))
    there = _checked_target_sight(source, target, seen)
    _check_inserted_filter(fleet, target, arguments)
    if kind == "drive-backup":
        target = drives.on_its_layer(target, arguments, there)
    if arguments["sync"] == "none":
        raise QmpError("Sync mode 'none' not supported")
    return BackupDraft(job_id(fleet, arguments, earlier), source, target, arguments)


def _check_bitmap(arguments: Arguments) -> None:
    """Make QEMU's checks of bitmaps; the fleet has no bitmaps, so a named bitmap is never found."""
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


def _check_perf(perf: Arguments) -> None:
    if not 1 <= perf.get("max-workers", 1) < 1 << 31:
        raise QmpError("max-workers must be between 1 and 2147483647")
    if perf.get("max-chunk", 0) < 0:
        raise QmpError("max-chunk must be zero (which means no limit) or positive")
    least = perf.get("min-cluster-size", 0)
    if least & (least - 1):
        raise QmpError("min-cluster-size needs to be a power of 2")


def _checked_target_sight(source: Node, target: Node, seen: Seen) -> Sight:
    """The host's view of the target, after the check that source and target have the same size."""
    here, there = checked_sights(source, target, seen)
    if there.size != here.size:
        raise QmpError("Source and target image have different sizes")
    return there


def _check_inserted_filter(fleet: Backend, target: Node, arguments: Arguments) -> None:
    """Raise QEMU's errors about the filter above a backup's source, and about the cluster size."""
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


def checked_sights(source: Node, target: Node, seen: Seen) -> tuple[Sight, Sight]:
    """The host's views of source and target, after the check that the host can open both."""
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
            label = volumespec.volume_label(node.volume.volume)
            raise QmpError(f"Could not {verb} '{label}': {open_error_text(sight.errno, sight.text)}")
    return here, here if made else there  # a new target will fit


def job_id(fleet: Backend, arguments: Arguments, earlier: Sequence[BackupDraft]) -> JobId:
    """The job id after the checks of the id, the last checks before the speed's."""
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


def _plan_run(drafts: Sequence[BackupDraft], *, grouped: bool) -> RunPlan:
    run, name = run_of(drafts)
    whole = grouped or len(drafts) == 1
    specs = [spec_of_draft(draft, run, TxnId(run if whole else f"{run}.{draft.id}")) for draft in drafts]
    return RunPlan(run, name, whole, (tuple(specs),) if whole else tuple((each,) for each in specs))


def run_of(drafts: Sequence[BackupDraft]) -> tuple[RunId, str]:
    """A new run for every command, named after the job."""
    name = drafts[0].id[:60] if len(drafts) == 1 else "transaction"
    return RunId(f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"), name


def spec_of_draft(draft: BackupDraft, run: RunId, txn: TxnId, **more: Any) -> JobSpec:
    arguments = draft.arguments
    path = volumespec.volume_path(draft.target.volume.volume)
    return JobSpec(
        id=draft.id,
        transaction=txn,
        run=run,
        sync=arguments["sync"],
        source=draft.source.volume,
        target=draft.target.volume,
        target_base="" if path is None else os.path.dirname(path),
        speed=arguments.get("speed", 0),
        on_source_error=OnError(arguments.get("on-source-error", "report")),
        on_target_error=OnError(arguments.get("on-target-error", "report")),
        auto_finalize=arguments.get("auto-finalize", True),
        auto_dismiss=arguments.get("auto-dismiss", True),
        overwrite=True,
        compress=arguments.get("compress", False),
        live=True,  # as every node of a VM's is
        **more,
    )


def _busy_text(fleet: Backend, drafts: Iterable[BackupDraft], busy: VolumeBusy) -> str:
    """The error text for a volume taken meanwhile: the text names the node, not the volume."""
    names = [
        node.name for draft in drafts for node in (draft.target, draft.source) if node.volume.lock == busy.volume
    ]  # fmt: skip
    return BUSY.format(names[0] if names else busy.volume, fleet.registry.nodes.type_of(busy.holder))
