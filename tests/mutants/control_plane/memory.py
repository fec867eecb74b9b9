"""A registry that is older, empty or elsewhere: what hosts and the finalizer know of decisions."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry

# fmt: off
MEMORY: Final = (
    never("model/memory.py", "    if claim.registry and claim.registry != here.registry:\n", "tests/unit/test_memory.py"),
    never("model/memory.py", "    if claim.number > here.number:\n", "tests/unit/test_memory.py"),
    never("model/memory.py", "    if own > here:\n", "tests/unit/test_memory.py"),
    Mutant("model/memory.py", '    if len(lost) < ALL_STOP:\n        return ""\n', '    if True:\n        return ""\n', "tests/unit/test_memory.py"),
    Mutant("model/memory.py", "if len(lost) < ALL_STOP:", "if not lost:", "tests/unit/test_memory.py"),
    Mutant("model/memory.py", '    if not lost:\n        return ""\n', '    if True:\n        return ""\n', "tests/unit/test_memory.py"),
    Mutant("model/memory.py", '    if not names:\n        return ""\n', '    if True:\n        return ""\n', "tests/unit/test_memory.py"),
    Mutant("registry/memory.py", "        if unreadable:  # such a host may know of later decisions\n            return unreadable[0]\n", "", registry("older_registry", "a_host_that_claims_more_than_this_registry_knows_is_decided_nothing_with", "the_decisions_of_this_very_registry_count_though_somebody_says_that_it_is_gone")),
    Mutant("registry/memory.py", "if not (claim.registry and claim.registry == gone != here.registry)", "if not (claim.registry and claim.registry == gone)", registry("older_registry", "a_host_that_claims_more_than_this_registry_knows_is_decided_nothing_with", "the_decisions_of_this_very_registry_count_though_somebody_says_that_it_is_gone")),
    Mutant("registry/memory.py", "if not (claim.registry and claim.registry == gone != here.registry)", "if True", registry("older_registry", "a_host_that_claims_more_than_this_registry_knows_is_decided_nothing_with", "the_decisions_of_this_very_registry_count_though_somebody_says_that_it_is_gone")),
    Mutant("registry/memory.py", " if beat and beat.decode() != then]", "]", registry("older_registry", "what_a_host_knows_when_it_is_heard_again_tells_whether_decisions_were_lost")),
    Mutant("registry/memory.py", "            if why:\n                unreadable.append(why)\n            else:\n                claims", "            if True:\n                claims", registry("older_registry", "a_host_of_which_nobody_can_read_what_it_knows_is_not_heard_yet")),
    Mutant("registry/memory.py", 'if claim.number > int(record["decisions"]) and claim', "if claim.number > here.number and claim", registry("older_registry", "decisions_about_others_make_no_lost_one_look_known")),
    Mutant("registry/memory.py", " and claim.registry == here.registry:\n                self", ":\n                self", registry("older_registry", "what_a_host_knows_when_it_is_heard_again_tells_whether_decisions_were_lost")),
    Mutant("registry/memory.py", 'f"lost:{host}", claim.number)\n', 'f"x:{host}", claim.number)\n', registry("older_registry", "what_a_host_knows_when_it_is_heard_again_tells_whether_decisions_were_lost")),
    Mutant("registry/memory.py", "marks = {host: mark for host, given_up, mark in asked if not given_up}", "marks = {host: mark for host, given_up, mark in asked}", registry("older_registry", "a_host_that_is_abandoned_is_not_waited_for")),
    Mutant("registry/memory.py", "doubt_unheard([host for host, (beat, _) in marks.items() if beat is not None])\n            or ", "", registry("older_registry", "the_finalizer_is_not_quicker_than_the_heartbeat_that_tells_it")),
    Mutant("registry/memory.py", "            or doubt_lost({host: int(lost) for host, (_, lost) in marks.items() if lost is not None})\n", "", registry("older_registry", "the_finalizer_is_not_quicker_than_the_heartbeat_that_tells_it")),
    Mutant("registry/memory.py", "            or self.doubt_hosts(marks)\n", "", registry("older_registry", "a_host_that_claims_more_than_this_registry_knows_is_decided_nothing_with", "the_decisions_of_this_very_registry_count_though_somebody_says_that_it_is_gone")),
    Mutant("registry/memory.py", "        if number > known:\n            known", "        if True:\n            known", registry("older_registry", "a_loss_is_accepted_up_to_the_number_that_was_said_and_numbers_never_go_back")),
    Mutant("registry/memory.py", "in self._lost().items() if lost <= known]", "in self._lost().items()]", registry("older_registry", "a_loss_is_accepted_up_to_the_number_that_was_said_and_numbers_never_go_back")),
    Mutant("registry/scripts.py", '        if own and reply[0] == b"restarted":\n            raise Restarted\n', "", registry("starts", "nothing_is_done_with_what_was_read_of_an_earlier_start_of_redis")),
    Mutant("registry/scripts.py", '  return {"restarted"}\n', "", registry("starts", "nothing_is_done_with_what_was_read_of_an_earlier_start_of_redis")),
    Mutant("registry/scripts.py", '_SAME_START if name in OF_A_START else ""', '""', registry("starts", "nothing_is_done_with_what_was_read_of_an_earlier_start_of_redis")),
    Mutant("daemons/finalizer.py", "        view = self.registry.transactions.view(txn, start)\n", "        view = self.registry.transactions.view(txn)\n", registry("older_registry", "a_start_between_the_look_and_the_decision_is_noticed_by_the_decision")),
    Mutant("daemons/finalizer.py", "*self._over(), *self._doubts])", "*self._over()])", registry("older_registry", "after_a_start_of_redis_a_transaction_is_decided_when_each_of_its_hosts_was_heard")),
    Mutant("daemons/finalizer.py", "        memory.hear()\n", "", registry("older_registry", "after_a_start_of_redis_a_transaction_is_decided_when_each_of_its_hosts_was_heard")),
    Mutant("daemons/finalizer.py", "doubt = self._doubt or self.registry.memory.doubt_members(view.txn, view.shares)", "doubt = self.registry.memory.doubt_members(view.txn, view.shares)", registry("older_registry", "two_hosts_that_know_more_stop_everything")),
    Mutant("daemons/finalizer.py", "doubt = self._doubt or self.registry.memory.doubt_members(view.txn, view.shares)", "doubt = self._doubt", registry("older_registry", "after_a_start_of_redis_a_transaction_is_decided_when_each_of_its_hosts_was_heard")),
    Mutant("daemons/finalizer.py", "        if not doubt:\n", "        if True:\n", registry("older_registry", "after_a_start_of_redis_a_transaction_is_decided_when_each_of_its_hosts_was_heard")),
    Mutant("registry/lua/restart.lua", 'if before == ARGV[1] then return {"same"} end\n', "", registry("older_registry", "a_start_between_the_look_and_the_decision_is_noticed_by_the_decision")),
    Mutant("registry/lua/restart.lua", 'if not before and redis.call("EXISTS", KEYS[3]) == 0 then return {"first"} end\n', "", registry("older_registry", "a_start_between_the_look_and_the_decision_is_noticed_by_the_decision")),
    Mutant("daemons/finalizer.py", "if (run_id, incarnation) != (self._run_id, self._incarnation):", "if run_id != self._run_id:", registry("older_registry", "a_registry_that_was_emptied_while_all_ran_is_another_one_at_the_next_look")),
    Mutant("registry/lua/restart.lua", 'if not before and redis.call("EXISTS", KEYS[3]) == 0 then', "if not before then", registry("older_registry", "a_copy_that_is_older_than_the_first_finalizer_counts_as_one_that_was_started_anew")),
    Mutant("registry/lua/restart.lua", 'then await(string.sub(field, 6)) end', "then end", registry("older_registry", "a_host_that_is_known_by_its_transaction_alone_has_to_be_heard_as_well")),
)
# fmt: on
