-- Hand a resting job over to another host: the record, the holds, the locks, and the steps still owed.  The job is held
-- by the move, without an attempt, between the start and the end of its copy: it owes the steps from RUN on.
--
-- KEYS  of the old host: [1] job  [2] holds  [3] wake  [4] share  [5] members  [6] ready  [7] rung  [8] locks
--       of the new host: [9] job  [10] holds  [11] ready  [12] share  [13] members  [14] locks
--       [15] txn  [16] order  [17] run jobs  [18] ids  [19] texts  [20] events  [21] holding
-- ARGV[1] id  ARGV[2] transaction id  ARGV[3] old host  ARGV[4] new host  ARGV[5] spec, packed
-- ARGV[6] source text  ARGV[7] target text  ARGV[8] locks to read  ARGV[9] locks to write (names, one a line), on the new host
--
-- Returns {"moved", status} | {"missing"} | {"refused", status} | {"busy"} (it does not rest) | {"decided"} | {"drained"}
--   | {"locked", text, holder}

local id, old, new = ARGV[1], ARGV[3], ARGV[4]
local f = redis.call("HMGET", KEYS[1], "status", "attempt", "source", "target", "reads", "writes")
local status, source, target, reads, writes = f[1], f[3], f[4], f[5] or "", f[6] or ""
if not status or not is_of(KEYS[1], ARGV[2]) then return {"missing"} end
if status ~= "paused" and status ~= "standby" then return {"refused", status} end
if f[2] ~= "" or redis.call("HEXISTS", KEYS[2], "move:" .. new) == 0 then return {"busy"} end
if redis.call("HEXISTS", KEYS[15], "decision") == 1 then return {"decided"} end
if redis.call("HEXISTS", KEYS[21], "drain:" .. new) == 1 then return {"drained"} end
local function held(locks, text, mine, writing)
  local writer = text ~= "" and redis.call("HGET", locks, "w:" .. text)
  if writer and writer ~= id then return writer end
  if writing and text ~= "" and text ~= mine and redis.call("HEXISTS", locks, "r:" .. text) == 1 then return "a reader" end
end
local holder = held(KEYS[19], ARGV[6], source, false) or lock_holder(KEYS[14], ARGV[8], "")
if holder then return {"locked", ARGV[6], holder} end
holder = held(KEYS[19], ARGV[7], target, true) or lock_holder(KEYS[14], "", ARGV[9])
if holder then return {"locked", ARGV[7], holder} end

merge_events(old)  -- while the job is still known to be its
if source ~= "" and redis.call("HINCRBY", KEYS[19], "r:" .. source, -1) <= 0 then redis.call("HDEL", KEYS[19], "r:" .. source) end
if target ~= "" then redis.call("HDEL", KEYS[19], "w:" .. target) end
if ARGV[6] ~= "" then redis.call("HINCRBY", KEYS[19], "r:" .. ARGV[6], 1) end
if ARGV[7] ~= "" then redis.call("HSET", KEYS[19], "w:" .. ARGV[7], id) end
drop_locks(KEYS[8], reads, writes)
take_locks(KEYS[14], ARGV[8], ARGV[9], id)
redis.call("RENAME", KEYS[1], KEYS[9])
redis.call("RENAME", KEYS[2], KEYS[10])
redis.call("DEL", KEYS[3])
redis.call("ZREM", KEYS[6], id)
redis.call("ZREM", KEYS[7], id)
redis.call("HSET", KEYS[9], "host", new, "spec", ARGV[5], "source", ARGV[6], "target", ARGV[7], "reads", ARGV[8], "writes", ARGV[9])
for _, step in ipairs({"run", "pend", "prepare", "stop", "settle", "conclude"}) do
  redis.call("HINCRBY", KEYS[4], step, -1)
  redis.call("HINCRBY", KEYS[12], step, 1)
end
redis.call("LREM", KEYS[5], 1, id)
redis.call("RPUSH", KEYS[13], id)
redis.call("LSET", KEYS[16], redis.call("LPOS", KEYS[16], old .. " " .. id), new .. " " .. id)
local place = " " .. id .. " " .. ARGV[2]
redis.call("LSET", KEYS[17], redis.call("LPOS", KEYS[17], old .. place), new .. place)
redis.call("HSET", KEYS[18], id, new .. " " .. ARGV[2])
redis.call("HSET", KEYS[15], "host:" .. new, 1)
if redis.call("EXISTS", KEYS[5]) == 0 then
  redis.call("HDEL", KEYS[15], "host:" .. old)
  redis.call("DEL", KEYS[4])
end
redis.call("HINCRBY", KEYS[15], "rev", 1)
emit(KEYS[20], "JOB_MOVED", KEYS[9], id, "from", old, "to", new)
for _, reason in ipairs({"move:" .. new, "drain:" .. old}) do
  if redis.call("HDEL", KEYS[10], reason) == 1 then emit(KEYS[20], "JOB_UNHELD", KEYS[9], id, "reason", reason) end
end
if redis.call("HLEN", KEYS[10]) == 0 then
  move(KEYS[20], KEYS[9], id, status == "paused" and "running" or "ready")
  redis.call("ZADD", KEYS[11], now_ms(), id)
end
return {"moved", redis.call("HGET", KEYS[9], "status")}
