#!lua flags=allow-oom
-- Fail the members of a host that still owe a barrier after its deadline.
--
-- KEYS[1] share   KEYS[2] events   KEYS[3] due   KEYS[4] due wake   KEYS[5] txn   KEYS[6...] job hashes
-- ARGV[1] txn id   ARGV[2] the step that was owed   ARGV[3] steps passed before, comma first and last
-- ARGV[4] errno   ARGV[5] text   ARGV[6...] job ids
--
-- Returns {"failed", n} | {"decided"}

if redis.call("HEXISTS", KEYS[5], "decision") == 1 then return {"decided"} end
local n = 0
for i = 6, #ARGV do
  local job, id = KEYS[i], ARGV[i]
  local status, passed = unpack(redis.call("HMGET", job, "status", "passed"))
  if status and is_of(job, ARGV[1]) and status ~= "aborting" and string.find(ARGV[3], "," .. passed .. ",", 1, true) then
    redis.call("HSET", job, "ret", -ARGV[4], "error", ARGV[5])
    abort(KEYS[2], job, id)
    redis.call("HINCRBY", KEYS[1], "failed", 1)
    n = n + 1
  end
end
if n > 0 then owe(KEYS[3], KEYS[4], ARGV[1]) end
return {"failed", n}
