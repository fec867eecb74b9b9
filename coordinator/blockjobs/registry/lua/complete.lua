-- Let a ready job finish; a job on standby keeps the order for its resume, and is not woken.
--
-- KEYS[1] job  KEYS[2] wake  KEYS[3] txn  KEYS[4] events
-- ARGV[1] id
--
-- Returns {"completing", status} | {"refused", status} | {"cannot"} (a cancel was asked for) | {"missing"}

local status, cancelled = unpack(redis.call("HMGET", KEYS[1], "status", "cancelled"))
if not status or status == "undefined" then return {"missing"} end
if not ACCEPTS["complete"][status] then return {"refused", status} end
if cancelled then return {"cannot"} end
if redis.call("HSETNX", KEYS[1], "complete", 1) == 1 then
  touch(KEYS[3])
  emit(KEYS[4], "JOB_COMPLETING", KEYS[1], ARGV[1])
end
if status == "ready" and has_claim(KEYS[1]) then knock(KEYS[2]) end
return {"completing", status}
