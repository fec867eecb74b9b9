-- Lift the holds of one reason from jobs.
--
-- KEYS[1] lifting   KEYS[2] events   KEYS[3...]  per job: job, holds, wake, txn, ready, rung
-- ARGV[1] reason   ARGV[2...] job ids
--
-- Returns {"lifted", n} | {"gone"} (it is in force again, or lifted)

if redis.call("HEXISTS", KEYS[1], ARGV[1]) == 0 then return {"gone"} end
local n = 0
for i = 2, #ARGV do
  local k = 3 + (i - 2) * 6
  if redis.call("HEXISTS", KEYS[k + 1], ARGV[1]) == 1 then
    unhold(KEYS[2], ARGV[i], ARGV[1], unpack(KEYS, k, k + 4))
    n = n + 1
  end
end
return {"lifted", n}
