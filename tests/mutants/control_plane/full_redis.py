"""Scripts that go through on a full Redis: what was begun has to come to its end."""

from __future__ import annotations

from typing import Final

from lines import Mutant, full

# fmt: off
FULL_REDIS: Final = (
    Mutant("store/lua/abandon.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("abandon")),
    Mutant("store/lua/again.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("again")),
    Mutant("store/lua/alive.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("alive")),
    Mutant("store/lua/announce.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("announce")),
    Mutant("store/lua/answer.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("answer")),
    Mutant("store/lua/barrier.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("barrier")),
    Mutant("store/lua/beat.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("beat")),
    Mutant("store/lua/bell.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("bell")),
    Mutant("store/lua/cancel.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("cancel")),
    Mutant("store/lua/checkpoint.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("checkpoint")),
    Mutant("store/lua/clock.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("clock")),
    Mutant("store/lua/close.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("close")),
    Mutant("store/lua/conclude.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("conclude")),
    Mutant("store/lua/dismiss.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("dismiss")),
    Mutant("store/lua/diverge.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("diverge")),
    Mutant("store/lua/due.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("due")),
    Mutant("store/lua/error.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("error")),
    Mutant("store/lua/fail.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("fail")),
    Mutant("store/lua/fence.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("fence")),
    Mutant("store/lua/finish.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("finish")),
    Mutant("store/lua/judge.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("judge")),
    Mutant("store/lua/merge.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("merge")),
    Mutant("store/lua/pend.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("pend")),
    Mutant("store/lua/prune.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("prune")),
    Mutant("store/lua/ready.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("ready")),
    Mutant("store/lua/release.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("release")),
    Mutant("store/lua/remind.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("remind")),
    Mutant("store/lua/settle.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("settle")),
    Mutant("store/lua/stall.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("stall")),
    Mutant("store/lua/stop.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("stop")),
    Mutant("store/lua/tell.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("tell")),
    Mutant("store/lua/told.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("told")),
    Mutant("store/lua/vacate.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("vacate")),
    Mutant("store/lua/restart.lua", "#!lua flags=allow-oom\n", "#!lua\n", full("restart")),
)
# fmt: on
