#!lua flags=allow-oom
-- Decide whether to send a message of a step to a host: not while the earlier message lies in the queue.
--
-- A message may be lost: a message not taken for a while is sent again if the queue is empty.
--
-- KEYS[1] bells   KEYS[2] queue
-- ARGV[1] step and transaction   ARGV[2] milliseconds after which a message may be lost
--
-- Returns {"send"} | {"lies"}

local at, now = tonumber(redis.call("ZSCORE", KEYS[1], ARGV[1]) or 0), steady_ms()
if at > 0 and (now - at < tonumber(ARGV[2]) or redis.call("LLEN", KEYS[2]) > 0) then return {"lies"} end
redis.call("ZADD", KEYS[1], now, ARGV[1])
return {"send"}
