"""``blockdev-mirror`` and ``drive-mirror``: the checks in QEMU's order.

Sizes are not checked: a mirror of a different size is a job that fails.
"""

from __future__ import annotations

from typing import Any, Final

from blockjobs.model import mirrors
from blockjobs.model.errors import BadInput, JobExists, VolumeBusy
from blockjobs.model.ids import TxnId
from blockjobs.model.runs import RunPlan
from blockjobs.qmp import drives, nodes
from blockjobs.qmp.backup import BUSY, Arguments, BackupDraft, checked_sights, job_id, run_of, spec_of_draft
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Backend
from blockjobs.qmp.launch import launch_run
from blockjobs.registry.nodes import Node

_OPTIONS: Final = ("granularity", "buf-size", "copy-mode")


def blockdev_mirror(fleet: Backend, arguments: Arguments) -> Any:
    source = _mirror_source(fleet, arguments)
    target = fleet.node(arguments["target"])
    options = _checked_mirror_options(fleet, source, target, arguments)
    checked_sights(source, target, fleet.look([("source", source.volume), ("target", target.volume)]))
    return _start_mirror(fleet, source, target, arguments, options)


def drive_mirror(fleet: Backend, arguments: Arguments) -> Any:
    """Start a mirror to a file; as in QEMU, errors of making or opening the target come before most other errors."""
    source = _mirror_source(fleet, arguments)
    if "replaces" in arguments and "node-name" not in arguments:
        raise QmpError("a node-name must be provided when replacing a named node of the graph")
    target = drives.target_node(source, arguments)
    seen = fleet.look([("source", source.volume), (drives.target_side(arguments), target.volume)])
    target = drives.on_its_layer(target, arguments, checked_sights(source, target, seen)[1])
    if "node-name" in arguments:
        nodes.check_name(fleet, arguments["node-name"])
    options = _checked_mirror_options(fleet, source, target, arguments)
    return _start_mirror(fleet, source, target, arguments, {**options, mirrors.ANEW: drives.is_made(arguments)})


def _mirror_source(fleet: Backend, arguments: Arguments) -> Node:
    source = fleet.node(arguments["device"])
    if _has_parents(fleet, source):
        raise QmpError("Need a root block node")
    return source


def _checked_mirror_options(fleet: Backend, source: Node, target: Node, arguments: Arguments) -> dict[str, Any]:
    """Make every check of the arguments, in QEMU's order; return the job's options."""
    known = fleet.registry.nodes
    given: Arguments = {name: arguments[name] for name in _OPTIONS if name in arguments}
    _mirror_options({"granularity": given.get("granularity", 0)}, "full")
    if writer := known.writer(target.volume):
        raise QmpError(BUSY.format(target.name, known.type_of(writer)))
    if known.readers(target.volume):
        raise QmpError(BUSY.format(target.name, "backup"))
    if "replaces" in arguments:
        _check_replaces(fleet, source, arguments["replaces"])
    options = _mirror_options(given, arguments["sync"])
    if source.name == target.name or (source.volume.lock and source.volume.lock == target.volume.lock):
        raise QmpError("Can't mirror node into itself")
    nodes.check_filter(fleet, arguments)
    if target.read_only:
        raise QmpError("Block node is read-only")
    return options


def _check_replaces(fleet: Backend, source: Node, name: str) -> None:
    """Check ``replaces``: without a graph, only the source itself can be replaced."""
    if not any(node.name == name for node in fleet.registry.nodes.list()):
        raise QmpError(f"Failed to find node with node-name='{name}'")
    if name != source.name:
        raise QmpError(
            f"Cannot replace '{name}' by a node mirrored from '{source.name}', because it cannot be guaranteed that "
            "doing so would not lead to an abrupt change of visible data"
        )


def _start_mirror(fleet: Backend, source: Node, target: Node, arguments: Arguments, options: dict[str, Any]) -> Any:
    draft = BackupDraft(job_id(fleet, arguments, ()), source, target, arguments)
    run, name = run_of([draft])
    job = spec_of_draft(draft, run, TxnId(run), type="mirror", options=options)
    try:
        launch_run(fleet, RunPlan(run, name, grouped=True, transactions=((job,),)), refuse=False)
    except (JobExists, VolumeBusy) as refused:
        raise QmpError(str(refused)) from None
    return {}


def _has_parents(fleet: Backend, node: Node) -> bool:
    """Whether another node is built on this node, or a job uses its volume."""
    known = fleet.registry.nodes
    return (
        bool(known.writer(node.volume))
        or known.readers(node.volume) > 0
        or any(node.name in other.children for other in known.list())
    )


def _mirror_options(given: dict[str, Any], sync: str) -> dict[str, Any]:
    try:
        return mirrors.mirror_options(given, sync=sync)
    except BadInput as wrong:
        raise QmpError(str(wrong)) from None
