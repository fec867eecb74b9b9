"""The stories that both servers must tell alike, by chapter."""

from __future__ import annotations

from typing import Final

from differences import BUSY, BYTES, REFUSED
from playbook import MIB, SLOW, Ask, Same, Step, Story, ask, source, target, until

SIZE: Final = 4 * MIB


def backup(job: str = "j0", device: str = "a", to: str = "b", **more: object) -> Ask:
    return ask("blockdev-backup", {"job-id": job, "device": device, "target": to, "sync": "full"}, **more)


def mirror(job: str = "j0", device: str = "a", to: str = "b", **more: object) -> Ask:
    return ask("blockdev-mirror", {"job-id": job, "device": device, "target": to, "sync": "full"}, **more)


def bad(node: str = "bad", image: str = "a", **fault: object) -> Ask:
    """A node that fails once or always: ``errno``, ``iotype``, ``sector``, ``once``."""
    rule = {"event": "none", **fault}
    return ask("blockdev-add", {"driver": "blkdebug", "node-name": node, "image": image, "inject-error": [rule]})


def group(*members: Ask, mode: str = "grouped") -> Ask:
    """A transaction of backups."""
    actions = [{"type": member.command, "data": dict(member.arguments)} for member in members]
    return ask("transaction", {"actions": actions, "properties": {"completion-mode": mode}})


def look() -> list[Step]:
    return [ask("query-jobs"), ask("query-block-jobs")]


def pairs(count: int) -> list[Step]:
    """Images a0..., b0...: a source and a target for each member of a group."""
    return [step for n in range(count) for step in (source(f"a{n}"), target(f"b{n}"))]


def member(n: int, **more: object) -> Ask:
    return backup(f"j{n}", f"a{n}", f"b{n}", **more)


PAIR: Final[list[Step]] = [source(), target()]
RUNNING: Final[list[Step]] = [*PAIR, backup(speed=SLOW), until("j0", "running")]
KEPT: Final = {"auto-dismiss": False}
HELD: Final = {"auto-finalize": False, "auto-dismiss": False}
PENDING: Final[list[Step]] = [*PAIR, backup(**HELD), until("j0", "BLOCK_JOB_PENDING")]
CONCLUDED: Final[list[Step]] = [*PAIR, backup(**KEPT), until("j0", "concluded")]
VERBS: Final = ("pause", "resume", "cancel", "complete", "finalize", "dismiss")


def every_verb(job: str, *but: str) -> list[Step]:
    """Every verb in both of its spellings, except those that would be obeyed."""
    steps: list[Step] = [ask(f"job-{verb}", id=job) for verb in VERBS if verb not in but]
    for verb in VERBS:
        if verb not in but:
            word = "id" if verb in ("finalize", "dismiss") else "device"
            steps.append(ask(f"block-job-{verb}", {word: job}))
    if "set-speed" not in but:
        steps.append(ask("block-job-set-speed", device=job, speed=1))
    return steps


