"""Stories of targets that are named by their file: drive-backup and drive-mirror."""

from __future__ import annotations

from typing import Final

from differences import BUSY, REFUSED, SYNCED, UNFIT
from playbook import MIB, SLOW, Ask, Same, Story, ask, source, target, until
from vocabulary import ENDED, KEPT, SIZE, backup, bad, look


def drive(command: str, to: str = "PLACE/new", **more: object) -> Ask:
    """A job on a file; raw unless said otherwise, as ours is (the original would look into it)."""
    told = {"job-id": "j0", "device": "a", "target": to, "sync": "full", "format": "raw"}
    return ask(command, told, **more)


def mirror(to: str = "PLACE/new", **more: object) -> Ask:
    return drive("drive-mirror", to, **more)


READY: Final = [until("j0", "BLOCK_JOB_READY"), *look(), ask("job-complete", id="j0")]

DRIVES: Final = [
    Story("drive-backup", [
        source("a"), target("b"),
        drive("drive-backup", "PLACE/b", mode="existing"), until("j0", "null"), Same("a", "b"),
        drive("drive-backup", "PLACE/none", mode="existing"),
        drive("drive-backup"), until("j0", "null"), Same("a", "new"),
        drive("drive-backup", "PLACE/x", device="nowhere"), *look(),
    ]),
    Story("drive-backup-words", [
        source("a"), *(drive("drive-backup", format=name, mode=mode)
                       for name in ("bogus", "") for mode in ("absolute-paths", "existing")),
        drive("drive-backup", "PLACE/none/new"), drive("drive-backup", mode="bogus"),
        drive("drive-backup", node_name="x"), drive("drive-backup", unmap=True), *look(),
    ]),
    Story("drive-mirror-makes-its-target", [source("a"), mirror(**KEPT), *READY, *ENDED, Same("a", "new")],
          differs=(SYNCED,)),
    Story("drive-mirror-replaces-what-is-there", [
        source("a"), source("b"), mirror("PLACE/b", mode="existing", **KEPT), *READY, *ENDED, Same("a", "b"),
    ], differs=(SYNCED,)),
    Story("drive-mirror-makes-anew-what-has-another-size", [
        source("a"), source("b", MIB), mirror("PLACE/b", **KEPT), *READY, *ENDED, Same("a", "b"),
    ], differs=(SYNCED,)),
    Story("drive-mirror-into-another-size", [
        source("a"), source("b", MIB), mirror("PLACE/b", mode="existing", **KEPT), *ENDED,
    ], differs=(SYNCED, UNFIT)),
    Story("drive-mirror-with-options-that-change-nothing", [
        source("a"), mirror(unmap=False, node_name="made", replaces="a", buf_size=1, granularity=512, **KEPT),
        *READY, *ENDED, Same("a", "new"),
    ], differs=(SYNCED,)),
    Story("drive-mirror-of-a-filter", [
        source("a"), bad(iotype="write", errno=5), mirror(device="bad", **KEPT), *READY, *ENDED, Same("a", "new"),
    ], differs=(SYNCED,)),
    Story("drive-mirror-is-cancelled-softly", [
        source("a"), mirror(**KEPT), until("j0", "BLOCK_JOB_READY"), ask("block-job-cancel", device="j0"), *ENDED,
        Same("a", "new"),
    ], differs=(SYNCED,)),
    Story("drive-mirror-words", [
        source("a"), target("b"), mirror(device="nowhere", format="bogus"),
        *(mirror(format=name, mode=mode) for name in ("bogus", "") for mode in ("absolute-paths", "existing")),
        mirror("PLACE/none", mode="existing"), mirror("PLACE/none/new", granularity=100), mirror(mode="bogus"),
        mirror(format="bogus", replaces="nowhere"), mirror(replaces="a"), mirror(node_name="a"), mirror(node_name="0a"),
        mirror(node_name=""), mirror(node_name="c", replaces="nowhere"), mirror(node_name="c", replaces="b"),
        mirror(sync="none"), mirror(sync="incremental"), mirror(sync="bitmap"), mirror(granularity=1000),
        mirror(buf_size=-1), mirror(unmap=1), mirror(target_is_zero=True), mirror(filter_node_name="f"),
        ask("drive-mirror", device="a", sync="full"), ask("drive-mirror", device="a", target="PLACE/new", sync="full"),
        ask("transaction", actions=[{"type": "drive-mirror", "data": {}}]), *look(),
    ]),
    Story("drive-mirror-of-a-negative-speed", [source("a"), mirror(speed=-1), *look()], differs=(REFUSED,)),
    Story("drive-mirror-of-what-a-job-uses", [
        source("a"), target("b"), backup(speed=SLOW), until("j0", "running"), ask("query-jobs"),
        mirror(job_id="j1"), mirror(job_id="j1", device="b"), source("c", SIZE),
        mirror("PLACE/b", job_id="j1", device="c", mode="existing"),
    ], differs=(BUSY, REFUSED)),
]  # fmt: skip
