#!lua flags=allow-oom
-- End an attempt together with its job: the copy is done and durable (WAITING), or failed, or was cancelled.  The slot
-- is free; the finalizer carries out the next steps.
--
-- KEYS[1] job  KEYS[2] share  KEYS[3] events  KEYS[4] attempts  KEYS[5] due  KEYS[6] due wake  KEYS[7] holds
-- KEYS[8] fences
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] transaction id
-- ARGV[5] 0 or -errno  ARGV[6] text  ARGV[7] offset  ARGV[8] len  ARGV[9] byte counts  ARGV[10] durable  ARGV[11] result, packed
--
-- Returns {"finished", status} | {"repeated"} | {"lost"} | {"missing"}

local f = redis.call("HMGET", KEYS[1], "status", "token", "attempt", "cancelled", "finished")
local status = f[1]
if not status then return {"missing"} end
if f[5] == ARGV[3] then return {"repeated"} end
if f[2] ~= ARGV[2] or f[3] ~= ARGV[3] then return {"lost"} end
local ret, text = tonumber(ARGV[5]), ARGV[6]
if ret == 0 and f[4] == "force" then ret, text = -125, "Operation canceled" end
redis.call("HSET", KEYS[1], "offset", ARGV[7], "len", ARGV[8], "bytes", ARGV[9], "result", ARGV[11],
  "attempt", "", "busy", 0, "finished", ARGV[3])
if ARGV[10] ~= "" then redis.call("HSET", KEYS[1], "durable", ARGV[10]) end
redis.call("HDEL", KEYS[4], ARGV[1])
redis.call("HDEL", KEYS[8], ARGV[3])
redis.call("DEL", KEYS[7])  -- a hold that came as the job finished holds nothing
if ret == 0 then
  if status == "paused" then move(KEYS[3], KEYS[1], ARGV[1], "running") end
  if status == "standby" then move(KEYS[3], KEYS[1], ARGV[1], "ready") end
  move(KEYS[3], KEYS[1], ARGV[1], "waiting")
  redis.call("HSET", KEYS[1], "passed", "run")
  if redis.call("HINCRBY", KEYS[2], "run", -1) == 0 then owe(KEYS[5], KEYS[6], ARGV[4]) end
else
  redis.call("HSET", KEYS[1], "ret", ret, "error", text)
  abort(KEYS[3], KEYS[1], ARGV[1])
  redis.call("HINCRBY", KEYS[2], "failed", 1)
  owe(KEYS[5], KEYS[6], ARGV[4])
end
return {"finished", redis.call("HGET", KEYS[1], "status")}
