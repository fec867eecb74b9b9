-- Create notices of needs: a notice for each URL, with one message; nothing is created if a need was announced before.
--
-- KEYS[1] notices   KEYS[2] notices of the run, or of the name   KEYS[3] hash with the marks of announced needs
-- ARGV[1] run id, or the substitute for a name   ARGV[2] the message, packed   ARGV[3] the message in short
-- ARGV[4] milliseconds for which the notices are kept, 0: with the run   ARGV[5] number of needs
-- ARGV[6...]  per need: name, and mark of this episode; then the URLs
--
-- Returns {"told", n} | {"repeated", 0}

local urls = 6 + 2 * ARGV[5]
for i = 6, urls - 1, 2 do
  if redis.call("HGET", KEYS[3], "told:" .. ARGV[i]) == ARGV[i + 1] then return {"repeated", 0} end
end
for i = 6, urls - 1, 2 do redis.call("HSET", KEYS[3], "told:" .. ARGV[i], ARGV[i + 1]) end
local n = tonumber(redis.call("HGET", KEYS[2], "count") or 0)
for i = urls, #ARGV do
  redis.call("HSET", KEYS[2], "outcome:" .. n, "attention", "url:" .. n, ARGV[i], "state:" .. n, "waiting", "tries:" .. n, 0,
    "message:" .. n, ARGV[2], "about:" .. n, ARGV[3])
  redis.call("ZADD", KEYS[1], steady_ms(), n .. " " .. ARGV[1])
  n = n + 1
end
redis.call("HSET", KEYS[2], "count", n)
if ARGV[4] ~= "0" then redis.call("PEXPIREAT", KEYS[2], string.format("%.0f", now_ms() + ARGV[4])) end
return {"told", #ARGV - urls + 1}
