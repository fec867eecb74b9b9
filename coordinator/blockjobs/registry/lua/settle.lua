#!lua flags=allow-oom
-- Write the decision of a transaction, once.  This is the commit point.
--
-- KEYS[1] txn   KEYS[2] decisions   KEYS[3] events
-- ARGV[1] txn id   ARGV[2] commit | abort   ARGV[3] rev of the view behind the decision   ARGV[4] why
--
-- Returns {"decided", decision, number} | {"moved", rev} | {"missing"}

local decision, rev, number, run = unpack(redis.call("HMGET", KEYS[1], "decision", "rev", "number", "run"))
if not rev then return {"missing"} end
if decision then return {"decided", decision, number} end
if rev ~= ARGV[3] then return {"moved", rev} end
number = redis.call("INCR", KEYS[2])
redis.call("HDEL", KEYS[1], "doubt")
redis.call("HSET", KEYS[1], "decision", ARGV[2], "number", number, "why", ARGV[4], "barrier", "settle", "since", now_ms(),
  "stands-since", steady_ms())
merge_events_of(KEYS[1])
append(KEYS[3], "event", "TRANSACTION_DECIDED", "id", ARGV[1], "txn", ARGV[1], "run", run or "",
  "decision", ARGV[2], "number", number, "why", ARGV[4])
return {"decided", ARGV[2], string.format("%.0f", number)}
