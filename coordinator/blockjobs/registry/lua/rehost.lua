-- Move the record of a finished job to another name of its host.
--
-- KEYS[1] job of the old name   KEYS[2] job of the new name   KEYS[3] txn   KEYS[4] order   KEYS[5] run jobs   KEYS[6] ids
-- ARGV[1] id   ARGV[2] transaction id   ARGV[3] old name   ARGV[4] new name   ARGV[5] spec, packed   ARGV[6] source text
-- ARGV[7] target text   ARGV[8] place of an image that a user has resolved, "" none   ARGV[9] what history has to know
--
-- Returns {"given"} | {"missing"} | {"open", status}

local id, old, new = ARGV[1], ARGV[3], ARGV[4]
local status = redis.call("HGET", KEYS[1], "status")
if not status then return {"missing"} end
if status ~= "concluded" then return {"open", status} end
redis.call("RENAME", KEYS[1], KEYS[2])
redis.call("HSET", KEYS[2], "host", new, "spec", ARGV[5], "source", ARGV[6], "target", ARGV[7])
if (redis.call("HGET", KEYS[2], "backup") or "") ~= "" then redis.call("HSET", KEYS[2], "backup", ARGV[9]) end
if ARGV[8] ~= "" then redis.call("HSET", KEYS[2], "published-as", ARGV[8]) end
local function put(list, before, after)
  local at = redis.call("LPOS", list, before)
  if at then redis.call("LSET", list, at, after) end
end
put(KEYS[4], old .. " " .. id, new .. " " .. id)
put(KEYS[5], old .. " " .. id .. " " .. ARGV[2], new .. " " .. id .. " " .. ARGV[2])
redis.call("HSET", KEYS[6], id, new .. " " .. ARGV[2])
if redis.call("HDEL", KEYS[3], "host:" .. old) == 1 then redis.call("HSET", KEYS[3], "host:" .. new, 1) end
return {"given"}
