"""Every flush, exclusive creation, lock, token, identity and permission check of the data plane, one line each.

A line takes one of them away: file beneath ``workers/blockworker``, exact text, what replaces it, and the tests that
have to fail: the narrowest ones, so that a line costs seconds.  ``never``: what a condition asks for never is.
``covered_by``: a second guard that does the same work; the tests fail only where both are gone.  ``besides``: more
guards that are gone at once, all of them covered by that one.  ``survives``: why no test can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Change:
    """A text that is there once in a file of the data plane, and what replaces it."""

    file: str
    text: str
    instead: str


@dataclass(frozen=True)
class Mutant:
    file: str
    text: str
    instead: str
    tests: str
    covered_by: Change | None = None
    survives: str = ""
    besides: tuple[Change, ...] = ()  # made together with it
    covered_too: bool = False  # whether the second guard is gone as well

    def with_cover(self) -> Mutant:
        return replace(self, covered_too=True)

    def changes(self) -> Iterator[Change]:
        yield Change(self.file, self.text, self.instead)
        yield from self.besides
        if self.covered_too and self.covered_by:
            yield self.covered_by


def never(file: str, text: str, tests: str, survives: str = "") -> Mutant:
    """The condition with which a text begins is never met."""
    condition, rest = text.split("\n", 1)
    indent, word, _ = condition.partition("elif " if condition.lstrip().startswith("elif") else "if ")
    return Mutant(file, text, f"{indent}{word}False:\n{rest}", tests, survives=survives)


def unit(file: str, *names: str) -> str:
    """Tests of a file of tests of single parts, by what they promise."""
    return " ".join(f"tests/unit/test_{file}.py::test_{name}" for name in names)


def here(name: str) -> str:
    """A test of attempts in the process of the tests."""
    return f"tests/cluster/test_attempts_here.py::test_{name}"


HERE: Final = "tests/cluster/test_attempts_here.py::test_a_decision_that_the_host_cannot_note_is_not_carried_out"
HUNT: Final = "--hunt"  # at each change, until something is found
TOGETHER: Final = "tests/unit/test_together.py"
CUT_AT: Final = "tests/power/test_power_cuts.py::test_a_power_cut_at_any_change_loses_nothing_that_was_answered"


def power(*stories: str) -> str:
    """Power cuts in these stories."""
    return " ".join([HUNT, *(f"{CUT_AT}[{story}]" for story in stories)])


# fmt: off
_DATA: Final = Change("targets/written.py", "            os.fdatasync(self._fd)\n", "            pass\n")
_DIGESTS: Final = Change("copy/digests.py", "            os.fdatasync(self._fd)\n", "            pass\n")
_JOURNAL: Final = Change("sparefile.py", "    yield (folder,)\n", "    yield ()\n")
# Syncs of names and attributes.  XFS and ext4 keep one log of these: the next sync of the journal makes all that was done
# before it durable as well.  Other file systems need not.
_NAMES: Final = (
    Change("targets/prepare.py", "            lost = give_to_image(roots, member, fd, wanted)\n            yield (fd,)\n", "            lost = give_to_image(roots, member, fd, wanted)\n            yield ()\n"),
    Change("targets/prepare.py", "    os.rename(name, member.manifest, src_dir_fd=directory, dst_dir_fd=directory)\n    yield (directory,)\n", "    os.rename(name, member.manifest, src_dir_fd=directory, dst_dir_fd=directory)\n    yield ()\n"),
    Change("targets/layout.py", "        yield files\n", "        yield ()\n"),
    Change("targets/layout.py", "    yield (directory,)\n", "    yield ()\n"),
    Change("targets/files.py", "        release_name(directory, member)\n        os.fsync(directory)\n", "        release_name(directory, member)\n"),
    Change("targets/files.py", "        os.rmdir(os.path.basename(path), dir_fd=parent)\n        os.fsync(parent)\n", "        os.rmdir(os.path.basename(path), dir_fd=parent)\n"),
    Change("targets/cuts.py", "                os.ftruncate(fd, 0)\n                os.fsync(directory)\n", "                os.ftruncate(fd, 0)\n"),
    Change("targets/cuts.py", "        unlink(directory, os.path.basename(kept.path))\n        os.fsync(directory)\n", "        unlink(directory, os.path.basename(kept.path))\n"),
    Change("targets/folder.py", "                os.mkdir(SETTLED, 0o700, dir_fd=folder)\n                os.fsync(folder)\n", "                os.mkdir(SETTLED, 0o700, dir_fd=folder)\n"),
    Change("targets/folder.py", "            os.mkdir(FOLDER, 0o700, dir_fd=top)\n            os.fsync(top)\n", "            os.mkdir(FOLDER, 0o700, dir_fd=top)\n"),
    Change("targets/folder.py", "            os.rmdir(FOLDER, dir_fd=top)\n            os.fsync(top)\n", "            os.rmdir(FOLDER, dir_fd=top)\n"),
    Change("targets/journal.py", "            if files >= 0 and remove_file(files, job):\n                os.fsync(files)\n", "            if files >= 0:\n                remove_file(files, job)\n"),
    Change("targets/journal.py", "        os.rename(spare, self._name, src_dir_fd=self._folder, dst_dir_fd=settled)\n        os.fsync(settled)\n", "        os.rename(spare, self._name, src_dir_fd=self._folder, dst_dir_fd=settled)\n"),
    Change("targets/journal.py", "        if remove_file(self._folder, self._name):\n            os.fsync(self._folder)\n", "        remove_file(self._folder, self._name)\n"),
    Change("targets/journal.py", "            if remove_file(settled, self._name):\n                os.fsync(settled)\n", "            remove_file(settled, self._name)\n"),
    Change("targets/journal.py", "        self.unlock()\n        os.fsync(self._folder)\n", "        self.unlock()\n"),
    Change("targets/memberfiles.py", "            os.mkdir(name, 0o700, dir_fd=folder)\n            os.fsync(folder)\n", "            os.mkdir(name, 0o700, dir_fd=folder)\n"),
    Change("targets/madedirs.py", "    if new:\n        os.fsync(notes)\n", ""),
    Change("targets/madedirs.py", "                os.mkdir(MADE_DIRS, 0o700, dir_fd=folder)\n                os.fsync(folder)\n", "                os.mkdir(MADE_DIRS, 0o700, dir_fd=folder)\n"),
    Change("roots.py", "                        os.mkdir(os.path.basename(directory), 0o700, dir_fd=parent)\n                        os.fsync(parent)\n", "                        os.mkdir(os.path.basename(directory), 0o700, dir_fd=parent)\n"),
    Change("roots.py", "            os.fchmod(directory, self.config.directory_mode)\n        os.fsync(directory)\n", "            os.fchmod(directory, self.config.directory_mode)\n"),
)

# More of these, of what no story of a power cut does: in place, pruned, swept, resized, beneath the state directory, and
# of an image of a format, whose file PREPARE syncs again behind its check.
_ELSEWHERE: Final = (
    Change("targets/publish.py", "            unlink(directory, member.name + suffix)\n        os.fsync(directory)\n", "            unlink(directory, member.name + suffix)\n"),
    Change("targets/devicerecord.py", "        remove_file(self._folder, f\"{self._name}.json\")\n        os.fsync(self._folder)\n", "        remove_file(self._folder, f\"{self._name}.json\")\n"),
    Change("targets/devices.py", "            remove_file(folder, f\"{name}.json\")\n            os.fsync(folder)\n", "            remove_file(folder, f\"{name}.json\")\n"),
    Change("state.py", "                os.mkdir(self.top, 0o700)\n                _sync(os.path.dirname(self.top))\n", "                os.mkdir(self.top, 0o700)\n"),
    Change("state.py", "                        os.mkdir(name, 0o700, dir_fd=here)\n                        os.fsync(here)\n", "                        os.mkdir(name, 0o700, dir_fd=here)\n"),
    Change("state.py", "            remove_file(folder, name)\n            os.fsync(folder)\n", "            remove_file(folder, name)\n"),
    Change("prune.py", "            unlink(directory, name + DIGESTS)\n        os.fsync(directory)\n", "            unlink(directory, name + DIGESTS)\n"),
    Change("prune.py", "        unlink(directory, name + MANIFEST)\n        os.fsync(directory)\n", "        unlink(directory, name + MANIFEST)\n"),
    Change("strays.py", "                os.unlink(name, dir_fd=directory)\n                os.fsync(directory)\n", "                os.unlink(name, dir_fd=directory)\n"),
    Change("resize.py", "        os.ftruncate(fd, size)\n        os.fsync(fd)\n", "        os.ftruncate(fd, size)\n"),
    Change("volumes/soundness.py", "    tool.shrink(size)\n    os.fsync(fd)\n", "    tool.shrink(size)\n"),
    Change("volumes/soundness.py", "        raise JobFailed(errno.EIO, \"; \".join(faults))\n    os.fsync(fd)\n", "        raise JobFailed(errno.EIO, \"; \".join(faults))\n"),
    Change("targets/proof.py", "        os.fsync(fd)  # costs nothing after PREPARE, and nothing undurable can ever be renamed\n", ""),
)

FLUSHES: Final = (
    Mutant("targets/written.py", "            os.fdatasync(self._fd)\n", "            pass\n", power("xfs-plain")),
    Mutant("copy/digests.py", "            os.fdatasync(self._fd)\n", "            pass\n", power("xfs-plain")),
    Mutant("copy/engine.py", "            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n", "            pass\n", power("xfs-plain")),
    Mutant("targets/prepare.py", "            os.fsync(fd)\n            if member.format and not", "            if member.format and not", power("xfs-plain"), covered_by=_DATA),
    Mutant("targets/prepare.py", "        give_as_image(image, fd)\n        yield (fd,)\n        written = seen(fd)", "        give_as_image(image, fd)\n        yield ()\n        written = seen(fd)", power("xfs-plain")),
    Mutant("targets/prepare.py", "        yield (fd,)\n        return (None if named is None", "        yield ()\n        return (None if named is None", power("xfs-plain"), covered_by=_DIGESTS),
    Mutant("sparefile.py", "        yield files\n    full: OSError", "        yield ()\n    full: OSError", power("xfs-plain")),
    Mutant("sparefile.py", "    yield (folder,)\n", "    yield ()\n", power("xfs-plain")),
    Mutant("together.py", "        os.fsync(fd)\n", "        pass\n", TOGETHER),
    Mutant("together.py", "partial(work.throw, failed[number]) if number in failed else partial(next, work)", "partial(next, work)", TOGETHER),
    Mutant("targets/opening.py", "        yield ()  # until all of the batch have their locks: then the registry is asked for all of them\n", "", TOGETHER),
    Mutant("targets/settle.py", "            release_name(directory, current)\n            yield (directory,)\n", "            release_name(directory, current)\n            yield ()\n", power("xfs-plain", "xfs-own-file-abort", "xfs-cut-abort", "ext4-overwrite"), covered_by=_JOURNAL, besides=_NAMES),
    Mutant("targets/cuts.py", "            os.fdatasync(source)\n", "            pass\n", unit("cut_files", "a_reflink_is_written_down_at_open_and_made_at_cut"), besides=_ELSEWHERE,
           survives="names that are removed or made once more after a power cut, or synced again by what follows; the sync of the source before its cut only shortens the cut"),
    Mutant("targets/journal.py", "            file.truncate()\n            file.flush()\n            os.fsync(fd)\n", "            file.truncate()\n            file.flush()\n", power("xfs-plain")),
    Mutant("targets/cuts.py", "    fd = roots.open_source(kept.path)\n    try:\n        os.fsync(fd)\n", "    fd = roots.open_source(kept.path)\n    try:\n        pass\n", power("xfs-cut")),
    Mutant("targets/reserved.py", "        yield (file.fileno(),)\n", "        yield ()\n", power("xfs-plain")),
    Mutant("targets/inplace.py", "        fd = _open_same(roots, current)\n        try:\n            os.fsync(fd)\n", "        fd = _open_same(roots, current)\n        try:\n            pass\n", unit("devices", "a_commit_ends_what_a_claim_began"),
           survives="the flush at the end of the copy is the same call on the same device; what PREPARE flushes again was never written by anybody else"),
    Mutant("targets/written.py", "            raise self._broken from None\n", "            return\n", unit("staged", "a_flush_that_failed_once_has_failed_for_ever")),
    Mutant("targets/written.py", "        if self._broken is not None:\n            raise self._broken\n", "", unit("staged", "a_flush_that_failed_once_has_failed_for_ever")),
    Mutant("targets/written.py", "        self._fd = os.open(f\"/proc/self/fd/{fd}\", os.O_WRONLY | os.O_CLOEXEC)\n", "        self._fd = os.dup(fd)\n", unit("devices", "a_flush_tells_of_what_was_lost_long_before_it")),
)

LOCKS: Final = (
    Mutant("targets/staged.py", "            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "            return None\n", unit("staged", "only_one_process_ever_has_it")),
    Mutant("targets/folder.py", "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", unit("journal", "a_held_lock_is_busy_and_a_free_one_is_not")),
    Mutant("targets/folder.py", "            if os.fstat(lock).st_nlink:\n", "            if True:\n", unit("journal", "a_lock_file_that_loses_its_name_between_opening_and_locking_is_not_kept")),
    Mutant("targets/folder.py", "    with suppress(OSError):\n        fcntl.flock(lock, fcntl.LOCK_UN)\n", "", unit("journal", "a_child_that_was_forked_meanwhile_does_not_keep_the_lock")),
    Mutant("targets/devices.py", "                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", unit("devices", "a_user_who_knows_what_is_on_it_clears_it_once_no_job_has_it")),
    Mutant("targets/devices.py", "        lock = _take_lock(folder, name, earlier, patience=0)\n", "        lock = os.open(\".\", os.O_RDONLY, dir_fd=folder)\n", unit("state", "a_record_that_another_process_has_is_not_carried_over_under_it")),
    Mutant("calls.py", "pass_fds=[fence] if fence >= 0 else [],", "close_fds=False,", unit("command_files", "while_many_transactions_are_cut_each_command_sees_its_own_lock_alone", "a_command_inherits_nothing_that_it_was_not_given")),
    Mutant("calls.py", "pass_fds=[fence] if fence >= 0 else [],", "pass_fds=[],", unit("command_files", "the_lock_that_a_command_was_handed_stays_held_when_we_let_go")),
    Mutant("state.py", "        fcntl.flock(lock, fcntl.LOCK_EX)  # held for a few milliseconds\n", "", unit("state", "two_processes_that_change_one_record_lose_nothing_of_each_other")),
    Mutant("roots.py", "os.O_RDWR | os.O_EXCL if write else os.O_RDONLY", "os.O_RDWR if write else os.O_RDONLY", unit("devices", "one_writer_at_a_time_and_never_an_older_one")),
    Mutant("roots.py", "                    locks.own(fd, f\"target {path} on host {self.config.name}\")\n", "                    pass\n", unit("image_locks", "a_device_is_written_in_place_only_while_qemu_does_not_have_it")),
    Mutant("roots.py", "                    _expect_relatives_closed(fd, f\"target {path} on host {self.config.name}\")\n", "                    pass\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    never("roots.py", "            if write and _takes_no_writes(st.st_rdev):\n", unit("shared_bytes", "a_device_that_takes_no_writes_is_refused_before_anything_is_noted")),
    Mutant("locks.py", "        taken = is_open(fd)\n", "        taken = False\n", unit("image_locks", "an_image_that_qemu_has_open_cannot_be_owned")),
    Mutant("locks.py", "        kernel.lock_shared(fd, _USED, _COUNT)\n", "", unit("image_locks", "an_owner_uses_every_permission_and_shares_none")),
    Mutant("locks.py", "        kernel.lock_shared(fd, _REFUSED, _COUNT)\n", "", unit("image_locks", "an_owner_uses_every_permission_and_shares_none")),
    Mutant("locks.py", "        kernel.lock_shared(fd, _USED + CONSISTENT_READ)\n", "        pass\n", unit("image_locks", "a_reader_that_shares_everything_keeps_nobody_from_starting", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    Mutant("locks.py", "            kernel.lock_shared(fd, _USED + permission)\n", "            pass\n", unit("image_locks", "a_guest_does_not_start_on_what_an_attempt_writes_a_part_of")),
    Mutant("locks.py", "    return any(kernel.locked(fd, _USED + permission) for permission in _CHANGES)\n", "    return False\n", unit("image_locks", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    Mutant("locks.py", "    return kernel.locked(fd, _REFUSED, _COUNT)\n", "    return False\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    never("locks.py", "    if is_open(fd):\n        raise JobFailed", unit("image_locks", "an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare")),
    Mutant("targets/publish.py", "        with replaced.owned(directory, member.target):\n            os.rename(member.staging", "        if True:\n            os.rename(member.staging", unit("image_locks", "one_that_qemu_opened_since_prepare_is_left_and_published_once_it_is_closed")),
    Mutant("targets/replaced.py", "        locks.expect_closed(fd, f\"target {path}\")\n", "", unit("image_locks", "an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare")),
    never("targets/replaced.py", "    if loop := next(sysfs.loops_on(os.fstat(fd)), 0):\n", unit("image_locks", "a_file_that_a_loop_device_lies_in_is_not_replaced")),
    never("targets/replaced.py", "    if above := lying_on(directory, path):\n", unit("prune", "a_backup_that_an_image_beside_it_lies_on_stays")),
    Mutant("targets/prepare.py", "        replaced.expect_still_replaceable(roots, member)\n", "", unit("image_locks", "an_image_that_qemu_has_open_is_not_replaced_from_open_to_prepare")),
    never("drivers/staged.py", "        if spec.overwrite and not spec.in_place and not is_null(spec):\n            stack", unit("image_locks", "qemu_does_not_start_on_what_an_attempt_is_about_to_replace")),
    never("inuse.py", "    if locks.is_written(fd):\n        return _QEMU\n", unit("inuse", "an_image_that_qemu_writes_to_is_refused")),
    never("inuse.py", "        if _any_guest_writes(relatives):\n            return", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    never("inuse.py", "    if device and not _free(fd):\n", unit("inuse", "a_device_that_is_mounted_is_in_use")),
    Mutant("inuse.py", "os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC", "os.O_RDONLY | os.O_CLOEXEC", unit("inuse", "a_device_that_is_mounted_is_in_use")),
    never("inuse.py", "            if each.still and each.is_written():\n", unit("image_locks", "a_guest_starts_on_what_is_read_and_that_ends_the_attempt")),
    never("inuse.py", "            if each.still and each.numbers and each.numbers & _mounted():\n", unit("image_locks", "a_device_that_is_mounted_while_it_is_read_is_seen")),
    Mutant("inuse.py", "locks.is_written(fd) and locks.is_kept(fd) for fd", "locks.is_written(fd) for fd", unit("image_locks", "a_job_that_writes_a_part_keeps_nobody_from_reading_another_and_a_guest_is_seen")),
    Mutant("inuse.py", "        return locks.is_written(self.fd) or _any_guest_writes(self.relatives)\n", "        return locks.is_written(self.fd)\n", unit("image_locks", "a_job_that_writes_a_part_keeps_nobody_from_reading_another_and_a_guest_is_seen")),
    Mutant("inuse.py", "            _expect_free(store, roots, text, \"a layer that nobody writes to was expected\")\n", "            pass\n", unit("inuse", "a_layer_that_qemu_writes_to_is_refused_whatever_the_top_is")),
    Mutant("inuse.py", "        return False\n    return is_written(spec.source.volume, roots)\n", "        return False\n    return False\n", unit("inuse", "a_cut_of_an_image_that_qemu_writes_to_claims_no_instant")),
    Mutant("relatives.py", "    for step in (_below, sysfs.parts_of):\n", "    for step in (_below,):\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    Mutant("relatives.py", "    for step in (_below, sysfs.parts_of):\n", "    for step in (sysfs.parts_of,):\n", unit("image_locks", "what_shares_bytes_with_a_guests_disk_is_not_written_and_is_in_use")),
    Mutant("overlap.py", "return shared and (self.exact or other.exact)", "return shared and self.exact and other.exact", unit("shared_bytes", "spans_meet_where_they_certainly_share_bytes")),
    Mutant("overlap.py", "        yield from _within(_device(disk, above), first, last)\n", "        pass\n", unit("shared_bytes", "a_disk_and_its_partition_meet_and_two_partitions_do_not")),
    Mutant("overlap.py", "        yield from _within(_path(backing, above), first, first + length if length else _LAST)\n", "        pass\n", unit("shared_bytes", "a_loop_device_meets_its_file_its_device_and_another_loop_on_the_same_bytes")),
    Mutant("overlap.py", "    if rdev := _disk_of(fd, st):\n        yield from _somewhere(_device(rdev, above))\n", "", unit("shared_bytes", "a_file_lies_on_the_device_that_holds_its_file_system")),
    never("targets/inplace.py", "    if source.kind != \"none\" and meet(spans_of_volume(roots, spec.source.volume, published=published), spans):\n", unit("shared_bytes", "an_alias_of_the_source_is_the_source")),
)

TOKENS: Final = (
    never("targets/staged.py", "        if token < known.token:\n", unit("staged", "a_lower_token_than_was_seen_is_refused")),
    Mutant("targets/staged.py", "            journal.put(replace(known, token=token))\n", "            pass\n", unit("staged", "a_lower_token_than_was_seen_is_refused")),
    never("targets/staged.py", "        if record.decision is not None or known.settled:\n", unit("staged", "nothing_is_written_once_a_decision_is_noted_although_the_files_are_still_there")),
    Mutant("targets/staged.py", "known is None or known.uuid != member.uuid:\n", "known is None:\n", unit("staged", "nothing_is_written_after_an_abort_or_for_another_uuid")),
    never("targets/inplace.py", "            if token < current.token:\n", unit("devices", "one_writer_at_a_time_and_never_an_older_one")),
    never("targets/inplace.py", "            if current.state not in (State.OPENED, State.INVALID):\n", unit("devices", "no_attempt_writes_to_a_device_whose_job_is_decided")),
    Mutant("targets/opening.py", "        if record.decision is not None or record.state != \"open\" or not wanted():\n", "        if not wanted():\n", unit("publish", "an_aborted_job_leaves_only_its_tombstone")),
    Mutant("targets/opening.py", "        if record.decision is not None or record.state != \"open\" or not wanted():\n", "        if record.decision is not None or record.state != \"open\":\n", unit("publish", "a_settled_job_that_is_opened_late_makes_nothing")),
    never("targets/inplace.py", "        if not wanted():\n", unit("devices", "an_open_that_nobody_waits_for_any_more_notes_nothing")),
)

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
)

IDENTITIES: Final = (
    Mutant("targets/settle.py", "                expect_proven(directory, current)\n                if (known", "                if (known", unit("publish", "what_was_never_prepared_is_not_published")),
    never("targets/proof.py", "    if not same_file(found.which, proven.which):\n        text = f\"target {member.target}: its staging file {staging} is another", unit("proven", "a_file_that_is_not_as_it_was_prepared_is_not_published")),
    never("targets/proof.py", "    if found.size != proven.size:\n", unit("proven", "a_file_that_is_not_as_it_was_prepared_is_not_published")),
    Mutant("targets/proof.py", "    _expect_manifest(directory, member)\n\n", "\n", unit("proven", "a_manifest_of_version_1_that_is_torn_is_not_published")),
    Mutant("targets/files.py", "        return found is not None and same_file(member.which, found.which)\n", "        return found is not None\n", unit("publish", "a_foreign_file_that_took_a_name_is_never_replaced")),
    Mutant("targets/files.py", "        if not member.ino or has_staging_file(member, directory, member.staging):\n", "        if True:\n", unit("proven", "a_foreign_file_with_the_inode_number_of_the_staging_file_is_not_taken_for_it")),
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
    never("targets/inplace.py", "        if before is not None and before.state in (State.OPENED, State.INVALID):\n            text", unit("devices", "no_other_job_is_let_to_a_device_before_the_first_one_is_over")),
    never("targets/inplace.py", "            if before.state is State.INVALID and before.which and not same_thing(before.which, which):\n", unit("devices", "another_file_behind_the_same_loop_device_is_another_device")),
    never("targets/inplace.py", "    if spec.offset + size > there:\n", unit("devices", "a_device_that_is_too_small_is_refused_and_nothing_is_noted")),
    Mutant("drivers/copying.py", "        self.expect_no_writer(self._attached.watch)\n        self.check_source()\n        self._compare_content()\n", "", unit("source_changes", "a_write_through_a_dirty_page_fails_the_job")),
    Mutant("drivers/copying.py", "        if what in REPLACED or self._matters(what):\n", "        if self._matters(what):\n", unit("source_changes", "another_size_fails_the_job_under_both_policies")),
    never("drivers/staged.py", "        if size != opened.get(\"size\", size):\n", unit("source_changes", "prepare_refuses_a_copy_of_a_source_that_changed_unless_that_is_allowed")),
    never("drivers/staged.py", "        if result[\"source-change\"] == CHANGED and spec.on_source_change is OnChange.FAIL and not self.follows:\n", unit("source_changes", "prepare_refuses_a_copy_of_a_source_that_changed_unless_that_is_allowed")),
    Mutant("drivers/staged.py", "    return RangeSet(durable.ranges if durable.staging == staging else ())\n", "    return RangeSet(durable.ranges)\n", unit("checkpoints", "what_is_durable_in_another_file_is_copied_again")),
    never("drivers/staged.py", "        if durable.staging != place.uuid:\n", unit("checkpoints", "a_prepare_of_what_is_durable_in_another_file_is_refused")),
    Mutant("volumes/condition.py", "            kernel.write_back(fd)\n", "            pass\n", unit("condition", "a_write_through_a_page_that_was_dirty_before_is_seen")),
    Mutant("volumes/condition.py", "        _outlive(before.st_ctime_ns)\n", "", unit("condition", "a_look_at_what_was_written_just_now_lasts_until_the_clock_has_ticked")),
    Mutant("volumes/condition.py", "        if _times(before) == _times(after):\n", "        if True:\n", unit("condition", "a_file_that_is_written_during_each_look_proves_nothing")),
    never("volumes/condition.py", "        if not _same(self, other):\n", unit("source_changes", "another_file_under_the_name_fails_the_job_under_both_policies")),
    Mutant("volumes/condition.py", "        return \"size\" if self.size != other.size else \"\"\n\n    def to_list", "        return \"\"\n\n    def to_list", unit("source_changes", "another_size_fails_the_job_under_both_policies")),
    never("volumes/condition.py", "        if len(self.layers) != len(other.layers) or not all(map(_same, self.layers, other.layers)):\n", unit("source_changes", "a_layer_that_is_replaced_fails_the_job_under_both_policies")),
    Mutant("volumes/condition.py", "    if (one.kind, other.kind) != (\"file\", \"file\"):\n", "    if False:\n", unit("condition", "a_device_is_never_called_unchanged_but_another_one_and_another_size_are_known"),
           covered_by=Change("volumes/condition.py", "which=name, proof=Proof.NOTHING)\n", "which=name)\n")),
    Mutant("volumes/condition.py", "    **dict.fromkeys((\"tmpfs\", \"ramfs\", \"overlayfs\"), Proof.CONTENT),\n", "    **dict.fromkeys((\"tmpfs\", \"ramfs\", \"overlayfs\"), Proof.TIMES),\n", unit("condition", "in_memory_only_the_content_proves_that_nothing_was_written")),
    Mutant("identity.py", "_HANDLED: Final = frozenset(\n    {\"ext4\", \"xfs\",", "_HANDLED: Final = frozenset(\n    {", unit("identity", "another_file_with_the_same_inode_number_has_another_name"),
           covered_by=Change("identity.py", "    born = kernel.birth_time(fd)\n", "    born = 0\n")),
    Mutant("identity.py", "        return first == second and first_boot == second_boot\n", "        return first == second\n", unit("identity", "parts_of_a_name_that_hold_within_a_boot_are_compared_within_a_boot")),
    Mutant("identity.py", "    if start := _read_line(f\"{place}/start\"):\n        name += f\":from:{start}\"\n", "    if start := _read_line(f\"{place}/start\"):\n", unit("identity", "a_partition_that_begins_elsewhere_is_another_device")),
    Mutant("identity.py", "{_THIS_BOOT}{read_boot_id()}:{handle_of(fd)}\"\n    finally", "\"\n    finally", "tests/unit/test_identity.py -k loop"),
    Mutant("targets/cuts.py", "(1, os.geteuid(), 0o600):\n", "(1, os.geteuid(), stat.S_IMODE(st.st_mode)):\n", unit("cut_files", "a_cut_that_others_may_read_is_not_the_file_that_was_made")),
    Mutant("targets/cuts.py", "                _expect_ours(fd, kept)\n", "", unit("cut_files", "a_cut_that_somebody_put_another_file_in_place_of_is_not_written_to")),
    Mutant("targets/cuts.py", "                _expect_seen(source, spec, seen)\n", "", unit("source_changes", "a_cut_is_not_made_of_another_file_than_the_one_that_was_opened")),
    Mutant("targets/cuts.py", "            _expect_seen(source, spec, seen)\n        finally", "            pass\n        finally", unit("source_changes", "a_cut_is_not_made_of_another_file_than_the_one_that_was_opened")),
    never("targets/cuts.py", "    if size != member.size:\n", unit("cut_files", "a_source_that_changed_its_size_since_open_is_refused")),
    Mutant("targets/cuts.py", "journal.lock if (journal := _journals.get(spec.id)) is not None else -1", "-1", unit("command_files", "while_many_transactions_are_cut_each_command_sees_its_own_lock_alone")),
    Mutant("sealed.py", "    return len(told) == len(_BLANK) and blake3(before + _BLANK.encode() + after).hexdigest().encode() == told\n", "    return True\n", unit("manifest_flips", "every_bit_that_flips_in_a_manifest_is_noticed")),
    never("targets/manifest.py", "    if not changed and not _is_whole(text, manifest):\n", unit("manifest_flips", "every_bit_that_flips_in_a_manifest_is_noticed")),
    never("targets/manifest.py", "            if digests.root != named.get(\"root\"):\n", unit("manifest", "digests_that_are_not_the_manifests_prove_nothing")),
    Mutant("targets/manifest.py", "or not _plain(named.get(\"file\")):\n", ":\n", unit("manifest", "a_manifest_cannot_point_elsewhere")),
    never("targets/manifest.py", "    if (found[\"size\"], found[\"mtime_ns\"]) != (noted.get(\"size\"), noted.get(\"mtime_ns\")):\n", unit("prune", "what_is_not_as_it_was_published_stays_and_is_told")),
)

PERMISSIONS: Final = (
    Mutant("targets/existing.py", "    return spec.overwrite and roots.config.allow_overwrite\n", "    return spec.overwrite\n", unit("overwriting", "a_target_that_exists_is_replaced_only_where_the_job_asks_for_it_and_the_host_allows_it")),
    Mutant("targets/existing.py", "    return spec.overwrite and roots.config.allow_overwrite\n", "    return roots.config.allow_overwrite\n", unit("overwriting", "a_target_that_exists_is_replaced_only_where_the_job_asks_for_it_and_the_host_allows_it")),
    Mutant("targets/publish.py", "    return member.overwrite and roots.config.allow_overwrite\n", "    return member.overwrite\n", unit("overwriting", "nothing_is_replaced_once_the_host_does_not_allow_it_any_more")),
    Mutant("targets/publish.py", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:\n", "    if final.st_nlink != 1 or not roots.config.allow_overwrite:\n", unit("overwriting", "only_the_file_that_was_seen_at_open_is_overwritten")),
    Mutant("targets/publish.py", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:\n", "    if not replaced.is_replaced_file(directory, member) or not roots.config.allow_overwrite:\n", unit("overwriting", "a_file_with_a_second_name_is_not_replaced")),
    Mutant("targets/publish.py", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:\n", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1:\n", unit("overwriting", "nothing_is_replaced_once_the_host_does_not_allow_it_any_more")),
    never("targets/publish.py", "        if replacing or (staged is not None and staged.st_ino != final.st_ino):\n", unit("publish", "a_foreign_file_that_took_a_name_is_never_replaced")),
    Mutant("targets/publish.py", "(replacing and stat.S_ISREG(final.st_mode)) or not (staging or replacing)", "replacing or not staging", unit("overwriting", "nothing_but_a_file_is_replaced_beside_an_image")),
    Mutant("targets/existing.py", "    if found is None or (replaceable and stat.S_ISREG(found.st_mode)):\n", "    if found is None or replaceable:\n", unit("overwriting", "nothing_but_a_file_is_replaced_beside_an_image")),
    never("targets/existing.py", "    if st.st_nlink != 1:\n", unit("overwriting", "a_file_with_a_second_name_is_not_replaced")),
    never("targets/existing.py", "    if not stat.S_ISREG(st.st_mode):\n", unit("refused_targets", "a_bad_target_is_refused_and_nothing_is_made")),
    never("targets/opening.py", "    if name.endswith(SUFFIXES):\n", unit("refused_targets", "a_bad_target_is_refused_and_nothing_is_made")),
    never("targets/opening.py", "    if FOLDER in path.split(\"/\"):\n", unit("refused_targets", "a_bad_target_is_refused_and_nothing_is_made")),
    Mutant("targets/opening.py", "    roots.expect_target(path, restore=spec.type == RESTORE)\n", "", unit("restore_roots", "nothing_but_a_restore_of_what_was_published_uses_a_restore_root")),
    never("targets/salvaged.py", "    if not record.get(\"salvaged\"):\n", unit("salvage", "a_salvaged_image_replaces_no_whole_one")),
    never("calls.py", "    if name not in config.commands:\n", unit("cut_files", "a_command_that_the_host_does_not_name_is_refused")),
    never("globs.py", "    if stat.S_ISLNK(st.st_mode):\n", unit("globs", "a_directory_behind_a_symlink_is_named_and_a_file_on_the_way_is_not")),
    never("globs.py", "        if not stat.S_ISREG(st.st_mode):\n", unit("globs", "every_name_that_matches_and_is_not_taken_is_named")),
    Mutant("globs.py", "            if not _matches(name, part) or is_ours(path := f\"{place.rstrip('/')}/{name}\"):\n", "            path = f\"{place.rstrip('/')}/{name}\"\n            if not _matches(name, part):\n", unit("globs", "files_of_our_own_are_never_taken_and_need_no_word")),
    never("roots.py", "        if write and not self.config.allow_in_place:\n", unit("roots", "a_listed_device_is_opened_for_writing_only_where_the_host_allows_it")),
    never("roots.py", "        if not named and real not in map(os.path.realpath, allowed):\n", unit("roots", "only_listed_devices_are_opened")),
    never("roots.py", "        if not real.startswith(\"/dev/\"):\n", unit("roots", "only_listed_devices_are_opened")),
    Mutant("roots.py", "            if not stat.S_ISBLK((st := os.stat(real)).st_mode):  # before", "            if False and (st := os.stat(real)):  # before", unit("roots", "only_listed_devices_are_opened"),
           covered_by=Change("roots.py", "                if not stat.S_ISBLK((st := os.fstat(fd)).st_mode):\n", "                if False:\n")),
    Mutant("roots.py", "_BENEATH: Final = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS", "_BENEATH: Final = kernel.RESOLVE_BENEATH", unit("roots", "a_bad_source_is_refused_in_one_line")),
    Mutant("roots.py", "                self._expect_file(what, path, os.fstat(seen))\n", "                pass\n", unit("roots", "a_bad_source_is_refused_in_one_line")),
    never("roots.py", "        if not stat.S_ISREG(st.st_mode):\n            code", unit("roots", "a_bad_source_is_refused_in_one_line")),
    Mutant("roots.py", "os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here", "os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here", unit("roots", "kernels_without_openat2_are_walked_part_by_part")),
    Mutant("roots.py", "        return _walk(top, relative, flags | os.O_NOFOLLOW)\n", "        return _walk(top, relative, flags)\n", unit("roots", "kernels_without_openat2_are_walked_part_by_part")),
    Mutant("roots.py", "os.mkdir(os.path.basename(directory), 0o700, dir_fd=parent)", "os.mkdir(os.path.basename(directory), 0o755, dir_fd=parent)", unit("roots", "directories_are_made_private_and_reported")),
    Mutant("roots.py", "            self._root_among(path, self.config.write_roots, \"write\")\n", "            self._root_among(path, self.config.target_roots, \"write\")\n", unit("restore_roots", "nothing_but_a_restore_of_what_was_published_uses_a_restore_root")),
    Mutant("roots.py", "                self.mounts.expect(place, top)\n", "                pass\n", unit("mounts", "a_root_that_is_not_mounted_is_refused_until_it_is_mounted_again")),
    Mutant("roots.py", "                    self.mounts.expect(place, fd)\n", "                    pass\n", unit("mounts", "a_store_on_a_mount_of_its_own_below_a_root_is_remembered")),
    never("mounts.py", "            if before is not None and not before.is_same(now):\n", unit("mounts", "a_root_that_is_not_mounted_is_refused_until_it_is_mounted_again")),
    never("mounts.py", "        if now.mount != now.path or st.st_dev == os.stat(\"/\").st_dev:\n", unit("mounts", "must_be_mounted_refuses_a_plain_directory_before_its_first_use")),
    Mutant("mounts.py", "            if path in self._config.target_roots or path not in self.seen():\n", "            if path not in self.seen():\n", unit("mounts", "a_root_that_went_is_forgotten_once_nothing_is_open_beneath_it")),
    Mutant("mounts.py", "        if self._trusted.get(path) == (st.st_dev, st.st_ino):\n", "        if path in self._trusted:\n", unit("mounts", "a_root_that_is_not_mounted_is_refused_until_it_is_mounted_again")),
    Mutant("seen.py", "        return self.directory == now.directory or self.mount == now.mount\n", "        return True\n", unit("mounts", "a_bound_directory_that_is_missing_is_told_from_the_one_below_it")),
    Mutant("seen.py", "            return len(schemes) > 1 and self.directory == now.directory\n", "            return len(schemes) > 1\n", unit("mounts", "one_file_system_is_told_from_another")),
    Mutant("targets/owed.py", "        owed.setdefault(root, {}).setdefault(transaction, number)\n", "        pass\n", unit("mounts", "an_open_that_was_never_answered_is_ended_when_its_disk_is_back")),
    Mutant("state.py", "                os.mkdir(self.top, 0o700)\n", "                os.mkdir(self.top, 0o755)\n", unit("state", "the_directory_is_private_and_made_where_its_parent_allows_it")),
    Mutant("state.py", "_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC", "_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC", unit("state", "a_record_lies_behind_no_symlink")),
    Mutant("sparefile.py", "        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)\n", "        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)\n", unit("state", "a_record_is_no_symlink_and_neither_is_its_spare")),
    Mutant("sparefile.py", "_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC", "_FLAGS: Final = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC", unit("state", "a_record_is_no_symlink_and_neither_is_its_spare")),
    never("resize.py", "        if not roots.config.allow_overwrite:\n", unit("resize", "only_where_the_host_allows_overwriting")),
    never("resize.py", "        if st.st_nlink != 1:\n", unit("resize", "what_is_no_plain_file_of_ours_is_refused_and_costs_no_permit")),
    Mutant("resize.py", "            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "            pass", unit("resize", "so_is_a_program_that_locks_its_image_as_qemu_does")),
    never("resize.py", "        if not permitted():\n", unit("resize", "a_message_that_comes_twice_changes_nothing_and_is_not_answered")),
    Mutant("targets/attributes.py", "lambda: os.fchmod(fd, mode & PERMISSIONS)", "lambda: os.fchmod(fd, mode)", unit("attributes", "nothing_that_a_manifest_names_gives_rights"),
           survives="nothing above hands over more bits: parse and read keep the permission bits alone; the last guard before the kernel stays"),
    Mutant("targets/attributes.py", "    return mode & PERMISSIONS, more\n", "    return mode, more\n", unit("attributes", "nothing_that_a_manifest_names_gives_rights"),
           covered_by=Change("targets/attributes.py", "lambda: os.fchmod(fd, mode & PERMISSIONS)", "lambda: os.fchmod(fd, mode)")),
    Mutant("targets/attributes.py", "mode=stat.S_IMODE(st.st_mode) & PERMISSIONS,", "mode=stat.S_IMODE(st.st_mode),", unit("attributes", "what_replaces_a_file_does_not_keep_its_setuid_bit"),
           covered_by=Change("targets/attributes.py", "lambda: os.fchmod(fd, mode & PERMISSIONS)", "lambda: os.fchmod(fd, mode)")),
    Mutant("targets/attributes.py", "not name.startswith(\"user.\") or name", "name", unit("attributes", "nothing_that_a_manifest_names_gives_rights")),
    Mutant("targets/attributes.py", "name.startswith(_OBEYED) or \"\\0\" in name:\n", "\"\\0\" in name:\n", unit("attributes", "nothing_that_a_manifest_names_gives_rights")),
    Mutant("targets/attributes.py", "        if value is None or name.startswith(_OBEYED):\n", "        if value is None:\n", unit("attributes", "what_replaces_a_file_keeps_what_that_had")),
    Mutant("targets/attributes.py", "        mode &= ~0o070\n", "", unit("attributes", "an_ordinary_user_gives_what_he_may_and_says_what_he_may_not")),
    Mutant("targets/attributes.py", "            os.removexattr(fd, acl.NAME)  # one that the directory gave to its new file\n", "            pass\n", unit("attributes", "a_default_acl_of_the_directory_gives_nobody_what_the_source_did_not")),
    Mutant("targets/given.py", "mode=image.st_mode & _READ_AND_WRITE", "mode=image.st_mode", unit("attributes", "what_replaces_a_file_keeps_what_that_had")),
)

NAMES: Final = (
    Mutant("targets/reserved.py", "    try:\n        kernel.rename_noreplace(directory, old, name)\n    except OSError as error:", "    try:\n        os.rename(old, name, src_dir_fd=directory, dst_dir_fd=directory)\n    except OSError as error:", unit("reserved", "the_second_open_of_a_name_is_refused_with_the_job_and_the_host_that_has_it")),
    Mutant("targets/reserved.py", "        os.unlink(old, dir_fd=directory)\n", "        pass\n", unit("publish", "a_file_system_that_cannot_rename_without_replacing_gives_an_image_its_name_all_the_same")),
    Mutant("targets/reserved.py", "        os.link(old, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)\n        os.unlink(old, dir_fd=directory)\n", "        os.rename(old, name, src_dir_fd=directory, dst_dir_fd=directory)\n", unit("publish", "a_file_system_that_cannot_rename_without_replacing_gives_an_image_its_name_all_the_same")),
    Mutant("targets/reserved.py", "    if holder is not None and holder.uuid == member.uuid:\n        _unlink(directory, member.reserved)", "    if holder is not None:\n        _unlink(directory, member.reserved)", unit("reserved", "a_reservation_that_nobody_can_read_is_respected_and_one_of_others_never_removed")),
    never("targets/layout.py", "    if member.reserved:\n        yield from reserving_name", unit("reserved", "the_second_open_of_a_name_is_refused_with_the_job_and_the_host_that_has_it")),
    Mutant("targets/layout.py", "    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC\n", "    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC\n", unit("refused_targets", "nothing_is_made_through_a_name_that_somebody_else_puts_there_meanwhile")),
    Mutant("targets/cuts.py", "            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC\n", "            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC\n", unit("cut_files", "nothing_is_made_through_a_name_that_somebody_else_puts_there_meanwhile")),
    Mutant("targets/staged.py", "os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory", "os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory", unit("staged", "a_symlink_in_place_of_the_digests_is_not_followed")),
    Mutant("targets/folder.py", "os.open(SETTLED, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)", "os.open(SETTLED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)", unit("journal", "the_folder_of_tombstones_is_no_link")),
    Mutant("targets/journal.py", "    ids.job_id(transaction)  # it becomes a file name\n", "", unit("journal", "a_transaction_that_is_no_id_gets_no_file")),
)

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
    Mutant("copy/lanes.py", "            failed = _unexpected(error, turn.piece)\n        with self._state:\n            self._working", "            pass\n        with self._state:\n            self._working", unit("copy_lanes", "a_lane_whose_very_thread_breaks_is_a_trouble")),
    Mutant("durability.py", "                self._failure = error\n", "", unit("copy_lanes", "whatever_ends_the_thread_that_flushes_is_told_to_the_attempt")),
    never("copy/recheck.py", "        if digests.get(first) != value:\n", unit("condition", "in_memory_only_the_content_proves_that_nothing_was_written") + " tests/unit/test_source_changes.py"),
    never("copy/proven.py", "        if blake3(piece).digest() != self._hashes[number]:\n", unit("checked", "digests_that_change_while_the_image_is_compared_are_noticed")),
    Mutant("volumes/checked.py", "        return digest(view) == expected\n", "        return True\n", unit("checked", "a_byte_that_changed_is_found_wherever_it_is_and_only_its_chunk")),
    Mutant("volumes/checked.py", "            return bytearray(len(view)) == view\n", "            return True\n", unit("checked", "a_byte_that_changed_is_found_wherever_it_is_and_only_its_chunk")),
    never("volumes/checked.py", "                if not flag and values[index * LENGTH : (index + 1) * LENGTH] != ZERO:\n", unit("checked", "what_became_a_hole_or_was_cut_off_is_found")),
    Mutant("volumes/direct.py", "os.O_RDONLY | os.O_DIRECT | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK", unit("medium", "a_device_that_somebody_read_before_its_file_system_wrote_is_read_as_it_is_now", "verify_finds_what_is_rotten_on_the_medium_and_sound_in_the_cache")),
    Mutant("volumes/direct.py", "        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)\n        return kernel", "        return kernel", unit("medium", "what_is_dropped_from_the_cache_is_not_in_it_any_more")),
    never("volumes/nbd.py", "            if not filled.covers(0, len(view)):\n", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("volumes/nbd.py", "            if magic not in (_SIMPLE, _CHUNK) or handle != self._handle:\n", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("volumes/nbd.py", "            if min(n for n, _ in runs) == 0 or sum(n for n, _ in runs) > length:\n", unit("nbd", "an_answer_about_what_is_allocated_covers_what_it_is_about")),
    never("volumes/nbd.py", "    if length <= 0 or start < 0 or start + length > len(view) or filled.meets(start, start + length):\n", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("volumes/nbd.py", "        if self.broken is not None:\n            raise", unit("nbd", "a_read_that_is_not_answered_exactly_is_an_error_and_the_last_one")),
    never("drivers/restore.py", "        if not record.get(\"digests\") and not on:\n", unit("verify_driver", "without_digests_or_with_others_there_is_nothing_to_compare_with")),
    never("drivers/verify.py", "        if not isinstance(spec.target.volume, NullVolume) or spec.in_place:  # else it would be a copy from a write root\n", unit("verify_driver", "it_copies_nothing_anywhere")),
    never("drivers/verify.py", "    if job and (record.get(\"job\"), record.get(\"run\")) != (job, options.get(RUN)):\n", unit("verify_driver", "an_image_of_another_job_than_the_one_meant_is_refused")),
    Mutant("steps.py", "    raise JobFailed(errno.ENOSPC, f\"{wrong}; with 'room: warn' the job goes on all the same\")\n", "    return system, [wrong]\n", unit("room", "too_little_room_refuses_a_job_that_is_checked_and_warns_one_that_is_not")),
    Mutant("targets/room.py", "        self._needed[dev] = total\n", "", unit("refused_targets", "space_is_added_up_by_file_system")),
    Mutant("errands/board.py", "            if under_way[lane] >= self._width or lane & blocked:\n", "            if under_way[lane] >= self._width:\n", unit("lanes", "a_file_system_on_which_some_errands_hang_gets_no_more_by_way_of_any_lane")),
    Mutant("errands/board.py", "            if under_way[lane] >= self._width or lane & blocked:\n", "            if lane & blocked:\n", unit("lanes", "a_lane_has_as_many_errands_under_way_as_it_is_wide")),
    Mutant("errands/forker.py", "        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)\n", "", unit("lanes", "every_process_is_gone_once_the_one_that_forked_them_is")),
)

CAGE: Final = (
    Mutant("cage/launch.py", "    _call(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0))\n", "", unit("tool_limits", "a_server_does_not_outlive_its_starter_and_keeps_no_lock")),
    never("cage/launch.py", "    if os.getppid() != int(parent):\n", unit("tool_limits", "who_is_to_start_for_a_process_that_is_gone_ends_at_once")),
    Mutant("cage/launch.py", "    _call(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))  # and so no exec clears the signal above\n", "", unit("cage", "a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls")),
    Mutant("cage/launch.py", "    _set_limit(resource.RLIMIT_AS, int(memory))\n", "", unit("tool_limits", "a_server_has_a_limit_of_memory")),
    Mutant("cage/launch.py", "    _set_limit(resource.RLIMIT_CORE, 0)\n", "", unit("cage", "a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls")),
    never("cage/launch.py", "    if int(abi):\n", unit("cage", "a_file_that_an_image_names_is_not_opened_by_a_check_either")),
    never("cage/launch.py", "    if int(filters):\n", unit("cage", "a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls")),
    Mutant("cage/launch.py", "(WRITE_FILE | TRUNCATE if writable else 0)", "WRITE_FILE | TRUNCATE", unit("cage", "a_file_that_is_handed_over_for_reading_is_not_written")),
    Mutant("cage/launch.py", "    \"/dev/null\": READ_FILE | WRITE_FILE,\n", "", unit("cage", "what_was_handed_over_is_read_and_written_under_each_version_of_landlock")),
    never("cage/launch.py", "    if _is_script(program):\n", unit("tool_limits", "a_tool_that_talks_without_end_takes_no_memory")),
    Mutant("cage/launch.py", "    if _is_script(program):\n", "    if True:\n", unit("cage", "a_program_opens_no_other_program")),
    Mutant("cage/launch.py", "SCOPES[1] if abi >= SCOPES[0] else 0", "0", unit("cage", "a_tool_sends_no_signals_to_anybody_else")),
    Mutant("cage/launch.py", "    denied = (*numbers, _IO_URING_SETUP)\n", "    denied = tuple(numbers)\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    Mutant("cage/launch.py", "    denied = (*numbers, _IO_URING_SETUP)\n", "    denied = (numbers[0], _IO_URING_SETUP)\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    Mutant("cage/launch.py", "    denied = (*numbers, _IO_URING_SETUP)\n", "    denied = (numbers[1], _IO_URING_SETUP)\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    Mutant("cage/launch.py", "        (at_least, refuse - 4, 0, _X32),\n", "        (at_least, 0, 0, _X32),\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    never("cage/__init__.py", "        if self.lack and not self.uncaged:\n", unit("cage", "without_a_cage_formats_are_refused_unless_the_owner_of_the_host_allows_it")),
    Mutant("cage/tool.py", "            said, in_time = _listen(outputs, problems, time.monotonic() + seconds, idle)\n", "            said, in_time = _listen(outputs, problems, time.monotonic() + seconds + 20, idle)\n", unit("tool_limits", "a_tool_that_talks_without_end_takes_no_memory")),
    Mutant("cage/tool.py", "                    del said[outputs][_LONGEST:]\n", "                    pass\n", unit("tool_limits", "a_tool_that_talks_without_end_takes_no_memory")),
    never("volumes/headers.py", "    if volume.driver == \"vmdk\" and magic == TEXT:\n", unit("soundness", "a_vmdk_of_several_files_is_refused_by_its_kind")),
    never("volumes/headers.py", "    if magic[:4] != MAGIC[volume.driver]:\n", unit("formats", "what_is_not_of_the_format_is_refused")),
    never("volumes/headers.py", "        if header.has_data_file:\n            raise", unit("formats", "a_data_file_that_an_image_names_is_not_read")),
    never("volumes/headers.py", "        if vmdk.kind not in WHOLE_KINDS:\n", unit("soundness", "a_description_within_a_vmdk_is_believed_by_its_kind")),
    never("volumes/headers.py", "        if not vmdk.capacity:\n", unit("soundness", "a_vmdk_with_capacity_0_is_refused")),
    never("volumes/headers.py", "    if below and (not volume.alone if volume.backing is None else not _in_file(volume.backing)):\n", unit("formats", "a_backing_file_that_an_image_names_is_not_read")),
    Mutant("volumes/headers.py", "bool(self.features & _CORRUPT)", "False", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", "self.dirty and not dirty_is_fine,", "False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", ": self.l1_entries < needed,", ": False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", ": refcounts > length,", ": False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", "self.l1_offset + table\n            > length,", "False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/soundness.py", "            if is_written(fd):\n                unknown.append(f\"{label(image)} was not checked: QEMU writes", "            if False:\n                unknown.append(f\"{label(image)} was not checked: QEMU writes", unit("source_findings", "an_image_that_qemu_writes_to_is_left_to_the_attempt_which_checks_its_cut")),
    never("volumes/soundness.py", "    if faults:\n        raise JobFailed(errno.EIO, \"; \".join(faults))\n", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
)

ATTEMPTS: Final = (
    never("watcher.py", "        if who.boot != self._boot:\n            return None\n", here("an_attempt_is_released_where_its_very_process_is_gone[boot]")),
    Mutant("watcher.py", "            same = processstart.has_started_at(who.pid, who.started)\n", "            same = True\n", here("an_attempt_is_released_where_its_very_process_is_gone[start]")),
    Mutant("watcher.py", "        return process if same and runs and not gone else None\n", "        return process if same and runs else None\n", here("an_attempt_is_released_where_its_very_process_is_gone[zombie]")),
    Mutant("watcher.py", "            self._kill(standing, process)\n            return process, standing\n", "            self._release(standing, \"fenced\")\n            return None\n", here("an_attempt_that_was_fenced_is_killed_before_its_job_is_released")),
    Mutant("watcher.py", "        return process if same and runs and not gone else None\n", "        return process if same and not gone else None\n", here("a_process_is_not_killed_for_an_attempt_that_it_does_not_run")),
    Mutant("processname.py", "    return not name.startswith(PREFIX) or name == name_of(attempt)\n", "    return name == name_of(attempt)\n", here("a_claim_by_a_process_of_an_earlier_version_is_told_by_its_process_alone")),
    Mutant("processname.py", "    finally:\n        _rename(IDLE)\n", "    finally:\n        pass\n", here("a_claim_that_nobody_heard_of_is_released_and_its_process_lives")),
    Mutant("processname.py", "    _rename(name_of(attempt))\n", "", here("a_process_is_not_killed_for_an_attempt_that_it_does_not_run[another]")),
    Mutant("attempt.py", "            if not is_absence(error) or boottime() >= until:\n", "            if error:\n", here("a_claim_whose_answer_was_lost_is_asked_for_again_and_is_one_attempt")),
    Mutant("heartbeat.py", "            except HostTaken:\n                raise\n", "", unit("threads", "a_host_whose_name_another_machine_has_taken_ends_its_worker")),
    Mutant("threads.py", "            end_process(f", "            str(f", unit("threads", "a_thread_that_ends_at_what_nobody_expected_ends_its_process_and_says_why[watcher]")),
    never("pausepoint.py", "        if self.line.lost:\n            raise errors.LeaseLost(self.spec.id)\n        if self.line.failure", here("an_attempt_whose_job_is_another_ones_ends_and_says_nothing_more")),
    never("pausepoint.py", "        if not self.line.safe:\n", here("an_attempt_whose_lease_is_in_doubt_writes_nothing_until_redis_answers")),
    Mutant("pausepoint.py", "stopping\", self.spec.id)\n        running = self._running\n        if running is not None:\n            running.pause()\n", "stopping\", self.spec.id)\n        running = self._running\n", here("an_attempt_whose_lease_is_in_doubt_writes_nothing_until_redis_answers")),
    Mutant("control.py", "            except LeaseLost:\n                self.lost = True\n", "            except LeaseLost:\n", here("an_attempt_whose_job_is_another_ones_ends_and_says_nothing_more")),
    Mutant("control.py", "                self.failure = error\n", "                pass\n", unit("attempt_ends", "wherever_the_bug_is_the_job_fails_with_it[pulse]")),
)

FREEZES: Final = (
    Mutant("freezer.py", "None if left == float(\"inf\") else max(0.0, left))", "None)", unit("quiesce", "whoever_froze_is_stopped_and_the_thaw_comes_at_the_deadline")),
    Mutant("freezer.py", "    freeze.kill()\n    gone", "    gone", unit("quiesce", "a_freeze_that_hangs_is_killed_and_thawed_at_the_deadline")),
    Mutant("freezer.py", "    failure = thaw(argv, paths)\n    if not gone:", "    failure = \"\"\n    if not gone:", unit("quiesce", "a_freeze_that_hangs_is_killed_and_thawed_at_the_deadline")),
    Mutant("freezer.py", "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):", "for number in (signal.SIGCHLD,):", unit("quiesce", "a_freezer_ignores_that_it_is_asked_to_end")),
    Mutant("freezer.py", "        if code == 0:\n            return \"\"\n", "        return \"\"\n", unit("quiesce", "a_thaw_that_fails_is_tried_again")),
    Mutant("quiesce.py", "        else:\n            self._thaw_ourselves(word, rest)\n        return None\n", "        return None\n", unit("quiesce", "a_freezer_that_is_killed_itself_is_stood_in_for")),
)
# fmt: on

MUTANTS: Final = (
    *FLUSHES, *LOCKS, *TOKENS, *DECISIONS, *SWEEPING, *IDENTITIES, *PERMISSIONS, *NAMES, *COPY, *CAGE, *ATTEMPTS, *FREEZES,
)  # fmt: skip
