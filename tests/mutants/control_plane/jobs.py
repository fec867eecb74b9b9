"""What all scripts share: moves, members, whole numbers, locks, knocks, holds."""

from __future__ import annotations

from typing import Final

from lines import Mutant, registry

# fmt: off
JOBS: Final = (
    Mutant("registry/lua/prelude.lua", '  if not (MOVES[from] and MOVES[from][to]) then\n    error("illegal move of job " .. id .. " from " .. tostring(from) .. " to " .. to)\n  end\n', "", registry("moves", "a_script_moves_a_job_along_the_edges_of_the_table_and_no_other")),
    Mutant("registry/lua/prelude.lua", 'local function is_of(job, txn) return redis.call("HGET", job, "txn") == txn end', "local function is_of(job, txn) return true end", registry("retries", "a_deadline_reaches_a_job_that_is_tried_again_at_that_very_moment")),
    Mutant("registry/lua/prelude.lua", 'if redis.call("EXISTS", txn) == 1 then redis.call("HINCRBY", txn, "rev", 1) end', "", registry("transactions", "a_decision_on_a_view_older_than_a_verb_is_refused")),
    Mutant("registry/lua/prelude.lua", 'if redis.call("EXISTS", txn) == 1 then redis.call("HINCRBY", txn, "rev", 1) end', 'redis.call("HINCRBY", txn, "rev", 1)', registry("retries", "what_holds_many_at_once_makes_nothing_of_a_transaction_that_is_gone")),
    Mutant("registry/lua/prelude.lua", "  if #a ~= #b then return #a < #b end\n", "", registry("whole_numbers", "the_lower_one_of_two_limits_is_felt_however_large_they_are")),
    Mutant("registry/lua/prelude.lua", 'if a == "0" or (b ~= "0" and less(b, a)) then', 'if a == "0" or less(b, a) then', registry("attempts", "a_speed_comes_down_as_it_is")),
    Mutant("registry/lua/prelude.lua", 'if a == "0" or (b ~= "0" and less(b, a)) then', 'if b ~= "0" and less(b, a) then', registry("whole_numbers", "the_lower_one_of_two_limits_is_felt_however_large_they_are")),
    Mutant("registry/lua/prelude.lua", '    redis.call("HSET", key, field, MOST)\n', "", registry("whole_numbers", "sums_that_would_pass_the_largest_number_stay_at_it_and_the_run_ends")),
    Mutant("registry/lua/prelude.lua", "if string.byte(value, at) == 0xcf then", "if false then", registry("whole_numbers", "a_run_s_figures_are_those_of_its_jobs_to_the_byte")),
    Mutant("registry/lua/prelude.lua", '  if from == "undefined" then move(stream, job, id, "created") end\n', "", registry("submit", "a_run_launched_by_halves_can_be_cancelled_as_a_whole")),
    Mutant("registry/lua/prelude.lua", '  if from == "paused" then move(stream, job, id, "running") end\n', "", registry("overlap", "a_job_that_is_over_is_no_longer_noted_as_stopped")),
    Mutant("registry/lua/prelude.lua", '  if from == "standby" then move(stream, job, id, "ready") end\n', "", registry("verbs", "a_job_on_standby_is_ready_before_it_aborts")),
    Mutant("registry/lua/prelude.lua", 'local own = string.sub(line, 1, 1) ~= "^"', "local own = true", registry("locks", "a_file_is_in_use_as_long_as_anybody_reads_or_writes_what_lies_on_it")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', 'each[1] and "rvs" or "wr"', registry("transactions", "a_volume_that_another_job_holds_under_another_name_fails_the_open")),
    Mutant("registry/lua/prelude.lua", 'if each[1] then redis.call("HSET", locks, "w:" .. each[2], id) else redis.call("HINCRBY", locks, "v:" .. each[2], 1) end', 'if each[1] then redis.call("HSET", locks, "w:" .. each[2], id) end', registry("locks", "a_file_is_in_use_as_long_as_anybody_reads_or_writes_what_lies_on_it")),
    Mutant("registry/lua/prelude.lua", 'if each[1] then redis.call("HSET", locks, "w:" .. each[2], id) else', "if not each[1] then", registry("transactions", "a_volume_that_another_job_holds_under_another_name_fails_the_open")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', 'each[1] and "wvs" or "wr"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', 'each[1] and "wrs" or "wr"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', 'each[1] and "wrv" or "wr"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', 'each[1] and "wrvs" or "r"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', 'each[1] and "wrvs" or "w"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wrvs" or "wr"', '"wrvs"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wv" or "w"', 'each[1] and "v" or "w"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wv" or "w"', '"w"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wv" or "w"', 'each[1] and "wv" or ""', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'each[1] and "wv" or "w"', '"wv"', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'redis.call("HINCRBY", locks, (each[1] and "r:" or "s:") .. each[2], 1)', 'redis.call("HINCRBY", locks, "r:" .. each[2], 1)', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'redis.call("HINCRBY", locks, field, -1) <= 0 then', 'redis.call("HINCRBY", locks, field, -1) < 0 then', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'redis.call("HINCRBY", locks, field, -1) <= 0 then', 'true then', registry("locks", "a_volume_is_in_use_until_the_last_of_its_readers_has_ended")),
    Mutant("registry/lua/prelude.lua", 'if each[1] then redis.call("HDEL", locks, "w:" .. each[2]) else drop', 'if not each[1] then drop', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'else drop("v:" .. each[2]) end', 'end', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'do drop((each[1] and "r:" or "s:") .. each[2]) end', 'do drop("r:" .. each[2]) end', registry("locks", "whole_and_part_meet_and_two_parts_do_not")),
    Mutant("registry/lua/prelude.lua", 'return string.find(redis.call("HGET", job, "operations") or "", operation, 1, true) ~= nil', "return false", registry("lost_replies", "a_cancel_whose_reply_was_lost_is_not_refused")),
    Mutant("registry/lua/prelude.lua", 'return attempt and attempt ~= ""', "return attempt", registry("lost_replies", "a_cancel_whose_reply_was_lost_is_not_refused")),
    Mutant("registry/lua/prelude.lua", '  redis.call("HSET", holds, reason, cause)\n  touch(txn)\n', '  redis.call("HSET", holds, reason, cause)\n', registry("transactions", "a_decision_on_a_view_older_than_a_verb_is_refused")),
    Mutant("registry/lua/prelude.lua", '  if has_claim(job) then\n    knock(wake)\n  elseif status == "running" or status == "ready" then', '  if status == "running" or status == "ready" then', registry("holds", "a_cancelled_job_is_not_paused_any_more")),
    Mutant("registry/lua/prelude.lua", '"paused" or "standby")\n    redis.call("ZREM", ready, id)\n', '"paused" or "standby")\n', registry("holds", "a_job_that_waits_for_a_slot_is_paused_at_once_and_keeps_no_place_in_the_queue")),
    Mutant("registry/lua/prelude.lua", '    redis.call("ZREM", rung, id)\n  end\nend\n', "  end\nend\n", registry("holds", "a_job_that_waits_for_a_slot_is_paused_at_once_and_keeps_no_place_in_the_queue")),
    Mutant("registry/lua/prelude.lua", 'elseif redis.call("HLEN", holds) == 0 and (status', "elseif (status", registry("holds", "a_job_goes_on_with_the_last_of_its_holds_and_a_user_lifts_only_his_own")),
)
# fmt: on
