#!lua flags=allow-oom
-- Compare Redis' clock with a clock without jumps: the time since the boot of a coordinator's machine.
--
-- Jumps are added up (CLOCK), and subtracted in every decision by time (steady_ms).  Any number of coordinators on any
-- machines may compare: the first to see a jump counts the jump, and later coordinators see none.  Small differences
-- are drift, and are followed.
--
-- KEYS[1] anchors: boot of a machine -> the boot on the steady clock
-- KEYS[2] events
-- ARGV[1] boot id   ARGV[2] milliseconds since that boot   ARGV[3] milliseconds from which a difference is a jump
-- ARGV[4] milliseconds without a comparison, after which a jump is possible
--
-- Returns {"steady", time, 0} | {"jumped", time, milliseconds} | {"away", time, milliseconds} (nobody looked for so long);
--   time: milliseconds since the epoch by the steady clock

local jumps, last = clock_record()
local steady = now_ms() - jumps
local base = redis.call("HGET", KEYS[1], "boot:" .. ARGV[1])
local jump = 0
if base then
  jump = steady - ARGV[2] - base
elseif last and steady < last then  -- nobody can say how long nobody looked: at least, time does not go back
  jump = steady - last
end
local verdict, ms = "steady", 0
if math.abs(jump) >= tonumber(ARGV[3]) then
  jumps, steady = jumps + jump, steady - jump
  append(KEYS[2], "event", "CLOCK_JUMPED", "id", "redis", "seconds", string.format("%.3f", jump / 1000))
  verdict, ms = "jumped", jump
elseif not base and last and steady - last >= tonumber(ARGV[4]) then
  verdict, ms = "away", steady - last
end
if not base and redis.call("HLEN", KEYS[1]) > 20 then redis.call("DEL", KEYS[1]) end  -- boots of long ago
redis.call("HSET", KEYS[1], "boot:" .. ARGV[1], string.format("%.0f", steady - ARGV[2]))
redis.call("SET", CLOCK, string.format("%.0f %.0f", jumps, steady))
return {verdict, string.format("%.0f", steady), string.format("%.0f", ms)}
