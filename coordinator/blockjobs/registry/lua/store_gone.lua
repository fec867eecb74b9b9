-- Forget an unused store.
--
-- KEYS[1] stores   KEYS[2] store   KEYS[3] places   KEYS[4] crowd   KEYS[5] events
-- ARGV[1] name   ARGV[2] author of the change
--
-- Returns {"gone", path, jobs, speed, by (as it was)} | {"missing"}

local f = redis.call("HMGET", KEYS[2], "path", "jobs", "speed", "by")
if not f[1] then return {"missing"} end
redis.call("SREM", KEYS[1], ARGV[1])
redis.call("DEL", KEYS[2], KEYS[3], KEYS[4])
append(KEYS[5], "event", "STORE_REMOVED", "id", ARGV[1], "path", f[1], "by", ARGV[2])
return {"gone", f[1], f[2] or "0", f[3] or "0", f[4] or ""}
