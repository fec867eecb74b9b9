"""Stores and hosts as limits: who is rung for, who has a place in a store and for how long, and what each may move."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry

# fmt: off
BUDGETS: Final = (
    Mutant("registry/lua/ring.lua", 'if redis.call("HEXISTS", KEYS[4], "drain:" .. ARGV[4]) == 1 then return {"ring"} end\n', "", registry("drains", "a_drained_host_is_not_rung_and_its_jobs_are_held")),
    Mutant("registry/lua/ring.lua", 'if redis.call("HLEN", KEYS[3]) < tonumber(ARGV[2]) and redis.call("LLEN", KEYS[5]) == 0 then', 'if redis.call("LLEN", KEYS[5]) == 0 then', registry("attempts", "a_lost_doorbell_is_rung_again_where_a_slot_is_free_and_only_there")),
    Mutant("registry/lua/ring.lua", 'if redis.call("HLEN", KEYS[3]) < tonumber(ARGV[2]) and redis.call("LLEN", KEYS[5]) == 0 then', 'if redis.call("HLEN", KEYS[3]) < tonumber(ARGV[2]) then', registry("attempts", "a_lost_doorbell_is_rung_again_where_a_slot_is_free_and_only_there")),
    Mutant("registry/lua/ring.lua", '"-inf", now - ARGV[3])', '"-inf", now)', registry("stores", "no_more_are_rung_than_the_store_takes_and_others_are_not_held_up")),
    Mutant("registry/lua/ring.lua", 'tonumber(ARGV[1]) - redis.call("ZCARD", KEYS[2])', "tonumber(ARGV[1])", registry("attempts", "a_host_has_at_most_two_doorbells_more_than_slots_and_the_longest_waiting_first")),
    Mutant("registry/lua/ring.lua", "  if room <= 0 then return reply end\n", "", registry("attempts", "a_host_has_at_most_two_doorbells_more_than_slots_and_the_longest_waiting_first")),
    Mutant("registry/lua/ring.lua", "      room = room - 1\n", "", registry("attempts", "a_host_has_at_most_two_doorbells_more_than_slots_and_the_longest_waiting_first")),
    Mutant("registry/lua/ring.lua", 'redis.call("ZSCORE", KEYS[1], id) or FULL)', 'redis.call("ZSCORE", KEYS[1], id) or 0)', registry("stores", "one_that_was_claimed_meanwhile_is_not_rung_for")),
    Mutant("registry/lua/ring.lua", 'if since < FULL and not redis.call("ZSCORE", KEYS[2], id) then', 'if not redis.call("ZSCORE", KEYS[2], id) then', registry("stores", "one_that_waits_for_its_store_since_is_not_put_farther_back")),
    Mutant("registry/lua/ring.lua", 'if since < FULL and not redis.call("ZSCORE", KEYS[2], id) then', "if since < FULL then", registry("stores", "no_more_are_rung_than_the_store_takes_and_others_are_not_held_up")),
    Mutant("registry/lua/ring.lua", "if most > 0 and not redis", "if not redis", registry("attempts", "a_host_has_at_most_two_doorbells_more_than_slots_and_the_longest_waiting_first")),
    Mutant("registry/lua/ring.lua", 'not redis.call("ZSCORE", places, place) and redis.call("ZCARD", places) >= most', 'redis.call("ZCARD", places) >= most', registry("stores", "a_doorbell_that_was_given_up_is_no_claim_any_more")),
    Mutant("registry/lua/ring.lua", ' and redis.call("ZCARD", places) >= most then', " then", registry("stores", "no_more_are_rung_than_the_store_takes_and_others_are_not_held_up")),
    Mutant("registry/lua/ring.lua", '      redis.call("ZADD", crowd, since, place)\n', "", registry("stores", "a_copy_that_ends_gives_its_place_to_the_longest_waiting")),
    Mutant("registry/lua/ring.lua", '      redis.call("ZADD", KEYS[1], since + FULL, id)\n', "", registry("stores", "those_that_wait_for_their_store_are_behind_all_others")),
    Mutant("registry/lua/ring.lua", '        redis.call("ZADD", places, now, place)\n', "", registry("stores", "no_more_are_rung_than_the_store_takes_and_others_are_not_held_up")),
    Mutant("registry/lua/ring.lua", '        redis.call("ZREM", crowd, place)\n', "", registry("stores", "one_that_was_resumed_and_has_a_place_waits_for_none")),
    Mutant("registry/lua/ring.lua", '        redis.call("HDEL", job, "full")\n', "", registry("stores", "a_copy_that_ends_gives_its_place_to_the_longest_waiting")),
    Mutant("registry/lua/ring.lua", '      if limit ~= "" then redis', "      if true then redis", registry("stores", "the_first_copies_to_a_new_store_share_its_budget")),
    Mutant("registry/lua/ring.lua", '      if limit ~= "" then redis', "      if false then redis", registry("stores", "the_first_copies_to_a_new_store_share_its_budget")),
    Mutant("registry/lua/sweep.lua", "if not has_claim(KEYS[i + 1]) and not", "if not", registry("stores", "no_place_is_given_back_that_is_in_use_again")),
    Mutant("registry/lua/sweep.lua", ' and not redis.call("ZSCORE", KEYS[i + 2], ARGV[i + 1]) then', " then", registry("stores", "no_place_is_given_back_that_is_in_use_again")),
    Mutant("registry/lua/admit.lua", '  redis.call("ZREM", KEYS[1], ARGV[i] .. " " .. ARGV[i + 1])\n', "", registry("stores", "nobody_is_let_out_of_a_crowd_twice")),
    never("registry/lua/admit.lua", "  if since >= FULL then\n", registry("stores", "a_copy_that_ends_gives_its_place_to_the_longest_waiting")),
    Mutant("registry/lua/admit.lua", "  if since >= FULL then\n", "  if since > 0 then\n", registry("stores", "nobody_is_let_out_of_a_crowd_twice")),
    Mutant("registry/lua/admit.lua", "ARGV[i + 1]) or 0)", "ARGV[i + 1]) or FULL)", registry("stores", "nobody_is_let_out_of_a_crowd_twice")),
    Mutant("registry/lua/limit.lua", "if has_claim(job) and (redis", "if (redis", registry("stores", "a_share_for_one_that_has_ended_or_has_it_already_changes_nothing")),
    Mutant("registry/lua/limit.lua", 'if has_claim(job) and (redis.call("HGET", job, "limit") or "0") ~= limit then', "if has_claim(job) then", registry("stores", "a_share_for_one_that_has_ended_or_has_it_already_changes_nothing")),
    Mutant("registry/lua/limit.lua", '(redis.call("HGET", job, "limit") or "0") ~= limit', 'redis.call("HGET", job, "limit") ~= limit', registry("stores", "a_share_for_one_that_has_ended_or_has_it_already_changes_nothing")),
    Mutant("registry/lua/limit.lua", "    knock(KEYS[2 * i])\n", "", registry("stores", "the_share_travels_beside_the_users_own_speed")),
    Mutant("registry/lua/store.lua", 'if not f[1] and ARGV[5] == "" then return {"missing"} end\n', "", registry("stores", "a_change_of_a_store_is_one_event_and_none_where_nothing_changed")),
    Mutant("registry/lua/store.lua", 'if not f[1] and ARGV[5] == "" then return', 'if ARGV[5] == "" then return', registry("stores", "a_change_of_a_store_is_one_event_and_none_where_nothing_changed")),
    Mutant("registry/lua/store.lua", 'if not f[1] and ARGV[5] == "" then return', "if not f[1] then return", registry("stores", "a_change_of_a_store_is_one_event_and_none_where_nothing_changed")),
    Mutant("registry/lua/store.lua", 'ARGV[5] ~= "" and ARGV[5] or f[1]', "ARGV[5]", registry("stores", "each_thing_that_a_store_is_may_change_alone")),
    Mutant("registry/lua/store.lua", 'ARGV[2] ~= "" and ARGV[2] or f[2] or "0"', "ARGV[2]", registry("budget_commands", "its_limits_are_changed_one_by_one")),
    Mutant("registry/lua/store.lua", 'ARGV[3] ~= "" and ARGV[3] or f[3] or "0"', "ARGV[3]", registry("budget_commands", "its_limits_are_changed_one_by_one")),
    Mutant("registry/lua/store.lua", "if f[1] ~= path or f[2] ~= jobs or f[3] ~= speed then", "if true then", registry("stores", "a_change_of_a_store_is_one_event_and_none_where_nothing_changed")),
    Mutant("registry/lua/store.lua", "if f[1] ~= path or f[2] ~= jobs or f[3] ~= speed then", "if f[2] ~= jobs or f[3] ~= speed then", registry("stores", "each_thing_that_a_store_is_may_change_alone")),
    Mutant("registry/lua/store.lua", "if f[1] ~= path or f[2] ~= jobs or f[3] ~= speed then", "if f[1] ~= path or f[3] ~= speed then", registry("stores", "each_thing_that_a_store_is_may_change_alone")),
    Mutant("registry/lua/store.lua", "if f[1] ~= path or f[2] ~= jobs or f[3] ~= speed then", "if f[1] ~= path or f[2] ~= jobs then", registry("stores", "each_thing_that_a_store_is_may_change_alone")),
    Mutant("registry/lua/store_gone.lua", 'if not f[1] then return {"missing"} end\n', "", registry("stores", "a_store_is_forgotten_once_with_those_that_wait_for_it")),
    Mutant("registry/lua/store_gone.lua", 'redis.call("SREM", KEYS[1], ARGV[1])\n', "", registry("budget_commands", "a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file")),
    Mutant("registry/lua/store_gone.lua", '"DEL", KEYS[2], KEYS[3], KEYS[4])', '"DEL", KEYS[3], KEYS[4])', registry("budget_commands", "a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file")),
    Mutant("registry/lua/store_gone.lua", '"DEL", KEYS[2], KEYS[3], KEYS[4])', '"DEL", KEYS[2], KEYS[4])', registry("stores", "a_store_is_forgotten_once_with_those_that_wait_for_it")),
    Mutant("registry/lua/store_gone.lua", '"DEL", KEYS[2], KEYS[3], KEYS[4])', '"DEL", KEYS[2], KEYS[3])', registry("stores", "a_store_is_forgotten_once_with_those_that_wait_for_it")),
    Mutant("registry/lua/host.lua", 'if redis.call("HEXISTS", KEYS[1], "state:" .. ARGV[1]) == 0 then return {"missing"} end\n', "", registry("stores", "a_host_is_limited_by_name_and_once")),
    Mutant("registry/lua/host.lua", "if before ~= ARGV[2] then", "if true then", registry("stores", "a_host_is_limited_by_name_and_once")),
)
# fmt: on
