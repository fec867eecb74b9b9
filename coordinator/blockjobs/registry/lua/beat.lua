#!lua flags=allow-oom
-- Record a beat, or the leave, of one of a host's two workers.  A second machine under the name is refused, for both
-- workers, and so is a second process of the same worker, unless the caller saw the counter of the first process stand
-- still.
--
-- The fields of the copy worker begin with "copy-", those of the steps worker are bare.  A state is "here", "left", or
-- "lost": another machine has taken the name.
--
-- KEYS[1] card   KEYS[2] events of the host
-- ARGV[1] host   ARGV[2] worker: "steps" | "copy"   ARGV[3] machine   ARGV[4] process ("": of a version that names none)
-- ARGV[5] word: "register" (the first beat of a process) | "beat" | "leave"
-- ARGV[6] slots   ARGV[7] facts, packed (of the steps worker)
-- ARGV[8], ARGV[9] counters that the caller saw stand still: of this worker and of the other one ("": none)
--
-- Returns {"ok", beat} | {"taken", worker, machine, process, beat, since (ms)}

local mine = ARGV[2] == "copy" and "copy-" or ""
local other, its = ARGV[2] == "copy" and "" or "copy-", ARGV[2] == "copy" and "steps" or "copy"
local f = redis.call("HMGET", KEYS[1], mine .. "machine", mine .. "process", mine .. "beat", mine .. "state", mine .. "since",
  other .. "machine", other .. "process", other .. "beat", other .. "state", other .. "since")
local machine, process, beat, state = f[1], f[2] or "", f[3] or "0", f[4]
local stranger = machine and (machine ~= ARGV[3] or process ~= ARGV[4])
if stranger and state == "here" and ARGV[8] ~= beat then
  return {"taken", ARGV[2], machine, process, beat, f[5] or ""}
end
if ARGV[5] ~= "register" then
  if state == "lost" and not stranger then return {"taken", its, f[6] or "", f[7] or "", f[8] or "", f[10] or ""} end
elseif f[6] and f[6] ~= ARGV[3] and f[9] == "here" then
  if ARGV[9] ~= f[8] then return {"taken", its, f[6], f[7] or "", f[8], f[10] or ""} end
  redis.call("HSET", KEYS[1], other .. "state", "lost")
end
beat = string.format("%.0f", tonumber(beat) + 1)
local here = ARGV[5] == "leave" and "left" or "here"
local told = mine == "" and {"slots", ARGV[6], "facts", ARGV[7]} or {}
redis.call("HSET", KEYS[1], mine .. "beat", beat, mine .. "state", here, unpack(told))
if state ~= here or stranger or not machine then
  redis.call("HSET", KEYS[1], mine .. "machine", ARGV[3], mine .. "process", ARGV[4], mine .. "since", now_ms())
  if here == "here" then redis.call("SADD", ARRIVALS, ARGV[1]) end
  append(KEYS[2], "event", here == "here" and "HOST_REGISTERED" or "HOST_LEFT", "id", ARGV[1], "host", ARGV[1], "worker",
    ARGV[2])
end
return {"ok", beat}
