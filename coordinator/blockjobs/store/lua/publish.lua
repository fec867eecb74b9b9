-- Publish a staged run: the one field that makes all its jobs real.
--
-- KEYS[1] run   KEYS[2] staged   KEYS[3] runs   KEYS[4] launches   KEYS[5] events
-- ARGV[1] run id   ARGV[2] number of jobs the client staged   ARGV[3] number of those it left out
-- ARGV[4] 1: somebody is to be told of its end
--
-- Returns {"published"} | {"again"} | {"incomplete", staged}

local state, jobs = unpack(redis.call("HMGET", KEYS[1], "state", "jobs"))
if state == "published" then return {"again"} end
if jobs ~= ARGV[2] then return {"incomplete", jobs or "0"} end
local now = now_ms()
redis.call("HSET", KEYS[1], "state", "published", "published", now, "open", jobs, "failed", 0, "cancelled", 0, "skipped", ARGV[3])
if ARGV[4] == "1" then redis.call("HSET", KEYS[1], "tells", 1) end
redis.call("ZREM", KEYS[2], ARGV[1])
redis.call("ZADD", KEYS[3], now, ARGV[1])
redis.call("ZADD", KEYS[4], now, ARGV[1])
local told = {"event", "RUN_PUBLISHED", "id", ARGV[1], "run", ARGV[1], "jobs", jobs}
if ARGV[3] ~= "0" then told[#told + 1], told[#told + 2] = "skipped", ARGV[3] end
redis.call("XADD", KEYS[5], "*", unpack(told))
return {"published"}
