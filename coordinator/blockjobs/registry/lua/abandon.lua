#!lua flags=allow-oom
-- Give a host up for good: its members end now, with an error that names the reason.  Before the decision their
-- transaction aborts; after the decision they owe no further step.  An attempt still running on the host has lost its
-- lease.
--
-- KEYS[1] share   KEYS[2] events   KEYS[3] due   KEYS[4] due wake   KEYS[5] locks   KEYS[6] txn   KEYS[7] attempts
-- KEYS[8] fences  KEYS[9] ready    KEYS[10] rung   KEYS[11] abandoned   KEYS[12...]  per job: job, holds
-- ARGV[1] transaction id   ARGV[2] text   ARGV[3] text if the decision was to commit   ARGV[4...] job ids
--
-- Returns {"abandoned", n}

local decision, n = redis.call("HGET", KEYS[6], "decision"), 0
for i = 4, #ARGV do
  local id, job, holds = ARGV[i], KEYS[4 + 2 * i], KEYS[5 + 2 * i]
  local f = redis.call("HMGET", job, "status", "passed", "attempt", "ret", "reads", "writes")
  local status = f[1]
  if status and is_of(job, ARGV[1]) and status ~= "undefined" and f[2] ~= "settle" then
    if f[3] ~= "" then
      redis.call("HSET", job, "attempt", "", "busy", 0)
      redis.call("HDEL", KEYS[7], id)
      redis.call("HDEL", KEYS[8], f[3])
      emit(KEYS[2], "ATTEMPT_RELEASED", job, id, "reason", "abandoned", "uuid", f[3])
    end
    redis.call("ZREM", KEYS[9], id)
    redis.call("ZREM", KEYS[10], id)
    redis.call("DEL", holds)
    if not f[4] then redis.call("HSET", job, "ret", -112, "error", decision == "commit" and ARGV[3] or ARGV[2]) end
    abort(KEYS[2], job, id)
    redis.call("HINCRBY", KEYS[1], "failed", 1)
    if redis.call("HSETNX", job, "stopped", 1) == 1 then redis.call("HINCRBY", KEYS[1], "stop", -1) end
    redis.call("HSET", job, "passed", "settle")
    redis.call("HINCRBY", KEYS[1], "settle", -1)
    drop_locks(KEYS[5], f[5], f[6])
    redis.call("HDEL", job, "reads", "writes", "unsettled")
    n = n + 1
  end
end
if n > 0 then
  redis.call("HSET", KEYS[11], ARGV[1], now_ms())
  redis.call("HDEL", KEYS[6], "retry")
  redis.call("HINCRBY", KEYS[6], "rev", 1)
  owe(KEYS[3], KEYS[4], ARGV[1])
end
return {"abandoned", n}
