-- Lift one hold of a job; after the last hold the job goes on (a live attempt by itself, else through a slot).  The
-- reason is checked before the verb, as in QEMU.
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] wake  KEYS[4] txn  KEYS[5] events  KEYS[6] ready  KEYS[7] terms of holds
-- ARGV[1] id   ARGV[2] reason   ARGV[3] operation id
--
-- Returns {"lifted", status} | {"refused", status} | {"unheld"} | {"missing"}

local status = redis.call("HGET", KEYS[1], "status")
if not status or status == "undefined" then return {"missing"} end
if redis.call("HEXISTS", KEYS[2], ARGV[2]) == 0 then
  return repeated(KEYS[1], ARGV[3]) and {"lifted", status} or {"unheld"}
end
if not ACCEPTS["resume"][status] then return {"refused", status} end
note(KEYS[1], ARGV[3])
unhold(KEYS[5], ARGV[1], ARGV[2], KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6])
redis.call("HDEL", KEYS[7], ARGV[1] .. " " .. ARGV[2])
return {"lifted", redis.call("HGET", KEYS[1], "status")}
