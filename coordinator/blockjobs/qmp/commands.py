"""The table of QMP commands: name, arguments, function, and whether a command changes anything or waits for a host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from blockjobs import __version__
from blockjobs.qmp import backup, jobs, mirror, nodes, resize, schema, since, tables
from blockjobs.qmp.fleet import Backend
from blockjobs.qmp.qapi import STR, Enum, Members, Union, check_arguments, check_union

VERSION: Final = {"qemu": {"major": 11, "minor": 0, "micro": 0}, "package": f"blockjobs {__version__}"}


@dataclass(frozen=True, slots=True)
class Command:
    """``changes``: the events of the command precede its reply, as in QEMU.  ``waits``: for hosts, perhaps seconds."""

    arguments: Members | Union
    run: Callable[[Backend, dict[str, Any]], Any]
    changes: bool = True
    waits: bool = False

    def __call__(self, fleet: Backend, arguments: dict[str, Any]) -> Any:
        if isinstance(self.arguments, Union):
            return self.run(fleet, check_union(self.arguments, arguments))
        return self.run(fleet, check_arguments(self.arguments, arguments))


def _query_command(run: Callable[[Backend, dict[str, Any]], Any], arguments: Members = tables.NONE) -> Command:
    return Command(arguments, run, changes=False)


_CHANGE: Final = Union(
    {"id": STR, "type": Enum(("mirror", "backup", "commit", "stream", "create", "amend"))}, "type",
    {"mirror": {"copy-mode": tables.COPY_MODE}},
)  # fmt: skip

COMMANDS: Final[dict[str, Command]] = {
    "query-version": _query_command(lambda *_: VERSION),
    "query-commands": _query_command(lambda fleet, _: [{"name": name} for name in fleet.commands]),
    "query-qmp-schema": _query_command(
        lambda *_: schema.describe_schema({n: c.arguments for n, c in COMMANDS.items()})
    ),
    "query-jobs": _query_command(jobs.query_jobs),
    "query-block-jobs": _query_command(jobs.query_block_jobs),
    "query-named-block-nodes": _query_command(nodes.query_nodes, tables.FLAT),
    "x-events-since": _query_command(since.events_since, tables.SINCE),
    "job-pause": Command(tables.ID, jobs.generic_job_command(lambda verbs, id_: verbs.pause(id_))),
    "job-resume": Command(tables.ID, jobs.generic_job_command(lambda verbs, id_: verbs.resume(id_))),
    "job-cancel": Command(tables.ID, jobs.generic_job_command(lambda verbs, id_: verbs.cancel(id_))),
    "job-complete": Command(tables.ID, jobs.generic_job_command(lambda verbs, id_: verbs.complete(id_))),
    "job-finalize": Command(tables.ID, jobs.generic_job_command(lambda verbs, id_: verbs.finalize(id_))),
    "job-dismiss": Command(tables.ID, jobs.generic_job_command(lambda verbs, id_: verbs.dismiss(id_))),
    "block-job-pause": Command(tables.DEVICE, jobs.block_job_command("device", lambda verbs, id_, _: verbs.pause(id_))),
    "block-job-resume": Command(
        tables.DEVICE, jobs.block_job_command("device", lambda verbs, id_, _: verbs.resume(id_))
    ),
    "block-job-cancel": Command(
        tables.CANCEL,
        jobs.block_job_command("device", lambda verbs, id_, given: verbs.cancel(id_, force=given.get("force", False))),
    ),
    "block-job-complete": Command(
        tables.DEVICE, jobs.block_job_command("device", lambda verbs, id_, _: verbs.complete(id_))
    ),
    "block-job-set-speed": Command(
        tables.SPEED, jobs.block_job_command("device", lambda verbs, id_, given: verbs.set_speed(id_, given["speed"]))
    ),
    "block-job-finalize": Command(tables.ID, jobs.block_job_command("id", lambda verbs, id_, _: verbs.finalize(id_))),
    "block-job-dismiss": Command(tables.ID, jobs.block_job_command("id", lambda verbs, id_, _: verbs.dismiss(id_))),
    "block-job-change": Command(_CHANGE, jobs.refuse_change),
    "blockdev-add": Command(tables.BLOCKDEV, nodes.add_node, waits=True),
    "blockdev-del": Command(tables.NODE, nodes.delete_node),
    "blockdev-backup": Command(tables.BLOCKDEV_BACKUP, backup.blockdev_backup, waits=True),
    "drive-backup": Command(tables.DRIVE_BACKUP, backup.drive_backup, waits=True),
    "blockdev-mirror": Command(tables.BLOCKDEV_MIRROR, mirror.blockdev_mirror, waits=True),
    "drive-mirror": Command(tables.DRIVE_MIRROR, mirror.drive_mirror, waits=True),
    "block_resize": Command(tables.RESIZE, resize.block_resize, changes=False, waits=True),
    "transaction": Command(tables.TRANSACTION, backup.start_transaction, waits=True),
}
