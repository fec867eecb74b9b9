"""The Lua scripts, one verb per script, loaded once.

Every script is preceded by ``events.lua``, by ``prelude.lua`` and by tables generated from Python: the tables have one
source, and the scripts contain no rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from blockjobs.model.clock import UNWATCHED
from blockjobs.model.ids import Host, RunId
from blockjobs.model.states import ACCEPTS, MOVES
from blockjobs.registry import keys
from blockjobs.registry.connection import Client
from blockjobs.registry.eventkinds import BY_WORKERS as EVENTS_BY_WORKERS
from blockjobs.registry.eventkinds import list_needs

NAMES: Final = (
    # clients                                    finalizer and coordinator
    "stage", "publish", "unstage", "launch",     "start", "pend", "settle", "stop", "conclude", "fail", "close",
    "pause", "resume", "cancel", "set_speed",    "ring", "judge", "barrier", "fence", "remind",
    "complete", "finalize", "dismiss", "hold", "lift",             "abandon", "hand_over", "alive",
    "reserve", "unreserve", "store", "store_gone", "host", "sweep", "admit", "limit", "late", "call_off", "advance",
    "prune", "found", "recast", "rehost", "host_gone", "retry", "begin", "merge", "due", "clock", "restart",
    "notice_add", "attend", "notice_take", "notice_done", "bell", "vacate", "good", "forget_name",
    # workers
    "beat", "claim", "checkpoint", "ready", "diverge", "error", "stall", "finish", "release", "answer",
    "died",
)  # fmt: skip
_LUA: Final = resources.files("blockjobs.registry") / "lua"
BY_WORKERS: Final = (
    "beat", "claim", "checkpoint", "ready", "diverge", "error", "stall", "finish", "release", "answer", "died",
)  # fmt: skip


# Scripts of the finalizer that act on data read earlier.  If Redis was restarted since the read, possibly with an older
# copy of the data, the view was never true for the new start, and the script does nothing.  The last argument is the
# start of Redis during the read ("": any).
OF_A_START: Final = ("start", "pend", "settle", "stop", "conclude", "fail", "close", "retry")
_SAME_START: Final = """\
local start = table.remove(ARGV)
if start ~= "" and not string.find(redis.call("INFO", "server"), "run_id:" .. start, 1, true) then
  return {"restarted"}
end
"""


# Keys that scripts build from the id of a host, a transaction or a run; %s is the id.
_KEYS: Final = {
    "EVENTS": keys.events(),
    "HOST_EVENTS": keys.host_events("%s"),
    "HOST_DUE": keys.host_due("%s"),
    "ARRIVALS": keys.arrivals(),
    "HOSTS": keys.hosts(),
    "CLOCK": keys.clock(),
    "CARD": keys.card(Host("%s")),
    "IDS": keys.ids(),
    "TXN": keys.txn("%s"),
    "RUN": keys.run(RunId("%s")),
}


@cache
def script_source(name: str) -> str:
    """The whole text of a script, as sent to Redis."""
    return assemble_script((_LUA / f"{name}.lua").read_text(), _SAME_START if name in OF_A_START else "")


def assemble_script(text: str, guard: str = "") -> str:
    """A script's text behind the flags, the tables, the shared functions and the guard."""
    flags, text = text.split("\n", 1) if text.startswith("#!") else ("#!lua", text)  # Redis expects the flags first
    tables = (
        _lua_sets("MOVES", MOVES),
        _lua_sets("ACCEPTS", ACCEPTS),
        _lua_table("BY_WORKERS", {kind: _lua_flags(list_needs(kind)) for kind in sorted(EVENTS_BY_WORKERS)}),
        *(f'local {name} = "{key}"' for name, key in _KEYS.items()),
        f"local UNWATCHED = {UNWATCHED}",
    )
    return "\n".join(
        (flags, *tables, *((_LUA / f"{name}.lua").read_text() for name in ("events", "prelude")), guard, text)
    )


def _lua_sets(name: str, sets: Mapping[Any, frozenset[Any]]) -> str:
    return _lua_table(name, {key: _lua_flags(dict.fromkeys(sorted(values), True)) for key, values in sets.items()})


def _lua_flags(flags: Mapping[Any, bool]) -> str:
    return "{" + ",".join(f'["{name}"]={str(flag).lower()}' for name, flag in flags.items()) + "}"


def _lua_table(name: str, rows: Mapping[Any, str]) -> str:
    return f"local {name} = {{{','.join(f'[{chr(34)}{key}{chr(34)}]={row}' for key, row in rows.items())}}}"


class Restarted(Exception):
    """Redis was restarted after the read that the call is based on."""


class Scripts:
    """Calls by name: ``scripts.call("claim", keys, args)``; an unknown script is loaded again by redis-py."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scripts: dict[str, Any] = {}  # scripts called so far; to register a script is to hash the text

    def call(self, name: str, keys: Sequence[str], args: Sequence[object], *, start: str = "") -> list[Any]:
        """Run one script; return the tagged list, in bytes.

        ``start``: for a script of ``OF_A_START``, the start of Redis (its run id) at the read before the call; "": any.

        Raises:
            Restarted: Redis was restarted since then, and the script did nothing.
        """
        if name not in self._scripts:
            self._scripts[name] = self._client.register_script(script_source(name))
        own = [start] if name in OF_A_START else []
        reply: list[Any] = self._scripts[name](keys=list(keys), args=[*args, *own])
        if own and reply[0] == b"restarted":
            raise Restarted
        return reply
