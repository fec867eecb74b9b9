-- Hold a job for a reason; a job without a live attempt is paused at once.
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] wake  KEYS[4] txn  KEYS[5] events  KEYS[6] ready  KEYS[7] rung
-- KEYS[8] terms of holds
-- ARGV[1] id   ARGV[2] reason   ARGV[3] cause   ARGV[4] operation id   ARGV[5] whose it is, "" nobody's
-- ARGV[6] milliseconds until the hold ends by itself, 0: never
--
-- Returns {"held", status} | {"refused", status} | {"already"} | {"missing"}

local status = redis.call("HGET", KEYS[1], "status")
if not status or status == "undefined" then return {"missing"} end
if not ACCEPTS["pause"][status] then return {"refused", status} end
if redis.call("HEXISTS", KEYS[2], ARGV[2]) == 1 then
  return repeated(KEYS[1], ARGV[4]) and {"held", status} or {"already"}
end
note(KEYS[1], ARGV[4])
hold(KEYS[5], ARGV[1], ARGV[2], ARGV[3], KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[7])
local name, now = ARGV[1] .. " " .. ARGV[2], now_ms()
if ARGV[5] ~= "" or ARGV[6] ~= "0" then
  redis.call("HSET", KEYS[8], name, string.format("%.0f %.0f %s", now, ARGV[6] == "0" and 0 or steady_ms() + ARGV[6], ARGV[5]))
else
  redis.call("HDEL", KEYS[8], name)
end
return {"held", redis.call("HGET", KEYS[1], "status")}
