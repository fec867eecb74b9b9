#!lua flags=allow-oom
-- Report progress and renew the lease, return the orders, and acknowledge a pause.
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] events
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] offset  ARGV[5] len  ARGV[6] byte counts, packed
-- ARGV[7] durable checkpoint, packed, "" where nothing new is durable   ARGV[8] 1: no data is being written
-- ARGV[9] path on which a call of the attempt does not return ("" none)   ARGV[10] for how many milliseconds
--
-- Returns {"ok", "" | soft | force, paused 0/1, speed, status, complete ""/1, park 0/1} | {"lost"} | {"missing"}
-- (speed: the lower of the job's speed and the limit handed out, recorded as felt; park: a drain or a move waits)

local f = redis.call("HMGET", KEYS[1], "status", "token", "attempt", "cancelled", "speed", "complete", "limit",
                     "beat", "hangs")
local status = f[1]
if not status then return {"missing"} end
if f[2] ~= ARGV[2] or f[3] ~= ARGV[3] then return {"lost"} end
local speed = lower(f[5], f[7])
redis.call("HSET", KEYS[1], "beat", (tonumber(f[8]) or 0) + 1, "offset", ARGV[4], "len", ARGV[5], "bytes", ARGV[6],
           "told", now_ms(), "felt", speed)
if ARGV[9] ~= "" then
  redis.call("HSET", KEYS[1], "hangs", string.format("%.0f %s", now_ms() - ARGV[10], ARGV[9]))
elseif f[9] then
  redis.call("HDEL", KEYS[1], "hangs")
end
if ARGV[7] ~= "" then redis.call("HSET", KEYS[1], "durable", ARGV[7], "lost", 0) end
local paused = redis.call("HLEN", KEYS[2]) > 0
if paused and ARGV[8] == "1" and f[4] ~= "force" then
  local held = ({running = "paused", ready = "standby"})[status]
  if held then move(KEYS[3], KEYS[1], ARGV[1], held) end
  status = held or status
  redis.call("HSET", KEYS[1], "busy", 0)
elseif not paused and (status == "paused" or status == "standby") then
  status = status == "paused" and "running" or "ready"
  move(KEYS[3], KEYS[1], ARGV[1], status)
  redis.call("HSET", KEYS[1], "busy", 1)
end
local park = 0
for _, reason in ipairs(paused and redis.call("HKEYS", KEYS[2]) or {}) do
  if string.find(reason, "^drain:") or string.find(reason, "^move:") then park = 1 end
end
return {"ok", f[4] or "", paused and 1 or 0, speed, status, f[6] or "", park}
