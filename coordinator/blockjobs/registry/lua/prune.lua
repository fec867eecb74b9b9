#!lua flags=allow-oom
-- Record that a published target is gone, or why its prune failed.
--
-- KEYS[1] run   KEYS[2] targets   KEYS[3] left   KEYS[4] events
-- ARGV[1] run id   ARGV[2] entry in targets   ARGV[3] job id   ARGV[4] txn id   ARGV[5] host   ARGV[6] target text
-- ARGV[7] pruned | left   ARGV[8] why
--
-- Returns {"noted"} | {"repeated"}

local function tell(name, ...)
  append(KEYS[4], "event", name, "id", ARGV[3], "txn", ARGV[4], "run", ARGV[1], "host", ARGV[5],
    "target", ARGV[6], ...)
end

if redis.call("HEXISTS", KEYS[2], ARGV[2]) == 0 then return {"repeated"} end
if ARGV[7] == "pruned" then
  redis.call("HDEL", KEYS[2], ARGV[2])
  redis.call("HDEL", KEYS[3], ARGV[2])
  redis.call("HINCRBY", KEYS[1], "pruned", 1)
  redis.call("HSET", KEYS[1], "pruned-at", now_ms())
  tell("TARGET_PRUNED", "why", ARGV[8])
elseif redis.call("HGET", KEYS[3], ARGV[2]) ~= ARGV[8] then
  redis.call("HSET", KEYS[3], ARGV[2], ARGV[8])
  tell("TARGET_LEFT", "why", ARGV[8])
else
  return {"repeated"}
end
return {"noted"}
