-- Launch a run if the run is the first in the line of its name; the caller then launches the jobs.
--
-- KEYS[1] lines   KEYS[2] run   KEYS[3] launches   KEYS[4] events
-- ARGV[1] name   ARGV[2] run id
--
-- Returns {"launched"} | {"waits"} | {"repeated"}

local first = string.match(redis.call("HGET", KEYS[1], ARGV[1]) or "", "^%S+")
if first ~= ARGV[2] then return {"waits"} end
if redis.call("HDEL", KEYS[2], "queued") == 0 then return {"repeated"} end
redis.call("ZADD", KEYS[3], now_ms(), ARGV[2])
append(KEYS[4], "event", "RUN_LAUNCHED", "id", ARGV[2], "run", ARGV[2])
return {"launched"}
