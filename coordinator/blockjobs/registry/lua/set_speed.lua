-- Change the limit of a job; the attempt reads the limit with its next orders, and is woken for them now.
--
-- KEYS[1] job  KEYS[2] wake  KEYS[3] txn  KEYS[4] events
-- ARGV[1] id   ARGV[2] bytes per second, 0: no limit
--
-- Returns {"set", before} | {"refused", status} | {"negative"} | {"missing"}

local status, before = unpack(redis.call("HMGET", KEYS[1], "status", "speed"))
if not status or status == "undefined" then return {"missing"} end
if not ACCEPTS["set-speed"][status] then return {"refused", status} end
if string.sub(ARGV[2], 1, 1) == "-" then return {"negative"} end
redis.call("HSET", KEYS[1], "speed", ARGV[2])
touch(KEYS[3])
emit(KEYS[4], "JOB_SPEED", KEYS[1], ARGV[1], "speed", ARGV[2])
if has_claim(KEYS[1]) then knock(KEYS[2]) end
return {"set", before}
