"""What is done of a decision, and what is swept where there is none."""

from __future__ import annotations

from typing import Final

from lines import HERE, Change, Mutant, never, unit

# fmt: off
DECISIONS: Final = (
    never("targets/settle.py", "        if record.decision == \"commit\":\n            raise JobFailed(errno.EINVAL", unit("publish", "a_commit_is_in_the_journal_before_anything_is_visible")),
    Mutant("targets/settle.py", "        if record.decision == \"abort\" or current.discarded or journal is None:\n", "        if journal is None:\n", unit("publish", "an_abort_that_was_killed_anywhere_is_finished_by_the_next")),
    Mutant("targets/settle.py", "                journal.decide(\"commit\", decision_number)\n                if current.resolution == Resolution.REPLACE:\n                    put_aside(directory, current)\n                publish_image(roots, directory, current)\n", "                if current.resolution == Resolution.REPLACE:\n                    put_aside(directory, current)\n                publish_image(roots, directory, current)\n                journal.decide(\"commit\", decision_number)\n", unit("publish", "a_commit_is_in_the_journal_before_anything_is_visible")),
    Mutant("targets/prepare.py", "        if record.decision is not None or current.discarded or journal is None:\n", "        if journal is None:\n", unit("publish", "a_prepare_that_comes_behind_the_decision_proves_nothing_any_more")),
    never("targets/prepare.py", "        if before.record is not None and before.record.decision == \"commit\":\n", unit("publish", "a_prepare_that_comes_behind_the_publishing_is_answered_again")),
    Mutant("targets/prepare.py", "        if record.decision == \"commit\":\n            return", "        if False:\n            return", unit("publish", "a_prepare_that_comes_behind_the_decision_proves_nothing_any_more"),
           covered_by=Change("targets/prepare.py", "        if before.record is not None and before.record.decision == \"commit\":\n", "        if False:\n")),
    never("targets/prepare.py", "    if end < member.size:\n", unit("publish", "prepare_refuses_what_is_not_durable_everywhere")),
    never("targets/prepare.py", "            if current.proven:  # this is a second PREPARE: what the first one proved stays as it is\n", unit("proven", "a_second_prepare_changes_nothing_and_notices_what_changed_since_the_first")),
    never("targets/settle.py", "        if not journal.settled:\n", unit("publish", "a_transaction_is_clean_only_when_every_member_is_settled")),
    never("targets/entries.py", "    if not (is_whole(text.rstrip(b\" \"), digest) if digest is not None else version == 1):\n", "tests/unit/test_journal.py"),
    never("highest.py", "        if self.damage is not None:  # it is all that anybody has to look at\n", unit("state", "a_damaged_record_of_the_highest_decision_lets_nothing_be_decided_and_is_named_until_it_is_mended")),
    never("highest.py", "            if self.incarnation and incarnation != self.incarnation:\n", unit("state", "the_highest_decision_of_a_host_without_write_roots_is_kept")),
    Mutant("highest.py", "                self._write(incarnation, number)  # first: where the disk refuses, nothing is carried out either\n                self.incarnation, self.number = incarnation, number\n", "                self.incarnation, self.number = incarnation, number\n                self._write(incarnation, number)\n", unit("full_disk", "a_decision_that_could_not_be_noted_is_not_remembered_either")),
    Mutant("highest.py", "                number = max(number, self.number)\n", "", unit("state", "the_number_of_a_record_without_a_registry_is_never_lowered")),
    Mutant("errands/work.py", "            self._read_again()\n            super()", "            super()", unit("state", "two_processes_of_one_worker_never_forget_the_higher_decision_and_are_seen_to_wait_for_it")),
    Mutant("errands/work.py", "        with state.failing(self._place.path), state.changing(self._place, NAME):\n", "        if True:\n", unit("state", "two_processes_of_one_worker_never_forget_the_higher_decision_and_are_seen_to_wait_for_it")),
    Mutant("steps.py", "            batch.once(\"highest\", lambda: self._highest.raise_to(incarnation, number))\n", "", HERE),
    Mutant("resolving.py", "        highest.raise_to(incarnation, number)\n", "", HERE),
    never("targets/inplace.py", "        if current.state is not State.INVALID or current.prepared is None:\n", unit("devices", "what_is_not_all_durable_or_of_another_uuid_is_not_prepared")),
    never("targets/inplace.py", "        if durable.staging != current.uuid or not RangeSet(durable.ranges).covers(0, current.size):\n", unit("devices", "what_is_not_all_durable_or_of_another_uuid_is_not_prepared")),
    Mutant("targets/inplace.py", "replace(current, state=State.INVALID, token=token, left_by=spec.id", "replace(current, token=token, left_by=spec.id", unit("devices", "an_aborted_job_leaves_it_undefined_until_another_one_commits")),
    never("targets/devices.py", "            if record.identity == identity:\n", unit("devices", "an_aborted_job_leaves_it_undefined_until_another_one_commits")),
    never("targets/devices.py", "        if current is None or current.state is not State.UNDEFINED:\n", unit("devices", "a_user_who_knows_what_is_on_it_clears_it_once_no_job_has_it")),
    Mutant("sparefile.py", "            if there < room:  # XFS may refuse on a full disk to allocate what is allocated already\n                _allocate(fd, room)\n", "", unit("full_disk", "a_file_is_replaced_on_a_full_disk_again_and_again_and_never_half"),
           survives="the write takes the same room, or fails before the file has its name; allocated at once, it is refused before anything is written"),
    Mutant("sparefile.py", "            if os.fstat(fd).st_size < room:\n                _allocate(fd, room)\n", "            pass\n", unit("full_disk", "decisions_are_noted_on_a_full_disk")),
    never("targets/resolve.py", "    if how is Resolution.REPLACE and not roots.config.allow_overwrite:\n", unit("resolve", "what_a_user_may_not_do_changes_nothing")),
    Mutant("targets/resolve.py", "        if journal.record.decision == \"abort\":\n", "        if False:\n", unit("resolve", "nothing_of_an_aborted_or_published_job_is_resolved"),
           covered_by=Change("targets/settle.py", "        if record.decision == \"abort\" or current.discarded or journal is None:\n", "        if journal is None:\n")),
    never("targets/resolve.py", "            if not permitted():\n", unit("resolve", "what_a_user_may_not_do_changes_nothing")),
    Mutant("targets/aside.py", "    if not suffix:\n        return has_staging_file(member, directory, name)\n", "    if not suffix:\n        return True\n", unit("resolve", "the_foreign_file_is_put_aside")),
    Mutant("targets/aside.py", "        return found is not None and same_file(found.which, proven.which)\n", "        return found is not None\n", unit("resolve", "the_foreign_file_is_put_aside", "it_is_discarded")),
)

