#!lua flags=allow-oom
-- Note that Redis was started anew: hosts have to beat before anything is decided with them, as what they know may be
-- more than what came back.
--
-- KEYS[1] restart: the run id of Redis, the number of decisions that it knew then, and of each host the beat that its card
--   had then
-- KEYS[2] decisions
-- ARGV[1] run id of Redis   ARGV[2...] hosts
--
-- Returns {"same"} | {"first"} (nobody has noted any before) | {"restarted"}

local before = redis.call("HGET", KEYS[1], "run")
if before == ARGV[1] then return {"same"} end
redis.call("HSET", KEYS[1], "run", ARGV[1], "decisions", redis.call("GET", KEYS[2]) or 0)
if not before then return {"first"} end
for i = 2, #ARGV do
  redis.call("HSET", KEYS[1], "beat:" .. ARGV[i], redis.call("HGET", string.format(CARD, ARGV[i]), "beat") or "")
end
return {"restarted"}
