-- Write an entry of a run's published targets anew, if it is still as somebody has read it.
--
-- KEYS[1] targets   KEYS[2] events
-- ARGV[1] run id   ARGV[2] entry   ARGV[3] row, as it was read   ARGV[4] row   ARGV[5] kind of the event   ARGV[6] job id
-- ARGV[7] txn id   ARGV[8] host   ARGV[9] target text
--
-- Returns {"written"} | {"changed"}

local found = redis.call("HGET", KEYS[1], ARGV[2])
if found ~= ARGV[3] or found == ARGV[4] then return {"changed"} end
redis.call("HSET", KEYS[1], ARGV[2], ARGV[4])
append(KEYS[2], "event", ARGV[5], "id", ARGV[6], "txn", ARGV[7], "run", ARGV[1], "host", ARGV[8], "target", ARGV[9])
return {"written"}
