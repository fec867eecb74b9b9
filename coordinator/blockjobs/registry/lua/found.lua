-- Add backups found by a rescan to the record of their run.  The record is created if the run is unknown.
--
-- KEYS[1] run   KEYS[2] targets   KEYS[3] runs   KEYS[4] events
-- ARGV[1] run id   ARGV[2] fields of the run, packed   ARGV[3] start of the run, ms
-- ARGV[4...]  per backup: entry, row, job, txn, host, target text, ended ms, len, salvaged 0/1, on layers 0/1, bytes
--             read, written, zero and skipped
--
-- Returns {"added", n} | {"going"}

local W = 14
local state, over = unpack(redis.call("HMGET", KEYS[1], "state", "ended"))
if state and not over then return {"going"} end
if not state then
  redis.call("HSET", KEYS[1], "state", "published", "fields", ARGV[2], "published", ARGV[3], "began", ARGV[3],
    "ended", ARGV[3], "jobs", 0, "open", 0, "failed", 0, "cancelled", 0, "skipped", 0, "found", 1, "slim", 1)
  redis.call("ZADD", KEYS[3], ARGV[3], ARGV[1])
end
local made, n = redis.call("HEXISTS", KEYS[1], "found") == 1, 0
for i = 4, #ARGV, W do
  local entry, row, job, txn, host, target, ended, len, salvaged, layered, read, written, zero, skipped =
    unpack(ARGV, i, i + W - 1)
  if redis.call("HSETNX", KEYS[2], entry, row) == 1 then
    n = n + 1
    if layered == "1" then redis.call("HSET", KEYS[1], "layered", 1) end
    if made then
      redis.call("HINCRBY", KEYS[1], "jobs", 1)
      if salvaged == "1" then redis.call("HINCRBY", KEYS[1], "salvaged", 1) end
      add_up(KEYS[1], "sum:len", len)
      add_up(KEYS[1], "sum:read", read)
      add_up(KEYS[1], "sum:written", written)
      add_up(KEYS[1], "sum:zero", zero)
      add_up(KEYS[1], "sum:skipped", skipped)
      if less(redis.call("HGET", KEYS[1], "ended"), ended) and not less(string.format("%.0f", now_ms()), ended) then
        redis.call("HSET", KEYS[1], "ended", ended)
      end
    end
    append(KEYS[4], "event", "TARGET_FOUND", "id", job, "txn", txn, "run", ARGV[1], "host", host, "target", target)
  end
end
return {"added", n}
