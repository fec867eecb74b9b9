-- Choose the jobs of one host to ring for: the longest wait first, within the limit of outstanding doorbells.
--
-- No job is chosen while the host is drained.  A job whose store is full moves to the end of the line and into the
-- crowd of the store.  The limit of copies of a store is read here, as the caller's value may be out of date.
--
-- KEYS[1] ready   KEYS[2] rung   KEYS[3] attempts   KEYS[4] holding   KEYS[5] queue of the copy worker
-- KEYS[6...]  per candidate: job, store, places of the store, crowd of the store
-- ARGV[1] doorbells outstanding at most   ARGV[2] slots   ARGV[3] milliseconds after which a doorbell counts as lost
-- ARGV[4] host   ARGV[5...]  per candidate, the longest waiting first: id, store ("": none), limit in bytes per second
--           until it is known better ("": as it is)
--
-- Returns {"ring", id, ...}

if redis.call("HEXISTS", KEYS[4], "drain:" .. ARGV[4]) == 1 then return {"ring"} end
local now = steady_ms()
-- A doorbell is surely lost only if a slot is free and the queue is empty; otherwise the doorbell may just be waiting.
if redis.call("HLEN", KEYS[3]) < tonumber(ARGV[2]) and redis.call("LLEN", KEYS[5]) == 0 then
  redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", now - ARGV[3])
end
local reply = {"ring"}
local room = tonumber(ARGV[1]) - redis.call("ZCARD", KEYS[2])
for i = 0, (#ARGV - 4) / 3 - 1 do
  if room <= 0 then return reply end
  local id, name, limit = unpack(ARGV, 5 + 3 * i, 7 + 3 * i)
  local job, store, places, crowd = unpack(KEYS, 6 + 4 * i, 9 + 4 * i)
  local since, place = tonumber(redis.call("ZSCORE", KEYS[1], id) or FULL), ARGV[4] .. " " .. id
  if since < FULL and not redis.call("ZSCORE", KEYS[2], id) then
    local most = name ~= "" and tonumber(redis.call("HGET", store, "jobs") or 0) or 0  -- 0: any number
    if most > 0 and not redis.call("ZSCORE", places, place) and redis.call("ZCARD", places) >= most then
      redis.call("ZADD", crowd, since, place)
      redis.call("ZADD", KEYS[1], since + FULL, id)
      redis.call("HSET", job, "full", 1)
    else
      if name ~= "" then
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
