#!lua flags=allow-oom
-- Note the coordinator's judgement of a host, with an event where it changed.
--
-- KEYS[1] hosts   KEYS[2] events
-- ARGV[1] host   ARGV[2] up | down | left
--
-- Returns {"changed", before} | {"same"}

local before = redis.call("HGET", KEYS[1], "state:" .. ARGV[1])
if before == ARGV[2] then return {"same"} end
redis.call("HSET", KEYS[1], "state:" .. ARGV[1], ARGV[2], "since:" .. ARGV[1], now_ms())
merge_events(ARGV[1])
append(KEYS[2], "event", ARGV[2] == "up" and "HOST_UP" or "HOST_DOWN", "id", ARGV[1], "host", ARGV[1],
  "state", ARGV[2])
return {"changed", before or ""}
