-- Hold a job for a reason; without a live attempt it is paused at once.
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] wake  KEYS[4] txn  KEYS[5] events  KEYS[6] ready  KEYS[7] rung
-- ARGV[1] id   ARGV[2] reason   ARGV[3] cause   ARGV[4] operation id
--
-- Returns {"held", status} | {"refused", status} | {"already"} | {"missing"}

local status = redis.call("HGET", KEYS[1], "status")
if not status or status == "undefined" then return {"missing"} end
if not ACCEPTS["pause"][status] then return {"refused", status} end
if redis.call("HEXISTS", KEYS[2], ARGV[2]) == 1 then
  return repeated(KEYS[1], ARGV[4]) and {"held", status} or {"already"}
end
note(KEYS[1], ARGV[4])
redis.call("HSET", KEYS[2], ARGV[2], ARGV[3])
redis.call("HINCRBY", KEYS[4], "rev", 1)
emit(KEYS[5], "JOB_HELD", KEYS[1], ARGV[1], "reason", ARGV[2], "cause", ARGV[3])
if has_claim(KEYS[1]) then
  knock(KEYS[3])
elseif status == "running" then
  move(KEYS[5], KEYS[1], ARGV[1], "paused")
  redis.call("ZREM", KEYS[6], ARGV[1])
  redis.call("ZREM", KEYS[7], ARGV[1])
elseif status == "ready" then
  move(KEYS[5], KEYS[1], ARGV[1], "standby")
end
return {"held", redis.call("HGET", KEYS[1], "status")}
