-- Let jobs out of the crowd of a store, back to their former places in the line of their host.
--
-- KEYS[1] crowd   KEYS[2...]  per job: ready of its host
-- ARGV  per job: host, id
--
-- Returns {"admitted", n}

local n = 0
for i = 1, #ARGV, 2 do
  redis.call("ZREM", KEYS[1], ARGV[i] .. " " .. ARGV[i + 1])
  local ready = KEYS[(i + 3) / 2]
  local since = tonumber(redis.call("ZSCORE", ready, ARGV[i + 1]) or 0)
  if since >= FULL then
    redis.call("ZADD", ready, since - FULL, ARGV[i + 1])
    n = n + 1
  end
end
return {"admitted", n}
