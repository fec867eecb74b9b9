-- Forget that a name of run files has to succeed in time.
--
-- KEYS[1] names   ARGV[1] name
--
-- Returns {"forgotten", n}

return {"forgotten", forget_name(KEYS[1], ARGV[1])}
