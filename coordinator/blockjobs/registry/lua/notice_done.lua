#!lua flags=allow-oom
-- Record the end of a try: the notice is sent, waits for its next try, or is given up.  Only the taker may call this.
--
-- KEYS[1] notices   KEYS[2] the run's notices   KEYS[3] events
-- ARGV[1] "N run"   ARGV[2] N   ARGV[3] run id   ARGV[4] who took it   ARGV[5] sent | waiting | failed
-- ARGV[6] ms until the next try (of waiting)   ARGV[7] what went wrong   ARGV[8] the URL as it may be shown
-- ARGV[9] 1: the try counts, 0: the coordinator cut the try off
--
-- Returns {"noted"} | {"lost"}

local n, now = ARGV[2], now_ms()
if redis.call("HGET", KEYS[2], "taker:" .. n) ~= ARGV[4] then return {"lost"} end
if ARGV[9] == "0" then redis.call("HINCRBY", KEYS[2], "tries:" .. n, -1) end
local tries = redis.call("HGET", KEYS[2], "tries:" .. n)
redis.call("HSET", KEYS[2], "state:" .. n, ARGV[5], "error:" .. n, ARGV[7], "taker:" .. n, "", "at:" .. n, now)
if ARGV[5] == "waiting" then
  redis.call("ZADD", KEYS[1], steady_ms() + tonumber(ARGV[6]), ARGV[1])
  return {"noted"}
end
redis.call("ZREM", KEYS[1], ARGV[1])
local outcome = redis.call("HGET", KEYS[2], "outcome:" .. n)
if ARGV[5] == "sent" then
  append(KEYS[3], "event", "NOTICE_SENT", "id", ARGV[3], "run", ARGV[3], "outcome", outcome, "url", ARGV[8],
    "tries", tries)
else
  append(KEYS[3], "event", "NOTICE_FAILED", "id", ARGV[3], "run", ARGV[3], "outcome", outcome, "url", ARGV[8],
    "tries", tries, "error", ARGV[7])
end
return {"noted"}
