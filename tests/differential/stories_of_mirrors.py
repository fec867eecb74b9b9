"""Stories of mirrors: ready, standing by, completed, cancelled softly and by force."""

from __future__ import annotations

from typing import Final

from differences import REFUSED, SYNCED, UNFIT
from playbook import MIB, SLOW, Same, Step, Story, ask, source, target, until
from vocabulary import ENDED, HELD, KEPT, PAIR, RESUMED, SIZE, STOPPED, bad, every_verb, look, mirror

READY: Final[list[Step]] = [*PAIR, mirror(**KEPT), until("j0", "BLOCK_JOB_READY")]

MIRRORS: Final = [
    Story("mirror-completes", [*READY, *look(), ask("job-complete", id="j0"), *ENDED, Same("a", "b")],
          differs=(SYNCED,)),
    Story("mirror-is-cancelled-softly", [*READY, ask("block-job-cancel", device="j0"), *ENDED, Same("a", "b")],
          differs=(SYNCED,)),
    Story("mirror-is-cancelled-by-force", [*READY, ask("job-cancel", id="j0"), *ENDED], differs=(SYNCED,)),
    Story("mirror-stands-by", [
        *READY, ask("job-pause", id="j0"), until("j0", "standby"),
        *every_verb("j0", "resume", "cancel", "complete", "set-speed"), ask("job-complete", id="j0"),
        ask("query-jobs"), ask("job-resume", id="j0"), *ENDED,
    ], differs=(SYNCED,)),
    Story("verbs-on-a-ready-job", [*READY, *every_verb("j0", "pause", "cancel", "complete", "set-speed")]),
    Story("mirror-is-cancelled-while-it-stands-by", [
        *READY, ask("job-pause", id="j0"), until("j0", "standby"), ask("block-job-cancel", device="j0"),
        ask("block-job-cancel", device="j0", force=True), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-is-completed-and-cancelled-while-it-stands-by", [
        *READY, ask("job-pause", id="j0"), until("j0", "standby"), ask("job-complete", id="j0"),
        ask("job-cancel", id="j0"), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-is-finalized-by-hand", [
        *PAIR, mirror(**HELD), until("j0", "BLOCK_JOB_READY"), ask("job-complete", id="j0"),
        until("j0", "BLOCK_JOB_PENDING"), *look(), *every_verb("j0", "cancel", "finalize"),
        ask("job-finalize", id="j0"), *ENDED, Same("a", "b"),
    ], differs=(SYNCED,)),
    Story("mirror-is-cancelled-while-pending", [
        *PAIR, mirror(**HELD), until("j0", "BLOCK_JOB_READY"), ask("job-complete", id="j0"),
        until("j0", "BLOCK_JOB_PENDING"), ask("block-job-cancel", device="j0"), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-of-new-writes-only", [
        *PAIR, mirror(sync="none", **KEPT), until("j0", "BLOCK_JOB_READY"), *look(),
        ask("job-complete", id="j0"), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-stops-at-a-read-error", [
        *PAIR, bad(iotype="read", sector=2 * MIB // 512, errno=5, once=True),
        mirror(device="bad", **{"on-source-error": "stop"}, **KEPT), *STOPPED, *RESUMED,
        until("j0", "BLOCK_JOB_READY"), ask("job-complete", id="j0"), *ENDED, Same("a", "b"),
    ], differs=(SYNCED,)),
    Story("mirror-reports-a-write-error", [
        *PAIR, bad(image="b", iotype="write", sector=2 * MIB // 512, errno=5), mirror(to="bad", **KEPT), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-is-not-completed-early", [
        *PAIR, mirror(speed=SLOW, **KEPT), until("j0", "running"), ask("job-complete", id="j0"),
        ask("block-job-complete", device="j0"), ask("block-job-cancel", device="j0"), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-of-another-size", [source("a", SIZE), target("b", SIZE + MIB), mirror(**KEPT), *ENDED],
          differs=(SYNCED, UNFIT)),
    Story("mirror-of-nothing", [
        source("a", 0), target("b", 0), mirror(**KEPT), until("j0", "BLOCK_JOB_READY"),
        ask("job-complete", id="j0"), *ENDED,
    ], differs=(SYNCED,)),
    Story("mirror-words", [
        *PAIR, mirror(device="nowhere"), mirror(to="nowhere"), mirror(to="a"),
        ask("blockdev-mirror", device="a", sync="full"), ask("blockdev-mirror", device="a", target="b", sync="full"),
        mirror(granularity=100), mirror(granularity=1000), mirror(granularity=128 * MIB), mirror(sync="bitmap"),
        mirror(sync="incremental"), mirror(speed=-1), mirror(**{"buf-size": -1}), mirror(**{"copy-mode": "bogus"}),
        *(mirror("0id", **{"filter-node-name": name}) for name in ("a", "0f", "f" * 32)),
        mirror(to="a", **{"filter-node-name": "a"}), mirror(sync="bitmap", **{"filter-node-name": "a"}), *look(),
    ], differs=(REFUSED,)),
]  # fmt: skip
