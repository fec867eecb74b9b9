#!lua flags=allow-oom
-- Record the coordinator's judgement of a host and of its two workers, with an event if the host's state changed.
--
-- KEYS[1] hosts   KEYS[2] events
-- ARGV[1] host   ARGV[2] up | down | left   ARGV[3], ARGV[4] state of the steps worker and of the copy worker
--
-- Returns {"changed", before} | {"same"}

local before = redis.call("HGET", KEYS[1], "state:" .. ARGV[1])
for i, worker in ipairs({"steps:", "copy:"}) do
  local field, word = worker .. ARGV[1], ARGV[i + 2]
  if string.match(redis.call("HGET", KEYS[1], field) or "", "^%a+") ~= word then
    redis.call("HSET", KEYS[1], field, word .. " " .. string.format("%.0f", now_ms()))
  end
end
if before == ARGV[2] then return {"same"} end
redis.call("HSET", KEYS[1], "state:" .. ARGV[1], ARGV[2], "since:" .. ARGV[1], now_ms())
merge_events(ARGV[1])
append(KEYS[2], "event", ARGV[2] == "up" and "HOST_UP" or "HOST_DOWN", "id", ARGV[1], "host", ARGV[1],
  "state", ARGV[2], "steps", ARGV[3], "copy", ARGV[4])
return {"changed", before or ""}