ARGUMENTS: Final = [
    Story("unknown-commands", [ask("no-such-command"), ask("Query-Jobs"), ask("query_jobs"), ask("system_reset")]),
    Story("missing-arguments", [
        ask("job-pause"), ask("block-job-set-speed", device="j0"), ask("block-job-set-speed", speed=1),
        ask("block-job-cancel"), ask("block-job-dismiss"), ask("blockdev-backup", device="a", target="b"),
        ask("blockdev-backup", sync="full", target="b"), ask("blockdev-backup", sync="full", device="a"),
        ask("transaction"), ask("blockdev-del"),
    ]),
    Story("unexpected-arguments", [
        ask("query-jobs", id="j0"), ask("job-pause", id="j0", force=True), ask("job-pause", device="j0"),
        ask("block-job-pause", id="j0"), *PAIR, backup(colour="red"), backup(granularity=4096), *look(),
    ]),
    Story("wrong-types", [
        ask("job-pause", id=7), ask("block-job-cancel", device="j0", force="yes"),
        ask("block-job-set-speed", device="j0", speed="fast"), ask("block-job-set-speed", device="j0", speed=1.5),
        *PAIR, backup(speed="1"), backup(sync=1), backup(sync="bogus"), backup({"a": 1}),
        backup(**{"auto-finalize": 1}), backup(**{"on-source-error": "explode"}), backup(**{"x-perf": 1}),
        ask("transaction", actions={}), ask("transaction", actions=[1]), ask("transaction", actions=[{}]), *look(),
    ]),
    Story("job-ids", [
        *PAIR, *(backup(name) for name in ("0id", "", "   ", "123", "_id", "-id", ".id", "#id", "a b", "é")),
        backup("ok-._9"), until("ok-._9", "null"), *look(),
    ]),
    Story("a-job-needs-an-id", [*PAIR, ask("blockdev-backup", device="a", target="b", sync="full"), *look()]),
    Story("a-live-id-is-taken", [*RUNNING, source("c"), target("d"), backup("j0", "c", "d"), *look()]),
    Story("an-undismissed-id-is-taken", [
        *CONCLUDED, backup(**KEPT), ask("job-dismiss", id="j0"), until("j0", "null"), backup(), until("j0", "null"),
    ]),
    Story("unknown-nodes", [
        *PAIR, backup(device="nowhere"), backup(to="nowhere"), backup(device="nowhere", to="nowhere"),
        ask("blockdev-del", node_name="nowhere"), *look(),
    ]),
    Story("a-node-is-not-its-own-target", [*PAIR, backup(to="a"), *look()]),
    Story("sizes-differ", [
        source("a", SIZE), target("small", SIZE - MIB), target("large", SIZE + MIB),
        backup(to="small"), backup(to="large"), *look(),
    ]),
    Story("a-speed-is-not-negative", [*PAIR, backup(speed=-1), *look(), backup(), until("j0", "null")],
          differs=(REFUSED,)),
    Story("bitmaps-and-modes", [
        *PAIR, backup(sync="incremental"), backup(sync="bitmap"), backup(bitmap="m"),
        backup(sync="incremental", bitmap="m"), backup(**{"bitmap-mode": "never"}),
        backup(**{"sync": "incremental", "bitmap": "m", "bitmap-mode": "never"}), *look(),
    ]),
    Story("performance-words", [
        *PAIR, backup(**{"x-perf": {"max-workers": 0}}), backup(**{"x-perf": {"max-chunk": -1}}),
        backup(**{"x-perf": {"max-workers": 1, "speed": 1}}), *look(),
    ]),
    Story("which-check-comes-first", [
        *PAIR, backup("0id", device="nowhere"), backup("0id", to="a"), backup("0id", speed=-1),
        backup("0id", sync="incremental"), backup("0id", device="nowhere", sync="incremental"),
        backup(device="nowhere", speed=-1), backup("0id", device="nowhere", sync="bogus"), *look(),
    ]),
    Story("nodes", [
        *PAIR, ask("blockdev-add", driver="file", node_name="a", filename="PLACE/a"),
        ask("blockdev-add", driver="file", node_name="c", filename="PLACE/no-such-file"),
        ask("blockdev-add", driver="no-such-driver", node_name="c"), ask("blockdev-add", driver="file", node_name="c"),
        ask("blockdev-add", node_name="c"), ask("blockdev-add", driver="file", node_name="0c", filename="PLACE/a"),
        backup(speed=SLOW), until("j0", "running"), ask("blockdev-del", node_name="a"),
        ask("blockdev-del", node_name="b"),
    ]),
    Story("nodes-on-nodes", [
        *PAIR, bad(iotype="read", errno=5), ask("blockdev-del", node_name="a"), bad("worse", image="nowhere"),
        ask("blockdev-add", {"driver": "blkdebug", "node-name": "worse", "image": "a", "inject-error": [{}]}),
        ask("blockdev-add", {"driver": "blkdebug", "node-name": "worse", "image": "a", "inject-error": [
            {"event": "bogus"}]}),
        ask("blockdev-add", {"driver": "blkdebug", "node-name": "worse"}),
        ask("blockdev-add", {"driver": "raw", "node-name": "r", "file": "b"}), ask("blockdev-del", node_name="b"),
        ask("blockdev-del", node_name="r"), ask("blockdev-del", node_name="bad"),
        ask("blockdev-del", node_name="bad"),
    ]),
    Story("nodes-that-a-job-holds", [
        *RUNNING, source("c"), target("d"), backup("j1", "c", "b"), backup("j1", "b", "d"), backup("j1", "c", "a"),
        backup("j1", "a", "d", speed=SLOW), until("j1", "running"), ask("query-jobs"),
        ask("blockdev-del", node_name="d"), ask("job-cancel", id="j1"), until("j1", "null"),
        ask("blockdev-del", node_name="d"), ask("blockdev-del", node_name="c"),
    ], differs=(BUSY,)),
    Story("numbers", [
        *PAIR, backup(speed=1 << 63), backup(speed=-(1 << 63)), backup(speed=None), backup(speed=True), *look(),
        ask("block-job-set-speed", device="nobody", speed=1 << 64),
    ], differs=(REFUSED,)),
    Story("drive-backup", [
        source("a"), target("b"),
        ask("drive-backup", {"job-id": "j0", "device": "a", "target": "PLACE/b", "format": "raw", "mode": "existing",
                             "sync": "full"}), until("j0", "null"), Same("a", "b"),
        ask("drive-backup", {"job-id": "j0", "device": "a", "target": "PLACE/none", "format": "raw",
                             "mode": "existing", "sync": "full"}),
        ask("drive-backup", {"job-id": "j0", "device": "a", "target": "PLACE/new", "format": "raw", "sync": "full"}),
        until("j0", "null"), Same("a", "new"),
        ask("drive-backup", {"job-id": "j0", "device": "nowhere", "target": "PLACE/x", "sync": "full"}), *look(),
    ]),
]  # fmt: skip

