"""The Lua scripts, one verb each, loaded once.

Every script is preceded by ``prelude.lua`` and by the state tables, written out from Python: the tables
exist once, and scripts are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from blockjobs.model.states import ACCEPTS, MOVES
from blockjobs.store.connection import Client

NAMES: Final = (
    # clients                                    finalizer and coordinator
    "stage", "publish", "unstage", "launch",     "start", "pend", "settle", "stop", "conclude", "fail", "close",
    "pause", "resume", "cancel", "set_speed",    "ring", "judge", "barrier", "fence", "remind",
    "complete", "finalize", "dismiss", "hold", "lift",             "abandon", "move", "alive",
    "reserve", "unreserve", "store", "store_gone", "host", "sweep", "admit", "limit", "late", "call_off", "advance",
    "prune", "announce", "tell", "told",         "again", "begin",
    # workers
    "beat", "claim", "checkpoint", "ready", "diverge", "error", "stall", "finish", "release", "answer",
)  # fmt: skip
_LUA: Final = resources.files("blockjobs.store") / "lua"
BY_WORKERS: Final = ("beat", "claim", "checkpoint", "ready", "diverge", "error", "stall", "finish", "release", "answer")


@cache
def source(name: str) -> str:
    """The whole text of a script, as Redis gets it."""
    return assemble((_LUA / f"{name}.lua").read_text())


def assemble(text: str) -> str:
    """A script's own text, behind its flags, the tables and the prelude."""
    flags, text = text.split("\n", 1) if text.startswith("#!") else ("#!lua", text)  # Redis wants them first
    tables = (_table("MOVES", MOVES), _table("ACCEPTS", ACCEPTS))
    return "\n".join((flags, *tables, (_LUA / "prelude.lua").read_text(), text))


def _table(name: str, table: Mapping[Any, frozenset[Any]]) -> str:
    rows = (f'["{key}"]={{{",".join(sorted(f"""["{v}"]=true""" for v in values))}}}' for key, values in table.items())
    return f"local {name} = {{{','.join(rows)}}}"


class Scripts:
    """Calls by name: ``scripts.call("claim", keys, args)``; an unknown script is loaded again by redis-py."""

    def __init__(self, client: Client) -> None:
        self._scripts = {name: client.register_script(source(name)) for name in NAMES}

    def call(self, name: str, keys: Sequence[str], args: Sequence[object]) -> list[Any]:
        """Run one script; returns its tagged list, bytes as they came."""
        reply: list[Any] = self._scripts[name](keys=list(keys), args=list(args))
        return reply
