-- Publish a staged run: one field makes all jobs of the run real.  A run of a name with a line takes its place in the
-- line.
--
-- KEYS[1] run   KEYS[2] staged   KEYS[3] runs   KEYS[4] launches   KEYS[5] events   KEYS[6] lines   KEYS[7] deadlines
-- KEYS[8] watched   KEYS[9] names
-- ARGV[1] run id   ARGV[2] number of staged jobs   ARGV[3] number of jobs left out
-- ARGV[4] 1: the end has recipients of notices, or the name has a time limit between successes
-- ARGV[5] name of its line, "" none   ARGV[6] queue: wait for the one that goes on, in the place of the run that waits;
-- else: refused while there is one
-- ARGV[7] deadline in milliseconds from now, 0 none   ARGV[8] 1: needs have recipients of notices
-- ARGV[9] seconds within which a run of its name has to succeed, 0: its file says nothing of it, "": that stays as it is
-- ARGV[10] the file and the recipients if the name is overdue, packed
--
-- Returns {"published", run it waits for or ""} | {"repeated"} | {"incomplete", staged} | {"going", run}

-- A waiting run ends as skipped when a later run takes its place: it is called off like a run past its deadline.
local function replace(waiting)
  redis.call("HSET", string.format(RUN, waiting), "replaced", ARGV[1])
  redis.call("ZADD", KEYS[7], 0, waiting)
  append(KEYS[5], "event", "RUN_REPLACED", "id", waiting, "run", waiting, "by", ARGV[1])
end

local state, jobs = unpack(redis.call("HMGET", KEYS[1], "state", "jobs"))
if state == "published" then return {"repeated"} end
if jobs ~= ARGV[2] then return {"incomplete", jobs or "0"} end
local now, behind = now_ms(), ""
if ARGV[5] ~= "" then
  local line = redis.call("HGET", KEYS[6], ARGV[5]) or ""
  behind = string.match(line, "^%S+") or ""
  if behind ~= "" and ARGV[6] ~= "queue" then return {"going", behind} end
  for waiting in string.gmatch(line, " (%S+)") do replace(waiting) end
  redis.call("HSET", KEYS[6], ARGV[5], behind == "" and ARGV[1] or behind .. " " .. ARGV[1])
  redis.call("HSET", KEYS[1], "line", ARGV[5])
  if behind ~= "" then redis.call("HSET", KEYS[1], "queued", behind) end
end
if ARGV[7] ~= "0" then redis.call("ZADD", KEYS[7], steady_ms() + ARGV[7], ARGV[1]) end
redis.call("HSET", KEYS[1], "state", "published", "published", now, "open", jobs, "failed", 0, "cancelled", 0, "skipped", ARGV[3])
if ARGV[4] == "1" then redis.call("HSET", KEYS[1], "tells", 1) end
if ARGV[5] ~= "" then redis.call("HDEL", KEYS[9], "told:refused " .. ARGV[5]) end
if ARGV[9] == "0" then
  forget_name(KEYS[9], ARGV[5])
elseif ARGV[9] ~= "" then
  redis.call("HSET", KEYS[9], "overdue:" .. ARGV[5], ARGV[9], "about:" .. ARGV[5], ARGV[10])
  redis.call("HSETNX", KEYS[9], "since:" .. ARGV[5], steady_ms())
end
if ARGV[8] == "1" then redis.call("SADD", KEYS[8], ARGV[1]) end
redis.call("ZREM", KEYS[2], ARGV[1])
redis.call("ZADD", KEYS[3], now, ARGV[1])
redis.call("ZADD", KEYS[4], now, ARGV[1])
local told = {"event", "RUN_PUBLISHED", "id", ARGV[1], "run", ARGV[1], "jobs", jobs}
if ARGV[3] ~= "0" then told[#told + 1], told[#told + 2] = "skipped", ARGV[3] end
if behind ~= "" then told[#told + 1], told[#told + 2] = "behind", behind end
append(KEYS[5], unpack(told))
return {"published", behind}
