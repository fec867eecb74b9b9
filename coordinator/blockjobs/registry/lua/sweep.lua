-- Give back the places in a store of copies that ended, of copies paused before they began, and of lost doorbells.
--
-- KEYS[1] places   KEYS[2...]  per place: job, rung of its host
-- ARGV  per place: host, id
--
-- Returns {"freed", n}

local n = 0
for i = 1, #ARGV, 2 do
  if not has_claim(KEYS[i + 1]) and not redis.call("ZSCORE", KEYS[i + 2], ARGV[i + 1]) then
    n = n + redis.call("ZREM", KEYS[1], ARGV[i] .. " " .. ARGV[i + 1])
  end
end
return {"freed", n}
