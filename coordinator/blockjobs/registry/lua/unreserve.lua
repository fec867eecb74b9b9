-- Lift a reservation; a repeated call is harmless, and a reservation by another holder is left alone.
--
-- KEYS[1] texts   KEYS[2] reserved
-- ARGV[1] text of the volume   ARGV[2] holder
--
-- Returns {"lifted"}

if redis.call("HGET", KEYS[1], "w:" .. ARGV[1]) == ARGV[2] then redis.call("HDEL", KEYS[1], "w:" .. ARGV[1]) end
redis.call("ZREM", KEYS[2], ARGV[2] .. " " .. ARGV[1])
return {"lifted"}
