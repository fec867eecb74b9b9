-- Tell of what needs a person of a run: a notice to each URL, all with one message; unless any of it was told before.
--
-- KEYS[1] notices   KEYS[2] the run's notices
-- ARGV[1] run id   ARGV[2] the message, packed   ARGV[3] the same in short   ARGV[4] number of needs
-- ARGV[5...]  per need: its name, and the mark of this episode; then the URLs
--
-- Returns {"told", n} | {"again", 0}

local urls = 5 + 2 * ARGV[4]
for i = 5, urls - 1, 2 do
  if redis.call("HGET", KEYS[2], "told:" .. ARGV[i]) == ARGV[i + 1] then return {"again", 0} end
end
for i = 5, urls - 1, 2 do redis.call("HSET", KEYS[2], "told:" .. ARGV[i], ARGV[i + 1]) end
local n = tonumber(redis.call("HGET", KEYS[2], "count") or 0)
for i = urls, #ARGV do
  redis.call("HSET", KEYS[2], "outcome:" .. n, "attention", "url:" .. n, ARGV[i], "state:" .. n, "waiting", "tries:" .. n, 0,
    "message:" .. n, ARGV[2], "about:" .. n, ARGV[3])
  redis.call("ZADD", KEYS[1], steady_ms(), n .. " " .. ARGV[1])
  n = n + 1
end
redis.call("HSET", KEYS[2], "count", n)
return {"told", #ARGV - urls + 1}
