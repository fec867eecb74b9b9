-- Launch jobs of a published run: a job becomes CREATED; with its last job a transaction becomes the finalizer's.
-- (If a transaction were handed over earlier, a host would open the jobs present, and be asked again for the rest.)
--
-- KEYS[1] run   KEYS[2] events   KEYS[3] unfinished   KEYS[4] due   KEYS[5] due wake   KEYS[6...] job hashes
-- ARGV[1...]  per job: id, transaction id, 1 for the last of its transaction
--
-- Returns {"launched", n} | {"unpublished"}

if redis.call("HGET", KEYS[1], "state") ~= "published" then return {"unpublished"} end
local n, now = 0, now_ms()
for i = 1, #KEYS - 5 do
  local job, id, txn, last = KEYS[5 + i], unpack(ARGV, 3 * i - 2, 3 * i)
  if redis.call("HGET", job, "status") == "undefined" then
    move(KEYS[2], job, id, "created")
    redis.call("ZADD", KEYS[3], "NX", now, txn)
    n = n + 1
  end
  if last == "1" then owe(KEYS[4], KEYS[5], txn) end
end
return {"launched", n}
