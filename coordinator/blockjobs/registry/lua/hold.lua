-- Hold jobs for a reason that concerns many jobs: every job whose status accepts the hold, unless already held for the
-- reason.
--
-- KEYS[1] holding   KEYS[2] events   KEYS[3...]  per job: job, holds, wake, txn, ready, rung
-- ARGV[1] reason   ARGV[2] cause   ARGV[3...] job ids
--
-- Returns {"held", n} | {"gone"} (somebody is lifting it)

if redis.call("HEXISTS", KEYS[1], ARGV[1]) == 0 then return {"gone"} end
local n = 0
for i = 3, #ARGV do
  local k = 3 + (i - 3) * 6
  local status = redis.call("HGET", KEYS[k], "status")
  if status and ACCEPTS["pause"][status] and redis.call("HEXISTS", KEYS[k + 1], ARGV[1]) == 0 then
    hold(KEYS[2], ARGV[i], ARGV[1], ARGV[2], unpack(KEYS, k, k + 5))
    n = n + 1
  end
end
return {"held", n}
