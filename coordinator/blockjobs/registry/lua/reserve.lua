-- Reserve a volume for a while for a purpose other than a job: no job reads or writes the volume, and none can begin
-- to.
--
-- KEYS[1] texts   KEYS[2] reserved
-- ARGV[1] text of the volume   ARGV[2] who reserves it   ARGV[3] ms until the reaper lifts the reservation
--
-- Returns {"reserved"} | {"busy", holder, "" for readers}

local text, holder = ARGV[1], ARGV[2]
local writer = redis.call("HGET", KEYS[1], "w:" .. text)
if writer and writer ~= holder then return {"busy", writer} end
if redis.call("HEXISTS", KEYS[1], "r:" .. text) == 1 then return {"busy", ""} end
redis.call("HSET", KEYS[1], "w:" .. text, holder)
redis.call("ZADD", KEYS[2], steady_ms() + ARGV[3], holder .. " " .. text)
return {"reserved"}
