-- What every script shares: a move along the table, whole numbers, locks, a knock on a door.

-- Move a job along one edge of the table, with more fields for its event; an illegal move is our bug and stops the script.
local function move(stream, job, id, to, ...)
  local from = redis.call("HGET", job, "status")
  if not (MOVES[from] and MOVES[from][to]) then
    error("illegal move of job " .. id .. " from " .. tostring(from) .. " to " .. to)
  end
  redis.call("HSET", job, "status", to)
  emit(stream, "JOB_STATUS_CHANGE", job, id, "status", to, "from", from, ...)
  return from
end

-- A job at its beginning.
local function blank(job)
  redis.call("HSET", job, "status", "undefined", "offset", 0, "len", 0, "attempt", "", "beat", 0, "lost", 0, "busy", 0,
    "iostatus", "ok", "passed", "")
end

-- Every step of the way is owed by n members more.
local function owe_all(share, n)
  for _, step in ipairs({"open", "cut", "start", "run", "pend", "prepare", "stop", "settle", "conclude"}) do
    redis.call("HINCRBY", share, step, n)
  end
end

-- Whether a job is (still) a member: when it is tried again it is one of another transaction, and what somebody saw of
-- the one before says nothing of it.
local function is_of(job, txn) return redis.call("HGET", job, "txn") == txn end

-- Something changed that a decision may depend on; nothing is made of a transaction that is gone.
local function touch(txn)
  if redis.call("EXISTS", txn) == 1 then redis.call("HINCRBY", txn, "rev", 1) end
end

-- In a host's line of what waits for a slot: the score of what waits for its store first is beyond this, and so behind.
local FULL = 4e15

-- Speeds, sizes, offsets and sums are decimal text in every script: a number of Lua is exact up to 2^53 only, ".." writes
-- one from 1e14 on as 1e+14, and a reply makes of one beyond 2^63 a negative one.
local MOST = "9223372036854775807"

-- Whether a whole number in decimal text is less than another one.
local function less(a, b)
  a, b = string.gsub(a, "^0+", ""), string.gsub(b, "^0+", "")
  if #a ~= #b then return #a < #b end
  return a < b
end

-- The lower of two limits, of which 0 and nil are none.
local function lower(a, b)
  a, b = a or "0", b or "0"
  if a == "0" or (b ~= "0" and less(b, a)) then return b end
  return a
end

-- Add a whole number in decimal text to a field of a hash; what would pass the largest number stays at it.
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

-- The part of a packed value that begins at a position, and where the next one begins.
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
  return (exact_part(packed, 2))  -- behind the byte of the version
end

-- The road to ABORTING: a paused job runs first, a standby one is ready first (both events are seen); a job that was
-- published and not launched yet, because its client died in between, is created first.
local function abort(stream, job, id)
  local from = redis.call("HGET", job, "status")
  if from == "undefined" then move(stream, job, id, "created") end
  if from == "paused" then move(stream, job, id, "running") end
  if from == "standby" then move(stream, job, id, "ready") end
  if from ~= "aborting" then
    local off, errno = unpack(redis.call("HMGET", job, "off", "off-errno"))
    if off then  -- called off: that is why, whatever its attempt says that it died of
      redis.call("HSET", job, "ret", errno == "0" and -125 or -errno, "error", off)
    end
    move(stream, job, id, "aborting")
  end
end

-- The names of a lock, one a line, as pairs: whether it is the volume itself that is locked, and a name.  Behind ``^``
-- are the names of what the volume lies on: the disk of a partition, the file of a loop device.
local function lock_names(text)
  local names = {}
  for line in string.gmatch(text or "", "[^\n]+") do
    local own = string.sub(line, 1, 1) ~= "^"
    table.insert(names, {own, own and line or string.sub(line, 2)})
  end
  return names
end

-- Who keeps a job that has no locks on a host yet from locking volumes there; nil: nobody.  Of each name a lock has four fields:
-- ``w:`` the job that writes it, ``r:`` how many read it, ``v:`` and ``s:`` how many write, and read, what lies on it.
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

-- A name of run files has no longer to succeed in time.
local function forget_name(names, name)
  return redis.call("HDEL", names, "overdue:" .. name, "about:" .. name, "since:" .. name, "good:" .. name,
    "told:overdue " .. name, "told:refused " .. name)
end

-- A list that holds at most one element wakes whoever blocks on it.
local function knock(list)
  redis.call("LPUSH", list, "1")
  redis.call("LTRIM", list, 0, 0)
end

-- The finalizer should look at a transaction.  The score, microseconds, is one that nobody has seen before: a finalizer
-- that closes what it saw cannot take this away.
local function owe(due, due_wake, txn)
  local t = redis.call("TIME")
  redis.call("ZADD", due, t[1] * 1000000 + t[2], txn)
  knock(due_wake)
end

-- Whether this very call of a verb was already carried out: a reply may be lost after the effect, and the client
-- asks again.  The record keeps the ids of the last 16 calls.
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

-- Hold a job for a reason that does not hold it yet: without a live attempt it is paused at once, else the attempt is
-- told.  The caller has seen that its status accepts it.
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

-- Lift a hold that is there; with the last one gone the job goes on (the attempt by itself, else by way of a slot).
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
