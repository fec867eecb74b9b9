-- Stage jobs of a run, all or none; staged jobs are invisible until the run is published.
--
-- KEYS[1] run   KEYS[2] run jobs   KEYS[3] staged   KEYS[4] ids   KEYS[5] texts
-- KEYS[6...]  per job: job, holds, share, members, txn, order
-- ARGV[1] run id  ARGV[2] fields of the run, packed  ARGV[3] who stages it
-- ARGV[4...]  per job: id, host, txn id, spec, type, speed, auto-finalize 0/1, auto-dismiss 0/1, source text, target text,
--              name of the transaction in the run file, what history has to know of its target ("": it has none to keep),
--              store, how often it is tried again if it fails
--
-- Returns {"staged", n} | {"exists", id} | {"busy", text, holder, "" for readers} | {"taken"}

local W = 14
local jobs = (#ARGV - 3) / W
-- Two clients within one second can have the same run id: only the first client stages it.
local state, owner = unpack(redis.call("HMGET", KEYS[1], "state", "owner"))
if state == "published" or (owner and owner ~= ARGV[3]) then return {"taken"} end

local fresh = {}
for i = 0, jobs - 1 do
  local a, k = 3 + i * W, 5 + i * 6
  local id, place = ARGV[a + 1], ARGV[a + 2] .. " " .. ARGV[a + 3]
  local mine = redis.call("HGET", KEYS[k + 1], "run") == ARGV[1]
  if not mine then
    if redis.call("HEXISTS", KEYS[4], id) == 1 then return {"exists", id} end
    local source, target = ARGV[a + 9], ARGV[a + 10]
    local writer = (source ~= "" and redis.call("HGET", KEYS[5], "w:" .. source))
    if writer then return {"busy", source, writer} end
    if target ~= "" then
      writer = redis.call("HGET", KEYS[5], "w:" .. target)
      if writer then return {"busy", target, writer} end
      local readers = redis.call("HGET", KEYS[5], "r:" .. target)
      if readers then return {"busy", target, ""} end
    end
    fresh[#fresh + 1] = i
  end
end

local now = now_ms()
redis.call("HSETNX", KEYS[1], "state", "staged")
redis.call("HSET", KEYS[1], "fields", ARGV[2], "owner", ARGV[3])
redis.call("ZADD", KEYS[3], steady_ms(), ARGV[1])
local members_of = {}  -- counted first: a call per job and step would take longer than the rest of the script
for _, i in ipairs(fresh) do
  local a, k = 3 + i * W, 5 + i * 6
  local job, holds, share, members, txn, order = unpack(KEYS, k + 1, k + 6)
  local id, host, txn_id, spec, kind, speed, finalize, dismiss, source, target, name, backup, store, tries =
    unpack(ARGV, a + 1, a + W)
  blank(job)
  redis.call("HSET", job, "host", host, "txn", txn_id, "run", ARGV[1], "spec", spec, "type", kind, "speed", speed,
    "auto-finalize", finalize, "auto-dismiss", dismiss, "source", source, "target", target, "token", 0, "attempts", 0,
    "created", now, "backup", backup)
  if store ~= "" then redis.call("HSET", job, "store", store) end
  redis.call("HSET", holds, "created", "")
  redis.call("RPUSH", members, id)
  redis.call("RPUSH", order, host .. " " .. id)
  redis.call("RPUSH", KEYS[2], host .. " " .. id .. " " .. txn_id)
  members_of[share] = (members_of[share] or 0) + 1
  redis.call("HSET", txn, "run", ARGV[1], "rev", 0, "name", name)
  redis.call("HINCRBY", txn, "jobs", 1)
  redis.call("HSETNX", txn, "since", now)
  redis.call("HSET", txn, "host:" .. host, 1)
  if finalize == "0" then redis.call("HSET", txn, "manual", 1) end
  if tries ~= "0" then redis.call("HSET", txn, "retry", tries) end
  redis.call("HSET", KEYS[4], id, host .. " " .. txn_id)
  if source ~= "" then redis.call("HINCRBY", KEYS[5], "r:" .. source, 1) end
  if target ~= "" then redis.call("HSET", KEYS[5], "w:" .. target, id) end
end
for share, n in pairs(members_of) do owe_all(share, n) end
redis.call("HINCRBY", KEYS[1], "jobs", #fresh)
return {"staged", #fresh}
