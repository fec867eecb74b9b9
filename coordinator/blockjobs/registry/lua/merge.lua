#!lua flags=allow-oom
-- Move the events of the workers of some hosts to the common stream.
--
-- ARGV[1...] hosts
--
-- Returns {"merged"}

for _, host in ipairs(ARGV) do merge_events(host) end
return {"merged"}
