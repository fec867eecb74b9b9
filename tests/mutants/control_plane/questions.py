"""Questions to hosts with their permits, reservations of volumes, and notices of a run's end."""

from __future__ import annotations

from typing import Final

from lines import Mutant, registry

# fmt: off
QUESTIONS: Final = (
    Mutant("registry/questions.py", "codec.pack_value(dict(what)), px=round(seconds * 1000))", "codec.pack_value(dict(what)))", registry("messages", "a_question_is_named_in_its_message_and_asked_in_the_registry")),
    Mutant("registry/questions.py", "self._redis.getdel(", "self._redis.get(", registry("messages", "a_question_is_named_in_its_message_and_asked_in_the_registry")),
    Mutant("registry/questions.py", "return bool(self._redis.delete(keys.permit(host, question)))", "return bool(self._redis.exists(keys.permit(host, question)))", registry("reservations", "a_permit_is_taken_once_by_the_host_or_by_the_asker")),
    Mutant("registry/questions.py", "        pipe.expire(keys.reply(host, question), KEEP)\n", "", registry("reservations", "an_answer_that_nobody_fetches_is_forgotten")),
    Mutant("ask/question.py", "    if changes:\n", "    if True:\n", registry("missing_workers", "the_missing_worker_is_told_wherever_a_host_is_asked_for")),
    Mutant("ask/question.py", "        questions.permit(host, question, 2 * patience)\n", "        pass\n", registry("asking", "an_image_is_resized_once_by_permit_and_is_free_again")),
    Mutant("ask/resize.py", "        check_host(host, self._registry.hosts.known().get(host))\n", "", registry("asking", "a_host_that_is_down_is_not_asked_to_resize")),
    Mutant("ask/resize.py", "changes=True", "changes=False", registry("asking", "an_image_is_resized_once_by_permit_and_is_free_again")),
    Mutant("ask/resize.py", "if answer is None and not questions.take_permit(host, question):", "if False:", registry("asking", "a_host_that_does_not_answer_resizes_nothing_unless_it_had_begun")),
    Mutant("ask/resize.py", 'if answer is not None and not answer.get("errno"):', "if answer is not None:", registry("asking", "an_image_is_resized_once_by_permit_and_is_free_again")),
    Mutant("ask/resize.py", "        nodes.unreserve(volume, holder)\n", "", registry("asking", "an_image_is_resized_once_by_permit_and_is_free_again")),
    Mutant("ask/resolve.py", "        self._expect_stuck(job)\n", "", registry("asking", "nothing_else_is_resolved")),
    Mutant("ask/resolve.py", "changes=True", "changes=False", registry("asking", "what_is_committed_and_cannot_be_published_is_resolved_by_permit_and_asked_for_again")),
    Mutant("ask/resolve.py", "undone = questions.take_permit(host, question)", "undone = False", registry("asking", "a_host_that_does_not_answer_resolves_nothing_unless_it_had_begun")),
    Mutant("ask/resolve.py", "if job.status is Status.CONCLUDED or decided != Decision.COMMIT or not job.unsettled:", "if decided != Decision.COMMIT or not job.unsettled:", registry("asking", "nothing_else_is_resolved")),
    Mutant("ask/resolve.py", "if job.status is Status.CONCLUDED or decided != Decision.COMMIT or not job.unsettled:", "if job.status is Status.CONCLUDED or not job.unsettled:", registry("asking", "nothing_else_is_resolved")),
    Mutant("ask/resolve.py", "if job.status is Status.CONCLUDED or decided != Decision.COMMIT or not job.unsettled:", "if job.status is Status.CONCLUDED or decided != Decision.COMMIT:", registry("asking", "nothing_else_is_resolved")),
    Mutant("registry/lua/reserve.lua", 'if writer and writer ~= holder then return {"busy", writer} end\n', "", registry("reservations", "two_do_not_reserve_one_volume")),
    Mutant("registry/lua/reserve.lua", 'if redis.call("HEXISTS", KEYS[1], "r:" .. text) == 1 then return {"busy", ""} end\n', "", registry("reservations", "what_a_job_uses_is_not_reserved")),
    Mutant("registry/lua/reserve.lua", 'redis.call("ZADD", KEYS[2], steady_ms() + ARGV[3], holder .. " " .. text)\n', "", registry("reservations", "the_reaper_lifts_what_nobody_lifted")),
    Mutant("registry/lua/unreserve.lua", 'if redis.call("HGET", KEYS[1], "w:" .. ARGV[1]) == ARGV[2] then redis', "if true then redis", registry("reservations", "two_do_not_reserve_one_volume")),
    Mutant("registry/lua/notice_add.lua", 'redis.call("ZREM", KEYS[1], ARGV[1])\n', "", registry("telling", "a_run_that_nobody_is_told_of_leaves_nothing")),
    Mutant("registry/lua/notice_add.lua", 'if redis.call("HSETNX", KEYS[3], "message", ARGV[2]) == 0 then return {"repeated"} end\n', 'redis.call("HSET", KEYS[3], "message", ARGV[2])\n', "'tests/redis/test_telling.py::test_each_url_of_the_outcome_becomes_a_notice_once[False-told0]'"),
    Mutant("registry/lua/notice_take.lua", 'if not due then return {"gone"} end\n', "due = due or 0\n", registry("telling", "a_notice_whose_taker_died_is_taken_again_and_the_dead_one_can_say_nothing_more")),
    Mutant("registry/lua/notice_take.lua", 'if tonumber(due) > steady_ms() then return {"later"} end\n', "", registry("telling", "a_notice_is_tried_again_after_its_delay_and_given_up_in_the_end")),
    Mutant("registry/lua/notice_take.lua", '  redis.call("ZREM", KEYS[1], ARGV[1])  -- the run was forgotten\n', "", registry("telling", "the_notices_of_a_forgotten_run_are_forgotten")),
    Mutant("registry/lua/notice_take.lua", 'redis.call("ZADD", KEYS[1], steady_ms() + tonumber(ARGV[4]), ARGV[1])\n', "", registry("telling", "of_many_coordinators_one_gets_a_notice")),
    Mutant("registry/lua/notice_done.lua", 'if redis.call("HGET", KEYS[2], "taker:" .. n) ~= ARGV[4] then return {"lost"} end\n', "", registry("telling", "a_notice_whose_taker_died_is_taken_again_and_the_dead_one_can_say_nothing_more")),
    Mutant("registry/lua/notice_done.lua", 'if ARGV[9] == "0" then redis.call("HINCRBY", KEYS[2], "tries:" .. n, -1) end\n', "", registry("telling", "a_try_that_was_cut_off_by_a_stop_does_not_count")),
    Mutant("registry/lua/notice_done.lua", '"taker:" .. n, "", "at:"', '"at:"', registry("telling", "a_notice_whose_taker_died_is_taken_again_and_the_dead_one_can_say_nothing_more")),
)
# fmt: on
