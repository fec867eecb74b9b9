#!lua flags=allow-oom
-- A host says that it is there.  A second machine under the same name is refused while the first one beats.
--
-- KEYS[1] card   KEYS[2] events of the host
-- ARGV[1] host   ARGV[2] machine id   ARGV[3] slots   ARGV[4] facts, packed
-- ARGV[5] word: "beat", "leave", or "takeover" (the first beat of a process: takes the card of a silent machine)
-- ARGV[6] beats counter the caller saw standing still ("" where it did not look)
--
-- Returns {"ok", beat} | {"taken", machine, beat}

local machine, beat, state = unpack(redis.call("HMGET", KEYS[1], "machine", "beat", "state"))
if machine and machine ~= ARGV[2] and state == "here" and ARGV[6] ~= beat then return {"taken", machine, beat} end
beat = redis.call("HINCRBY", KEYS[1], "beat", 1)
local here = ARGV[5] == "leave" and "left" or "here"
redis.call("HSET", KEYS[1], "machine", ARGV[2], "slots", ARGV[3], "facts", ARGV[4], "state", here)
if state ~= here or machine ~= ARGV[2] then
  if here == "here" then redis.call("SADD", ARRIVALS, ARGV[1]) end
  append(KEYS[2], "event", here == "here" and "HOST_REGISTERED" or "HOST_LEFT", "id", ARGV[1], "host", ARGV[1])
end
return {"ok", string.format("%.0f", beat)}
