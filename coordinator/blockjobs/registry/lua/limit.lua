-- Hand running copies their shares; a running copy is woken, and applies the limit at once.
--
-- KEYS  per job: job, wake
-- ARGV  per job: bytes per second, 0: no limit but the job's speed
--
-- Returns {"limited", n}

local n = 0
for i, limit in ipairs(ARGV) do
  local job = KEYS[2 * i - 1]
  if has_claim(job) and (redis.call("HGET", job, "limit") or "0") ~= limit then
    redis.call("HSET", job, "limit", limit)
    knock(KEYS[2 * i])
    n = n + 1
  end
end
return {"limited", n}
