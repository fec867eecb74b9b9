"""Scripts that go through on a full Redis: what was begun has to come to its end."""

from __future__ import annotations

from typing import Final

from lines import Mutant, full

# fmt: off
FULL_REDIS: Final = (
    Mutant("registry/lua/abandon.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("abandon")),
    Mutant("registry/lua/retry.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("retry")),
    Mutant("registry/lua/alive.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("alive")),
    Mutant("registry/lua/notice_add.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("notice_add")),
    Mutant("registry/lua/answer.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("answer")),
    Mutant("registry/lua/barrier.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("barrier")),
    Mutant("registry/lua/beat.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("beat")),
    Mutant("registry/lua/bell.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("bell")),
    Mutant("registry/lua/cancel.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("cancel")),
    Mutant("registry/lua/checkpoint.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("checkpoint")),
    Mutant("registry/lua/clock.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("clock")),
    Mutant("registry/lua/close.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("close")),
    Mutant("registry/lua/conclude.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("conclude")),
    Mutant("registry/lua/dismiss.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("dismiss")),
    Mutant("registry/lua/diverge.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("diverge")),
    Mutant("registry/lua/due.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("due")),
    Mutant("registry/lua/error.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("error")),
    Mutant("registry/lua/fail.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("fail")),
    Mutant("registry/lua/fence.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("fence")),
    Mutant("registry/lua/finish.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("finish")),
    Mutant("registry/lua/judge.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("judge")),
    Mutant("registry/lua/merge.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("merge")),
    Mutant("registry/lua/pend.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("pend")),
    Mutant("registry/lua/prune.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("prune")),
    Mutant("registry/lua/ready.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("ready")),
    Mutant("registry/lua/release.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("release")),
    Mutant("registry/lua/remind.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("remind")),
    Mutant("registry/lua/settle.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("settle")),
    Mutant("registry/lua/stall.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("stall")),
    Mutant("registry/lua/stop.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("stop")),
    Mutant("registry/lua/notice_take.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("notice_take")),
    Mutant("registry/lua/notice_done.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("notice_done")),
    Mutant("registry/lua/vacate.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("vacate")),
    Mutant("registry/lua/restart.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("restart")),
)
# fmt: on
