-- Write the event of a passed deadline, once per run.  A replaced run already has the event of its replacement.
--
-- KEYS[1] run   KEYS[2] events
-- ARGV[1] run id   ARGV[2] why
--
-- Returns {"late"} | {"over"} (it ended, or is forgotten)

local state, ended, replaced = unpack(redis.call("HMGET", KEYS[1], "state", "ended", "replaced"))
if state ~= "published" or ended then return {"over"} end
if not replaced and redis.call("HSETNX", KEYS[1], "late", now_ms()) == 1 then
  append(KEYS[2], "event", "RUN_LATE", "id", ARGV[1], "run", ARGV[1], "reason", ARGV[2])
end
return {"late"}
