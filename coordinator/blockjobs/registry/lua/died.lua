-- Record the death of an attempt's process: the cause, and the place of the log.  The job is released by a separate
-- call.
--
-- KEYS[1] job   KEYS[2] events
-- ARGV[1] id   ARGV[2] attempt uuid   ARGV[3] how   ARGV[4] where its log is ("": nobody knows)
--
-- Returns {"told"} | {"missing"}

if redis.call("EXISTS", KEYS[1]) == 0 then return {"missing"} end
redis.call("HSET", KEYS[1], "died", ARGV[4] == "" and ARGV[3] or ARGV[3] .. "; log: " .. ARGV[4])
emit(KEYS[2], "ATTEMPT_DIED", KEYS[1], ARGV[1], "uuid", ARGV[2], "how", ARGV[3], "log", ARGV[4])
return {"told"}
