-- Set the limits of a store: copies at once, and bytes per second of all copies together.
--
-- KEYS[1] stores   KEYS[2] store   KEYS[3] events
-- ARGV[1] name   ARGV[2] jobs, "" as it was   ARGV[3] speed, "" as it was   ARGV[4] by whose word
-- ARGV[5] path of a new one, "" if it has to be there already
--
-- Returns {"set", jobs before, speed before} ("" where it is new) | {"missing"}

local f = redis.call("HMGET", KEYS[2], "path", "jobs", "speed")
if not f[1] and ARGV[5] == "" then return {"missing"} end
local path = ARGV[5] ~= "" and ARGV[5] or f[1]
local jobs = ARGV[2] ~= "" and ARGV[2] or f[2] or "0"
local speed = ARGV[3] ~= "" and ARGV[3] or f[3] or "0"
if f[1] ~= path or f[2] ~= jobs or f[3] ~= speed then
  redis.call("SADD", KEYS[1], ARGV[1])
  redis.call("HSET", KEYS[2], "path", path, "jobs", jobs, "speed", speed, "since", now_ms(), "by", ARGV[4])
  append(KEYS[3], "event", "STORE_SET", "id", ARGV[1], "path", path, "jobs", jobs, "speed", speed,
    "by", ARGV[4])
end
return {"set", f[2] or "", f[3] or ""}
