"""Rescans: which manifests count, for whom, once, and that nothing of them is pruned before somebody confirms it."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry, unit

# fmt: off
RESCANS: Final = (
    Mutant("coordinator/blockjobs/model/keep.py", "if target not in replaced and not target.held:", "if target not in replaced:", unit("found_manifests", "what_is_held_stays_and_takes_no_place_of_a_rule")),
    Mutant("coordinator/blockjobs/model/keep.py", "{t: (HELD,) for t in newest_first if t.held and t not in replaced}", "{}", unit("found_manifests", "what_is_held_stays_and_takes_no_place_of_a_rule")),
    never("coordinator/blockjobs/model/rescan.py", "    if found.named not in (found.host, moved_from) and found.named in hosts:\n", unit("found_manifests", "what_a_backup_is_to_the_registry")),
    never("coordinator/blockjobs/model/rescan.py", "    if going:\n", unit("found_manifests", "what_a_backup_is_to_the_registry")),
    never("coordinator/blockjobs/model/rescan.py", "        if found.seal == entry.seal:\n", unit("found_manifests", "what_a_backup_is_to_the_registry")),
    never("coordinator/blockjobs/model/rescan.py", "        if entry.host == found.named:  # a host that is not known here any more: the name that this one had\n", unit("found_manifests", "what_a_backup_is_to_the_registry")),
    Mutant("coordinator/blockjobs/model/rescan.py", 'f"{host}:{source}"', 'f"{at}:{source}"', unit("found_manifests", "a_backup_counts_for_the_host_below_whose_roots_it_lies")),
    never("coordinator/blockjobs/model/rescan.py", "            if target.at > at:\n", unit("found_manifests", "a_found_backup_stands_behind_what_is_surely_older")),
    never("coordinator/blockjobs/daemons/prune.py", "        if confirmed:\n", registry("rescan", "the_next_nights_keep_what_was_found_until_prune_was_confirmed_once")),
    never("coordinator/blockjobs/cli/prune.py", "        if held and not dry_run and not yes:\n", registry("rescan", "the_next_nights_keep_what_was_found_until_prune_was_confirmed_once")),
    Mutant("coordinator/blockjobs/store/lua/found.lua", 'if state and not (state == "published" and over) then return {"going"} end\n', "", registry("rescan", "nothing_is_added_to_a_run_that_somebody_has_started_meanwhile")),
    Mutant("coordinator/blockjobs/store/lua/found.lua", 'if redis.call("HSETNX", KEYS[2], entry, row) == 1 then', 'if redis.call("HSET", KEYS[2], entry, row) then', registry("rescan", "two_rescans_at_once_and_a_lost_reply_count_nothing_twice")),
    Mutant("coordinator/blockjobs/store/lua/found.lua", '"found", 1, "slim", 1)', '"found", 1)', registry("rescan", "the_record_of_what_was_found_stays_as_long_as_the_backups_do")),
    Mutant("coordinator/blockjobs/store/lua/recast.lua", "if found ~= ARGV[3] or found == ARGV[5] then", "if found == ARGV[5] then", registry("rescan", "an_entry_that_somebody_has_changed_meanwhile_is_not_written_anew")),
    Mutant("coordinator/blockjobs/daemons/rescan.py", "if (each.run, known.entry) in turn.there:", "if False:", registry("rescan", "a_copy_is_no_move_nor_is_it_one_where_nobody_can_look")),
    Mutant("coordinator/blockjobs/daemons/rescan.py", "elif known.host == each.host and (why := _unread(scan, known.path)):", "elif (why := \"\"):", registry("rescan", "a_copy_is_no_move_nor_is_it_one_where_nobody_can_look")),
    Mutant("workers/blockworker/rescan.py", "if not stat.S_ISREG(st.st_mode):  # looked at first: opening a device or a FIFO can have effects", "if False:", unit("found_manifests", "a_manifest_that_is_damaged_or_lies_is_named_and_all_others_count")),
    Mutant("workers/blockworker/rescan.py", "if expected is not None and st.st_size != expected:", "if False:", unit("found_manifests", "a_manifest_that_is_damaged_or_lies_is_named_and_all_others_count")),
    Mutant("workers/blockworker/rescan.py", "or size >= BYTES or clock() >= end:", "or size >= BYTES:", unit("found_manifests", "page_by_page_every_manifest_is_told_once_whatever_bounds_a_page")),
    Mutant("workers/blockworker/rescan.py", "if len(page.rows) >= most or", "if", unit("found_manifests", "page_by_page_every_manifest_is_told_once_whatever_bounds_a_page")),
    Mutant("workers/blockworker/rescan.py", "if name == FOLDER or inner in others:", "if inner in others:", unit("found_manifests", "directories_that_are_too_deep_or_not_ours_to_read_are_named")),
    never("coordinator/blockjobs/store/hostnames.py", "            if self._redis.hexists(keys.txn(TxnId(txn.decode())), f\"host:{host}\"):\n", registry("host_names", "a_host_that_is_there_or_has_open_jobs_keeps_its_name")),
    Mutant("coordinator/blockjobs/store/hostnames.py", "            self.expect_unused(new)\n", "", registry("host_names", "a_name_that_has_something_of_its_own_is_not_taken")),
    never("coordinator/blockjobs/store/hostnames.py", "        if begun not in (\"\", new):\n", registry("host_names", "a_rename_that_was_cut_off_anywhere_is_finished_by_the_next_one")),
    Mutant("coordinator/blockjobs/store/hostnames.py", "        if not begun:  # else a call before this one was cut off", "        if True:", registry("host_names", "a_rename_that_was_cut_off_anywhere_is_finished_by_the_next_one")),
    never("coordinator/blockjobs/client.py", "        if judged.state == \"up\" or not all(judged.lacks(worker) for worker in WorkerName):\n            raise Refused(f\"host '{host}' has a worker that is there", registry("host_names", "a_host_that_is_there_or_has_open_jobs_keeps_its_name")),
    never("coordinator/blockjobs/client.py", "        if backups and not with_history:\n", registry("host_names", "a_host_is_forgotten_with_its_history_only_if_it_is_told_so")),
    Mutant("coordinator/blockjobs/store/hostnames.py", "        self.expect_over(old)\n        self._merge(old)\n", "        self.expect_over(old)\n", registry("host_names", "what_its_workers_told_last_is_not_lost")),
    never("workers/blockworker/highest.py", "            if self.incarnation != gone:\n", unit("state", "a_registry_that_nobody_says_is_gone_is_not_replaced")),
    never("workers/blockworker/highest.py", "            if self.incarnation in (\"\", incarnation):\n", unit("state", "a_registry_that_is_gone_is_replaced_once")),
    Mutant("coordinator/blockjobs/store/views.py", 'fields.get("layered", False) or b"layered" in r', 'fields.get("layered", False)', registry("rescan", "what_a_found_backup_of_another_name_lies_on_stays")),
    Mutant("workers/blockworker/rescan.py", "            found.append(volumespec.checked_path(path))", "            found.append(path)", unit("found_manifests", "what_an_image_lies_on_is_told_and_not_opened")),
    Mutant("coordinator/blockjobs/store/history.py", "for target in targets if not target.held}", "for target in targets}", registry("rescan", "a_run_has_no_say_in_the_rules_because_of_what_a_host_says_that_it_published")),
)
# fmt: on
