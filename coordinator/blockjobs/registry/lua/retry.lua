#!lua flags=allow-oom
-- Retry a failed job of an individual transaction: the job begins anew under its id, as the only member of a new
-- transaction.
--
-- For the run the job is still in progress: nothing is counted, and the volumes stay locked.
--
-- KEYS[1] run   KEYS[2] run jobs   KEYS[3] ids   KEYS[4] events   KEYS[5] unfinished   KEYS[6] due   KEYS[7] due wake
-- KEYS[8] retries   KEYS[9] job   KEYS[10] holds   KEYS[11] wake
-- of the finished transaction: KEYS[12] txn   KEYS[13] share   KEYS[14] members   KEYS[15] order
-- of the new transaction:     KEYS[16] txn   KEYS[17] share   KEYS[18] members   KEYS[19] order
-- ARGV[1] run id   ARGV[2] job id   ARGV[3] host   ARGV[4] transaction id   ARGV[5] new transaction id
-- ARGV[6] new spec of the job, packed   ARGV[7] facts of the target for history   ARGV[8] milliseconds until the
-- retry
--
-- Returns {"retried"} | {"taken"} (there is a transaction of the new name) | {"over"} (it is not to be tried again)

local KEPT = {}  -- fields of the job; the other fields are of the finished try
for _, field in ipairs({"host", "run", "type", "speed", "auto-finalize", "auto-dismiss", "source", "target", "store",
  "created", "token", "attempts", "started", "try", "operations"}) do KEPT[field] = true end

local job, id, old, new = KEYS[9], ARGV[2], ARGV[4], ARGV[5]
if not is_of(job, old) then return {"retried"} end
local f = redis.call("HMGET", job, "status", "passed", "error", "type", "len", "offset", "speed")
local left, try, name, manual = unpack(redis.call("HMGET", KEYS[12], "retry", "try", "name", "manual"))
if f[1] ~= "aborting" or f[2] ~= "settle" or tonumber(left or 0) < 1 then return {"over"} end
if redis.call("EXISTS", KEYS[16]) == 1 then return {"taken"} end

-- The end of the finished try.
local now, error, begins = now_ms(), f[3] or "", steady_ms() + ARGV[8]
try = tonumber(try or 1) + 1
emit(KEYS[4], "BLOCK_JOB_COMPLETED", job, id, "type", f[4], "len", f[5], "offset", f[6], "speed", f[7], "error", error)
move(KEYS[4], job, id, "concluded", "again", 1)
move(KEYS[4], job, id, "null")
emit(KEYS[4], "JOB_RETRIED", job, id, "try", try, "of", try + left - 1, "delay", string.format("%.3f", ARGV[8] / 1000),
  "error", error)
for _, field in ipairs(redis.call("HKEYS", job)) do
  if not KEPT[field] then redis.call("HDEL", job, field) end
end
redis.call("DEL", KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15])
redis.call("ZREM", KEYS[5], old)

-- The beginning of the next try, as after a submit.
blank(job)
redis.call("HSET", job, "txn", new, "spec", ARGV[6], "backup", ARGV[7], "try", try, "failed-with", error)
redis.call("HSET", KEYS[10], "created", "")
redis.call("HSET", KEYS[16], "run", ARGV[1], "rev", 0, "name", name or "", "jobs", 1, "since", now, "host:" .. ARGV[3], 1,
  "retry", left - 1, "try", try, "begins", begins)
if manual then redis.call("HSET", KEYS[16], "manual", manual) end
redis.call("RPUSH", KEYS[18], id)
redis.call("RPUSH", KEYS[19], ARGV[3] .. " " .. id)
owe_all(KEYS[17], 1)
redis.call("HSET", KEYS[3], id, ARGV[3] .. " " .. new)
local at = redis.call("LPOS", KEYS[2], ARGV[3] .. " " .. id .. " " .. old)
redis.call("LSET", KEYS[2], at, ARGV[3] .. " " .. id .. " " .. new)
redis.call("HINCRBY", KEYS[1], "retried", 1)
move(KEYS[4], job, id, "created")
redis.call("ZADD", KEYS[5], now, new)
redis.call("ZADD", KEYS[8], begins, new)
owe(KEYS[6], KEYS[7], new)
return {"retried"}
