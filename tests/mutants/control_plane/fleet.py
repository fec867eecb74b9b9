"""Hosts, their heartbeats and lines, what stores and hosts take, and what a person is told of all of it."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry, unit

HANGS: Final = registry("hanging_paths", "a_job_that_would_hang_is_not_rung_for_and_one_behind_it_is")
LIMITS_READ: Final = registry("unreadable", "a_limit_that_cannot_be_read_stops_no_coordinator_and_can_be_set_anew")
CAUSES: Final = unit("attention", "each_cause_is_told_at_its_time_and_not_before")
URLS: Final = unit("notices", "what_is_no_url_is_refused_without_being_quoted")
SHOWN: Final = unit("notices", "nothing_secret_of_a_url_is_shown")

# fmt: off
FLEET: Final = (
    # Heartbeats.
    Mutant("registry/heartbeats.py", 'seen.get(worker, ""), seen.get(other, "")', 'seen.get(worker, ""), ""', registry("hosts_up", "a_name_moves_when_both_counters_stand_still_and_neither_worker_of_the_old_machine_goes_on")),
    Mutant("registry/heartbeats.py", 'seen.get(worker, ""), seen.get(other, "")', '"", seen.get(other, "")', registry("hosts_up", "a_name_moves_when_both_counters_stand_still_and_neither_worker_of_the_old_machine_goes_on")),
    Mutant("registry/heartbeats.py", "self.slots + min(self.slots, len(", "self.slots + max(0, len(", registry("hanging_paths", "an_attempt_that_hangs_leaves_its_slot_to_another_one_as_far_as_there_are_slots")),
    Mutant("registry/heartbeats.py", " if each.job}))", "}))", registry("hanging_paths", "an_attempt_that_hangs_leaves_its_slot_to_another_one_as_far_as_there_are_slots")),
    Mutant("registry/heartbeats.py", "int(copy_beat or 0) if process else None", "int(copy_beat or 0)", registry("hosts_up", "a_steps_worker_of_an_earlier_version_speaks_for_its_copy_worker")),
    Mutant("registry/heartbeats.py", "    except ValueError as error:\n", "    except KeyError as error:\n", registry("hosts_up", "a_card_that_cannot_be_read_hides_no_other_host")),
    # Hosts.
    never("registry/hosts.py", "        if not self.absent:\n", registry("hosts_up", "a_host_that_an_earlier_version_judged_lacks_both_workers_unless_it_is_up")),
    Mutant("registry/hosts.py", "absence.worker is worker for", "True for", registry("hosts_up", "a_copy_worker_alone_that_is_missing_gets_no_message_and_the_steps_worker_does")),
    Mutant("registry/hosts.py", "if word in (Word.DOWN, Word.LEFT):", "if word:", registry("hosts_up", "a_host_is_up_when_both_beat_and_each_that_does_not_is_named")),
    Mutant("registry/hosts.py", 'if spec and not _would_hang(spec, hanging)]', "if spec]", HANGS),
    Mutant("registry/hosts.py", "range(0, FAR if hanging else 1, PAGE)", "range(0, 1, PAGE)", registry("hanging_paths", "a_job_behind_a_page_of_jobs_that_would_hang_is_rung_for")),
    Mutant("registry/hosts.py", "    except Exception as error:  # it is this job's own\n", "    except KeyError as error:\n", registry("hanging_paths", "a_job_that_cannot_be_read_is_rung_for_though_something_hangs")),
    Mutant("registry/hosts.py", "        return found[:most]\n", "        return found\n", registry("hanging_paths", "a_job_behind_a_page_of_jobs_that_would_hang_is_rung_for"), survives="the script rings for no more than that"),
    Mutant("registry/hosts.py", ".hex, nx=True)", ".hex)", registry("hosts_up", "a_registry_is_the_same_one_for_everybody_who_asks"), survives="only two that use a new registry in the same moment would draw two numbers"),
    Mutant("registry/hosts.py", "< DAEMON_SILENCE for name", "< 10 * DAEMON_SILENCE for name", registry("hosts_up", "a_daemon_that_does_not_go_round_counts_as_dead")),
    # What stores and hosts take.
    never("registry/limits.py", '        if b"path" not in record:  # a flow may have been noted after it was removed\n', registry("budget_commands", "a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file")),
    Mutant("registry/limits.py", "        self._expect_unused(name)\n        names", "        names", registry("budget_commands", "a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file")),
    Mutant("registry/limits.py", 'if store == name.encode() and status != b"concluded"', "if store == name.encode()", registry("budget_commands", "a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file")),
    Mutant("registry/limits.py", 'if store == name.encode() and status != b"concluded"', 'if status != b"concluded"', registry("budget_commands", "a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file")),
    Mutant("registry/limits.py", "return int(number) if number.isdigit() else 0", "return int(number)", LIMITS_READ),
    Mutant("registry/limits.py", '        if reply[0] != b"set":\n', "        if False:\n", registry("stores", "a_host_is_limited_by_name_and_once")),
    Mutant("registry/limits.py", "while most > 0 and (found", "while (found", registry("stores", "nobody_is_let_out_of_the_crowd_of_a_store_that_is_full")),
    # Shares.
    Mutant("daemons/budgets.py", "if store and store not in self._stores:", "if False:", registry("stores", "the_first_copies_to_a_new_store_share_its_budget")),
    Mutant("daemons/budgets.py", "        self._give(host, store, first or ANY)\n", "", registry("stores", "the_first_copies_to_a_new_store_share_its_budget")),
    Mutant("daemons/budgets.py", "if place[1] in now})", "if place[1] in differ})", registry("stores", "whoever_is_to_have_more_gets_it_when_those_who_are_to_have_less_have_heard")),
    Mutant("daemons/budgets.py", "if each.store and not each.claimed])", "if each.store])", registry("stores", "a_copy_that_ends_gives_its_place_to_the_longest_waiting"), survives="the script gives no place back that is in use"),
    Mutant("daemons/budgets.py", "store.jobs - store.running + freed", "store.jobs - store.running", registry("stores", "a_copy_that_ends_gives_its_place_to_the_longest_waiting")),
    # What needs a person.
    Mutant("model/attention.py", "return 0 < since <= seen.now - 1000 * seconds", "return since <= seen.now - 1000 * seconds", CAUSES),
    Mutant("model/attention.py", "return 0 < since <= seen.now - 1000 * seconds", "return 0 < since", CAUSES),
    Mutant("model/attention.py", "if txn.step not in BY_HOSTS or not", "if not", CAUSES),
    Mutant("model/attention.py", "if members > answered.get((txn.id, host), 0):", "if members:", unit("attention", "what_cannot_be_settled_is_told_at_once_and_its_host_owes_nothing")),
    Mutant("model/attention.py", "job.status not in HOLDABLE or ", "", CAUSES),
    Mutant("model/attention.py", "told.get(need.name) != need.mark]", "need.name not in told]", unit("attention", "the_same_episode_is_the_same_at_every_look_and_the_next_one_is_another")),
    Mutant("model/attention.py", "told.get(need.name) != need.mark]", "need]", unit("attention", "the_same_episode_is_the_same_at_every_look_and_the_next_one_is_another")),
    Mutant("registry/attention.py", "before[host].claims != count:", "False:", registry("attention_told", "a_line_that_moved_between_two_looks_stands_anew")),
    Mutant("registry/attention.py", "if host not in waiting or not free:", "if host not in waiting:", registry("attention_told", "a_line_that_moved_between_two_looks_stands_anew")),
    Mutant("registry/attention.py", "and all(map(str.isdigit, parts)):", "and parts:", registry("attention_told", "what_nobody_wrote_about_a_line_is_written_anew")),
    Mutant("daemons/lookout.py", "        if seen.told == need.mark:\n            return\n", "", registry("overdue", "an_overdue_name_is_told_once_until_a_run_of_it_succeeds"), survives="the script makes no notice of what was told before; this one saves its call"),
    Mutant("daemons/lookout.py", "if not seen.is_overdue or not seen.urls:", "if not seen.urls:", registry("overdue", "an_overdue_name_is_told_once_until_a_run_of_it_succeeds")),
    Mutant("daemons/lookout.py", "        except NoSuchRun:\n            attention.unwatch(run)\n", "        except NoSuchRun:\n", registry("attention_told", "a_forgotten_run_is_no_longer_watched")),
    Mutant("daemons/lookout.py", "        if over:\n            attention.unwatch(run)\n", "        attention.unwatch(run)\n", registry("attention_told", "an_end_that_nobody_has_announced_yet_keeps_its_run_watched")),
    # Whom it is told, and what is shown of them.
    Mutant("model/notices.py", "if match is None or len(url) > LONGEST or any(ch.isspace() or not ch.isprintable() for ch in url):", "if match is None or len(url) > LONGEST:", URLS),
    Mutant("model/notices.py", "fit = bool(parts.hostname) and parts.port != 0", "fit = True", URLS),
    Mutant("model/notices.py", "if not fit or not url.isascii():", "if not fit:", URLS),
    Mutant("model/notices.py", "if scheme not in _HOSTS or not _HOST", "if not _HOST", SHOWN),
    Mutant("model/notices.py", 'or ("@" in behind and "@" not in place):', "or False:", SHOWN),
    Mutant("model/notices.py", "not _HOST.fullmatch(host) or", "", SHOWN),
    Mutant("model/notices.py", "*secrets}", "}", unit("notices", "the_reason_of_a_failure_is_scrubbed")),
)
# fmt: on
