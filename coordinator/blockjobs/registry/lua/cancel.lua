#!lua flags=allow-oom
-- Cancel a job.  By force: the transaction aborts, and a job without a live attempt aborts at once.  Softly: a ready
-- job finishes with a consistent copy; any other job is cancelled by force.
--
-- KEYS[1] job  KEYS[2] share  KEYS[3] wake  KEYS[4] txn  KEYS[5] events  KEYS[6] ready  KEYS[7] rung
-- KEYS[8] due  KEYS[9] due wake  KEYS[10] holds
-- ARGV[1] id   ARGV[2] transaction id   ARGV[3] operation id   ARGV[4] 1: by force, 0: softly
--
-- A failed job waiting for a retry is not retried, and ends as failed.
--
-- Returns {"cancelled", status} | {"refused", status} | {"paused"} (by the user: not softly) | {"missing"}

local status = redis.call("HGET", KEYS[1], "status")
if not status or status == "undefined" or not is_of(KEYS[1], ARGV[2]) then return {"missing"} end
-- A soft cancel of a job that the user has paused is refused before the verb is checked, as in QEMU.
if ARGV[4] == "0" and redis.call("HEXISTS", KEYS[10], "user") == 1 then return {"paused"} end
if not ACCEPTS["cancel"][status] or redis.call("HEXISTS", KEYS[4], "decision") == 1 then
  if status == "aborting" and redis.call("HDEL", KEYS[4], "retry") == 1 then note(KEYS[1], ARGV[3]) end
  return repeated(KEYS[1], ARGV[3]) and {"cancelled", status} or {"refused", status}
end
note(KEYS[1], ARGV[3])
redis.call("HINCRBY", KEYS[4], "rev", 1)
if ARGV[4] == "0" and (status == "ready" or status == "standby") then
  redis.call("HSETNX", KEYS[1], "cancelled", "soft")
  if has_claim(KEYS[1]) then knock(KEYS[3]) end
  return {"cancelled", status}
end
redis.call("HDEL", KEYS[4], "retry")
redis.call("HSETNX", KEYS[1], "cancel-at", now_ms())
redis.call("HSET", KEYS[1], "cancelled", "force", "iostatus", "ok")
if has_claim(KEYS[1]) then
  knock(KEYS[3])
else
  redis.call("HSET", KEYS[1], "ret", -125, "error", "Operation canceled")
  abort(KEYS[5], KEYS[1], ARGV[1])
  redis.call("ZREM", KEYS[6], ARGV[1])
  redis.call("ZREM", KEYS[7], ARGV[1])
  redis.call("HINCRBY", KEYS[2], "failed", 1)
end
owe(KEYS[8], KEYS[9], ARGV[2])
return {"cancelled", redis.call("HGET", KEYS[1], "status")}
