"""The copy itself, its digests and its lanes."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, unit

# fmt: off
COPY: Final = (
    Mutant("copy/engine.py", "            (snapshot, before), salvaged = self._account.begin_flush(), self._salvaged.to_tuple()\n            self._told_due = False\n        try:\n            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n",
           "            self._told_due = False\n        try:\n            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n            with self._state:\n                (snapshot, before), salvaged = self._account.begin_flush(), self._salvaged.to_tuple()\n", "tests/unit/test_engine.py"),
    Mutant("copy/engine.py", "                self._account.failed_flush(before)\n", "                pass\n", unit("engine", "a_failed_flush_makes_nothing_durable"),
           survives="a failed flush ends the attempt, and nobody asks its account any more"),
    Mutant("targets/written.py", "        expect_within(self.size, self._label, offset, len(view))\n        at", "        at", "tests/unit/test_target_bounds.py"),
    Mutant("targets/staged.py", "        expect_within(self.size, self._label, offset, length)\n", "", "tests/unit/test_target_bounds.py"),
    Mutant("targets/inplace.py", "        expect_within(self.size, self._label, offset, length)\n", "", "tests/unit/test_target_bounds.py"),
    Mutant("volumes/formats.py", "        expect_within(self._staged.size, self._label, offset, len(view))\n", "", "tests/unit/test_target_bounds.py"),
    Mutant("targets/staged.py", "        self._traces.mark(offset, len(view))\n        super().pwrite(view, offset)\n", "        super().pwrite(view, offset)\n        self._traces.mark(offset, len(view))\n", unit("copy_lanes", "what_a_write_has_left_that_came_through_in_part_becomes_zeros")),
    Mutant("copy/digests.py", "        self._traces.mark(index * LENGTH, LENGTH)\n", "", unit("copy_lanes", "a_digest_that_was_put_is_gone_when_its_chunk_becomes_zeros")),
    never("copy/lanes.py", "            if failed is None and not self._working and not self._stopping and not self._troubles:\n", unit("copy_lanes", "lanes_that_end_before_all_is_copied_are_a_trouble")),
    Mutant("copy/lanes.py", "            failed = _unexpected_error(error, turn.piece)\n        with self._state:\n            self._working", "            pass\n        with self._state:\n            self._working", unit("copy_lanes", "a_lane_whose_very_thread_breaks_is_a_trouble")),
    Mutant("drivers/durability.py", "                self._failure = error\n", "", unit("copy_lanes", "whatever_ends_the_thread_that_flushes_is_told_to_the_attempt")),
    never("copy/recheck.py", "        if digests.get(first) != value:\n", unit("condition", "in_memory_only_the_content_proves_that_nothing_was_written") + " tests/unit/test_source_changes.py"),
    never("copy/proven.py", "        if blake3(piece).digest() != self._hashes[number]:\n", unit("checked", "digests_that_change_while_the_image_is_compared_are_noticed")),
    Mutant("copy/checked_source.py", "        return chunk_digest(view) == expected\n", "        return True\n", unit("checked", "a_byte_that_changed_is_found_wherever_it_is_and_only_its_chunk")),
    Mutant("copy/checked_source.py", "            return bytearray(len(view)) == view\n", "            return True\n", unit("checked", "a_byte_that_changed_is_found_wherever_it_is_and_only_its_chunk")),
    never("copy/checked_source.py", "                if not flag and values[index * LENGTH : (index + 1) * LENGTH] != ZERO:\n", unit("checked", "what_became_a_hole_or_was_cut_off_is_found")),
    Mutant("volumes/direct.py", "os.O_RDONLY | os.O_DIRECT | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK", unit("medium", "a_device_that_somebody_read_before_its_file_system_wrote_is_read_as_it_is_now", "verify_finds_what_is_rotten_on_the_medium_and_sound_in_the_cache")),
    Mutant("volumes/direct.py", "        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)\n        return kernel", "        return kernel", unit("medium", "what_is_dropped_from_the_cache_is_not_in_it_any_more")),
    never("volumes/nbd.py", "            if not filled.covers(0, len(view)):\n", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("volumes/nbd.py", "            if magic not in (_SIMPLE, _CHUNK) or handle != self._handle:\n", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("volumes/nbd.py", "            if min(n for n, _ in runs) == 0 or sum(n for n, _ in runs) > length:\n", unit("nbd", "an_answer_about_what_is_allocated_covers_what_it_is_about")),
    never("volumes/nbd.py", "    if length <= 0 or start < 0 or start + length > len(view) or filled.meets(start, start + length):\n", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("volumes/nbd.py", "        if self.broken is not None:\n            raise", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("drivers/restore.py", "        if not record.get(\"digests\") and not on:\n", unit("verify_driver", "without_digests_or_with_others_there_is_nothing_to_compare_with")),
    never("drivers/verify.py", "        if not isinstance(spec.target.volume, NullVolume) or spec.in_place:  # else a copy from a write root\n", unit("verify_driver", "it_copies_nothing_anywhere")),
    never("drivers/verify.py", "    if job and (record.get(\"job\"), record.get(\"run\")) != (job, options.get(RUN)):\n", unit("verify_driver", "an_image_of_another_job_than_the_one_meant_is_refused")),
    Mutant("steps/steps.py", "    raise JobFailed(errno.ENOSPC, f\"{wrong}; with 'room: warn' the job goes on all the same\")\n", "    return system, [wrong]\n", unit("room", "too_little_room_refuses_a_job_that_is_checked_and_warns_one_that_is_not")),
    Mutant("targets/room.py", "        self._needed[dev] = total\n", "", unit("refused_targets", "space_is_added_up_by_file_system")),
    Mutant("steps/board.py", "            if under_way[lane] >= self._width or lane & blocked:\n", "            if under_way[lane] >= self._width:\n", unit("lanes", "a_file_system_on_which_some_errands_hang_gets_no_more_by_way_of_any_lane")),
    Mutant("steps/board.py", "            if under_way[lane] >= self._width or lane & blocked:\n", "            if lane & blocked:\n", unit("lanes", "a_lane_has_as_many_errands_under_way_as_it_is_wide")),
    Mutant("steps/forker.py", "        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)\n", "", unit("lanes", "every_process_is_gone_once_the_one_that_forked_them_is")),
)
# fmt: on
