"""``blockdev-mirror``: its checks in QEMU's order.

Sizes are not among them: a mirror of another size is a job that fails.
"""

from __future__ import annotations

from typing import Any, Final

from blockjobs.model import mirrors
from blockjobs.model.errors import BadInput, JobExists, VolumeBusy
from blockjobs.model.ids import TxnId
from blockjobs.model.runs import RunPlan
from blockjobs.qmp.backup import BUSY, Arguments, Draft, job_id, opened, run_of, spec
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.fleet import Fleet
from blockjobs.qmp.launch import launch
from blockjobs.store.nodes import Node

_OPTIONS: Final = ("granularity", "buf-size", "copy-mode")


def blockdev_mirror(fleet: Fleet, arguments: Arguments) -> Any:
    nodes = fleet.registry.nodes
    source = fleet.node(arguments["device"])
    if _has_parents(fleet, source):
        raise QmpError("Need a root block node")
    target = fleet.node(arguments["target"])
    given: Arguments = {name: arguments[name] for name in _OPTIONS if name in arguments}
    _checked({"granularity": given.get("granularity", 0)}, "full")
    if writer := nodes.writer(target.volume):
        raise QmpError(BUSY.format(target.name, nodes.type_of(writer)))
    if nodes.readers(target.volume):
        raise QmpError(BUSY.format(target.name, "backup"))
    if "replaces" in arguments:
        raise QmpError(f"Failed to find node with node-name='{arguments['replaces']}'")
    options = _checked(given, arguments["sync"])
    if source.name == target.name or (source.volume.lock and source.volume.lock == target.volume.lock):
        raise QmpError("Can't mirror node into itself")
    if target.read_only:
        raise QmpError("Block node is read-only")
    opened(source, target, fleet.look([("source", source.volume), ("target", target.volume)]))
    draft = Draft(job_id(fleet, arguments, ()), source, target, arguments)
    run, name = run_of([draft])
    job = spec(draft, run, TxnId(run), type="mirror", options=options)
    try:
        launch(fleet, RunPlan(run, name, grouped=True, transactions=((job,),)), refuse=False)
    except (JobExists, VolumeBusy) as refused:
        raise QmpError(str(refused)) from None
    return {}


def _has_parents(fleet: Fleet, node: Node) -> bool:
    """Another node was built on it, or a job stands on it."""
    nodes = fleet.registry.nodes
    return (
        bool(nodes.writer(node.volume))
        or nodes.readers(node.volume) > 0
        or any(node.name in other.children for other in nodes.list())
    )


def _checked(given: dict[str, Any], sync: str) -> dict[str, Any]:
    try:
        return mirrors.options(given, sync=sync)
    except BadInput as wrong:
        raise QmpError(str(wrong)) from None
