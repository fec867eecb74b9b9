#!lua flags=allow-oom
-- Move the members of one host from WAITING to PENDING, as every member's copy is done.
--
-- KEYS[1] share   KEYS[2] events   KEYS[3] txn   KEYS[4...] job hashes
-- ARGV[1] transaction id   ARGV[2...] job ids
--
-- Returns {"pending", still owing} | {"decided"}

if redis.call("HEXISTS", KEYS[3], "decision") == 1 then return {"decided"} end
for i = 2, #ARGV do
  local id, job = ARGV[i], KEYS[2 + i]
  local status, finalize, kind = unpack(redis.call("HMGET", job, "status", "auto-finalize", "type"))
  if status == "waiting" and is_of(job, ARGV[1]) then
    move(KEYS[2], job, id, "pending")
    redis.call("HINCRBY", KEYS[1], "pend", -1)
    if finalize == "0" then emit(KEYS[2], "BLOCK_JOB_PENDING", job, id, "type", kind) end
  end
end
return {"pending", redis.call("HGET", KEYS[1], "pend")}
