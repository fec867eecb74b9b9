-- Functions shared by every script: a move along the table, whole numbers, locks, wake-ups.

-- Move a job along one edge of the table, with more fields for the event; an illegal move is a bug and stops the
-- script.
local function move(stream, job, id, to, ...)
  local from = redis.call("HGET", job, "status")
  if not (MOVES[from] and MOVES[from][to]) then
    error("illegal move of job " .. id .. " from " .. tostring(from) .. " to " .. to)
  end
  redis.call("HSET", job, "status", to)
  emit(stream, "JOB_STATUS_CHANGE", job, id, "status", to, "from", from, ...)
  return from
end

-- Set the initial state of a job.
local function blank(job)
  redis.call("HSET", job, "status", "undefined", "offset", 0, "len", 0, "attempt", "", "beat", 0, "lost", 0, "busy", 0,
    "iostatus", "ok", "passed", "")
end

-- Add n members to the count of every step owed.
local function owe_all(share, n)
  for _, step in ipairs({"open", "cut", "start", "run", "pend", "prepare", "stop", "settle", "conclude"}) do
    redis.call("HINCRBY", share, step, n)
  end
end

-- Whether a job is (still) a member of a transaction: a retry moves the job to a new transaction, and earlier reads of
-- the old transaction no longer apply to the job.
local function is_of(job, txn) return redis.call("HGET", job, "txn") == txn end

-- Record a change that a decision may depend on; a transaction that is gone is not created again.
local function touch(txn)
  if redis.call("EXISTS", txn) == 1 then redis.call("HINCRBY", txn, "rev", 1) end
end

-- The scores above FULL in a host's line are of jobs that first wait for their store; these jobs come last.
local FULL = 4e15

-- Speeds, sizes, offsets and sums are decimal text in every script: a number of Lua is exact up to 2^53 only, ".." writes
-- one from 1e14 on as 1e+14, and a reply makes of one beyond 2^63 a negative one.
local MOST = "9223372036854775807"

-- Whether a whole number in decimal text is less than another.
local function less(a, b)
  a, b = string.gsub(a, "^0+", ""), string.gsub(b, "^0+", "")
  if #a ~= #b then return #a < #b end
  return a < b
end

-- The lower of two limits; 0 and nil mean no limit.
local function lower(a, b)
  a, b = a or "0", b or "0"
  if a == "0" or (b ~= "0" and less(b, a)) then return b end
  return a
end

-- Add a whole number in decimal text to a field of a hash; the sum is capped at the largest number.
local function add_up(key, field, amount)
  local sum = redis.pcall("HINCRBY", key, field, less(MOST, amount) and MOST or amount)
  if type(sum) == "table" and sum.err then
    if not string.find(sum.err, "overflow", 1, true) then error(sum.err) end
    redis.call("HSET", key, field, MOST)
  end
end

-- Decimal text of the unsigned number in the eight bytes at a position: three digits of base 10^7, the lowest first.
local function decimal(value, at)
  local base = {0, 0, 0}
  for i = at, at + 7 do
    local carry = string.byte(value, i)
    for n = 1, 3 do
      local sum = base[n] * 256 + carry
      base[n], carry = sum % 1e7, math.floor(sum / 1e7)
    end
  end
  local text = string.gsub(string.format("%d%07d%07d", base[3], base[2], base[1]), "^0+", "")
  return text == "" and "0" or text
end

-- A figure of ``exact`` as decimal text.
local function digits(figure) return type(figure) == "number" and string.format("%.0f", figure) or figure end

-- What begins at a position of a packed value, if it has members: "map" or "list", how many, and where they begin.
local function container(value, at)
  local tag = string.byte(value, at)
  if tag >= 0x80 and tag <= 0x9f then return tag < 0x90 and "map" or "list", tag % 16, at + 1 end
  if tag < 0xdc or tag > 0xdf then return nil end
  local wide, n = tag % 2 == 0 and 2 or 4, 0
  for i = at + 1, at + wide do n = n * 256 + string.byte(value, i) end
  return tag < 0xde and "list" or "map", n, at + 1 + wide
end

-- The part of a packed value at a position, and the position behind the part.
local function exact_part(value, at)
  if string.byte(value, at) == 0xcf then return decimal(value, at + 1), at + 9 end
  local kind, n, next_at = container(value, at)
  if not kind then
    local behind, part = cmsgpack.unpack_one(value, at - 1)
    return part, behind < 0 and #value + 1 or behind + 1
  end
  local part, key = {}
  for i = 1, n do
    key = i
    if kind == "map" then key, next_at = exact_part(value, next_at) end
    part[key], next_at = exact_part(value, next_at)
  end
  return part, next_at
end

-- What Python packed, "" and nil as an empty table; a number of eight bytes is decimal text (``digits``), and so whole.
local function exact(packed)
  if not packed or packed == "" then return {} end
  return (exact_part(packed, 2))  -- behind the version byte
end

-- Move a job to ABORTING: a paused job first becomes RUNNING, a standby job first becomes READY (both events are seen);
-- a job published and not launched yet, because its client died in between, first becomes CREATED.
local function abort(stream, job, id)
  local from = redis.call("HGET", job, "status")
  if from == "undefined" then move(stream, job, id, "created") end
  if from == "paused" then move(stream, job, id, "running") end
  if from == "standby" then move(stream, job, id, "ready") end
  if from ~= "aborting" then
    local off, errno = unpack(redis.call("HMGET", job, "off", "off-errno"))
    if off then  -- called off: the reason overrides the attempt's own error
      redis.call("HSET", job, "ret", errno == "0" and -125 or -errno, "error", off)
    end
    move(stream, job, id, "aborting")
  end
