"""Every flush, exclusive creation, lock, token, identity and permission check of the data plane, one line each.

A line takes one of them away: file beneath ``workers/blockworker``, exact text, what replaces it, and the tests that
have to fail.  ``covered_by``: a second guard that does the same work; the tests fail only where both are gone.
``survives``: why no test can tell.
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
    covered_too: bool = False  # whether the second guard is gone as well

    def with_cover(self) -> Mutant:
        return replace(self, covered_too=True)

    def changes(self) -> Iterator[Change]:
        yield Change(self.file, self.text, self.instead)
        if self.covered_too and self.covered_by:
            yield self.covered_by


PUBLISH: Final = "tests/unit/test_publish.py tests/unit/test_proven.py"
STAGED: Final = "tests/unit/test_staged.py"
SWEEP: Final = "tests/unit/test_sweep.py"
DEVICES: Final = "tests/unit/test_devices.py"
CUTS: Final = "tests/unit/test_cut_files.py"
ROOTS: Final = "tests/unit/test_roots.py"
HUNT: Final = "--hunt"  # at each change, from the last one on, until something is found
CUT_AT: Final = "tests/power/test_power_cuts.py::test_a_power_cut_at_any_change_loses_nothing_that_was_answered"
POWER: Final = f"{HUNT} {CUT_AT}[xfs-plain]"
POWER_CUT: Final = f"{HUNT} {CUT_AT}[xfs-cut]"

# fmt: off
FLUSHES: Final = (
    Mutant("targets/written.py", "            os.fdatasync(self._fd)\n", "            pass\n", POWER),
    Mutant("copy/digests.py", "            os.fdatasync(self._fd)\n", "            pass\n", POWER),
    Mutant("copy/engine.py", "            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n", "            pass\n", POWER),
    Mutant("targets/prepare.py", "            os.fsync(fd)\n            if member.format and not", "            if member.format and not", POWER,
           covered_by=Change("targets/written.py", "            os.fdatasync(self._fd)\n", "            pass\n")),
    Mutant("targets/prepare.py", "        give_as_image(image, fd)\n        os.fsync(fd)\n        written = seen(fd)", "        give_as_image(image, fd)\n        written = seen(fd)", POWER),
    Mutant("targets/prepare.py", "        os.fsync(fd)\n        return (None if named is None", "        return (None if named is None", POWER,
           covered_by=Change("copy/digests.py", "            os.fdatasync(self._fd)\n", "            pass\n")),
    Mutant("targets/settle.py", "            release_name(directory, current)\n            os.fsync(directory)\n", "            release_name(directory, current)\n", POWER),
    Mutant("sparefile.py", "        _write_whole(fd, text.ljust(room))\n        os.fsync(fd)\n", "        _write_whole(fd, text.ljust(room))\n", POWER),
    Mutant("targets/cuts.py", "    fd = roots.open_source(kept.path)\n    try:\n        os.fsync(fd)\n", "    fd = roots.open_source(kept.path)\n    try:\n        pass\n", POWER_CUT),
    Mutant("targets/inplace.py", "        fd = _open_same(roots, current)\n        try:\n            os.fsync(fd)\n", "        fd = _open_same(roots, current)\n        try:\n            pass\n", DEVICES,
           survives="the flush at the end of the copy is the same call on the same device; what PREPARE flushes again was never written by anybody else"),
)

LOCKS: Final = (
    Mutant("targets/staged.py", "            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "            return None\n", STAGED),
    Mutant("targets/folder.py", "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", "tests/unit/test_journal.py " + CUTS),
    Mutant("targets/folder.py", "            if os.fstat(lock).st_nlink:\n", "            if True:\n", "tests/unit/test_journal.py"),
    Mutant("targets/devices.py", "                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", DEVICES),
    Mutant("roots.py", "os.O_RDWR | os.O_EXCL if write else os.O_RDONLY", "os.O_RDWR if write else os.O_RDONLY", DEVICES),
    Mutant("locks.py", "        taken = is_open(fd)\n", "        taken = False\n", "tests/unit/test_image_locks.py"),
    Mutant("locks.py", "        kernel.lock_shared(fd, _REFUSED, _COUNT)\n", "", "tests/unit/test_image_locks.py"),
    Mutant("targets/publish.py", "        with replaced.owned(directory, member.target):\n            os.rename(member.staging", "        if True:\n            os.rename(member.staging", "tests/unit/test_image_locks.py " + PUBLISH),
    Mutant("targets/replaced.py", "        locks.expect_closed(fd, f\"target {path}\")\n", "", "tests/unit/test_image_locks.py " + PUBLISH),
)

TOKENS: Final = (
    Mutant("targets/staged.py", "        if token < known.token:\n", "        if False:\n", STAGED),
    Mutant("targets/staged.py", "            journal.put(replace(known, token=token))\n", "            pass\n", STAGED),
    Mutant("targets/staged.py", "        if record.decision is not None or known.settled:\n", "        if False:\n", STAGED + " " + PUBLISH),
    Mutant("targets/inplace.py", "            if token < current.token:\n", "            if False:\n", DEVICES),
    Mutant("targets/inplace.py", "            if current.state not in (State.OPENED, State.INVALID):\n", "            if False:\n", DEVICES),
    Mutant("targets/opening.py", "        if record.decision is not None or record.state != \"open\" or not wanted():\n", "        if not wanted():\n", PUBLISH),
    Mutant("targets/opening.py", "        if record.decision is not None or record.state != \"open\" or not wanted():\n", "        if record.decision is not None or record.state != \"open\":\n", PUBLISH),
)

DECISIONS: Final = (
    Mutant("targets/settle.py", "        if record.decision == \"commit\":\n            raise JobFailed(errno.EINVAL", "        if False:\n            raise JobFailed(errno.EINVAL", PUBLISH),
    Mutant("targets/settle.py", "        if record.decision == \"abort\" or current.discarded or journal is None:\n", "        if journal is None:\n", PUBLISH),
    Mutant("targets/settle.py", "                journal.decide(\"commit\", decision_number)\n                if current.resolution == Resolution.REPLACE:\n                    put_aside(directory, current)\n                publish_image(roots, directory, current)\n", "                if current.resolution == Resolution.REPLACE:\n                    put_aside(directory, current)\n                publish_image(roots, directory, current)\n                journal.decide(\"commit\", decision_number)\n", PUBLISH),
    Mutant("targets/prepare.py", "            if record.decision is not None or current.discarded or journal is None:\n", "            if journal is None:\n", PUBLISH),
    Mutant("targets/prepare.py", "    if end < member.size:\n", "    if False:\n", PUBLISH),
    Mutant("targets/prepare.py", "                if current.proven:  # this is a second PREPARE: what the first one proved stays as it is\n", "                if False:\n", PUBLISH),
    Mutant("sweeping.py", "        if told is not None and told.decision == \"commit\":\n", "        if False:\n", SWEEP),
    Mutant("sweeping.py", "        registry.expect_gone(record.registry)\n", "", SWEEP),
    Mutant("strays.py", "        registry.expect_gone(holder.registry)\n", "", SWEEP),
    Mutant("strays.py", "        if _DATE.fullmatch(found[\"uuid\"]):\n", "        if False:\n", SWEEP),
    Mutant("highest.py", "            if self.incarnation and incarnation != self.incarnation:\n", "            if False:\n", "tests/unit/test_state.py"),
    Mutant("targets/inplace.py", "        if current.state is not State.INVALID or current.prepared is None:\n", "        if False:\n", DEVICES),
    Mutant("targets/inplace.py", "        if durable.staging != current.uuid or not RangeSet(durable.ranges).covers(0, current.size):\n", "        if False:\n", DEVICES),
)

IDENTITIES: Final = (
    Mutant("targets/entries.py", "    if not (is_whole(text.rstrip(b\" \"), digest) if digest is not None else version == 1):\n", "    if False:\n", "tests/unit/test_journal.py"),
    Mutant("targets/manifest.py", "    if not changed and not _is_whole(text, manifest):\n", "    if False:\n", "tests/unit/test_manifest_flips.py"),
    Mutant("highest.py", "        if self.damage is not None:  # it is all that anybody has to look at\n", "        if False:\n", "tests/unit/test_state.py"),
    Mutant("identity.py", "{_THIS_BOOT}{boot_id()}:{handle_of(fd)}\"\n    finally", "\"\n    finally", "tests/unit/test_identity.py"),
    Mutant("targets/settle.py", "                expect_proven(directory, current)\n                journal.decide", "                journal.decide", PUBLISH),
    Mutant("targets/proof.py", "    if not same_file(found.which, proven.which):\n        text = f\"target {member.target}: its staging file {staging} is another", "    if False:\n        text = f\"target {member.target}: its staging file {staging} is another", PUBLISH),
    Mutant("targets/proof.py", "    if found.size != proven.size:\n", "    if False:\n", PUBLISH),
    Mutant("targets/files.py", "        return found is not None and same_file(member.which, found.which)\n", "        return found is not None\n", PUBLISH),
    Mutant("targets/replaced.py", "        return found is not None and same_file(found.which, seen.which)\n", "        return stat_of(directory, member.name).st_ino == seen.ino\n", PUBLISH),
    Mutant("targets/replaced.py", "stat.S_ISREG(st.st_mode) and st.st_ino == seen.ino\n", "stat.S_ISREG(st.st_mode)\n", PUBLISH),
    Mutant("targets/staged.py", "            ours = name != member.staging or is_staging_file(member, fd)\n", "            ours = True\n", STAGED + " " + PUBLISH),
    Mutant("targets/inplace.py", "        if not same or (record.which and not same_thing(record.which, which_device(rdev, record.path))):\n", "        if False:\n", DEVICES),
    Mutant("targets/inplace.py", "        if not same or (record.which and not same_thing(record.which, which_device(rdev, record.path))):\n", "        if not same:\n", DEVICES),
    Mutant("targets/inplace.py", "        if os.lseek(fd, 0, os.SEEK_END) < record.offset + record.size:\n", "        if False:\n", DEVICES),
    Mutant("targets/inplace.py", "    if current is None or (current.job, current.uuid) != (record.job, record.uuid):\n", "    if current is None:\n", DEVICES),
    Mutant("targets/inplace.py", "        if before is not None and before.state in (State.OPENED, State.INVALID):\n            text", "        if False:\n            text", DEVICES),
    Mutant("drivers/copying.py", "        self.expect_no_writer(self._attached.watch)\n        self.check_source()\n        self._compare_content()\n", "", "tests/unit/test_condition.py tests/unit/test_source_changes.py"),
    Mutant("drivers/copying.py", "        if what in REPLACED or self._matters(what):\n", "        if self._matters(what):\n", "tests/unit/test_condition.py tests/unit/test_source_changes.py"),
    Mutant("volumes/condition.py", "            kernel.write_back(fd)\n", "            pass\n", "tests/unit/test_condition.py tests/unit/test_source_changes.py"),
    Mutant("drivers/staged.py", "    return RangeSet(durable.ranges if durable.staging == staging else ())\n", "    return RangeSet(durable.ranges)\n", STAGED + " " + PUBLISH + " " + DEVICES),
    Mutant("drivers/staged.py", "        if durable.staging != place.uuid:\n", "        if False:\n", STAGED + " " + PUBLISH + " " + DEVICES),
    Mutant("targets/cuts.py", "(1, os.geteuid(), 0o600):\n", "(1, os.geteuid(), stat.S_IMODE(st.st_mode)):\n", CUTS),
)

PERMISSIONS: Final = (
    Mutant("targets/existing.py", "    return spec.overwrite and roots.config.allow_overwrite\n", "    return spec.overwrite\n", PUBLISH),
    Mutant("targets/existing.py", "    return spec.overwrite and roots.config.allow_overwrite\n", "    return roots.config.allow_overwrite\n", PUBLISH),
    Mutant("targets/publish.py", "    return member.overwrite and roots.config.allow_overwrite\n", "    return member.overwrite\n", PUBLISH),
    Mutant("targets/publish.py", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:\n", "    if final.st_nlink != 1 or not roots.config.allow_overwrite:\n", PUBLISH),
    Mutant("targets/publish.py", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:\n", "    if not replaced.is_replaced_file(directory, member) or not roots.config.allow_overwrite:\n", PUBLISH),
    Mutant("targets/publish.py", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1 or not roots.config.allow_overwrite:\n", "    if not replaced.is_replaced_file(directory, member) or final.st_nlink != 1:\n", PUBLISH),
    Mutant("targets/publish.py", "        if staged is not None and final is not None and staged.st_ino != final.st_ino:\n", "        if False:\n", PUBLISH),
    Mutant("targets/existing.py", "    if st.st_nlink != 1:\n", "    if False:\n", PUBLISH),
    Mutant("roots.py", "        if write and not self.config.allow_in_place:\n", "        if False:\n", DEVICES + " " + ROOTS),
    Mutant("roots.py", "        if not named and real not in map(os.path.realpath, allowed):\n", "        if False:\n", DEVICES + " " + ROOTS),
    Mutant("roots.py", "_BENEATH: Final = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS", "_BENEATH: Final = kernel.RESOLVE_BENEATH", ROOTS),
    Mutant("resize.py", "        if not roots.config.allow_overwrite:\n", "        if False:\n", "tests/unit/test_resize.py"),
    Mutant("resize.py", "        if st.st_nlink != 1:\n", "        if False:\n", "tests/unit/test_resize.py"),
    Mutant("resize.py", "            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "            pass", "tests/unit/test_resize.py"),
    Mutant("resize.py", "        if not permitted():\n", "        if False:\n", "tests/unit/test_resize.py"),
)

EXCLUSIVE: Final = (
    Mutant("targets/reserved.py", "    try:\n        kernel.rename_noreplace(directory, old, name)\n    except OSError as error:", "    try:\n        os.rename(old, name, src_dir_fd=directory, dst_dir_fd=directory)\n    except OSError as error:", PUBLISH + " tests/unit/test_reserved.py"),
    Mutant("targets/reserved.py", "        os.unlink(old, dir_fd=directory)\n", "        pass\n", PUBLISH + " tests/unit/test_reserved.py"),
    Mutant("targets/reserved.py", "    if holder is not None and holder.uuid == member.uuid:\n        _unlink(directory, member.reserved)", "    if holder is not None:\n        _unlink(directory, member.reserved)", PUBLISH + " tests/unit/test_reserved.py"),
)

ENGINE: Final = (
    Mutant("copy/engine.py", "            (snapshot, before), salvaged = self._account.begin_flush(), self._salvaged.to_tuple()\n            self._told_due = False\n        try:\n            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n",
           "            self._told_due = False\n        try:\n            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n            with self._state:\n                (snapshot, before), salvaged = self._account.begin_flush(), self._salvaged.to_tuple()\n", "tests/unit/test_engine.py"),
    Mutant("targets/written.py", "            raise self._broken from None\n", "            return\n", "tests/unit/test_staged.py tests/unit/test_engine.py"),
    Mutant("targets/written.py", "        self._fd = os.open(f\"/proc/self/fd/{fd}\", os.O_WRONLY | os.O_CLOEXEC)\n", "        self._fd = os.dup(fd)\n", "tests/unit/test_staged.py"),
    Mutant("targets/written.py", "        expect_within(self.size, self._label, offset, len(view))\n        at", "        at", "tests/unit"),
)

CAGE: Final = (
    Mutant("cage/launch.py", "    _call(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0))\n", "", "tests/unit/test_cage.py tests/unit/test_qemu_tools.py tests/unit/test_formats.py"),
)
# fmt: on

MUTANTS: Final = (
    *FLUSHES, *LOCKS, *TOKENS, *DECISIONS, *IDENTITIES, *PERMISSIONS, *EXCLUSIVE, *ENGINE, *CAGE,
)  # fmt: skip