VERBS_AND_STATES: Final = [
    Story("verbs-on-an-unknown-job", [*every_verb("nobody"), ask("block-job-set-speed", device="nobody", speed=-1)]),
    Story("verbs-on-a-running-job", [*RUNNING, *every_verb("j0", "pause", "cancel"), *look()]),
    Story("verbs-on-a-paused-job", [
        *RUNNING, ask("job-pause", id="j0"), until("j0", "paused"),
        *every_verb("j0", "resume", "cancel"), *look(), ask("job-resume", id="j0"), until("j0", "running"),
    ]),
    Story("verbs-on-a-pending-job", [
        *PENDING, *every_verb("j0", "cancel", "finalize"), *look(), ask("job-finalize", id="j0"),
        until("j0", "concluded"), ask("job-dismiss", id="j0"), until("j0", "null"), Same("a", "b"),
    ]),
    Story("verbs-on-a-waiting-job", [
        *pairs(2), group(member(0), member(1, speed=SLOW)), until("j0", "waiting"), until("j1", "running"),
        *every_verb("j0", "cancel"), ask("query-jobs"),
    ]),
    Story("verbs-on-a-concluded-job", [*CONCLUDED, *every_verb("j0", "dismiss"), ask("query-jobs")]),
    Story("set-speed", [
        *RUNNING, ask("block-job-set-speed", device="j0", speed=-1), ask("block-job-set-speed", device="j0", speed=2),
        ask("query-block-jobs"), ask("block-job-set-speed", device="j0", speed=0), until("j0", "null"), Same("a", "b"),
    ]),
    Story("speed-is-set-while-paused", [
        *RUNNING, ask("job-pause", id="j0"), until("j0", "paused"), ask("block-job-set-speed", device="j0", speed=0),
        ask("query-block-jobs"), ask("job-resume", id="j0"), until("j0", "running"), until("j0", "null"),
        Same("a", "b"),
    ]),
]  # fmt: skip

ONE_JOB: Final = [
    Story("success", [*PAIR, backup(), until("j0", "null"), *look(), Same("a", "b")]),
    Story("finalized-and-dismissed-by-hand", [
        *PENDING, *look(), ask("job-finalize", id="j0"), until("j0", "concluded"), *look(),
        ask("job-dismiss", id="j0"), until("j0", "null"), *look(), Same("a", "b"),
    ]),
    Story("finalized-and-dismissed-by-the-old-words", [
        *PENDING, ask("block-job-finalize", id="j0"), until("j0", "concluded"),
        ask("block-job-dismiss", id="j0"), until("j0", "null"), *look(),
    ]),
    Story("paused-and-resumed", [
        *RUNNING, ask("job-pause", id="j0"), until("j0", "paused"), *look(), ask("job-pause", id="j0"),
        ask("job-resume", id="j0"), until("j0", "running"), ask("job-resume", id="j0"), *look(),
        ask("block-job-set-speed", device="j0", speed=0), until("j0", "null"), Same("a", "b"),
    ]),
    Story("cancelled-while-running", [*RUNNING, ask("job-cancel", id="j0"), until("j0", "null"), *look()]),
    Story("cancelled-by-the-old-word", [*RUNNING, ask("block-job-cancel", device="j0"), until("j0", "null"), *look()]),
    Story("cancelled-while-paused", [
        *RUNNING, ask("job-pause", id="j0"), until("j0", "paused"), ask("block-job-cancel", device="j0"), *look(),
        ask("block-job-cancel", device="j0", force=True), until("j0", "null"), *look(),
    ]),
    Story("cancelled-while-pending", [
        *PENDING, ask("job-cancel", id="j0"), until("j0", "concluded"), *look(), ask("job-dismiss", id="j0"),
        until("j0", "null"),
    ]),
    Story("a-cancelled-job-kept", [
        *PAIR, backup(speed=SLOW, **KEPT), until("j0", "running"), ask("job-cancel", id="j0"),
        until("j0", "concluded"), *look(), ask("job-dismiss", id="j0"), until("j0", "null"), *look(),
    ]),
    Story("an-empty-image", [source("a", 0), target("b", 0), backup(**KEPT), until("j0", "concluded"), *look()]),
    Story("an-odd-length", [
        source("a", 1025 * 1024), target("b", 1025 * 1024), backup(), until("j0", "null"), Same("a", "b"),
    ], differs=(BYTES,)),
    Story("zeroes-from-nowhere", [
        ask("blockdev-add", {"driver": "null-co", "node-name": "z", "size": SIZE, "read-zeroes": True}),
        target("b"), backup(device="z"), until("j0", "null"),
    ]),
]  # fmt: skip


