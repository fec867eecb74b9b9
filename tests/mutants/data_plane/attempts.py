"""Attempts, their watcher, and freezes of guests."""

from __future__ import annotations

from typing import Final

from lines import Mutant, here, name, never, unit

# fmt: off
ATTEMPTS: Final = (
    never("watch/watcher.py", "        if who.boot != self._boot:\n            return None\n", here("an_attempt_is_released_where_its_very_process_is_gone[boot]")),
    Mutant("watch/watcher.py", "            same = processstart.has_started_at(who.pid, who.started)\n", "            same = True\n", here("an_attempt_is_released_where_its_very_process_is_gone[start]")),
    Mutant("watch/watcher.py", "        return process if same and runs and not gone else None\n", "        return process if same and runs else None\n", here("an_attempt_is_released_where_its_very_process_is_gone[zombie]")),
    Mutant("watch/watcher.py", "            self._kill(standing, process)\n            return process, standing\n", "            self._release(standing, \"fenced\")\n            return None\n", here("an_attempt_that_was_fenced_is_killed_before_its_job_is_released")),
    Mutant("watch/watcher.py", "        return process if same and runs and not gone else None\n", "        return process if same and not gone else None\n", here("a_process_is_not_killed_for_an_attempt_that_it_does_not_run")),
    Mutant("system/processname.py", "    return not name.startswith(PREFIX) or name == name_of(attempt)\n", "    return name == name_of(attempt)\n", here("a_claim_by_a_process_of_an_earlier_version_is_told_by_its_process_alone")),
    Mutant("system/processname.py", "    finally:\n        _rename_process(IDLE)\n", "    finally:\n        pass\n", here("a_claim_that_nobody_heard_of_is_released_and_its_process_lives")),
    Mutant("system/processname.py", "    _rename_process(name_of(attempt))\n", "", here("a_process_is_not_killed_for_an_attempt_that_it_does_not_run[another]")),
    Mutant("attempt/attempt.py", "            if not is_absence(error) or seconds_since_boot() >= until:\n", "            if error:\n", here("a_claim_whose_answer_was_lost_is_asked_for_again_and_is_one_attempt")),
    Mutant("watch/heartbeat.py", "            end_process(str(taken))\n", "            pass\n", unit("threads", "a_host_whose_name_another_machine_has_taken_ends_its_worker")),
    Mutant("watch/heartbeat.py", "if holder.worker in seen or not self._has_ended(holder):", "if True:", name("a_worker_goes_on_where_an_older_registry_names_the_one_before_it_that_was_killed")),
    Mutant("watch/heartbeat.py", "if holder.worker in seen or not self._has_ended(holder):", "if holder.worker in seen:", name("a_name_that_was_left_or_lost_is_another_machines_and_the_first_is_told")),
    Mutant("watch/heartbeat.py", "        return seconds_since_boot() - self._answered.read() <= CURRENT\n", "        return True\n", name("no_message_is_taken_on_the_word_of_a_beat_that_is_too_old")),
    Mutant("host/machine.py", "{machine_id()}:{read_boot_id()}:{token}", "{machine_id()}:{read_boot_id()}", name("no_second_machine_gets_a_name_that_is_held")),
    Mutant("host/machine.py", "{machine_id()}:{read_boot_id()}:{token}", "{machine_id()}:{token}", name("no_second_machine_gets_a_name_that_is_held")),
    never("host/machine.py", "    if process.namespace != _pid_namespace():\n        return False\n", unit("liveness", "a_process_that_ended_is_gone_and_one_that_runs_or_cannot_be_seen_is_not")),
    Mutant("host/machine.py", "        return not same or ", "        return ", unit("liveness", "a_process_that_ended_is_gone_and_one_that_runs_or_cannot_be_seen_is_not")),
    Mutant("system/threads.py", "            end_process(f", "            str(f", unit("threads", "a_thread_that_ends_at_what_nobody_expected_ends_its_process_and_says_why[watcher]")),
    never("attempt/pause_point.py", "        if self.line.lost:\n            raise errors.LeaseLost(self.spec.id)\n        if self.line.failure", here("an_attempt_whose_job_is_another_ones_ends_and_says_nothing_more")),
    never("attempt/pause_point.py", "        if not self.line.safe:\n", here("an_attempt_whose_lease_is_in_doubt_writes_nothing_until_redis_answers")),
    Mutant("attempt/pause_point.py", "stopping\", self.spec.id)\n        running = self._running\n        if running is not None:\n            running.pause()\n", "stopping\", self.spec.id)\n        running = self._running\n", here("an_attempt_whose_lease_is_in_doubt_writes_nothing_until_redis_answers")),
    never("watch/pulse.py", "        elif now - self._sent_at > PATIENCE:\n", unit("pulse", "a_worker_that_takes_no_message_while_some_wait_ends_and_says_for_how_long")),
    Mutant("watch/pulse.py", "            self._send()  # a single one may be lost\n", "            pass\n", unit("pulse", "a_worker_of_whose_own_messages_some_are_lost_goes_on")),
    Mutant("watch/pulse.py", "waits = self.free() and (", "waits = (", unit("pulse", "whatever_happens_before_the_end_begins_the_count_anew")),
    Mutant("watch/pulse.py", "(since is not None and self._taken.at >= since)", "False", unit("pulse", "whatever_happens_before_the_end_begins_the_count_anew")),
    Mutant("watch/pulse.py", "            self._waits()  # Redis answers: it is this worker that does not\n", "", unit("pulse", "an_absence_of_redis_is_no_reason_to_end_when_it_is_back")),
    Mutant("watch/pulse.py", "            self._begin_anew()\n            return \"\"\n", "            return \"\"\n", unit("pulse", "an_absence_of_redis_is_no_reason_to_end_when_it_is_back")),
    Mutant("attempt/control.py", "            except LeaseLost:\n                self.lost = True\n", "            except LeaseLost:\n", here("an_attempt_whose_job_is_another_ones_ends_and_says_nothing_more")),
    Mutant("attempt/control.py", "                self.failure = error\n", "                pass\n", unit("attempt_ends", "wherever_the_bug_is_the_job_fails_with_it[pulse]")),
)

FREEZES: Final = (
    Mutant("cuts/freezer.py", "None if left == float(\"inf\") else max(0.0, left))", "None)", unit("quiesce", "whoever_froze_is_stopped_and_the_thaw_comes_at_the_deadline")),
    Mutant("cuts/freezer.py", "    freeze.kill()\n    gone", "    gone", unit("quiesce", "a_freeze_that_hangs_is_killed_and_thawed_at_the_deadline")),
    Mutant("cuts/freezer.py", "    failure = thaw_sources(argv, paths)\n    if not gone:", "    failure = \"\"\n    if not gone:", unit("quiesce", "a_freeze_that_hangs_is_killed_and_thawed_at_the_deadline")),
    Mutant("cuts/freezer.py", "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):", "for number in (signal.SIGCHLD,):", unit("quiesce", "a_freezer_ignores_that_it_is_asked_to_end")),
    Mutant("cuts/freezer.py", "        if code == 0:\n            return \"\"\n", "        return \"\"\n", unit("quiesce", "a_thaw_that_fails_is_tried_again")),
    Mutant("cuts/quiesce.py", "        else:\n            self._thaw_ourselves(word, rest)\n        return None\n", "        return None\n", unit("quiesce", "a_freezer_that_is_killed_itself_is_stood_in_for")),
)
# fmt: on
