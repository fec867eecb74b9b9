"""Stories of transactions: members that share a fate, and members that do not."""

from __future__ import annotations

from typing import Final

from differences import REFUSED
from playbook import MIB, SLOW, Same, Story, ask, until
from vocabulary import HELD, KEPT, backup, bad, both, dismiss, group, look, member, pairs

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
