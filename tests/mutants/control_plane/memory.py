"""A registry that is older, empty or elsewhere: what hosts and the finalizer know of decisions."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry

# fmt: off
MEMORY: Final = (
    never("model/memory.py", "    if own > here:\n", registry("older_registry", "what_the_finalizer_has_decided_itself_stops_everything_too")),
    Mutant("model/memory.py", '    if len(lost) < ALL_STOP:\n        return ""\n', '    if True:\n        return ""\n', registry("older_registry", "two_hosts_that_know_more_stop_everything")),
    Mutant("model/memory.py", "if len(lost) < ALL_STOP:", "if not lost:", registry("older_registry", "the_finalizer_is_not_quicker_than_the_heartbeat_that_tells_it")),
    Mutant("model/memory.py", '    if not lost:\n        return ""\n', '    if True:\n        return ""\n', registry("older_registry", "the_finalizer_is_not_quicker_than_the_heartbeat_that_tells_it")),
    Mutant("model/memory.py", '    if not names:\n        return ""\n', '    if True:\n        return ""\n', registry("older_registry", "the_finalizer_is_not_quicker_than_the_heartbeat_that_tells_it")),
    Mutant("store/memory.py", "            if beat is None or beat.decode() == then:\n                continue\n", "", registry("older_registry", "two_hosts_that_know_more_stop_everything")),
    Mutant("store/memory.py", 'if number > int(record["decisions"]) and facts', "if number > self._decisions() and facts", registry("older_registry", "decisions_about_others_make_no_lost_one_look_known")),
)
# fmt: on
