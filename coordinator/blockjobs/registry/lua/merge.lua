#!lua flags=allow-oom
-- Move what the workers of some hosts told to the stream of events that is read.
--
-- ARGV[1...] hosts
--
-- Returns {"merged"}

for _, host in ipairs(ARGV) do merge_events(host) end
return {"merged"}
