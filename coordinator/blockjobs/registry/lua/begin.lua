-- Begin a retry at its time.
--
-- KEYS[1] txn   KEYS[2] retries   KEYS[3] due   KEYS[4] due wake
-- ARGV[1] transaction id
--
-- Returns {"begun"} | {"gone"} (it was cancelled meanwhile, or begun)

redis.call("ZREM", KEYS[2], ARGV[1])
if redis.call("HDEL", KEYS[1], "begins") == 0 then return {"gone"} end
owe(KEYS[3], KEYS[4], ARGV[1])
return {"begun"}
