-- Let a pending transaction go on to its decision; the user may finalize any of its members.
--
-- KEYS[1] job  KEYS[2] txn  KEYS[3] events  KEYS[4] due  KEYS[5] due wake
-- ARGV[1] id   ARGV[2] transaction id   ARGV[3] operation id
--
-- Returns {"finalized"} | {"refused", status} | {"missing"}

local status = redis.call("HGET", KEYS[1], "status")
if not status or status == "undefined" or not is_of(KEYS[1], ARGV[2]) then return {"missing"} end
local finalized, decision, manual = unpack(redis.call("HMGET", KEYS[2], "finalized", "decision", "manual"))
if not ACCEPTS["finalize"][status] or finalized or decision or not manual then
  return repeated(KEYS[1], ARGV[3]) and {"finalized"} or {"refused", status}
end
note(KEYS[1], ARGV[3])
redis.call("HSET", KEYS[2], "finalized", 1)
redis.call("HINCRBY", KEYS[2], "rev", 1)
emit(KEYS[3], "JOB_FINALIZED", KEYS[1], ARGV[1])
owe(KEYS[4], KEYS[5], ARGV[2])
return {"finalized"}
