#!lua flags=allow-oom
-- Give back the place in a store of an attempt standing still on a host that is not up, or take the place again.
--
-- Taking the place again may exceed the store's limit by one, as the attempt runs already.
--
-- KEYS[1] job   KEYS[2] places
-- ARGV[1] host   ARGV[2] id   ARGV[3] attempt uuid   ARGV[4] 1: give the place back, 0: take the place again
--
-- Returns {"done"} | {"lost"}

if redis.call("HGET", KEYS[1], "attempt") ~= ARGV[3] then return {"lost"} end
local place = ARGV[1] .. " " .. ARGV[2]
if ARGV[4] == "1" then
  redis.call("ZREM", KEYS[2], place)
  redis.call("HSET", KEYS[1], "vacated", 1)
else
  redis.call("ZADD", KEYS[2], steady_ms(), place)
  redis.call("HDEL", KEYS[1], "vacated")
end
return {"done"}
