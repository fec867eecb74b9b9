-- Choose the jobs of one host to ring for: the longest waiting, and never more doorbells outstanding than asked.
--
-- None while the host is drained.  A job whose store is full goes behind all others, into the crowd of that store.
--
-- KEYS[1] ready   KEYS[2] rung   KEYS[3] attempts   KEYS[4] holding   KEYS[5...]  per candidate: job, places, crowd
-- ARGV[1] doorbells outstanding at most   ARGV[2] slots   ARGV[3] milliseconds after which a doorbell counts as lost
-- ARGV[4] host   ARGV[5...]  per candidate, the longest waiting first: id, copies its store takes at once (0: any
--           number, "": it is in none), limit in bytes per second until it is known better ("": as it is)
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
for i = 5, #ARGV, 3 do
  if room <= 0 then return reply end
  local id, most, limit = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local job, places, crowd = unpack(KEYS, i, i + 2)
  local since, place = tonumber(redis.call("ZSCORE", KEYS[1], id) or FULL), ARGV[4] .. " " .. id
  if since < FULL and not redis.call("ZSCORE", KEYS[2], id) then
    if most ~= "" and not redis.call("ZSCORE", places, place) and most ~= "0"
      and redis.call("ZCARD", places) >= tonumber(most) then
      redis.call("ZADD", crowd, since, place)
      redis.call("ZADD", KEYS[1], since + FULL, id)
      redis.call("HSET", job, "full", 1)
    else
      if most ~= "" then
        redis.call("ZADD", places, now, place)
        redis.call("ZREM", crowd, place)
        redis.call("HDEL", job, "full")
      end
      if limit ~= "" then redis.call("HSET", job, "limit", limit) end
      redis.call("ZADD", KEYS[2], now, id)
      reply[#reply + 1] = id
      room = room - 1
    end
  end
end
return reply
