-- Remove staged jobs of a run that will not be published, and the run with the last job.
--
-- KEYS[1] run   KEYS[2] run jobs   KEYS[3] staged   KEYS[4] ids   KEYS[5] texts
-- KEYS[6...]  per job: job, holds, share, members, txn, order
-- ARGV[1] run id   ARGV[2] who staged it, "" for the reaper   ARGV[3...] job ids
--
-- Returns {"removed", n} | {"taken"}

local state, owner = unpack(redis.call("HMGET", KEYS[1], "state", "owner"))
if state == "published" or (owner and ARGV[2] ~= "" and owner ~= ARGV[2]) then return {"taken"} end
local removed = 0
for i = 3, #ARGV do
  local k = 5 + (i - 3) * 6
  local run, source, target = unpack(redis.call("HMGET", KEYS[k + 1], "run", "source", "target"))
  if run == ARGV[1] then
    if source ~= "" and redis.call("HINCRBY", KEYS[5], "r:" .. source, -1) <= 0 then
      redis.call("HDEL", KEYS[5], "r:" .. source)
    end
    if target ~= "" then redis.call("HDEL", KEYS[5], "w:" .. target) end
    redis.call("DEL", unpack(KEYS, k + 1, k + 6))
    redis.call("HDEL", KEYS[4], ARGV[i])
    removed = removed + 1
    redis.call("HINCRBY", KEYS[1], "jobs", -1)
  end
end
if tonumber(redis.call("HGET", KEYS[1], "jobs") or "0") <= 0 then
  redis.call("DEL", KEYS[1], KEYS[2])
  redis.call("ZREM", KEYS[3], ARGV[1])
end
return {"removed", removed}