SWEEPING: Final = (
    never("sweeping.py", "    if registry.knows(record.transaction):\n", unit("sweep", "what_the_registry_owns_is_never_touched")),
    Mutant("sweeping.py", "            _expect_idle(roots, member)\n", "            pass\n", unit("sweep", "a_copy_that_is_still_at_work_is_left_alone")),
    never("sweeping.py", "        if told is not None and told.decision == \"commit\":\n", unit("sweep", "what_was_committed_beneath_another_root_of_the_host_is_published_here_too")),
    Mutant("sweeping.py", "        registry.expect_gone(record.registry)\n", "", unit("sweep", "what_another_registry_has_begun_is_left_until_a_person_says_that_it_is_gone")),
    Mutant("strays.py", "        registry.expect_gone(holder.registry)\n", "", unit("sweep", "what_another_registry_has_begun_is_left_until_a_person_says_that_it_is_gone")),
    never("strays.py", "        if _DATE.fullmatch(found[\"uuid\"]):\n", unit("sweep", "a_file_with_a_date_where_our_names_have_digits_is_left_to_a_person")),
    Mutant("strays.py", "            if not stat.S_ISREG(st.st_mode) or now - max(st.st_mtime, st.st_ctime) < AGE:\n", "            if not stat.S_ISREG(st.st_mode):\n", unit("sweep", "files_whose_journal_is_gone_are_removed_once_they_are_old")),
    Mutant("strays.py", "            if not stat.S_ISREG(st.st_mode) or now - max(st.st_mtime, st.st_ctime) < AGE:\n", "            if now - max(st.st_mtime, st.st_ctime) < AGE:\n", unit("sweep", "a_link_or_a_directory_with_one_of_our_names_stays")),
    never("strays.py", "            if st.st_uid != os.geteuid():\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons")),
    never("strays.py", "            if known.unread:\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons")),
    Mutant("strays.py", "                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "                pass\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons")),
    never("strays.py", "        if found[\"uuid\"] in known.uuids:\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons", "what_the_registry_owns_is_never_touched")),
    never("strays.py", "        if not local:\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons")),
    never("strays.py", "        if registry.in_use(f\"{st.st_dev}:{st.st_ino}\", \"\"):\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons")),
    never("strays.py", "    if registry.in_use(\"\", f\"{place.st_dev}:{place.st_ino}/{target}\"):\n", unit("sweep", "an_old_file_stays_for_any_of_these_reasons")),
    never("strays.py", "        if registry.knows(holder.transaction):\n", unit("sweep", "a_reserved_name_says_itself_whose_it_is")),
    never("strays.py", "        if above not in roots.config.target_roots:\n", unit("sweep", "files_of_another_host_above_or_below_stay")),
    never("prune.py", "        if (manifest.get(\"job\"), manifest.get(\"run\")) != (target[\"job\"], target[\"run\"]):\n", unit("prune", "what_is_not_as_it_was_published_stays_and_is_told")),
    never("prune.py", "            if not same:\n", unit("prune", "what_is_not_as_it_was_published_stays_and_is_told")),
    Mutant("prune.py", "            locks.own(image, path)\n", "", unit("prune", "nothing_goes_under_a_guest_wherever_its_overlay_lies")),
    Mutant("prune.py", "            expect_no_loop(image, path)\n", "", unit("prune", "a_backup_that_a_loop_device_lies_in_stays")),
    never("prune.py", "        if self._in_use(identity, f\"{place.st_dev}:{place.st_ino}/{os.path.basename(path)}\"):\n", unit("prune", "a_backup_in_use_or_outside_the_roots_stays")),
    Mutant("prune.py", "        self._roots.expect_target(path)\n", "", unit("restore_roots", "nothing_below_a_restore_root_is_resized_pruned_or_offered_as_a_target")),
    never("prune.py", "        if not self._asked():\n", unit("prune", "nothing_is_removed_after_the_asker_gave_up")),
    never("prune.py", "                if why := staying.needs(target):\n", unit("prune", "a_backup_that_an_image_beside_it_lies_on_stays")),
    never("prune.py", "        if _has_digests(directory, name + DIGESTS, manifest):\n", unit("prune", "a_backup_goes_with_its_digests_its_manifest_and_its_directory")),
    Mutant("prune.py", "        return bool(stat.S_ISREG(os.fstat(fd).st_mode) and root_of(fd) == named.get(\"root\"))\n", "        return True\n", unit("prune", "digests_that_are_not_the_jobs_stay")),
    never("prune.py", "    if not staying.any_beneath(target[\"base\"]):\n", unit("prune", "nothing_beneath_a_base_without_any_backup_counts_as_gone")),
    Mutant("targets/journal.py", "(seen.uptime if seen.boot == boot else 0.0)", "seen.uptime", unit("journal", "tombstones_of_earlier_boots_are_as_old_as_this_one_and_the_newest_stay")),
    Mutant("targets/journal.py", "(seen.uptime if seen.boot == boot else 0.0)", "0.0", unit("journal", "only_old_tombstones_are_swept")),
    Mutant("targets/journal.py", "sorted(earlier)[:-MOST_OF_EARLIER_BOOTS]", "earlier[:-MOST_OF_EARLIER_BOOTS]", unit("journal", "tombstones_of_earlier_boots_are_as_old_as_this_one_and_the_newest_stay")),
)
# fmt: on
