-- Claim a job that waits for a slot: one attempt gets the job, with a token higher than any before.  The same attempt
-- gets the same answer again.
--
-- KEYS[1] job  KEYS[2] ready  KEYS[3] rung  KEYS[4] attempts  KEYS[5] events  KEYS[6] wake
-- KEYS[7] card of the host, which counts claims
-- ARGV[1] id   ARGV[2] attempt uuid   ARGV[3] who: packed pid, start time, boot id
--
-- Returns {"claimed", token, spec, opened, durable, speed, attempts, offset, byte counts,
--   cut} | {"held"} | {"state", status} | {"unrung"} | {"missing"}
-- (speed: the lower of the job's speed and the limit handed out, recorded as felt)

local f = redis.call("HMGET", KEYS[1], "status", "attempt", "spec", "opened", "durable", "speed", "limit", "store")
local status, attempt = f[1], f[2]
local rung = redis.call("ZREM", KEYS[3], ARGV[1])
if not status then return {"missing"} end
if attempt ~= ARGV[2] then
  if attempt ~= "" then return {"held"} end
  if not redis.call("ZSCORE", KEYS[2], ARGV[1]) then return {"state", status} end
  if status ~= "running" and status ~= "ready" then return {"state", status} end
  if rung == 0 and (f[8] or "") ~= "" then return {"unrung"} end  -- its place in the store was given back
  redis.call("ZREM", KEYS[2], ARGV[1])
  redis.call("DEL", KEYS[6])
  redis.call("HINCRBY", KEYS[1], "token", 1)
  local attempts = redis.call("HINCRBY", KEYS[1], "attempts", 1)
  redis.call("HSET", KEYS[1], "attempt", ARGV[2], "busy", 1)
  redis.call("HDEL", KEYS[1], "hangs")
  redis.call("HSETNX", KEYS[1], "started", now_ms())
  redis.call("HSET", KEYS[4], ARGV[1], ARGV[3])
  if redis.call("HGET", KEYS[7], "slots") then redis.call("HINCRBY", KEYS[7], "claims", 1) end
  emit(KEYS[5], "ATTEMPT_CLAIMED", KEYS[1], ARGV[1], "attempt", attempts, "uuid", ARGV[2])
end
local speed = lower(f[6], f[7])
redis.call("HSET", KEYS[1], "felt", speed)
local n = redis.call("HMGET", KEYS[1], "token", "attempts", "offset", "bytes", "cut")
return {"claimed", n[1], f[3], f[4] or "", f[5] or "", speed, n[2], n[3], n[4] or "", n[5] or ""}
