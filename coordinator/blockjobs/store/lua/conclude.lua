#!lua flags=allow-oom
-- Conclude settled members: the terminal event, the locks, and where asked the dismissal.
--
-- As in QEMU, a cancelled job that never left "created" has no terminal event.
--
-- KEYS[1] run   KEYS[2] events   KEYS[3] texts   KEYS[4] ids   KEYS[5] txn   KEYS[6] lines   KEYS[7...]  per job: job, share, holds, wake
-- ARGV[1] run id   ARGV[2] cursor   ARGV[3...] job ids
--
-- Returns {"concluded", n}

-- Out of the line of its name: the next one's turn may have come.
local function leave_line(lines, run, id)
  local name, left = redis.call("HGET", run, "line"), {}
  if not name then return end
  for each in string.gmatch(redis.call("HGET", lines, name) or "", "%S+") do
    if each ~= id then left[#left + 1] = each end
  end
  if #left > 0 then redis.call("HSET", lines, name, table.concat(left, " ")) else redis.call("HDEL", lines, name) end
end

local n, now = 0, now_ms()
for i = 3, #ARGV do
  local id = ARGV[i]
  local job, share, holds, wake = unpack(KEYS, 7 + (i - 3) * 4, 10 + (i - 3) * 4)
  local f = redis.call("HMGET", job, "status", "passed", "type", "len", "offset", "speed", "ret", "error", "cancelled",
    "source", "target", "auto-dismiss", "attempts", "begun", "off-errno", "off")
  local status, passed = f[1], f[2]
  if (status == "pending" or status == "aborting") and passed == "settle" then
    local result = {"type", f[3], "len", f[4], "offset", f[5], "speed", f[6]}
    local counted
    if f[9] == "force" and f[16] then result[#result + 1], result[#result + 2] = "reason", f[16] end
    if f[9] == "force" and (f[15] or "0") == "0" then  -- tested before its own error, as in QEMU
      if f[14] then emit(KEYS[2], "BLOCK_JOB_CANCELLED", job, id, unpack(result)) end
      counted = "cancelled"
    else
      if status == "aborting" then
        result[#result + 1], result[#result + 2] = "error", f[8] or ""
        counted = "failed"
      end
      if f[14] or counted then emit(KEYS[2], "BLOCK_JOB_COMPLETED", job, id, unpack(result)) end
    end
    redis.call("HSET", job, "ended", now)
    redis.call("DEL", wake, holds)
    if f[10] ~= "" and redis.call("HINCRBY", KEYS[3], "r:" .. f[10], -1) <= 0 then
      redis.call("HDEL", KEYS[3], "r:" .. f[10])
    end
    if f[11] ~= "" and redis.call("HGET", KEYS[3], "w:" .. f[11]) == id then redis.call("HDEL", KEYS[3], "w:" .. f[11]) end
    move(KEYS[2], job, id, "concluded")
    redis.call("HINCRBY", share, "conclude", -1)
    if counted then redis.call("HINCRBY", KEYS[1], counted, 1) end
    if redis.call("HINCRBY", KEYS[1], "open", -1) == 0 then
      local r = redis.call("HMGET", KEYS[1], "jobs", "failed", "cancelled")
      redis.call("HSET", KEYS[1], "ended", now)
      leave_line(KEYS[6], KEYS[1], ARGV[1])
      redis.call("XADD", KEYS[2], "*", "event", "RUN_ENDED", "id", ARGV[1], "run", ARGV[1], "jobs", r[1], "failed", r[2], "cancelled", r[3])
    end
    if f[12] == "1" then
      move(KEYS[2], job, id, "null")
      redis.call("DEL", job)
      redis.call("HDEL", KEYS[4], id)
    end
    n = n + 1
  end
end
redis.call("HSET", KEYS[5], "cursor", ARGV[2])
return {"concluded", n}
