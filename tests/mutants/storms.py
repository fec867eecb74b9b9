"""Guards of which the storms can tell that they are gone: each line names the fault that it takes, and a storm is red.

By hand: ``python tests/mutants/run.py --storms`` (a minute each, two at a time).  The other guards against what a storm
does delay things, or are each covered by another one; the tables of both planes have them.
"""

from __future__ import annotations

from typing import Final

from lines import Change, Mutant, beneath


def storm(*faults: str) -> str:
    """One storm of these faults alone."""
    return f"tests/chaos/test_chaos.py --storms 1 --faults {','.join(faults)}"


# fmt: off
_CONTROL: Final = (
    Mutant("model/barriers.py", "if any(view.owing(step) for step in FORWARD) or view.waits", "if view.waits", storm("process_killed")),
    Mutant("registry/lua/bell.lua", "(now - at < tonumber(ARGV[2]) or redis.call(\"LLEN\", KEYS[2]) > 0)", "true", storm("messages_lost")),
    Mutant("registry/lua/events.lua", "return last and math.min(math.max(steady, last), last + UNWATCHED) or steady", "return steady", storm("clock_put", "messages_lost")),
    Mutant("broker/transport.py", "        if queue and _is_bell(queue):\n", "        if False:\n", storm("message_malformed")),
    Mutant("broker/transport.py", "            if not is_absence(error):\n                raise\n", "            raise\n", storm("server_read_only")),
    Mutant("process/quarantine.py", "            self._put_aside(item, error, longest)\n        except Exception as error:\n            self._put_aside(item, error, longest)\n", "            raise\n", storm("record_malformed")),
    Mutant("daemons/finalizer.py", "doubt = self._doubt or self.registry.memory.doubt_members(view.txn, view.shares)", 'doubt = ""', storm("server_rolled_back")),
)
_DATA: Final = (
    Mutant("host/mounts.py", "if not self._config.must_be_mounted or now.path not in self._config.write_roots:", "if True:", storm("disk_unmounted"),
           besides=(Change("host/mounts.py", "if before is not None and not before.is_same(now):", "if False:"),)),
)
# fmt: on

STORMS: Final = (*beneath("coordinator/blockjobs", _CONTROL), *beneath("workers/blockworker", _DATA))
