#!lua flags=allow-oom
-- Remove a transaction from the due list after a look, unless due again meanwhile; and from the unfinished list once
-- its last member is concluded.
--
-- KEYS[1] due   KEYS[2] unfinished   KEYS[3] txn   KEYS[4] retries   KEYS[5...] keys to delete when finished
-- ARGV[1] txn id   ARGV[2] score at the look   ARGV[3] 1: the transaction is finished
--
-- Returns {"closed"} | {"repeated"}

if ARGV[3] == "1" then
  redis.call("ZREM", KEYS[2], ARGV[1])
  redis.call("ZREM", KEYS[4], ARGV[1])  -- it was cancelled before it began
  for i = 5, #KEYS do redis.call("DEL", KEYS[i]) end
  if redis.call("HGET", KEYS[3], "barrier") ~= "concluded" and redis.call("EXISTS", KEYS[3]) == 1 then
    redis.call("HSET", KEYS[3], "barrier", "concluded", "since", now_ms())
  end
end
local score = redis.call("ZSCORE", KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) then
  redis.call("ZREM", KEYS[1], ARGV[1])
  return {"closed"}
end
return {"repeated"}
