-- Rewrite an entry of a run's published targets, if the entry is unchanged since the read.
--
-- KEYS[1] targets   KEYS[2] left   KEYS[3] events
-- ARGV[1] run id   ARGV[2] entry   ARGV[3] row at the read   ARGV[4] new entry   ARGV[5] new row
-- ARGV[6] kind of the event   ARGV[7] job id   ARGV[8] txn id   ARGV[9] host   ARGV[10] target text
--
-- Returns {"written"} | {"changed"}

local found = redis.call("HGET", KEYS[1], ARGV[2])
if found ~= ARGV[3] or found == ARGV[5] then return {"changed"} end
redis.call("HSET", KEYS[1], ARGV[4], ARGV[5])
if ARGV[4] ~= ARGV[2] then
  redis.call("HDEL", KEYS[1], ARGV[2])
  local why = redis.call("HGET", KEYS[2], ARGV[2])
  if why then redis.call("HSET", KEYS[2], ARGV[4], why) end
  redis.call("HDEL", KEYS[2], ARGV[2])
end
append(KEYS[3], "event", ARGV[6], "id", ARGV[7], "txn", ARGV[8], "run", ARGV[1], "host", ARGV[9], "target", ARGV[10])
return {"written"}
