#!lua flags=allow-oom
-- Record a host's answers to a step for some members.  Repeated answers change nothing.
--
-- KEYS[1] share  KEYS[2] events  KEYS[3] due  KEYS[4] due wake  KEYS[5] locks  KEYS[6] sizes  KEYS[7...] job hashes
-- ARGV[1] transaction id  ARGV[2] open | cut | prepare | settle  ARGV[3] steps that may precede it, comma first and last
-- ARGV[4...]  per job: id, errno (0: done), text (of a settle that is done: why its target is undefined;
--           of an open or a prepare that is done: warnings, a line each),
--           result packed ("" none), locks to read and to write (names, one a line), size in bytes (open only),
--           the cut packed where there is nothing to cut (open only; "" there is), which is answered with it
-- The result of a settle after a resolution by a user has ``resolved`` and ``published-as``.
-- The result of a cut has ``how``, ``begin``, ``end`` and ``frozen`` in seconds; the share records the widest span, and
-- counts the cuts with a ``consistency``, which have no single instant.
--
-- The result of an open may have ``need``, a file system and bytes: the share adds the bytes up by file system.
-- The result of a prepare may have ``series`` and ``bytes`` of a backup, recorded when the member commits.
--
-- Returns {"answered", for each answer that changed nothing: its job, the status of it ("": no member any more), and the
-- step that it passed last}

local step = ARGV[2]
local failed, reply = 0, {"answered"}
for i = 0, #KEYS - 7 do
  local job, a = KEYS[7 + i], 3 + i * 8
  local id, errno, text, result, reads, writes, size, uncut = unpack(ARGV, a + 1, a + 8)
  local f = redis.call("HMGET", job, "status", "passed", "reads", "writes", "attempt")
  local status, passed = f[1], f[2]
  if status and is_of(job, ARGV[1]) and string.find(ARGV[3], "," .. passed .. ",", 1, true) and (step == "settle" or status ~= "aborting") then
    if errno == "0" and step == "open" then
      local holder = lock_holder(KEYS[5], reads, writes)
      if holder then
        if not string.find(holder, " ", 1, true) then holder = "job '" .. holder .. "'" end
        errno, text = "16", "the volume is in use by " .. holder .. " under another name"
      else
        take_locks(KEYS[5], reads, writes, id)
        redis.call("HSET", job, "reads", reads, "writes", writes)
      end
    end
    if errno == "0" then
      redis.call("HSET", job, "passed", step)
      if (step == "open" or step == "prepare") and text ~= "" then
        redis.call("HSET", job, "warnings", (redis.call("HGET", job, "warnings") or "") .. text .. "\n")
        for warning in string.gmatch(text, "[^\n]+") do emit(KEYS[2], "JOB_WARNING", job, id, "text", warning) end
      end
      if step == "cut" then
        redis.call("HSET", job, "cut", result)
        local cut = cmsgpack.unpack(string.sub(result, 2))
        if cut.how and cut.how ~= "none" then
          local from, to = math.floor(cut.begin * 1e6), math.ceil(cut["end"] * 1e6)
          local least, most = unpack(redis.call("HMGET", KEYS[1], "cut-begin", "cut-end"))
          if not least or from < tonumber(least) then redis.call("HSET", KEYS[1], "cut-begin", string.format("%.0f", from)) end
          if not most or to > tonumber(most) then redis.call("HSET", KEYS[1], "cut-end", string.format("%.0f", to)) end
          local told = {"how", cut.how, "begin", string.format("%.6f", cut.begin),
            "end", string.format("%.6f", cut["end"]), "frozen", string.format("%.6f", cut.frozen)}
          if (cut.consistency or "") ~= "" then
            redis.call("HINCRBY", KEYS[1], "cut-crash", 1)
            table.insert(told, "consistency")
            table.insert(told, cut.consistency)
          end
          emit(KEYS[2], "JOB_CUT", job, id, unpack(told))
        end
      end
      if step == "open" then
        redis.call("HSET", job, "opened", result, "len", size)
        local need = exact(result).need
        if need then add_up(KEYS[1], "need:" .. digits(need[1]), digits(need[2])) end
      end
      if step == "prepare" and result ~= "" then redis.call("HSET", job, "made", result) end
      if step == "settle" and status == "pending" then
        local made = exact(redis.call("HGET", job, "made"))
        if made.series then
          redis.call("HSET", KEYS[6], made.series, digits(made.bytes) .. string.format(" %.0f", now_ms()))
        end
      end
      if uncut ~= "" then
        redis.call("HSET", job, "passed", "cut", "cut", uncut)
        redis.call("HINCRBY", KEYS[1], "cut", -1)
      end
      redis.call("HINCRBY", KEYS[1], step, -1)
      if step == "settle" then
        drop_locks(KEYS[5], f[3], f[4])
        redis.call("HDEL", job, "reads", "writes", "unsettled")
        local told = cmsgpack.unpack(string.sub(result, 2))
        if told.resolved then
          redis.call("HSET", job, "resolved", told.resolved, "published-as", told["published-as"])
          emit(KEYS[2], "JOB_RESOLVED", job, id, "how", told.resolved, "published-as", told["published-as"])
        end
        if text ~= "" then
          redis.call("HSET", job, "undefined", text)
          emit(KEYS[2], "TARGET_UNDEFINED", job, id, "reason", text)
        end
      end
    elseif step == "settle" then
      if redis.call("HGET", job, "unsettled") ~= text then
        redis.call("HSET", job, "unsettled", text)
        emit(KEYS[2], "JOB_UNSETTLED", job, id, "error", text)
      end
    else
      redis.call("HSET", job, "ret", -errno, "error", text)
      abort(KEYS[2], job, id)
      redis.call("HINCRBY", KEYS[1], "failed", 1)
      failed = failed + 1
    end
  else
    for _, word in ipairs({id, is_of(job, ARGV[1]) and status or "", passed or ""}) do table.insert(reply, word) end
  end
end
local owing = redis.call("HGET", KEYS[1], step)
if failed > 0 or owing == "0" then owe(KEYS[3], KEYS[4], ARGV[1]) end
return reply
