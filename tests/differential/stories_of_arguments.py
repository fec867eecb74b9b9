"""Stories of what is asked wrongly, and of nodes."""

from __future__ import annotations

from typing import Final

from differences import BUSY, REFUSED
from playbook import MIB, SLOW, Story, ask, source, target, until
from vocabulary import CONCLUDED, KEPT, PAIR, RUNNING, SIZE, backup, bad, look

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
        backup(**{"x-perf": {"max-workers": 1, "speed": 1}}), backup(**{"x-perf": {"max-chunk": 65535}}),
        backup("0id", **{"x-perf": {"max-chunk": 1}}), *look(),
    ]),
    Story("names-of-filters", [
        *PAIR, *(backup("0id", **{"filter-node-name": name}) for name in ("a", "0f", "", "f" * 32)),
        backup(to="a", **{"filter-node-name": "a"}), backup(sync="bitmap", **{"filter-node-name": "a"}), *look(),
    ]),
    Story("a-target-that-is-read-only", [
        *PAIR, ask("blockdev-add", {"driver": "file", "node-name": "ro", "filename": "PLACE/b", "read-only": True}),
        backup("0id", to="ro"), backup(to="ro", **{"filter-node-name": "a"}), backup(to="ro", speed=-1), *look(),
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
        ask("blockdev-add", driver="file", node_name="c" * 32, filename="PLACE/a"),
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
]  # fmt: skip
