-- Choose the jobs of one host to ring for: the longest waiting, and never more doorbells outstanding than asked.
--
-- None while the host is drained.
--
-- KEYS[1] ready   KEYS[2] rung   KEYS[3] attempts   KEYS[4] holding
-- ARGV[1] doorbells outstanding at most   ARGV[2] slots   ARGV[3] milliseconds after which a doorbell counts as lost
-- ARGV[4] host
--
-- Returns {"ring", id, ...}

if redis.call("HEXISTS", KEYS[4], "drain:" .. ARGV[4]) == 1 then return {"ring"} end
local now = now_ms()
-- A lost doorbell is only sure where a slot is free; behind full slots it merely waits.
if redis.call("HLEN", KEYS[3]) < tonumber(ARGV[2]) then
  redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", now - ARGV[3])
end
local reply = {"ring"}
local room = tonumber(ARGV[1]) - redis.call("ZCARD", KEYS[2])
if room <= 0 then return reply end
for _, id in ipairs(redis.call("ZRANGE", KEYS[1], 0, ARGV[1] * 2)) do
  if room > 0 and redis.call("ZADD", KEYS[2], "NX", now, id) == 1 then
    reply[#reply + 1] = id
    room = room - 1
  end
end
return reply
