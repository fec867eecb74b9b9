#!lua flags=allow-oom
-- Record a judged I/O error: the event, and, if the job stops, the user's hold (one hold for any number of errors).
--
-- KEYS[1] job  KEYS[2] holds  KEYS[3] events
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] read | write  ARGV[5] report | ignore | stop
-- ARGV[6] io-status to show when it stops   ARGV[7] text   ARGV[8] errno   ARGV[9] number of the judgement
-- within the attempt: repeating the last one after a lost answer changes nothing (a user may have resumed the job)
--
-- Returns {"ok"} | {"lost"}

local token, attempt, iostatus, judged = unpack(redis.call("HMGET", KEYS[1], "token", "attempt", "iostatus", "judged"))
if token ~= ARGV[2] or attempt ~= ARGV[3] then return {"lost"} end
local this = attempt .. " " .. ARGV[9]
if judged == this then return {"ok"} end
redis.call("HSET", KEYS[1], "judged", this)
emit(KEYS[3], "BLOCK_JOB_ERROR", KEYS[1], ARGV[1], "device", ARGV[1], "operation", ARGV[4], "action", ARGV[5], "reason", ARGV[7])
if ARGV[5] == "stop" then
  if redis.call("HSETNX", KEYS[2], "user", ARGV[7]) == 1 then
    local now = steady_ms()
    redis.call("HSET", KEYS[1], "stopped-at", now, "stopped-by", ARGV[7], "stopped-errno", ARGV[8])
    if redis.call("HLEN", KEYS[2]) == 1 then redis.call("HSET", KEYS[1], "held-at", now) end
    emit(KEYS[3], "JOB_HELD", KEYS[1], ARGV[1], "reason", "user", "cause", ARGV[7])
  end
  if iostatus == "ok" then redis.call("HSET", KEYS[1], "iostatus", ARGV[6]) end
end
return {"ok"}
