#!lua flags=allow-oom
-- Note for readers which barrier a transaction stands at, and since when.
--
-- KEYS[1] txn   ARGV[1] barrier
-- Returns {"ok"}

local barrier = redis.call("HGET", KEYS[1], "barrier")
if barrier ~= ARGV[1] and redis.call("EXISTS", KEYS[1]) == 1 then
  redis.call("HSET", KEYS[1], "barrier", ARGV[1], "since", now_ms())
end
return {"ok"}
