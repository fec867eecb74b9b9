"""Clocks that jump: nothing is due, over or forgotten for the sake of a wall clock."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry, unit

# fmt: off
CLOCKS: Final = (
    Mutant("registry/lua/clock.lua", "local steady = now_ms() - jumps\n", "local steady = now_ms()\n", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("registry/lua/clock.lua", "  jump = steady - ARGV[2] - base\n", "  jump = 0\n", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("registry/lua/clock.lua", "elseif last and steady < last then", "elseif false then", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("registry/lua/clock.lua", "if math.abs(jump) >= tonumber(ARGV[3]) then", "if jump >= tonumber(ARGV[3]) then", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("registry/lua/clock.lua", "if math.abs(jump) >= tonumber(ARGV[3]) then", "if -jump >= tonumber(ARGV[3]) then", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("registry/lua/clock.lua", "if math.abs(jump) >= tonumber(ARGV[3]) then", "if math.abs(jump) > 0 then", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("registry/lua/clock.lua", "jumps, steady = jumps + jump, steady - jump", "jumps = jumps + jump", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("registry/lua/clock.lua", 'redis.call("SET", CLOCK, string.format("%.0f %.0f", jumps, steady))\n', "", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("registry/lua/clock.lua", "steady - last >= tonumber(ARGV[4]) then", "steady - last >= 0 then", registry("steady_times", "a_machine_that_was_booted_a_moment_ago_finds_the_clock_steady")),
    Mutant("registry/lua/clock.lua", '  verdict, ms = "away", steady - last\n', "", registry("clock_jumps", "after_a_long_absence_nothing_is_forgotten_until_it_is_certain_that_it_was_one")),
    Mutant("registry/lua/clock.lua", 'if not base and redis.call("HLEN", KEYS[1]) > 20 then redis.call("DEL", KEYS[1]) end  -- boots of long ago\n', "", registry("clock_jumps", "the_boots_of_many_machines_are_not_kept_for_ever")),
    Mutant("registry/lua/clock.lua", 'redis.call("HSET", KEYS[1], "boot:" .. ARGV[1], string.format("%.0f", steady - ARGV[2]))\n', "", registry("clock_jumps", "a_jump_is_told_once_whoever_watches")),
    Mutant("registry/lua/clock.lua", 'string.format("%.0f %.0f", jumps, steady)', 'string.format("%.0f", jumps)', registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("registry/lua/events.lua", "return last and math.min(math.max(steady, last), last + UNWATCHED) or steady", "return last and math.min(steady, last + UNWATCHED) or steady", registry("steady_times", "what_is_noted_before_anybody_saw_the_jump_is_off_by_seconds_and_by_no_year")),
    Mutant("registry/lua/events.lua", "return last and math.min(math.max(steady, last), last + UNWATCHED) or steady", "return last and math.max(steady, last) or steady", registry("steady_times", "what_is_noted_before_anybody_saw_the_jump_is_off_by_seconds_and_by_no_year")),
    Mutant("model/clock.py", "min(max(time, self.last), self.last + UNWATCHED)", "max(time, self.last)", unit("clock_record", "it_goes_neither_back_nor_far_ahead_between_two_looks")),
    Mutant("model/clock.py", "min(max(time, self.last), self.last + UNWATCHED)", "min(time, self.last + UNWATCHED)", unit("clock_record", "it_goes_neither_back_nor_far_ahead_between_two_looks")),
    Mutant("registry/lua/events.lua", 'redis.pcall("GET", CLOCK)', 'redis.call("GET", CLOCK)', registry("rights", "so_it_does_when_things_go_wrong"), survives="by the rules of an earlier version a host's user may not read the clock"),
    Mutant("registry/lua/events.lua", "  local steady = now_ms() - jumps\n", "  local steady = now_ms()\n", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/retry.lua", 'begins = now_ms(), f[3] or "", steady_ms()', 'begins = now_ms(), f[3] or "", now_ms()', registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/notice_add.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/alive.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/error.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/pause.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/publish.lua", "steady_ms() + ARGV[7]", "now_ms() + ARGV[7]", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/reserve.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/stage.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/ring.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/notice_take.lua", "tonumber(due) > steady_ms()", "tonumber(due) > now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/lua/notice_take.lua", "KEYS[1], steady_ms()", "KEYS[1], now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/clock.py", "    return parse_clock(record).steady(redis_milliseconds(time))\n", "    return redis_milliseconds(time)\n", registry("clock_jumps", "after_a_reboot_time_has_at_least_not_gone_back")),
    Mutant("registry/lua/notice_done.lua", "steady_ms()", "now_ms()", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/hosts.py", "        now = read_steady_ms(self._redis)\n", "        now = self.now()\n", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/holds.py", "read_steady_ms(self._redis) + ms if ms else 0", "self._now() + ms if ms else 0", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/holds.py", "for each in self._records(0) if each.lifting", "for each in self.records() if each.lifting", registry("steady_times", "what_is_noted_in_a_year_that_is_none_is_due_in_an_hour_of_the_steady_clock")),
    Mutant("registry/notices.py", "        now = read_steady_ms(self._redis)\n", "        now = milliseconds_of_redis = int(self._redis.time()[0] * 1000)\n", "'tests/redis/test_clock_jumps.py::test_a_clock_that_is_put_ahead_makes_nothing_due[a notice]'"),
    Mutant("daemons/coordinator.py", '            part("the clock of Redis", self._watch_clock)  # before anything is judged by it\n', "", "'tests/redis/test_clock_jumps.py::test_a_clock_that_is_put_ahead_makes_nothing_due[a notice]'"),
    never("daemons/coordinator.py", "        if seconds_since_boot() < self._certain_at:\n            return False\n", registry("clock_jumps", "after_a_long_absence_nothing_is_forgotten_until_it_is_certain_that_it_was_one")),
    Mutant("daemons/coordinator.py", "        self._certain_at = seconds_since_boot() + UNCERTAIN\n", "", registry("clock_jumps", "after_a_long_absence_nothing_is_forgotten_until_it_is_certain_that_it_was_one")),
    Mutant("daemons/coordinator.py", "return self._at_boot + round(1000 * seconds_since_boot())", "return self.registry.hosts.now()", "'tests/redis/test_clock_jumps.py::test_a_clock_that_is_put_ahead_makes_nothing_due[a deadline]'"),
)
# fmt: on
