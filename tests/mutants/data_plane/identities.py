"""Whether a thing is the very thing that was meant."""

from __future__ import annotations

from typing import Final

from lines import Change, Mutant, never, unit

# fmt: off
IDENTITIES: Final = (
    Mutant("targets/settle.py", "                expect_proven(directory, current)\n                if (known", "                if (known", unit("publish", "what_was_never_prepared_is_not_published")),
    never("targets/proof.py", "    if not same_file(found.which, proven.which):\n        text = f\"target {member.target}: its staging file {staging} is another", unit("proven", "a_file_that_is_not_as_it_was_prepared_is_not_published")),
    never("targets/proof.py", "    if found.size != proven.size:\n", unit("proven", "a_file_that_is_not_as_it_was_prepared_is_not_published")),
    Mutant("targets/proof.py", "    _expect_manifest(directory, member)\n\n", "\n", unit("proven", "a_manifest_of_version_1_that_is_torn_is_not_published")),
    Mutant("records/files.py", "        return found is not None and same_file(member.which, found.which)\n", "        return found is not None\n", unit("publish", "a_foreign_file_that_took_a_name_is_never_replaced")),
    Mutant("records/files.py", "        if not member.ino or has_staging_file(member, directory, member.staging):\n", "        if True:\n", unit("proven", "a_foreign_file_with_the_inode_number_of_the_staging_file_is_not_taken_for_it")),
    Mutant("targets/replaced.py", "        return found is not None and same_file(found.which, seen.which)\n", "        return stat_of(directory, member.name).st_ino == seen.ino\n", unit("overwriting", "a_file_is_overwritten_only_where_it_is_the_very_one_of_the_journal")),
    Mutant("targets/replaced.py", "stat.S_ISREG(st.st_mode) and st.st_ino == seen.ino\n", "stat.S_ISREG(st.st_mode)\n", unit("overwriting", "a_file_is_overwritten_only_where_it_is_the_very_one_of_the_journal")),
    Mutant("targets/staged.py", "            ours = name != member.staging or is_staging_file(member, fd)\n", "            ours = True\n", unit("staged", "another_file_under_its_name_is_not_written")),
    Mutant("targets/staged.py", "        cut = not member.format and st.st_size != member.size\n", "        cut = False\n", unit("staged", "a_file_that_was_cut_is_not_written")),
    never("targets/opening.py", "        if st is None or not has_staging_file(member, directory, member.staging):\n", unit("staged", "an_open_that_is_repeated_takes_no_other_file_for_its_own")),
    never("targets/opening.py", "        if member.token:\n", unit("staged", "a_source_of_another_size_is_not_opened_again_once_an_attempt_has_begun")),
    never("targets/existing.py", "    if layer == 0:\n", unit("refused_targets", "a_hard_link_of_the_source_is_refused_as_a_target")),
    never("targets/existing.py", "    if layer > 0:\n", unit("refused_targets", "a_layer_of_the_source_is_refused_as_a_target")),
    never("targets/inplace.py", "        if not same or (record.which and not same_thing(record.which, which_device(rdev, record.path))):\n", unit("devices", "another_disk_under_the_same_number_is_another_device")),
    Mutant("targets/inplace.py", "        if not same or (record.which and not same_thing(record.which, which_device(rdev, record.path))):\n", "        if not same:\n", unit("devices", "another_file_behind_the_same_loop_device_is_another_device")),
    never("targets/inplace.py", "        if os.lseek(fd, 0, os.SEEK_END) < record.offset + record.size:\n", unit("devices", "a_device_that_has_become_smaller_than_what_was_opened_is_not_written")),
    Mutant("targets/inplace.py", "    if current is None or (current.job, current.uuid) != (record.job, record.uuid):\n", "    if current is None:\n", unit("devices", "a_job_whose_record_is_gone_can_do_nothing_more")),
    never("targets/inplace.py", "        if before is not None and before.state in (DeviceState.OPENED, DeviceState.INVALID):\n            text", unit("devices", "no_other_job_is_let_to_a_device_before_the_first_one_is_over")),
    never("targets/inplace.py", "            if before.state is DeviceState.INVALID and before.which and not same_thing(before.which, which):\n", unit("devices", "another_file_behind_the_same_loop_device_is_another_device")),
    never("targets/inplace.py", "    if spec.offset + size > there:\n", unit("devices", "a_device_that_is_too_small_is_refused_and_nothing_is_noted")),
    Mutant("drivers/copying.py", "        self.expect_no_writer(self._attached.watch)\n        self.check_source()\n        self._compare_content()\n", "", unit("source_changes", "a_write_through_a_dirty_page_fails_the_job")),
    Mutant("drivers/copying.py", "        if what in REPLACED or self._matters(what):\n", "        if self._matters(what):\n", unit("source_changes", "another_size_fails_the_job_under_both_policies")),
    never("drivers/staged.py", "        if size != opened.get(\"size\", size):\n", unit("source_changes", "prepare_refuses_a_copy_of_a_source_that_changed_unless_that_is_allowed")),
    never("drivers/staged.py", "        if result[\"source-change\"] == CHANGED and spec.on_source_change is OnChange.FAIL and not self.follows:\n", unit("source_changes", "prepare_refuses_a_copy_of_a_source_that_changed_unless_that_is_allowed")),
    Mutant("drivers/staged.py", "    return RangeSet(durable.ranges if durable.staging == staging else ())\n", "    return RangeSet(durable.ranges)\n", unit("checkpoints", "what_is_durable_in_another_file_is_copied_again")),
    never("drivers/staged.py", "        if durable.staging != place.uuid:\n", unit("checkpoints", "a_prepare_of_what_is_durable_in_another_file_is_refused")),
    Mutant("volumes/condition.py", "            kernel.write_back(fd)\n", "            pass\n", unit("condition", "a_write_through_a_page_that_was_dirty_before_is_seen")),
    Mutant("volumes/condition.py", "        _wait_past_ctime(before.st_ctime_ns)\n", "", unit("condition", "a_look_at_what_was_written_just_now_lasts_until_the_clock_has_ticked")),
    Mutant("volumes/condition.py", "        if _size_and_times(before) == _size_and_times(after):\n", "        if True:\n", unit("condition", "a_file_that_is_written_during_each_look_proves_nothing")),
    never("volumes/condition.py", "        if not _is_same_file(self, other):\n", unit("source_changes", "another_file_under_the_name_fails_the_job_under_both_policies")),
    Mutant("volumes/condition.py", "        return \"size\" if self.size != other.size else \"\"\n\n    def to_list", "        return \"\"\n\n    def to_list", unit("source_changes", "another_size_fails_the_job_under_both_policies")),
    never("volumes/condition.py", "        if len(self.layers) != len(other.layers) or not all(map(_is_same_file, self.layers, other.layers)):\n", unit("source_changes", "a_layer_that_is_replaced_fails_the_job_under_both_policies")),
    Mutant("volumes/condition.py", "    if (one.kind, other.kind) != (\"file\", \"file\"):\n", "    if False:\n", unit("condition", "a_device_is_never_called_unchanged_but_another_one_and_another_size_are_known"),
           covered_by=Change("volumes/condition.py", "which=name, proof=Proof.NOTHING)\n", "which=name)\n")),
    Mutant("volumes/condition.py", "    **dict.fromkeys((\"tmpfs\", \"ramfs\", \"overlayfs\"), Proof.CONTENT),\n", "    **dict.fromkeys((\"tmpfs\", \"ramfs\", \"overlayfs\"), Proof.TIMES),\n", unit("condition", "in_memory_only_the_content_proves_that_nothing_was_written")),
    Mutant("system/identity.py", "_HANDLED: Final = frozenset(\n    {\"ext4\", \"xfs\",", "_HANDLED: Final = frozenset(\n    {", unit("identity", "another_file_with_the_same_inode_number_has_another_name"),
           covered_by=Change("system/identity.py", "    born = kernel.birth_time(fd)\n", "    born = 0\n")),
    Mutant("system/identity.py", "        return first == second and first_boot == second_boot\n", "        return first == second\n", unit("identity", "parts_of_a_name_that_hold_within_a_boot_are_compared_within_a_boot")),
    Mutant("system/identity.py", "    if start := _read_line(f\"{place}/start\"):\n        name += f\":from:{start}\"\n", "    if start := _read_line(f\"{place}/start\"):\n", unit("identity", "a_partition_that_begins_elsewhere_is_another_device")),
    Mutant("system/identity.py", "{_THIS_BOOT}{read_boot_id()}:{handle_of(fd)}\"\n    finally", "\"\n    finally", "tests/unit/test_identity.py -k loop"),
    Mutant("cuts/cut_files.py", "(1, os.geteuid(), 0o600):\n", "(1, os.geteuid(), stat.S_IMODE(st.st_mode)):\n", unit("cut_files", "a_cut_that_others_may_read_is_not_the_file_that_was_made")),
    Mutant("cuts/cut_files.py", "                _expect_ours(fd, kept)\n", "", unit("cut_files", "a_cut_that_somebody_put_another_file_in_place_of_is_not_written_to")),
    Mutant("cuts/cut_files.py", "                _expect_seen(source, spec, seen)\n", "", unit("source_changes", "a_cut_is_not_made_of_another_file_than_the_one_that_was_opened")),
    Mutant("cuts/cut_files.py", "            _expect_seen(source, spec, seen)\n        finally", "            pass\n        finally", unit("source_changes", "a_cut_is_not_made_of_another_file_than_the_one_that_was_opened")),
    never("cuts/cut_files.py", "    if size != member.size:\n", unit("cut_files", "a_source_that_changed_its_size_since_open_is_refused")),
    Mutant("cuts/cut_files.py", "journal.lock if (journal := _journals.get(spec.id)) is not None else -1", "-1", unit("command_files", "while_many_transactions_are_cut_each_command_sees_its_own_lock_alone")),
    Mutant("records/sealed.py", "    return len(told) == len(_BLANK) and blake3(before + _BLANK.encode() + after).hexdigest().encode() == told\n", "    return True\n", unit("manifest_flips", "every_bit_that_flips_in_a_manifest_is_noticed")),
    never("targets/manifest.py", "    if not changed and not _is_whole(text, manifest):\n", unit("manifest_flips", "every_bit_that_flips_in_a_manifest_is_noticed")),
    never("targets/manifest.py", "            if digests.root != named.get(\"root\"):\n", unit("manifest", "digests_that_are_not_the_manifests_prove_nothing")),
    Mutant("targets/manifest.py", "or not _is_plain_name(named.get(\"file\")):\n", ":\n", unit("manifest", "a_manifest_cannot_point_elsewhere")),
    never("targets/manifest.py", "    if (found[\"size\"], found[\"mtime_ns\"]) != (noted.get(\"size\"), noted.get(\"mtime_ns\")):\n", unit("prune", "what_is_not_as_it_was_published_stays_and_is_told")),
)
# fmt: on
