-- Start members of a transaction on one host: the creation hold is lifted; a job without any other hold queues for a
-- slot.
--
-- A drain in force of the host or of a volume of the job holds the job from the start.
--
-- KEYS[1] share   KEYS[2] events   KEYS[3] ready   KEYS[4] txn   KEYS[5] holding   KEYS[6...]  per job: job, holds
-- ARGV[1] transaction id
-- ARGV[2] [3] microseconds of the first and the last instant of all its cuts ("": none)
-- ARGV[4] number of cuts without an instant: if any, the transaction has no last instant   ARGV[5...] job ids
--
-- Returns {"started", still owing}

if redis.call("HEXISTS", KEYS[4], "decision") == 1 then return {"decided"} end
local drains = redis.call("HLEN", KEYS[5]) > 0
if ARGV[2] ~= "" and redis.call("HSETNX", KEYS[4], "cut-begin", ARGV[2]) == 1 then
  local how = {"skew", string.format("%.6f", (ARGV[3] - ARGV[2]) / 1e6)}
  if ARGV[4] == "0" then
    redis.call("HSET", KEYS[4], "cut-end", ARGV[3])
  else
    how = {"consistency", "crash", "crash", ARGV[4]}
  end
  merge_events_of(KEYS[4])
  append(KEYS[2], "event", "TRANSACTION_CUT", "id", ARGV[1], "txn", ARGV[1],
    "run", redis.call("HGET", KEYS[4], "run"), "begin", string.format("%.6f", ARGV[2] / 1e6),
    "end", string.format("%.6f", ARGV[3] / 1e6), unpack(how))
end
for i = 5, #ARGV do
  local id, job, holds = ARGV[i], KEYS[2 * i - 4], KEYS[2 * i - 3]
  if is_of(job, ARGV[1]) and redis.call("HGET", job, "status") == "created" and redis.call("HDEL", holds, "created") == 1 then
    move(KEYS[2], job, id, "running")
    redis.call("HSET", job, "begun", now_ms())
    redis.call("HINCRBY", KEYS[1], "start", -1)
    for _, what in ipairs(drains and redis.call("HMGET", job, "host", "source", "target") or {}) do
      local record = redis.call("HGET", KEYS[5], "drain:" .. what)
      local cause = record and cmsgpack.unpack(string.sub(record, 2))[2]
      if record and redis.call("HSETNX", holds, "drain:" .. what, cause) == 1 then
        if redis.call("HLEN", holds) == 1 then redis.call("HSET", job, "held-at", steady_ms()) end
        emit(KEYS[2], "JOB_HELD", job, id, "reason", "drain:" .. what, "cause", cause)
      end
    end
    if redis.call("HLEN", holds) > 0 then
      move(KEYS[2], job, id, "paused")
    else
      redis.call("ZADD", KEYS[3], now_ms(), id)
    end
  end
end
return {"started", redis.call("HGET", KEYS[1], "start")}
