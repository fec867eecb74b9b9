#!lua flags=allow-oom
-- Create the notices of a run's end, once; from then on the notices are independent of each other.
--
-- KEYS[1] untold   KEYS[2] notices   KEYS[3] the run's notices
-- ARGV[1] run id   ARGV[2] the message, packed   ARGV[3...]  per notice: outcome in the run file, URL
--
-- Returns {"announced", n} | {"repeated"}

redis.call("ZREM", KEYS[1], ARGV[1])
if #ARGV == 2 then return {"announced", 0} end
if redis.call("HSETNX", KEYS[3], "message", ARGV[2]) == 0 then return {"repeated"} end
local first = tonumber(redis.call("HGET", KEYS[3], "count") or 0)  -- behind notices sent before the end
local n = first
for i = 3, #ARGV, 2 do
  redis.call("HSET", KEYS[3], "outcome:" .. n, ARGV[i], "url:" .. n, ARGV[i + 1], "state:" .. n, "waiting", "tries:" .. n, 0)
  redis.call("ZADD", KEYS[2], steady_ms(), n .. " " .. ARGV[1])
  n = n + 1
end
redis.call("HSET", KEYS[3], "count", n)
return {"announced", n - first}
