"""Events that hosts tell: what no worker writes is refused, and order and bounds are kept."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry

# fmt: off
EVENTS: Final = (
    Mutant("registry/lua/events.lua", "if not needs or size > LARGEST_EVENT then return nil end", "needs = needs or {} if size > LARGEST_EVENT then return nil end", registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("registry/lua/events.lua", "if not needs or size > LARGEST_EVENT then return nil end", "if not needs then return nil end", registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("registry/lua/events.lua", 'if not f[name] or (whole and not string.find(f[name], "^-?%d+$")) then', 'if f[name] and (whole and not string.find(f[name], "^-?%d+$")) then', registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("registry/lua/events.lua", 'if not f[name] or (whole and not string.find(f[name], "^-?%d+$")) then', "if not f[name] then", registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("registry/lua/events.lua", "    if f.id ~= host then return nil end\n", "", registry("told_by_hosts", "doctor_names_the_host_whose_user_forged_events")),
    Mutant("registry/lua/events.lua", "    if at ~= host then return nil end\n", "    if not at then return nil end\n", registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("registry/lua/events.lua", "    if at ~= host then return nil end\n", '    if at and at ~= host then return nil end of = of or ""\n', registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("registry/lua/events.lua", 'local told = {"event", f.event, "id", f.id, "txn", txn, "run", run, "host", host}', 'local told = {"event", f.event, "id", f.id, "txn", f.txn or "", "run", run, "host", host}', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'local told = {"event", f.event, "id", f.id, "txn", txn, "run", run, "host", host}', 'local told = {"event", f.event, "id", f.id, "txn", txn, "run", f.run or "", "host", host}', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'local told = {"event", f.event, "id", f.id, "txn", txn, "run", run, "host", host}', 'local told = {"event", f.event, "id", f.id, "txn", txn, "run", run, "host", f.host or host}', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end', 'for _, name in ipairs({"event", "id", "run", "host", "at"}) do f[name] = nil end', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end', 'for _, name in ipairs({"event", "id", "txn", "host", "at"}) do f[name] = nil end', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end', 'for _, name in ipairs({"event", "id", "txn", "run", "at"}) do f[name] = nil end', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end', 'for _, name in ipairs({"event", "id", "txn", "run", "host"}) do f[name] = nil end', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry")),
    Mutant("registry/lua/events.lua", 'for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end', 'for _, name in ipairs({"id", "txn", "run", "host", "at"}) do f[name] = nil end', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry"), survives="it stands there twice then, with the same value"),
    Mutant("registry/lua/events.lua", 'for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end', 'for _, name in ipairs({"event", "txn", "run", "host", "at"}) do f[name] = nil end', registry("told_by_hosts", "the_host_the_transaction_and_the_run_of_an_event_are_those_of_the_registry"), survives="it stands there twice then, with the same value"),
    Mutant("registry/lua/events.lua", '  redis.call("HSET", HOSTS, "refused-at:" .. host, now_ms())\n', "", registry("told_by_hosts", "doctor_names_the_host_whose_user_forged_events")),
    Mutant("registry/lua/events.lua", '"COUNT", HOST_PAGE)', '"COUNT", 1000000)', registry("told_by_hosts", "a_host_that_never_stops_telling_keeps_no_other_one_from_being_heard")),
    Mutant("registry/lua/events.lua", "  if page.err then  -- it is no stream\n", "  if false then\n", registry("told_by_hosts", "a_key_of_another_kind_stops_neither_the_finalizer_nor_the_events_of_others")),
    Mutant("registry/lua/events.lua", '    redis.call("DEL", stream)\n    return count_refused(host, 1)\n', "    return\n", registry("told_by_hosts", "a_key_of_another_kind_stops_neither_the_finalizer_nor_the_events_of_others")),
    Mutant("registry/lua/events.lua", "else refused = refused + 1 end", "end", registry("told_by_hosts", "doctor_names_the_host_whose_user_forged_events")),
    Mutant("registry/lua/events.lua", '    redis.call("XDEL", stream, unpack(ids))\n', '    redis.call("DEL", stream)\n', registry("told_by_hosts", "a_host_that_never_stops_telling_keeps_no_other_one_from_being_heard")),
    Mutant("registry/lua/events.lua", '    redis.call("XDEL", stream, unpack(ids))\n', "", registry("told_by_hosts", "a_host_that_never_stops_telling_keeps_no_other_one_from_being_heard")),
    Mutant("registry/lua/events.lua", '  elseif ids[1] then\n    redis.call("DEL", stream)\n', "", registry("told_by_hosts", "what_a_host_told_stands_before_whatever_followed_from_it_though_nobody_moved_it_in_time")),
    Mutant("registry/lua/events.lua", '    redis.call("XADD", stream, "MAXLEN", "~", HOST_KEPT, "*", ...)\n', '    redis.call("XADD", stream, "*", ...)\n', registry("told_by_hosts", "what_nobody_moves_is_bounded")),
    Mutant("registry/lua/events.lua", "  if stream == EVENTS and f[3] then merge_events(f[3]) end\n", "", registry("told_by_hosts", "what_a_host_told_stands_before_whatever_followed_from_it_though_nobody_moved_it_in_time")),
    Mutant("registry/lua/beat.lua", 'and state == "here" and', "and", registry("hosts_up", "a_name_moves_to_another_machine_when_both_workers_have_left_it")),
    Mutant("registry/lua/beat.lua", '  if here == "here" then redis.call("SADD", ARRIVALS, ARGV[1]) end\n', "", registry("told_by_hosts", "a_host_that_registered_while_a_coordinator_died_is_found_by_the_next_one")),
    Mutant("registry/hosts.py", "        here = [name for name, there in zip(names, pipe.execute() if names else [], strict=True) if there]\n", "        here = names\n", registry("told_by_hosts", "a_name_under_which_no_host_beats_is_no_host")),
    never("registry/hosts.py", "        if odd := {*names} - {*here}:\n            self._redis.srem", registry("told_by_hosts", "a_name_under_which_no_host_beats_is_no_host")),
    Mutant("registry/events.py", "return self._internal or not (is_internal(event.run) or is_internal(event.id))", "return True", registry("internal", "its_events_are_read_by_the_machinery_alone")),
    Mutant("registry/events.py", "            floor = min(floor, int(oldest[0][1]))\n", "            pass\n", registry("retention", "events_are_kept_for_as_long_as_their_transaction_is_not_over")),
    Mutant("registry/events.py", "            int(words[name])\n", "            pass\n", registry("unreadable", "events_shows_every_other_event_and_names_the_odd_one")),
    Mutant("registry/lua/judge.lua", 'if before == ARGV[2] then return {"same"} end\n', "", registry("told_by_hosts", "what_a_host_told_stands_before_the_judgement_of_it_which_is_told_once")),
    Mutant("registry/lua/judge.lua", "merge_events(ARGV[1])\n", "", registry("told_by_hosts", "what_a_host_told_stands_before_the_judgement_of_it_which_is_told_once")),
    Mutant("registry/eventkinds.py", '"JOB_STATUS_CHANGE":   "from status"', '"JOB_STATUS_CHANGE":   "status"', registry("told_by_hosts", "an_event_that_no_worker_of_the_host_writes_is_refused_and_counted")),
    Mutant("daemons/coordinator.py", "        self.registry.hosts.drop_arrivals(arrivals)\n", "", registry("told_by_hosts", "a_name_under_which_no_host_beats_is_no_host")),
)
# fmt: on
