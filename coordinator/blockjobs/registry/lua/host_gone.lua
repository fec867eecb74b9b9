-- Forget a host that was renamed or removed: delete the judgement and the keys, and write one event.
--
-- KEYS[1] hosts   KEYS[2] holding   KEYS[3] events   KEYS[4...] keys to delete
-- ARGV[1] host   ARGV[2] its new name, "": it has none   ARGV[3] by whose word   ARGV[4...] fields of the judgement
--
-- Returns {"gone"} | {"missing"} | {"up"}

local state = redis.call("HGET", KEYS[1], "state:" .. ARGV[1])
if not state then return {"missing"} end
if state == "up" then return {"up"} end
merge_events(ARGV[1])
for i = 4, #ARGV do redis.call("HDEL", KEYS[1], ARGV[i] .. ":" .. ARGV[1]) end
redis.call("HDEL", KEYS[2], "drain:" .. ARGV[1])
for i = 4, #KEYS do redis.call("DEL", KEYS[i]) end
if ARGV[2] == "" then
  append(KEYS[3], "event", "HOST_REMOVED", "id", ARGV[1], "host", ARGV[1], "by", ARGV[3])
else
  append(KEYS[3], "event", "HOST_RENAMED", "id", ARGV[1], "host", ARGV[1], "to", ARGV[2], "by", ARGV[3])
end
return {"gone"}
