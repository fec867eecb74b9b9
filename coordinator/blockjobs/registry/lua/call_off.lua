-- Call off jobs that are neither concluded nor decided, for a reason other than a user's cancel; the reason becomes
-- their error.  With an errno a job counts as failed, without an errno as cancelled.  A job is called off only once,
-- and never after a cancel.  A called-off job is not retried; if every job is called off, a job that failed before is
-- not retried either.
--
-- KEYS[1] events  KEYS[2] due  KEYS[3] due wake  KEYS[4...]  per job: job, share, wake, txn, ready, rung, holds
-- ARGV[1] why   ARGV[2] errno, 0: cancelled
-- ARGV[3] when an I/O error must have stopped it at the latest (steady clock), with nothing else holding it, "" : however
--         it is
-- ARGV[4...]  per job: id, transaction id
--
-- Returns {"off", n, held}: those called off, and those that something else holds as well (they are to be asked again)

local n, held = 0, 0
local function stopped(job, holds)
  local at = redis.call("HGET", job, "stopped-at")
  if not at or tonumber(at) > tonumber(ARGV[3]) then return false end
  if redis.call("HLEN", holds) == 1 then return true end
  held = held + 1
  return false
end
for i = 4, #ARGV, 2 do
  local id, txn_id = ARGV[i], ARGV[i + 1]
  local job, share, wake, txn, ready, rung, holds = unpack(KEYS, 4 + (i - 4) / 2 * 7, 10 + (i - 4) / 2 * 7)
  local f = redis.call("HMGET", job, "status", "cancelled")
  local over = not f[1] or not is_of(job, txn_id) or f[1] == "aborting" or f[1] == "concluded" or f[1] == "null"
  if f[1] == "aborting" and ARGV[3] == "" and is_of(job, txn_id) then redis.call("HDEL", txn, "retry") end
  if not over and f[2] ~= "force" and redis.call("HEXISTS", txn, "decision") == 0
    and (ARGV[3] == "" or stopped(job, holds)) then
    touch(txn)
    redis.call("HDEL", txn, "retry")
    redis.call("HSETNX", job, "cancel-at", now_ms())
    redis.call("HSET", job, "cancelled", "force", "iostatus", "ok", "off", ARGV[1], "off-errno", ARGV[2])
    emit(KEYS[1], "JOB_CALLED_OFF", job, id, "reason", ARGV[1])
    if has_claim(job) then
      knock(wake)
    else
      redis.call("HSET", job, "ret", -125, "error", "Operation canceled")
      abort(KEYS[1], job, id)
      redis.call("ZREM", ready, id)
      redis.call("ZREM", rung, id)
      redis.call("HINCRBY", share, "failed", 1)
    end
    owe(KEYS[2], KEYS[3], txn_id)
    n = n + 1
  end
end
return {"off", n, held}