end

-- The names of a lock, one per line, as pairs: whether the name is of the locked volume, and the name.  A name behind
-- ``^`` is of a volume below: the disk of a partition, the file of a loop device.
local function lock_names(text)
  local names = {}
  for line in string.gmatch(text or "", "[^\n]+") do
    local own = string.sub(line, 1, 1) ~= "^"
    table.insert(names, {own, own and line or string.sub(line, 2)})
  end
  return names
end

-- The holder that keeps a job without locks on a host from locking volumes there; nil: none.  A lock has four fields
-- per name: ``w:`` the job that writes the volume, ``r:`` the number of readers, ``v:`` and ``s:`` the number of jobs
-- that write, and read, volumes on top.
local function lock_holder(locks, reads, writes)
  local function found(name, fields)
    for field in string.gmatch(fields, ".") do
      local holder = redis.call("HGET", locks, field .. ":" .. name)
      if holder then return field == "w" and holder or (field == "v" and "a writer of a part") or "a reader" end
    end
  end
  for _, each in ipairs(lock_names(reads)) do
    local holder = found(each[2], each[1] and "wv" or "w")
    if holder then return holder end
  end
  for _, each in ipairs(lock_names(writes)) do
    local holder = found(each[2], each[1] and "wrvs" or "wr")
    if holder then return holder end
  end
end

local function take_locks(locks, reads, writes, id)
  for _, each in ipairs(lock_names(reads)) do redis.call("HINCRBY", locks, (each[1] and "r:" or "s:") .. each[2], 1) end
  for _, each in ipairs(lock_names(writes)) do
    if each[1] then redis.call("HSET", locks, "w:" .. each[2], id) else redis.call("HINCRBY", locks, "v:" .. each[2], 1) end
  end
end

local function drop_locks(locks, reads, writes)
  local function drop(field) if redis.call("HINCRBY", locks, field, -1) <= 0 then redis.call("HDEL", locks, field) end end
  for _, each in ipairs(lock_names(reads)) do drop((each[1] and "r:" or "s:") .. each[2]) end
  for _, each in ipairs(lock_names(writes)) do
    if each[1] then redis.call("HDEL", locks, "w:" .. each[2]) else drop("v:" .. each[2]) end
  end
end

-- Remove the time limit of a name of run files.
local function forget_name(names, name)
  return redis.call("HDEL", names, "overdue:" .. name, "about:" .. name, "since:" .. name, "good:" .. name,
    "told:overdue " .. name, "told:refused " .. name)
end

-- Wake the process that blocks on a list of at most one element.
local function knock(list)
  redis.call("LPUSH", list, "1")
  redis.call("LTRIM", list, 0, 0)
end

-- Make a transaction due for the finalizer.  The score, in microseconds, is new: a finalizer that closes an earlier
-- score cannot remove this entry.
local function owe(due, due_wake, txn)
  local t = redis.call("TIME")
  redis.call("ZADD", due, t[1] * 1000000 + t[2], txn)
  knock(due_wake)
end

-- Whether this call of a verb was already carried out: a reply may be lost after the effect, and the client repeats the
-- call.  The record keeps the ids of the last 16 calls.
local function repeated(job, operation)
  return string.find(redis.call("HGET", job, "operations") or "", operation, 1, true) ~= nil
end

local function note(job, operation)
  local ring = redis.call("HGET", job, "operations") or ""
  redis.call("HSET", job, "operations", string.sub(operation .. " " .. ring, 1, 16 * (#operation + 1)))
end

local function has_claim(job)
  local attempt = redis.call("HGET", job, "attempt")
  return attempt and attempt ~= ""
end

-- Hold a job for a new reason: a job without a live attempt is paused at once, else the attempt is woken.  The caller
-- has checked that the job's status accepts the hold.
local function hold(stream, id, reason, cause, job, holds, wake, txn, ready, rung)
  local status = redis.call("HGET", job, "status")
  if redis.call("HLEN", holds) == redis.call("HEXISTS", holds, "created") then
    redis.call("HSET", job, "held-at", steady_ms())
  end
  redis.call("HSET", holds, reason, cause)
  touch(txn)
  emit(stream, "JOB_HELD", job, id, "reason", reason, "cause", cause)
  if has_claim(job) then
    knock(wake)
  elseif status == "running" or status == "ready" then
    move(stream, job, id, status == "running" and "paused" or "standby")
    redis.call("ZREM", ready, id)
    redis.call("ZREM", rung, id)
  end
end

-- Lift an existing hold; after the last hold the job goes on (a live attempt by itself, else through a slot).
local function unhold(stream, id, reason, job, holds, wake, txn, ready)
  local status = redis.call("HGET", job, "status")
  redis.call("HDEL", holds, reason)
  redis.call("HINCRBY", txn, "rev", 1)
  if reason == "user" then
    redis.call("HSET", job, "iostatus", "ok")
    redis.call("HDEL", job, "stopped-at")
  end
  emit(stream, "JOB_UNHELD", job, id, "reason", reason)
  if has_claim(job) then
    knock(wake)
  elseif redis.call("HLEN", holds) == 0 and (status == "paused" or status == "standby") then
    move(stream, job, id, status == "paused" and "running" or "ready")
    redis.call("ZADD", ready, now_ms(), id)
  end
end
