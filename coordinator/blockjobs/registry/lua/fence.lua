#!lua flags=allow-oom
-- Order the watcher of a host to end an attempt, as long as the attempt holds its job.  The order is stored under the
-- attempt and removed with the attempt, so that no later job of the same id is affected.
--
-- KEYS[1] job   KEYS[2] fences
-- ARGV[1] id   ARGV[2] attempt uuid
--
-- Returns {"ordered"} | {"lost"}

if ARGV[2] == "" or redis.call("HGET", KEYS[1], "attempt") ~= ARGV[2] then return {"lost"} end
redis.call("HSET", KEYS[2], ARGV[2], ARGV[1])
return {"ordered"}
