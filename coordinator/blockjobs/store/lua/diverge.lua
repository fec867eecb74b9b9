#!lua flags=allow-oom
-- A mirror does not come up with its source, or it does again: the event, and what the status shows.
--
-- KEYS[1] job  KEYS[2] events
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] passes, 0: it converges  ARGV[5] bytes a second that change
-- ARGV[6] bytes a second that are copied
--
-- Returns {"ok"} | {"lost"}

local token, attempt = unpack(redis.call("HMGET", KEYS[1], "token", "attempt"))
if token ~= ARGV[2] or attempt ~= ARGV[3] then return {"lost"} end
if ARGV[4] == "0" then
  redis.call("HDEL", KEYS[1], "diverging")
  emit(KEYS[2], "MIRROR_CONVERGING", KEYS[1], ARGV[1])
else
  redis.call("HSET", KEYS[1], "diverging", ARGV[5] .. " " .. ARGV[6])
  emit(KEYS[2], "MIRROR_NOT_CONVERGING", KEYS[1], ARGV[1], "passes", ARGV[4], "dirty-rate", ARGV[5], "copy-rate", ARGV[6])
end
return {"ok"}
