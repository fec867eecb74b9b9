#!lua flags=allow-oom
-- Conclude settled members: the terminal event, the locks, and the dismissal if requested.  The facts of a job
-- needed by the run's record and by history are copied, as the record of the job may soon be gone.
--
-- As in QEMU, a cancelled job that never left "created" has no terminal event.
--
-- KEYS[1] run   KEYS[2] events   KEYS[3] texts   KEYS[4] ids   KEYS[5] txn   KEYS[6] targets   KEYS[7] prunes
-- KEYS[8] untold   KEYS[9] lines   KEYS[10...]  per job: job, share, holds, wake
-- ARGV[1] run id   ARGV[2] transaction id   ARGV[3] cursor   ARGV[4...] job ids
--
-- Returns {"concluded", n}

local function unpacked(value) return value and value ~= "" and cmsgpack.unpack(string.sub(value, 2)) or {} end

local began, why, rows = nil, nil, {}  -- for the run's record, written once at the end

-- The figures of a job.
local function tally(run, f)
  for name, bytes in pairs(exact(f[15])) do add_up(run, "sum:" .. name, digits(bytes)) end
  add_up(run, "sum:len", f[4])
  add_up(run, "sum:attempts", f[13])
  if f[16] and (not began or tonumber(f[16]) < began) then began = tonumber(f[16]) end
end

local function record(run, targets)
  local before = redis.call("HGET", run, "began")
  if began and (not before or began < tonumber(before)) then redis.call("HSET", run, "began", string.format("%.0f", began)) end
  if why then redis.call("HSET", run, "why", why) end
  if rows[1] then redis.call("HSET", targets, unpack(rows)) end
end

-- Whether any transaction of the run has a rule of retention.
local function keeps(run)
  for _, policy in pairs(unpacked(redis.call("HGET", run, "fields")).policies or {}) do
    if next(policy.keep) then return true end
  end
  return false
end

-- History's facts of a backup: whether parts of the source could not be read, and the number of the decision, which
-- orders backups.
local function row_of(backup, salvaged, number)
  local row = unpacked(backup)
  row[5], row[6] = salvaged, number
  return string.sub(backup, 1, 1) .. cmsgpack.pack(row)
end

-- Leave the line of the name: the next run's turn may have come.
local function leave_line(lines, run, id)
  local name, left = redis.call("HGET", run, "line"), {}
  if not name then return end
  for each in string.gmatch(redis.call("HGET", lines, name) or "", "%S+") do
    if each ~= id then left[#left + 1] = each end
  end
  if #left > 0 then redis.call("HSET", lines, name, table.concat(left, " ")) else redis.call("HDEL", lines, name) end
end

local n, now, name, number = 0, now_ms(), unpack(redis.call("HMGET", KEYS[5], "name", "number"))
name, number = name or "", tonumber(number or 0)
for i = 4, #ARGV do
  local id = ARGV[i]
  local job, share, holds, wake = unpack(KEYS, 10 + (i - 4) * 4, 13 + (i - 4) * 4)
  local f = redis.call("HMGET", job, "status", "passed", "type", "len", "offset", "speed", "ret", "error", "cancelled",
    "source", "target", "auto-dismiss", "attempts", "begun", "bytes", "started", "backup", "off-errno", "off", "result",
    "resolved", "published-as")
  local status, passed = f[1], f[2]
  if (status == "pending" or status == "aborting") and passed == "settle" and is_of(job, ARGV[2]) then
    local result = {"type", f[3], "len", f[4], "offset", f[5], "speed", f[6]}
    local counted
    if f[19] then result[#result + 1], result[#result + 2] = "reason", f[19] end
    if f[9] == "force" and (f[18] or "0") == "0" then  -- tested before its own error, as in QEMU
      if f[14] then emit(KEYS[2], "BLOCK_JOB_CANCELLED", job, id, unpack(result)) end
      counted = "cancelled"
    else
      if status == "aborting" then
        result[#result + 1], result[#result + 2] = "error", f[8] or ""
        counted = "failed"
      end
      emit(KEYS[2], "BLOCK_JOB_COMPLETED", job, id, unpack(result))
    end
    redis.call("HSET", job, "ended", now)
    redis.call("DEL", wake, holds)
    if f[10] ~= "" and redis.call("HINCRBY", KEYS[3], "r:" .. f[10], -1) <= 0 then
      redis.call("HDEL", KEYS[3], "r:" .. f[10])
    end
    if f[11] ~= "" then redis.call("HDEL", KEYS[3], "w:" .. f[11]) end
    move(KEYS[2], job, id, "concluded")
    redis.call("HINCRBY", share, "conclude", -1)
    tally(KEYS[1], f)
    if counted then redis.call("HINCRBY", KEYS[1], counted, 1) end
    -- Newest first: the error that stays is of the first job in the file.
    if counted == "failed" then why = id .. ": " .. string.sub(f[8] or "", 1, 400) end
    local lost = not counted and unpacked(f[20])["salvaged-bytes"] or 0
    if lost > 0 then
      redis.call("HINCRBY", KEYS[1], "salvaged", 1)
      if name ~= "" then redis.call("HINCRBY", KEYS[1], "salvaged:" .. name, 1) end
    end
    if not counted and f[17] and f[17] ~= "" and f[21] ~= "discard" then
      rows[#rows + 1], rows[#rows + 2] = id, (f[22] or f[11]) .. "\0" .. row_of(f[17], lost > 0, number)
    end
    if counted and name ~= "" then redis.call("HINCRBY", KEYS[1], "bad:" .. name, 1) end
    if redis.call("HINCRBY", KEYS[1], "open", -1) == 0 then
      local r = redis.call("HMGET", KEYS[1], "jobs", "failed", "cancelled", "skipped", "retried", "salvaged")
      local told = {"event", "RUN_ENDED", "id", ARGV[1], "run", ARGV[1], "jobs", r[1], "failed", r[2], "cancelled", r[3]}
      if r[4] and r[4] ~= "0" then told[#told + 1], told[#told + 2] = "skipped", r[4] end
      if r[6] then told[#told + 1], told[#told + 2] = "salvaged", r[6] end
      if r[5] then told[#told + 1], told[#told + 2] = "retried", r[5] end
      redis.call("HSET", KEYS[1], "ended", now, "ended-steady", steady_ms())
      leave_line(KEYS[9], KEYS[1], ARGV[1])
      if redis.call("HEXISTS", KEYS[1], "tells") == 1 then redis.call("ZADD", KEYS[8], now, ARGV[1]) end
      append(KEYS[2], unpack(told))
      if tonumber(r[2]) + tonumber(r[3]) < tonumber(r[1]) and keeps(KEYS[1]) then
        redis.call("ZADD", KEYS[7], now, ARGV[1])
      end
    end
    if f[12] == "1" then
      move(KEYS[2], job, id, "null")
      redis.call("DEL", job)
      redis.call("HDEL", KEYS[4], id)
    end
    n = n + 1
  end
end
record(KEYS[1], KEYS[6])
redis.call("HSET", KEYS[5], "cursor", ARGV[3])
return {"concluded", n}
