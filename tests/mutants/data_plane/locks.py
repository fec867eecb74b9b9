"""Locks and tokens."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, unit

# fmt: off
LOCKS: Final = (
    Mutant("targets/staged.py", "            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "            return None\n", unit("staged", "only_one_process_ever_has_it")),
    Mutant("records/folder.py", "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", unit("journal", "a_held_lock_is_busy_and_a_free_one_is_not")),
    Mutant("records/folder.py", "            if os.fstat(lock).st_nlink:\n", "            if True:\n", unit("journal", "a_lock_file_that_loses_its_name_between_opening_and_locking_is_not_kept")),
    Mutant("records/folder.py", "    with suppress(OSError):\n        fcntl.flock(lock, fcntl.LOCK_UN)\n", "", unit("journal", "a_child_that_was_forked_meanwhile_does_not_keep_the_lock")),
    Mutant("records/devices.py", "                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", unit("devices", "a_user_who_knows_what_is_on_it_clears_it_once_no_job_has_it")),
    Mutant("records/devices.py", "        lock = _take_lock(folder, name, earlier, patience=0)\n", "        lock = os.open(\".\", os.O_RDONLY, dir_fd=folder)\n", unit("state", "a_record_that_another_process_has_is_not_carried_over_under_it")),
    Mutant("host/host_commands.py", "pass_fds=[fence] if fence >= 0 else [],", "close_fds=False,", unit("command_files", "while_many_transactions_are_cut_each_command_sees_its_own_lock_alone", "a_command_inherits_nothing_that_it_was_not_given")),
    Mutant("host/host_commands.py", "pass_fds=[fence] if fence >= 0 else [],", "pass_fds=[],", unit("command_files", "the_lock_that_a_command_was_handed_stays_held_when_we_let_go")),
    Mutant("host/state.py", "        fcntl.flock(lock, fcntl.LOCK_EX)  # held for a few milliseconds\n", "", unit("state", "two_processes_that_change_one_record_lose_nothing_of_each_other")),
    Mutant("host/roots.py", "os.O_RDWR | os.O_EXCL if write else os.O_RDONLY", "os.O_RDWR if write else os.O_RDONLY", unit("devices", "one_writer_at_a_time_and_never_an_older_one")),
    Mutant("host/roots.py", "                    image_locks.lock_as_sole_writer(fd, f\"target {path} on host {self.config.name}\")\n", "                    pass\n", unit("image_locks", "a_device_is_written_in_place_only_while_qemu_does_not_have_it")),
    Mutant("host/roots.py", "                    _expect_relatives_closed(fd, f\"target {path} on host {self.config.name}\")\n", "                    pass\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    never("host/roots.py", "            if write and _takes_no_writes(st.st_rdev):\n", unit("shared_bytes", "a_device_that_takes_no_writes_is_refused_before_anything_is_noted")),
    Mutant("system/image_locks.py", "        taken = is_open(fd)\n", "        taken = False\n", unit("image_locks", "an_image_that_qemu_has_open_cannot_be_owned")),
    Mutant("system/image_locks.py", "        kernel.lock_shared(fd, _USED, _COUNT)\n", "", unit("image_locks", "an_owner_uses_every_permission_and_shares_none")),
    Mutant("system/image_locks.py", "        kernel.lock_shared(fd, _REFUSED, _COUNT)\n", "", unit("image_locks", "an_owner_uses_every_permission_and_shares_none")),
    Mutant("system/image_locks.py", "        kernel.lock_shared(fd, _USED + CONSISTENT_READ)\n", "        pass\n", unit("image_locks", "a_reader_that_shares_everything_keeps_nobody_from_starting", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    Mutant("system/image_locks.py", "            kernel.lock_shared(fd, _USED + permission)\n", "            pass\n", unit("image_locks", "a_guest_does_not_start_on_what_an_attempt_writes_a_part_of")),
    Mutant("system/image_locks.py", "    return any(kernel.is_range_locked(fd, _USED + permission) for permission in _CHANGES)\n", "    return False\n", unit("image_locks", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    Mutant("system/image_locks.py", "    return kernel.is_range_locked(fd, _REFUSED, _COUNT)\n", "    return False\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    never("system/image_locks.py", "    if is_open(fd):\n        raise JobFailed", unit("image_locks", "an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare")),
    Mutant("targets/publish.py", "        with replaced.locked_against_qemu(directory, member.target):\n            os.rename(member.staging", "        if True:\n            os.rename(member.staging", unit("image_locks", "one_that_qemu_opened_since_prepare_is_left_and_published_once_it_is_closed")),
    Mutant("targets/replaced.py", "        image_locks.expect_closed(fd, f\"target {path}\")\n", "", unit("image_locks", "an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare")),
    never("targets/replaced.py", "    if loop := next(sysfs.loops_on(os.fstat(fd)), 0):\n", unit("image_locks", "a_file_that_a_loop_device_lies_in_is_not_replaced")),
    never("targets/replaced.py", "    if above := lying_on(directory, path):\n", unit("prune", "a_backup_that_an_image_beside_it_lies_on_stays")),
    Mutant("targets/prepare.py", "        replaced.expect_still_replaceable(roots, member)\n", "", unit("image_locks", "an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare")),
    never("drivers/staged.py", "        if spec.overwrite and not spec.in_place and not is_null(spec):\n            stack", unit("image_locks", "qemu_does_not_start_on_what_an_attempt_is_about_to_replace")),
    never("volumes/in_use.py", "    if image_locks.is_written(fd):\n        return _QEMU\n", unit("inuse", "an_image_that_qemu_writes_to_is_refused")),
    never("volumes/in_use.py", "        if _any_guest_writes(relatives):\n            return", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    never("volumes/in_use.py", "    if device and not _is_device_free(fd):\n", unit("inuse", "a_device_that_is_mounted_is_in_use")),
    Mutant("volumes/in_use.py", "os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC", "os.O_RDONLY | os.O_CLOEXEC", unit("inuse", "a_device_that_is_mounted_is_in_use")),
    never("volumes/in_use.py", "            if each.still and each.is_written():\n", unit("image_locks", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    never("volumes/in_use.py", "            if each.still and each.numbers and each.numbers & _mounted_for_writing():\n", unit("image_locks", "a_device_that_is_mounted_while_it_is_read_is_seen")),
    Mutant("volumes/in_use.py", "image_locks.is_written(fd) and image_locks.is_kept(fd) for fd", "image_locks.is_written(fd) for fd", unit("image_locks", "a_job_that_writes_a_part_keeps_nobody_from_reading_another_and_a_guest_is_seen")),
    Mutant("volumes/in_use.py", "        return image_locks.is_written(self.fd) or _any_guest_writes(self.relatives)\n", "        return image_locks.is_written(self.fd)\n", unit("image_locks", "a_job_that_writes_a_part_keeps_nobody_from_reading_another_and_a_guest_is_seen")),
    Mutant("volumes/in_use.py", "            _expect_free(store, roots, text, \"a layer that nobody writes to was expected\")\n", "            pass\n", unit("inuse", "a_layer_that_qemu_writes_to_is_refused_whatever_the_top_is")),
    Mutant("volumes/in_use.py", "        return False\n    return is_written(spec.source.volume, roots)\n", "        return False\n    return False\n", unit("inuse", "a_cut_of_an_image_that_qemu_writes_to_claims_no_instant")),
    Mutant("system/relatives.py", "    for step in (_devices_below, sysfs.parts_of):\n", "    for step in (_devices_below,):\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    Mutant("system/relatives.py", "    for step in (_devices_below, sysfs.parts_of):\n", "    for step in (sysfs.parts_of,):\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    Mutant("volumes/overlap.py", "return shared and (self.exact or other.exact)", "return shared and self.exact and other.exact", unit("shared_bytes", "spans_meet_where_they_certainly_share_bytes")),
    Mutant("volumes/overlap.py", "        yield from _spans_within(_spans_of_device(disk, above), first, last)\n", "        pass\n", unit("shared_bytes", "a_disk_and_its_partition_meet_and_two_partitions_do_not")),
    Mutant("volumes/overlap.py", "        yield from _spans_within(_spans_of_backing(backing, above), first, first + length if length else _LAST)\n", "        pass\n", unit("shared_bytes", "a_loop_device_meets_its_file_its_device_and_another_loop_on_the_same_bytes")),
    Mutant("volumes/overlap.py", "    if rdev := _disk_of(fd, st):\n        yield from _inexact_spans(_spans_of_device(rdev, above))\n", "", unit("shared_bytes", "a_file_lies_on_the_device_that_holds_its_file_system")),
    never("targets/inplace.py", "    if have_common_bytes(read, spans):\n", unit("shared_bytes", "an_alias_of_the_source_is_the_source")),
)

TOKENS: Final = (
    never("targets/staged.py", "        if token < known.token:\n", unit("staged", "a_lower_token_than_was_seen_is_refused")),
    Mutant("targets/staged.py", "            journal.put(replace(known, token=token))\n", "            pass\n", unit("staged", "a_lower_token_than_was_seen_is_refused")),
    never("targets/staged.py", "        if record.decision is not None or known.settled:\n", unit("staged", "nothing_is_written_once_a_decision_is_noted_although_the_files_are_still_there")),
    Mutant("targets/staged.py", "known is None or known.uuid != member.uuid:\n", "known is None:\n", unit("staged", "nothing_is_written_after_an_abort_or_for_another_uuid")),
    never("targets/inplace.py", "            if token < current.token:\n", unit("devices", "one_writer_at_a_time_and_never_an_older_one")),
    never("targets/inplace.py", "            if current.state not in (DeviceState.OPENED, DeviceState.INVALID):\n", unit("devices", "no_attempt_writes_to_a_device_whose_job_is_decided")),
    Mutant("targets/opening.py", "        if record.decision is not None or record.state != \"open\" or not wanted():\n", "        if not wanted():\n", unit("publish", "an_aborted_job_leaves_only_its_tombstone")),
    Mutant("targets/opening.py", "        if record.decision is not None or record.state != \"open\" or not wanted():\n", "        if record.decision is not None or record.state != \"open\":\n", unit("publish", "a_settled_job_that_is_opened_late_makes_nothing")),
    never("targets/inplace.py", "        if not wanted():\n", unit("devices", "an_open_that_nobody_waits_for_any_more_notes_nothing")),
)
# fmt: on
