-- Lift one hold of a job; with the last one gone it goes on (the attempt by itself, else by way of a slot).
-- That the reason is held is tested before the verb, as in QEMU.
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] wake  KEYS[4] txn  KEYS[5] events  KEYS[6] ready
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
redis.call("HDEL", KEYS[2], ARGV[2])
redis.call("HINCRBY", KEYS[4], "rev", 1)
if ARGV[2] == "user" then redis.call("HSET", KEYS[1], "iostatus", "ok") end
emit(KEYS[5], "JOB_UNHELD", KEYS[1], ARGV[1], "reason", ARGV[2])
if has_claim(KEYS[1]) then
  knock(KEYS[3])
elseif redis.call("HLEN", KEYS[2]) == 0 and (status == "paused" or status == "standby") then
  move(KEYS[5], KEYS[1], ARGV[1], status == "paused" and "running" or "ready")
  redis.call("ZADD", KEYS[6], now_ms(), ARGV[1])
end
return {"lifted", redis.call("HGET", KEYS[1], "status")}
