"""Stories of block_resize: what is asked wrongly, what has no size of its own, what a job uses."""

from __future__ import annotations

from typing import Final

from differences import BUSY
from playbook import MIB, Ask, Same, Step, Story, ask, source, target, until
from vocabulary import HELD, PAIR, PENDING, RUNNING, SIZE, backup, bad, look, mirror


def resize(node: str, size: object = MIB, **more: object) -> Ask:
    return ask("block_resize", {"node-name": node, "size": size}, **more)


ASKED: Final[list[Step]] = [  # both of a job's nodes, in each way to name them
    *(resize(node, size) for node in ("a", "b") for size in (MIB, SIZE, -1)),
    *(ask("block_resize", device=node, size=MIB) for node in ("a", "b")),
]

RESIZES: Final = [
    Story("resize-words", [
        *PAIR, ask("block_resize"), ask("block_resize", size=1), ask("block_resize", size=-1), resize("a", "1"),
        resize("a", 1.5), resize("a", None), resize("a", 1 << 63), ask("block_resize", device="a", size=1),
        ask("block_resize", device="nowhere", size=-1), resize("", 1), resize("nowhere", 1), resize("nowhere", -1),
        resize("a", -1), resize("a", (1 << 63) - 1), resize("a", (1 << 63) - (1 << 30)),
        resize("a", (1 << 63) - (1 << 30) + 1), resize("a", 1 << 62), resize("a", colour="red"),
        resize("a", device="a"), resize("a", 513, device="nowhere"), resize("a", 0), resize("a", 1, device=""), *look(),
    ]),
    Story("resize-of-what-cannot-be", [
        source("a"), ask("blockdev-add", driver="null-co", node_name="n", size=MIB), resize("n"), resize("n", -1),
        ask("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n"}), resize("r"),
        ask("blockdev-add", {"driver": "file", "node-name": "ro", "filename": "PLACE/a", "read-only": True}),
        resize("ro"), resize("ro", -1), resize("ro", (1 << 63) - 1), resize("n", (1 << 63) - 1),
    ]),
    Story("resize-of-a-target", [
        source("a"), target("b", MIB), backup(), resize("b", SIZE), backup(), until("j0", "null"), Same("a", "b"),
    ]),
    Story("resize-of-a-source", [
        source("a"), target("b", MIB), resize("a"), backup(), until("j0", "null"), Same("a", "b"),
    ]),
    Story("resize-beneath-a-filter", [
        *PAIR, bad(iotype="write", errno=5), resize("bad"), backup(device="bad"), resize("b"), backup(device="bad"),
        until("j0", "null"), Same("a", "b"),
    ]),
    Story("resize-beneath-a-running-backup", [*RUNNING, *ASKED], differs=(BUSY,)),
    Story("resize-beneath-a-pending-backup", [
        *PENDING, *ASKED, ask("job-finalize", id="j0"), until("j0", "concluded"), Same("a", "b"), resize("a"),
    ], differs=(BUSY,)),
    Story("resize-beneath-a-ready-mirror", [*PAIR, mirror(), until("j0", "BLOCK_JOB_READY"), *ASKED], differs=(BUSY,)),
    Story("resize-beneath-a-pending-mirror", [
        *PAIR, mirror(**HELD), until("j0", "BLOCK_JOB_READY"), ask("job-complete", id="j0"),
        until("j0", "BLOCK_JOB_PENDING"), *ASKED, ask("job-finalize", id="j0"), until("j0", "concluded"),
        Same("a", "b"),
    ], differs=(BUSY,)),
]  # fmt: skip
