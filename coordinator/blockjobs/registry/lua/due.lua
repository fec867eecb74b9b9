#!lua flags=allow-oom
-- List the due transactions of the finalizer, including requests by hosts: only of a host's own transactions, and at
-- most a page per host.
--
-- KEYS[1] due   KEYS[2] due wake
-- ARGV[1] how many at most   ARGV[2...] hosts
--
-- Returns {"due", transaction, score, transaction, score...}, the longest waiting first

for i = 2, #ARGV do
  local host, key = ARGV[i], string.format(HOST_DUE, ARGV[i])
  local page = redis.pcall("ZRANGE", key, 0, ARGV[1] - 1)
  if page.err then
    redis.call("DEL", key)
  elseif page[1] then
    for _, txn in ipairs(page) do
      if redis.call("HEXISTS", string.format(TXN, txn), "host:" .. host) == 1 then owe(KEYS[1], KEYS[2], txn) end
    end
    redis.call("ZREM", key, unpack(page))
  end
end
return {"due", unpack(redis.call("ZRANGE", KEYS[1], 0, ARGV[1] - 1, "WITHSCORES"))}
