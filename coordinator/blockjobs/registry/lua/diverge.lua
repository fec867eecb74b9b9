#!lua flags=allow-oom
-- Record that a mirror does not converge, or converges again: the event, and the fields for the status.
--
-- KEYS[1] job  KEYS[2] events
-- ARGV[1] id  ARGV[2] token  ARGV[3] attempt uuid  ARGV[4] passes, 0: it converges  ARGV[5] bytes a second that change
-- ARGV[6] bytes a second that are copied
--
-- A repeated call changes nothing.
--
-- Returns {"ok"} | {"lost"}

local said = table.concat({ARGV[3], ARGV[4], ARGV[5], ARGV[6]}, " ")
local token, attempt = unpack(redis.call("HMGET", KEYS[1], "token", "attempt"))
if token ~= ARGV[2] or attempt ~= ARGV[3] then return {"lost"} end
if ARGV[4] == "0" then
  if redis.call("HDEL", KEYS[1], "diverging", "diverged") > 0 then emit(KEYS[2], "MIRROR_CONVERGING", KEYS[1], ARGV[1]) end
elseif redis.call("HGET", KEYS[1], "diverged") ~= said then
  redis.call("HSET", KEYS[1], "diverged", said)
  redis.call("HSET", KEYS[1], "diverging", ARGV[5] .. " " .. ARGV[6])
  emit(KEYS[2], "MIRROR_NOT_CONVERGING", KEYS[1], ARGV[1], "passes", ARGV[4], "dirty-rate", ARGV[5], "copy-rate", ARGV[6])
end
return {"ok"}