def failing(policy: str, errno: int = 5, *, once: bool = False, side: str = "source") -> list[Step]:
    """A job whose source, or target, fails in its third MiB."""
    where = {"sector": 2 * MIB // 512, "errno": errno, "once": once}
    if side == "source":
        fault, start = bad(iotype="read", **where), backup(device="bad", **{"on-source-error": policy}, **KEPT)
    else:
        fault = bad(image="b", iotype="write", **where)
        start = backup(to="bad", **{"on-target-error": policy}, **KEPT)
    return [*PAIR, fault, start]


STOPPED: Final[list[Step]] = [until("j0", "BLOCK_JOB_ERROR"), until("j0", "paused"), *look()]
RESUMED: Final[list[Step]] = [ask("job-resume", id="j0"), until("j0", "running")]
ENDED: Final[list[Step]] = [until("j0", "concluded"), *look()]

ERRORS: Final = [
    Story("report-a-read-error", [*failing("report"), *ENDED]),
    Story("report-a-write-error", [*failing("report", side="target"), *ENDED]),
    Story("ignore-one-read-error", [*failing("ignore", once=True), *ENDED, Same("a", "b")]),
    Story("ignore-one-write-error", [*failing("ignore", once=True, side="target"), *ENDED, Same("a", "b")]),
    Story("stop-at-a-read-error", [*failing("stop", once=True), *STOPPED, *RESUMED, *ENDED, Same("a", "b")]),
    Story("stop-at-a-write-error", [
        *failing("stop", once=True, side="target"), *STOPPED, *RESUMED, *ENDED, Same("a", "b"),
    ]),
    Story("stop-twice", [*failing("stop"), *STOPPED, *RESUMED, *STOPPED, ask("job-cancel", id="j0"), *ENDED]),
    Story("enospc-that-is-another-error", [*failing("enospc"), *ENDED]),
    Story("enospc", [*failing("enospc", 28, once=True, side="target"), *STOPPED, *RESUMED, *ENDED, Same("a", "b")]),
    Story("auto-that-is-another-error", [*failing("auto"), *ENDED]),
    Story("auto", [*failing("auto", 28, once=True, side="target"), *STOPPED, *RESUMED, *ENDED, Same("a", "b")]),
    Story("cancel-of-a-stopped-job", [
        *failing("stop"), *STOPPED, ask("block-job-cancel", device="j0"),
        ask("block-job-cancel", device="j0", force=True), *ENDED,
    ]),
]  # fmt: skip


def both(what: str, count: int = 2) -> list[Step]:
    return [until(f"j{n}", what) for n in range(count)]


def dismiss(count: int) -> list[Step]:
    return [ask("job-dismiss", id=f"j{n}") for n in range(count)]


FAULT: Final = bad("bad", "a1", iotype="read", errno=5, sector=2 * MIB // 512)

GROUPS: Final = [
    Story("a-group-succeeds", [
        *pairs(3), group(*(member(n) for n in range(3))), *both("null", 3), *look(), Same("a0", "b0"), Same("a2", "b2"),
    ]),
    Story("a-group-fails-with-one", [
        *pairs(3), FAULT, group(member(0, speed=SLOW, **KEPT), backup("j1", "bad", "b1", **KEPT),
                                member(2, speed=SLOW, **KEPT)),
        *both("concluded", 3), ask("query-jobs"), *dismiss(3),
    ]),
    Story("a-group-fails-after-one-has-finished", [
        *pairs(2), FAULT, group(member(0, **KEPT), backup("j1", "bad", "b1", speed=SLOW, **KEPT)),
        until("j0", "waiting"), ask("block-job-set-speed", device="j1", speed=0),
        *both("concluded"), ask("query-jobs"), *dismiss(2),
    ]),
    Story("a-group-is-cancelled", [
        *pairs(3), group(*(member(n, speed=SLOW, **KEPT) for n in range(3))), *both("running", 3),
        ask("job-cancel", id="j1"), *both("concluded", 3), ask("query-jobs"), *dismiss(3),
    ]),
    Story("a-group-with-a-paused-member-is-cancelled", [
        *pairs(2), group(*(member(n, speed=SLOW, **KEPT) for n in range(2))), *both("running"),
        ask("job-pause", id="j0"), until("j0", "paused"), ask("job-cancel", id="j1"),
        *both("concluded"), ask("query-jobs"),
    ]),
    Story("a-waiting-member-is-cancelled", [
        *pairs(2), group(member(0, **KEPT), member(1, speed=SLOW, **KEPT)), until("j0", "waiting"),
        until("j1", "running"), ask("job-cancel", id="j0"), *both("concluded"), ask("query-jobs"),
    ]),
    Story("a-group-waits-to-be-finalized", [
        *pairs(2), group(member(0, **HELD), member(1, **HELD)), *both("BLOCK_JOB_PENDING"), ask("query-jobs"),
        ask("job-finalize", id="j1"), *both("concluded"), ask("query-jobs"), *dismiss(2),
    ]),
    Story("one-held-member-holds-all", [
        *pairs(2), group(member(0, **HELD), member(1, **KEPT)), *both("pending"), ask("query-jobs"),
        ask("job-finalize", id="j1"), *both("concluded"), ask("query-jobs"),
    ]),
    Story("a-pending-group-is-cancelled", [
        *pairs(2), group(member(0, **HELD), member(1, **HELD)), *both("BLOCK_JOB_PENDING"),
        ask("job-cancel", id="j0"), *both("concluded"), ask("query-jobs"),
    ]),
    Story("individuals-do-not-share-a-fate", [
        *pairs(2), FAULT, group(member(0, **KEPT), backup("j1", "bad", "b1", **KEPT), mode="individual"),
        *both("concluded"), ask("query-jobs"), Same("a0", "b0"),
    ], ordered=False),
    Story("individuals-by-default", [
        *pairs(2), ask("transaction", actions=[{"type": "blockdev-backup", "data": dict(member(n).arguments)}
                                               for n in range(2)]), *both("null"), Same("a1", "b1"),
    ], ordered=False),
    Story("a-paused-member-keeps-its-group", [
        *pairs(2), group(member(0), member(1, speed=SLOW)), until("j0", "waiting"), until("j1", "running"),
        ask("job-pause", id="j1"), until("j1", "paused"), ask("job-pause", id="j0"),
        ask("block-job-set-speed", device="j1", speed=0), ask("query-jobs"), ask("job-resume", id="j1"),
        until("j1", "running"), *both("null"), Same("a0", "b0"), Same("a1", "b1"),
    ]),
    Story("a-stopped-member-keeps-its-group", [
        *pairs(2), bad("bad", "a1", iotype="read", errno=5, sector=2 * MIB // 512, once=True),
        group(member(0, **KEPT), backup("j1", "bad", "b1", **{"on-source-error": "stop"}, **KEPT)),
        until("j1", "BLOCK_JOB_ERROR"), until("j1", "paused"), until("j0", "waiting"), ask("query-jobs"),
        ask("job-resume", id="j1"), until("j1", "running"), *both("concluded"), ask("query-jobs"), *dismiss(2),
        Same("a1", "b1"),
    ]),
    Story("a-stopped-member-is-cancelled-with-its-group", [
        *pairs(2), FAULT, group(member(0, **KEPT), backup("j1", "bad", "b1", **{"on-source-error": "stop"}, **KEPT)),
        until("j1", "BLOCK_JOB_ERROR"), until("j1", "paused"), until("j0", "waiting"),
        ask("block-job-cancel", device="j1"), ask("block-job-cancel", device="j0"), *both("concluded"), *look(),
    ]),
    Story("some-members-dismiss-themselves", [
        *pairs(3), group(member(0), member(1, **KEPT), member(2)), until("j0", "null"), until("j1", "concluded"),
        until("j2", "null"), ask("query-jobs"), ask("job-dismiss", id="j0"), ask("job-dismiss", id="j1"), *look(),
    ]),
    Story("a-group-is-finalized-once", [
        *pairs(2), group(member(0, **HELD), member(1, **HELD)), *both("BLOCK_JOB_PENDING"),
        ask("job-finalize", id="j0"), *both("concluded"), ask("job-finalize", id="j1"), ask("job-cancel", id="j1"),
        *dismiss(2), ask("job-finalize", id="j1"),
    ]),
    Story("a-pending-member-fails-nobody-by-being-resumed", [
        *pairs(2), group(member(0, **HELD), member(1, **HELD)), *both("BLOCK_JOB_PENDING"), ask("job-resume", id="j0"),
        ask("job-pause", id="j1"), ask("block-job-set-speed", device="j1", speed=5), ask("job-complete", id="j1"),
        ask("job-finalize", id="j0"), *both("concluded"), ask("query-jobs"),
    ]),
    Story("members-that-clash", [
        *pairs(2), group(member(0), member(0)), group(member(0), backup("j0", "a1", "b1"), mode="individual"),
        group(member(0), backup("j1", "a1", "b0")), group(member(0), backup("j1", "a1", "a1")), *look(),
    ], differs=(REFUSED,)),
    Story("a-transaction-is-undone", [
        *pairs(2), group(member(0), ask("abort"), mode="individual"), *look(),
        group(backup(device="nowhere"), ask("abort"), mode="individual"),
        group(member(0), backup("j1", "nowhere", "b1"), mode="grouped"), *look(),
    ], differs=(REFUSED,)),
    Story("odd-transactions", [
        group(ask("abort"), mode="individual"), group(mode="grouped"), group(mode="individual"),
        group(ask("Abort"), mode="individual"), group(ask("abort"), mode="grouped"),
        group(ask("blockdev-mirror"), mode="individual"), group(mode="together"), *look(),
    ]),
]  # fmt: skip

READY: Final[list[Step]] = [*PAIR, mirror(**KEPT), until("j0", "BLOCK_JOB_READY")]

MIRRORS: Final = [
    Story("mirror-completes", [*READY, *look(), ask("job-complete", id="j0"), *ENDED, Same("a", "b")]),
    Story("mirror-is-cancelled-softly", [*READY, ask("block-job-cancel", device="j0"), *ENDED, Same("a", "b")]),
    Story("mirror-is-cancelled-by-force", [*READY, ask("job-cancel", id="j0"), *ENDED]),
    Story("mirror-stands-by", [
        *READY, ask("job-pause", id="j0"), until("j0", "standby"), *every_verb("j0", "resume", "cancel", "complete"),
        ask("job-complete", id="j0"), ask("query-jobs"), ask("job-resume", id="j0"), *ENDED,
    ]),
    Story("mirror-is-not-completed-early", [
        *PAIR, mirror(speed=SLOW, **KEPT), until("j0", "running"), ask("job-complete", id="j0"),
        ask("block-job-complete", device="j0"), ask("block-job-cancel", device="j0"), *ENDED,
    ]),
    Story("mirror-of-another-size", [source("a", SIZE), target("b", SIZE + MIB), mirror(**KEPT), *ENDED]),
    Story("mirror-of-nothing", [
        source("a", 0), target("b", 0), mirror(**KEPT), until("j0", "BLOCK_JOB_READY"),
        ask("job-complete", id="j0"), *ENDED,
    ]),
    Story("mirror-words", [
        *PAIR, mirror(device="nowhere"), mirror(to="nowhere"), mirror(to="a"),
        ask("blockdev-mirror", device="a", sync="full"), ask("blockdev-mirror", device="a", target="b", sync="full"),
        mirror(granularity=100), mirror(granularity=1000), mirror(granularity=128 * MIB), mirror(sync="bitmap"),
        mirror(sync="incremental"), mirror(speed=-1), mirror(**{"buf-size": -1}), mirror(**{"copy-mode": "bogus"}),
        *look(),
    ], differs=(REFUSED,)),
]  # fmt: skip

STORIES: Final = [*ARGUMENTS, *VERBS_AND_STATES, *ONE_JOB, *ERRORS, *GROUPS]
