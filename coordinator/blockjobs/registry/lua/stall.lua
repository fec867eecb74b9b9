#!lua flags=allow-oom
-- Write the event of an attempt without progress for the time allowed by its job, before the attempt ends itself.
--
-- KEYS[1] job  KEYS[2] events
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] seconds
--
-- Returns {"ok"} | {"lost"}

local token, attempt = unpack(redis.call("HMGET", KEYS[1], "token", "attempt"))
if token ~= ARGV[2] or attempt ~= ARGV[3] then return {"lost"} end
if redis.call("HGET", KEYS[1], "stalled") == attempt then return {"ok"} end  -- its answer was lost
redis.call("HSET", KEYS[1], "stalled", attempt)
emit(KEYS[2], "JOB_STALLED", KEYS[1], ARGV[1], "seconds", ARGV[4])
return {"ok"}
