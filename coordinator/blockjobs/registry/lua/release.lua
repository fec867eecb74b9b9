#!lua flags=allow-oom
-- End an attempt without its job: parked, drained, or dead.  The job waits for a slot again, or stays paused, or aborts
-- (if cancelled, or if attempts were lost too often without new durable data).
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] share  KEYS[4] events  KEYS[5] attempts  KEYS[6] ready  KEYS[7] fences
-- KEYS[8] due  KEYS[9] due wake
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] transaction id  ARGV[5] parked | drained | dead | fenced
-- ARGV[6] attempts that may be lost in a row
--
-- Returns {"released", status} | {"lost"} | {"missing"}

local f = redis.call("HMGET", KEYS[1], "status", "token", "attempt", "cancelled")
local status = f[1]
if not status then
  redis.call("HDEL", KEYS[5], ARGV[1])
  redis.call("HDEL", KEYS[7], ARGV[3])
  return {"missing"}
end
if f[2] ~= ARGV[2] or f[3] ~= ARGV[3] or f[3] == "" then return {"lost"} end
redis.call("HSET", KEYS[1], "attempt", "", "busy", 0)
redis.call("HDEL", KEYS[5], ARGV[1])
redis.call("HDEL", KEYS[7], ARGV[3])
emit(KEYS[4], "ATTEMPT_RELEASED", KEYS[1], ARGV[1], "reason", ARGV[5], "uuid", ARGV[3])
local dead = ARGV[5] == "dead" or ARGV[5] == "fenced"
local lost = dead and redis.call("HINCRBY", KEYS[1], "lost", 1) or 0
local ret, text
if f[4] == "force" then
  ret, text = -125, "Operation canceled"
elseif lost >= tonumber(ARGV[6]) then
  ret, text = -5, lost .. " attempts in a row were lost without new durable data"
  local died = redis.call("HGET", KEYS[1], "died")
  if died then text = text .. " (" .. died .. ")" end
end
if ret then
  redis.call("HSET", KEYS[1], "ret", ret, "error", text)
  abort(KEYS[4], KEYS[1], ARGV[1])
  redis.call("HINCRBY", KEYS[3], "failed", 1)
  owe(KEYS[8], KEYS[9], ARGV[4])
elseif redis.call("HLEN", KEYS[2]) > 0 then
  if status == "running" then move(KEYS[4], KEYS[1], ARGV[1], "paused") end
  if status == "ready" then move(KEYS[4], KEYS[1], ARGV[1], "standby") end
else
  if status == "paused" then move(KEYS[4], KEYS[1], ARGV[1], "running") end
  if status == "standby" then move(KEYS[4], KEYS[1], ARGV[1], "ready") end
  redis.call("ZADD", KEYS[6], now_ms(), ARGV[1])
end
return {"released", redis.call("HGET", KEYS[1], "status")}
