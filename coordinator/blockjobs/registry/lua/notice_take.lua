#!lua flags=allow-oom
-- Take a due notice for one try: no other coordinator gets the notice until the try is over, or the taker must be dead.
--
-- KEYS[1] notices   KEYS[2] the run's notices
-- ARGV[1] "N run"   ARGV[2] N   ARGV[3] who takes it   ARGV[4] ms after which the taker counts as dead
--
-- Returns {"yours", tries with this one, url, message} | {"later"} | {"gone"}

local due, now = redis.call("ZSCORE", KEYS[1], ARGV[1]), now_ms()
if not due then return {"gone"} end
if tonumber(due) > steady_ms() then return {"later"} end
local url, own, message = unpack(redis.call("HMGET", KEYS[2], "url:" .. ARGV[2], "message:" .. ARGV[2], "message"))
if not url then
  redis.call("ZREM", KEYS[1], ARGV[1])  -- the run was forgotten
  return {"gone"}
end
redis.call("ZADD", KEYS[1], steady_ms() + tonumber(ARGV[4]), ARGV[1])
redis.call("HSET", KEYS[2], "taker:" .. ARGV[2], ARGV[3], "at:" .. ARGV[2], now)
return {"yours", redis.call("HINCRBY", KEYS[2], "tries:" .. ARGV[2], 1), url, own or message}
