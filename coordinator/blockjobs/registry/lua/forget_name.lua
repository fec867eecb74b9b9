-- Remove the time limit of a name of run files.
--
-- KEYS[1] names   ARGV[1] name
--
-- Returns {"forgotten", n}

return {"forgotten", forget_name(KEYS[1], ARGV[1])}
