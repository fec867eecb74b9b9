#!lua flags=allow-oom
-- Make transactions due now.
--
-- KEYS[1] due   KEYS[2] due wake
-- ARGV[1...] transaction ids
--
-- Returns {"reminded"}

for _, txn in ipairs(ARGV) do owe(KEYS[1], KEYS[2], txn) end
return {"reminded"}
