-- Start members of a transaction on one host: the creation hold goes; what has no other hold queues for a slot.
--
-- KEYS[1] share   KEYS[2] events   KEYS[3] ready   KEYS[4] txn   KEYS[5...]  per job: job, holds
-- ARGV  job ids
--
-- Returns {"started", still owing}

if redis.call("HEXISTS", KEYS[4], "decision") == 1 then return {"decided"} end
for i, id in ipairs(ARGV) do
  local job, holds = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  if redis.call("HGET", job, "status") == "created" and redis.call("HDEL", holds, "created") == 1 then
    move(KEYS[2], job, id, "running")
    redis.call("HINCRBY", KEYS[1], "start", -1)
    if redis.call("HLEN", holds) > 0 then
      move(KEYS[2], job, id, "paused")
    else
      redis.call("ZADD", KEYS[3], now_ms(), id)
    end
  end
end
return {"started", redis.call("HGET", KEYS[1], "start")}
