#!lua flags=allow-oom
-- Make a mirror READY that has caught up with its source, once and for good.
--
-- KEYS[1] job  KEYS[2] events
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] offset  ARGV[5] len
--
-- Returns {"ready"} | {"repeated"} | {"lost"} | {"missing"}

local f = redis.call("HMGET", KEYS[1], "status", "token", "attempt", "type", "speed")
if not f[1] then return {"missing"} end
if f[2] ~= ARGV[2] or f[3] ~= ARGV[3] then return {"lost"} end
if f[1] ~= "running" then return {"repeated"} end
redis.call("HSET", KEYS[1], "offset", ARGV[4], "len", ARGV[5], "ready", 1)
move(KEYS[2], KEYS[1], ARGV[1], "ready")
emit(KEYS[2], "BLOCK_JOB_READY", KEYS[1], ARGV[1], "type", f[4], "len", ARGV[5], "offset", ARGV[4], "speed", f[5])
return {"ready"}
