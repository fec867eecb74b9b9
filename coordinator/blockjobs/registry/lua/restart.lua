#!lua flags=allow-oom
-- Record a new start of Redis: every host must beat before any decision with the host, as hosts may know of more
-- decisions than the data that came back.
--
-- KEYS[1] restart: the run id of Redis, the number of decisions at the start, and per host the beat in its card
--   at the start
-- KEYS[2] decisions   KEYS[3] unfinished
-- ARGV[1] run id of Redis   ARGV[2...] hosts; the hosts of undecided transactions are added
--
-- Returns {"same"} | {"first"} (nobody has noted any before, and nothing is to be decided) | {"restarted"}

local before = redis.call("HGET", KEYS[1], "run")
if before == ARGV[1] then return {"same"} end
redis.call("HSET", KEYS[1], "run", ARGV[1], "decisions", redis.call("GET", KEYS[2]) or 0)
if not before and redis.call("EXISTS", KEYS[3]) == 0 then return {"first"} end
local function await(host)
  local beat = redis.pcall("HGET", string.format(CARD, host), "beat")
  redis.call("HSET", KEYS[1], "beat:" .. host, type(beat) == "string" and beat or "")
end

for i = 2, #ARGV do await(ARGV[i]) end
for _, txn in ipairs(redis.call("ZRANGE", KEYS[3], 0, -1)) do
  for _, field in ipairs(redis.pcall("HKEYS", string.format(TXN, txn))) do  -- none for a record of another type
    if string.sub(field, 1, 5) == "host:" then await(string.sub(field, 6)) end
  end
end
return {"restarted"}
