-- Events: the common stream for readers (EVENTS), and a stream per host for the host's workers (HOST_EVENTS).
--
-- Only the functions below read the stream of a host, with the rights of the control plane.  They move the entries to
-- the end of the common stream before any further event about the host is added, which keeps the order.  The host, the
-- transaction and the run of an event are taken from the registry and not from the entry.

local HOST_PAGE = 200  -- entries of one host moved by one script, at most
local HOST_KEPT = 100000  -- approximate number of entries in a host's stream, while no process moves them
local LARGEST_EVENT = 65536   -- bytes

local function now_ms()
  local t = redis.call("TIME")
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The jumps of Redis' clock (clock.lua), and the steady clock at the last check; nil: no check yet.
local function clock_record()
  local record = redis.pcall("GET", CLOCK)
  local jumps, last = string.match(type(record) == "string" and record or "", "^(-?%d+) ?(%d*)$")
  return tonumber(jumps) or 0, tonumber(last)
end

-- The steady clock, for every decision by time: Redis' clock less its jumps, and never far from the last check
-- (model/clock.py).
local function steady_ms()
  local jumps, last = clock_record()
  local steady = now_ms() - jumps
  return last and math.min(math.max(steady, last), last + UNWATCHED) or steady
end

-- The fields of an event about a job or its host, as a worker may write them; nil: no worker of the host writes such an
-- event.
local function checked_event(host, written, fields)
  local f, size = {}, 0
  for i = 1, #fields, 2 do
    f[fields[i]], size = fields[i + 1], size + #fields[i] + #fields[i + 1]
  end
  local needs = f.event and BY_WORKERS[f.event]
  if not needs or size > LARGEST_EVENT then return nil end
  for name, whole in pairs(needs) do
    if not f[name] or (whole and not string.find(f[name], "^-?%d+$")) then return nil end
  end
  local txn, run = "", ""
  if f.event == "HOST_REGISTERED" or f.event == "HOST_LEFT" then
    if f.id ~= host then return nil end
  else
    local at, of = string.match(redis.call("HGET", IDS, f.id or "") or "", "^(%S+) (%S+)$")
    if at ~= host then return nil end
    txn, run = of, redis.call("HGET", string.format(TXN, of), "run") or ""
  end
  local told = {"event", f.event, "id", f.id, "txn", txn, "run", run, "host", host}
  if written < now_ms() then told[#told + 1], told[#told + 2] = "at", string.format("%.0f", written) end
  for _, name in ipairs({"event", "id", "txn", "run", "host", "at"}) do f[name] = nil end
  for name, value in pairs(f) do told[#told + 1], told[#told + 2] = name, value end
  return told
end

-- Count entries in a host's stream that no worker writes; a process with the rights of the host's user wrote them.
local function count_refused(host, n)
  redis.call("HINCRBY", HOSTS, "refused:" .. host, n)
  redis.call("HSET", HOSTS, "refused-at:" .. host, now_ms())
end

-- Move the events of a host's workers to the common stream; once in each script.
local merged = {}
local function merge_events(host)
  if merged[host] then return end
  merged[host] = true
  local stream = string.format(HOST_EVENTS, host)
  local page = redis.pcall("XRANGE", stream, "-", "+", "COUNT", HOST_PAGE)
  if page.err then  -- it is no stream
    redis.call("DEL", stream)
    return count_refused(host, 1)
  end
  local ids, refused = {}, 0
  for i, entry in ipairs(page) do
    ids[i] = entry[1]
    local told = checked_event(host, tonumber(string.match(entry[1], "^%d+")), entry[2])
    if told then redis.call("XADD", EVENTS, "*", unpack(told)) else refused = refused + 1 end
  end
  if #ids == HOST_PAGE then
    redis.call("XDEL", stream, unpack(ids))
  elseif ids[1] then
    redis.call("DEL", stream)
  end
  if refused > 0 then count_refused(host, refused) end
end

-- Move the events of every host with members in a transaction.
local function merge_events_of(txn)
  for _, field in ipairs(redis.call("HKEYS", txn)) do
    local host = string.match(field, "^host:(.*)$")
    if host then merge_events(host) end
  end
end

-- Add an event to a stream; the stream of a host is bounded while no process reads it.
local function append(stream, ...)
  if stream == EVENTS then
    redis.call("XADD", stream, "*", ...)
  else
    redis.call("XADD", stream, "MAXLEN", "~", HOST_KEPT, "*", ...)
  end
end

-- Write an event of a job, always with the ids of the job, its transaction and its run.
local function emit(stream, name, job, id, ...)
  local f = redis.call("HMGET", job, "txn", "run", "host")
  if stream == EVENTS and f[3] then merge_events(f[3]) end
  append(stream, "event", name, "id", id, "txn", f[1] or "", "run", f[2] or "", "host", f[3] or "", ...)
end
