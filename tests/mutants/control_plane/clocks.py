"""Clocks that jump: nothing is due, over or forgotten for the sake of a wall clock."""

from __future__ import annotations

from typing import Final

from lines import Mutant, registry

# fmt: off
CLOCKS: Final = (
    Mutant("store/lua/clock.lua", "local steady = now - jumps\n", "local steady = now\n", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("store/lua/clock.lua", "  jump = steady - ARGV[2] - base\n", "  jump = 0\n", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("store/lua/clock.lua", "elseif last and steady < tonumber(last) then", "elseif false then", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("store/lua/clock.lua", "if math.abs(jump) >= tonumber(ARGV[3]) then", "if jump >= tonumber(ARGV[3]) then", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("store/lua/clock.lua", "if math.abs(jump) >= tonumber(ARGV[3]) then", "if -jump >= tonumber(ARGV[3]) then", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("store/lua/clock.lua", "if math.abs(jump) >= tonumber(ARGV[3]) then", "if math.abs(jump) > 0 then", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("store/lua/clock.lua", "jumps, steady = jumps + jump, steady - jump", "jumps = jumps + jump", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("store/lua/clock.lua", '  redis.call("SET", CLOCK, string.format("%.0f", jumps))\n', "", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("store/lua/clock.lua", '  verdict, ms = "away", steady - last\n', "", registry("clock_jumps", "after_a_long_absence_nothing_is_forgotten_until_it_is_certain_that_it_was_one")),
    Mutant("store/lua/clock.lua", 'if not base and redis.call("HLEN", KEYS[1]) > 20 then redis.call("DEL", KEYS[1]) end  -- boots of long ago\n', "", registry("clock_jumps", "the_boots_of_many_machines_are_not_kept_for_ever")),
    Mutant("store/lua/clock.lua", '"boot:" .. ARGV[1], string.format("%.0f", steady - ARGV[2]), "last"', '"last"', registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("store/lua/clock.lua", ', "last", string.format("%.0f", steady))', ")", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
)
# fmt: on
