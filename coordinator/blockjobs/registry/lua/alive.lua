#!lua flags=allow-oom
-- Record the loop of a daemon: the time by the steady clock, the position in the events, and the items put aside.
--
-- KEYS[1] daemons
-- ARGV[1] its name   ARGV[2] sequence of the last event that it has read ("": it reads none)   ARGV[3] what is aside, packed
--
-- Returns {"alive"}

redis.call("HSET", KEYS[1], ARGV[1], steady_ms(), "aside:" .. ARGV[1], ARGV[3])
if ARGV[2] ~= "" then redis.call("HSET", KEYS[1], "seq:" .. ARGV[1], ARGV[2]) end
return {"alive"}
