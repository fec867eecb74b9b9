#!lua flags=allow-oom
-- Record the current barrier of a transaction for readers, and the time of the change.
--
-- KEYS[1] txn   ARGV[1] barrier   ARGV[2] why it is not decided ("": nothing keeps it from being)
-- Returns {"ok"}

local barrier = redis.call("HGET", KEYS[1], "barrier")
if barrier ~= ARGV[1] and redis.call("EXISTS", KEYS[1]) == 1 then
  redis.call("HSET", KEYS[1], "barrier", ARGV[1], "since", now_ms(), "stands-since", steady_ms())
end
if ARGV[2] == "" then
  redis.call("HDEL", KEYS[1], "doubt")
elseif redis.call("EXISTS", KEYS[1]) == 1 then
  redis.call("HSET", KEYS[1], "doubt", ARGV[2])
end
return {"ok"}
