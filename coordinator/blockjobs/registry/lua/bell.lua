#!lua flags=allow-oom
-- Whether a message of a step is to be sent to a host: not while the one before lies in its queue.
--
-- A message may be lost: one that was not taken for a while, and that cannot be in the queue, as that is empty, is sent
-- once more.
--
-- KEYS[1] bells   KEYS[2] queue
-- ARGV[1] step and transaction   ARGV[2] milliseconds after which a message may be lost
--
-- Returns {"send"} | {"lies"}

local at, now = tonumber(redis.call("ZSCORE", KEYS[1], ARGV[1]) or 0), steady_ms()
if at > 0 and (now - at < tonumber(ARGV[2]) or redis.call("LLEN", KEYS[2]) > 0) then return {"lies"} end
redis.call("ZADD", KEYS[1], now, ARGV[1])
return {"send"}
