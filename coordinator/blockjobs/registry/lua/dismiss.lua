#!lua flags=allow-oom
-- Forget a concluded job; its id is free again.
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] wake  KEYS[4] ids  KEYS[5] events
-- ARGV[1] id
--
-- Returns {"dismissed"} | {"refused", status} | {"missing"}

local status = redis.call("HGET", KEYS[1], "status")
if not status or status == "undefined" then return {"missing"} end
if not ACCEPTS["dismiss"][status] then return {"refused", status} end
move(KEYS[5], KEYS[1], ARGV[1], "null")
redis.call("DEL", KEYS[1], KEYS[2], KEYS[3])
redis.call("HDEL", KEYS[4], ARGV[1])
return {"dismissed"}
