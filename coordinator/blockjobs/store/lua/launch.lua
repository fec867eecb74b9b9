-- Launch jobs of a published run: each becomes CREATED, its transaction becomes the finalizer's business.
--
-- KEYS[1] run   KEYS[2] events   KEYS[3] unfinished   KEYS[4] due   KEYS[5] due wake   KEYS[6...] job hashes
-- ARGV[1...]  per job: id, transaction id
--
-- Returns {"launched", n} | {"unpublished"}

if redis.call("HGET", KEYS[1], "state") ~= "published" then return {"unpublished"} end
local n, now, seen = 0, now_ms(), {}
for i = 1, #KEYS - 5 do
  local job, id, txn = KEYS[5 + i], ARGV[2 * i - 1], ARGV[2 * i]
  if redis.call("HGET", job, "status") == "undefined" then
    move(KEYS[2], job, id, "created")
    n = n + 1
    if not seen[txn] then
      seen[txn] = true
      redis.call("ZADD", KEYS[3], "NX", now, txn)
      owe(KEYS[4], KEYS[5], txn)
    end
  end
end
return {"launched", n}
