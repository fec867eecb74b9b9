"""Stories of one job: verbs in every state, its life, its errors."""

from __future__ import annotations

from typing import Final

from differences import BYTES
from playbook import SLOW, Same, Story, ask, source, target, until
from vocabulary import (
    CONCLUDED,
    ENDED,
    KEPT,
    PAIR,
    PENDING,
    RESUMED,
    RUNNING,
    SIZE,
    STOPPED,
    backup,
    every_verb,
    failing,
    group,
    look,
    member,
    pairs,
)

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
    Story("of-the-top-layer", [*PAIR, backup(sync="top"), until("j0", "null"), Same("a", "b")]),
    Story("compressed", [*PAIR, backup(compress=True), *look(), backup(compress=False), until("j0", "null")]),
    Story("with-options-that-change-nothing", [
        *PAIR, backup(**{"x-perf": {"max-workers": 4, "max-chunk": 1 << 20, "use-copy-range": True}}),
        until("j0", "null"), Same("a", "b"), backup(**{"filter-node-name": "f"}), until("j0", "null"),
    ]),
    Story("zeroes-from-nowhere", [
        ask("blockdev-add", {"driver": "null-co", "node-name": "z", "size": SIZE, "read-zeroes": True}),
        target("b"), backup(device="z"), until("j0", "null"),
    ]),
]  # fmt: skip

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
