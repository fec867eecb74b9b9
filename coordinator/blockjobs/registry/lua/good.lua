-- Record the success of a run, for a name with a time limit between successes.
--
-- KEYS[1] names   ARGV[1] name   ARGV[2] end of the run (ms, steady clock)   ARGV[3] run id
--
-- Returns {"noted"} | {"older"} | {"unknown"}

if redis.call("HEXISTS", KEYS[1], "overdue:" .. ARGV[1]) == 0 then return {"unknown"} end
local before = string.match(redis.call("HGET", KEYS[1], "good:" .. ARGV[1]) or "", "^%d+")
if before and tonumber(before) >= tonumber(ARGV[2]) then return {"older"} end
redis.call("HSET", KEYS[1], "good:" .. ARGV[1], ARGV[2] .. " " .. ARGV[3])
return {"noted"}
