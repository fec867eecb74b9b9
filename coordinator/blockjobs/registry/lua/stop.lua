#!lua flags=allow-oom
-- Cancel the members of an aborting transaction on one host by force; a member without a live attempt aborts at once.
--
-- KEYS[1] share   KEYS[2] events   KEYS[3] ready   KEYS[4] rung   KEYS[5...]  per job: job, wake
-- ARGV[1] transaction id   ARGV[2...] job ids
--
-- Returns {"stopped", still owing}

for i = 2, #ARGV do
  local id, job, wake = ARGV[i], KEYS[1 + 2 * i], KEYS[2 + 2 * i]
  if is_of(job, ARGV[1]) and redis.call("HSETNX", job, "stopped", 1) == 1 then
    redis.call("HINCRBY", KEYS[1], "stop", -1)
    local status = redis.call("HGET", job, "status")
    if status ~= "aborting" then
      redis.call("HSETNX", job, "cancel-at", now_ms())
      redis.call("HSET", job, "cancelled", "force", "iostatus", "ok")
      if has_claim(job) then
        knock(wake)
      else
        redis.call("HSET", job, "ret", -125, "error", "Operation canceled")
        abort(KEYS[2], job, id)
        redis.call("ZREM", KEYS[3], id)
        redis.call("ZREM", KEYS[4], id)
      end
    end
  end
end
return {"stopped", redis.call("HGET", KEYS[1], "stop")}
