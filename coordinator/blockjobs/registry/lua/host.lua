-- Limit what all copies of a host together move; "0" stays written, so that those that run are told.
--
-- KEYS[1] hosts   KEYS[2] events
-- ARGV[1] host   ARGV[2] bytes per second, 0: no limit   ARGV[3] author of the change
--
-- Returns {"set", before} | {"missing"}

if redis.call("HEXISTS", KEYS[1], "state:" .. ARGV[1]) == 0 then return {"missing"} end
local before = redis.call("HGET", KEYS[1], "speed:" .. ARGV[1]) or "0"
if before ~= ARGV[2] then
  redis.call("HSET", KEYS[1], "speed:" .. ARGV[1], ARGV[2])
  append(KEYS[2], "event", "HOST_LIMITED", "id", ARGV[1], "host", ARGV[1], "speed", ARGV[2],
    "by", ARGV[3])
end
return {"set", before}
