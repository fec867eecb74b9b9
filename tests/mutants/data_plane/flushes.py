"""Flushes and exclusive creations: what a power cut would show."""

from __future__ import annotations

from typing import Final

from lines import TOGETHER, Change, Mutant, power, unit

# fmt: off
_DATA: Final = Change("targets/written.py", "            os.fdatasync(self._fd)\n", "            pass\n")

_DIGESTS: Final = Change("copy/digests.py", "            os.fdatasync(self._fd)\n", "            pass\n")

_JOURNAL: Final = Change("system/sparefile.py", "    yield (folder,)\n", "    yield ()\n")

# Syncs of names and attributes.  XFS and ext4 keep one log of these: the next sync of the journal makes all that was done
# before it durable as well.  Other file systems need not.
_NAMES: Final = (
    Change("targets/prepare.py", "            lost = give_to_image(roots, member, fd, wanted)\n            yield (fd,)\n", "            lost = give_to_image(roots, member, fd, wanted)\n            yield ()\n"),
    Change("targets/prepare.py", "    os.rename(name, member.manifest, src_dir_fd=directory, dst_dir_fd=directory)\n    yield (directory,)\n", "    os.rename(name, member.manifest, src_dir_fd=directory, dst_dir_fd=directory)\n    yield ()\n"),
    Change("targets/layout.py", "        yield files\n", "        yield ()\n"),
    Change("targets/layout.py", "    yield (directory,)\n", "    yield ()\n"),
    Change("records/files.py", "        release_name(directory, member)\n        os.fsync(directory)\n", "        release_name(directory, member)\n"),
    Change("records/files.py", "        os.rmdir(os.path.basename(path), dir_fd=parent)\n        os.fsync(parent)\n", "        os.rmdir(os.path.basename(path), dir_fd=parent)\n"),
    Change("cuts/cut_files.py", "                os.ftruncate(fd, 0)\n                os.fsync(directory)\n", "                os.ftruncate(fd, 0)\n"),
    Change("cuts/cut_files.py", "        unlink_if_exists(directory, os.path.basename(kept.path))\n        os.fsync(directory)\n", "        unlink_if_exists(directory, os.path.basename(kept.path))\n"),
    Change("records/folder.py", "                os.mkdir(SETTLED, 0o700, dir_fd=folder)\n                os.fsync(folder)\n", "                os.mkdir(SETTLED, 0o700, dir_fd=folder)\n"),
    Change("records/folder.py", "            os.mkdir(FOLDER, 0o700, dir_fd=top)\n            os.fsync(top)\n", "            os.mkdir(FOLDER, 0o700, dir_fd=top)\n"),
    Change("records/folder.py", "            os.rmdir(FOLDER, dir_fd=top)\n            os.fsync(top)\n", "            os.rmdir(FOLDER, dir_fd=top)\n"),
    Change("records/journal.py", "            if files >= 0 and remove_file(files, job):\n                os.fsync(files)\n", "            if files >= 0:\n                remove_file(files, job)\n"),
    Change("records/journal.py", "        os.rename(spare, self._name, src_dir_fd=self._folder, dst_dir_fd=settled)\n        os.fsync(settled)\n", "        os.rename(spare, self._name, src_dir_fd=self._folder, dst_dir_fd=settled)\n"),
    Change("records/journal.py", "        if remove_file(self._folder, self._name):\n            os.fsync(self._folder)\n", "        remove_file(self._folder, self._name)\n"),
    Change("records/journal.py", "            if remove_file(settled, self._name):\n                os.fsync(settled)\n", "            remove_file(settled, self._name)\n"),
    Change("records/journal.py", "        self.unlock()\n        os.fsync(self._folder)\n", "        self.unlock()\n"),
    Change("records/member_files.py", "            os.mkdir(name, 0o700, dir_fd=folder)\n            os.fsync(folder)\n", "            os.mkdir(name, 0o700, dir_fd=folder)\n"),
    Change("targets/madedirs.py", "    if new:\n        os.fsync(notes)\n", ""),
    Change("targets/madedirs.py", "                os.mkdir(MADE_DIRS, 0o700, dir_fd=folder)\n                os.fsync(folder)\n", "                os.mkdir(MADE_DIRS, 0o700, dir_fd=folder)\n"),
    Change("host/roots.py", "                        os.mkdir(os.path.basename(directory), 0o700, dir_fd=parent)\n                        os.fsync(parent)\n", "                        os.mkdir(os.path.basename(directory), 0o700, dir_fd=parent)\n"),
    Change("host/roots.py", "            os.fchmod(directory, self.config.directory_mode)\n        os.fsync(directory)\n", "            os.fchmod(directory, self.config.directory_mode)\n"),
)

# More of these, of what no story of a power cut does: in place, pruned, swept, resized, beneath the state directory, and
# of an image of a format, whose file PREPARE syncs again behind its check.
_ELSEWHERE: Final = (
    Change("targets/publish.py", "            unlink_if_exists(directory, member.name + suffix)\n        os.fsync(directory)\n", "            unlink_if_exists(directory, member.name + suffix)\n"),
    Change("records/device_record.py", "        remove_file(self._folder, f\"{self._name}.json\")\n        os.fsync(self._folder)\n", "        remove_file(self._folder, f\"{self._name}.json\")\n"),
    Change("records/devices.py", "            remove_file(folder, f\"{name}.json\")\n            os.fsync(folder)\n", "            remove_file(folder, f\"{name}.json\")\n"),
    Change("host/state.py", "                os.mkdir(self.top, 0o700)\n                _sync_directory(os.path.dirname(self.top))\n", "                os.mkdir(self.top, 0o700)\n"),
    Change("host/state.py", "                        os.mkdir(name, 0o700, dir_fd=here)\n                        os.fsync(here)\n", "                        os.mkdir(name, 0o700, dir_fd=here)\n"),
    Change("host/state.py", "            remove_file(folder, name)\n            os.fsync(folder)\n", "            remove_file(folder, name)\n"),
    Change("questions/prune.py", "            unlink_if_exists(directory, name + DIGESTS)\n        os.fsync(directory)\n", "            unlink_if_exists(directory, name + DIGESTS)\n"),
    Change("questions/prune.py", "        unlink_if_exists(directory, name + MANIFEST)\n        os.fsync(directory)\n", "        unlink_if_exists(directory, name + MANIFEST)\n"),
    Change("questions/strays.py", "                os.unlink(name, dir_fd=directory)\n                os.fsync(directory)\n", "                os.unlink(name, dir_fd=directory)\n"),
    Change("questions/resize.py", "        os.ftruncate(fd, size)\n        os.fsync(fd)\n", "        os.ftruncate(fd, size)\n"),
    Change("volumes/soundness.py", "    tool.shrink(size)\n    os.fsync(fd)\n", "    tool.shrink(size)\n"),
    Change("volumes/soundness.py", "        raise JobFailed(errno.EIO, \"; \".join(faults))\n    os.fsync(fd)\n", "        raise JobFailed(errno.EIO, \"; \".join(faults))\n"),
    Change("targets/proof.py", "        os.fsync(fd)  # costs nothing after PREPARE, and keeps bytes that are not durable from being renamed\n", ""),
)

FLUSHES: Final = (
    Mutant("targets/written.py", "            os.fdatasync(self._fd)\n", "            pass\n", power("xfs-plain")),
    Mutant("copy/digests.py", "            os.fdatasync(self._fd)\n", "            pass\n", power("xfs-plain")),
    Mutant("copy/engine.py", "            self._target.flush()\n            if self._digests is not None:\n                self._digests.flush()\n", "            pass\n", power("xfs-plain")),
    Mutant("targets/prepare.py", "            os.fsync(fd)\n            if member.format and not", "            if member.format and not", power("xfs-plain"), covered_by=_DATA),
    Mutant("targets/prepare.py", "        give_as_image(image, fd)\n        yield (fd,)\n        written = proof_of_file(fd)", "        give_as_image(image, fd)\n        yield ()\n        written = proof_of_file(fd)", power("xfs-plain")),
    Mutant("targets/prepare.py", "        yield (fd,)\n        return (None if named is None", "        yield ()\n        return (None if named is None", power("xfs-plain"), covered_by=_DIGESTS),
    Mutant("system/sparefile.py", "        yield files\n    full: OSError", "        yield ()\n    full: OSError", power("xfs-plain")),
    Mutant("system/sparefile.py", "    yield (folder,)\n", "    yield ()\n", power("xfs-plain")),
    Mutant("system/together.py", "        os.fsync(fd)\n", "        pass\n", TOGETHER),
    Mutant("system/together.py", "partial(work.throw, failed[number]) if number in failed else partial(next, work)", "partial(next, work)", TOGETHER),
    Mutant("targets/opening.py", "        yield ()  # until every member of the batch holds its lock: the registry is asked once for the batch\n", "", TOGETHER),
    Mutant("targets/settle.py", "            release_name(directory, current)\n            yield (directory,)\n", "            release_name(directory, current)\n            yield ()\n", power("xfs-plain", "xfs-own-file-abort", "xfs-cut-abort", "ext4-overwrite"), covered_by=_JOURNAL, besides=_NAMES),
    Mutant("cuts/cut_files.py", "            os.fdatasync(source)\n", "            pass\n", unit("cut_files", "a_reflink_is_written_down_at_open_and_made_at_cut"), besides=_ELSEWHERE,
           survives="names that are removed or made once more after a power cut, or synced again by what follows; the sync of the source before its cut only shortens the cut"),
    Mutant("records/journal.py", "            file.truncate()\n            file.flush()\n            os.fsync(fd)\n", "            file.truncate()\n            file.flush()\n", power("xfs-plain")),
    Mutant("cuts/cut_files.py", "    fd = roots.open_source(kept.path)\n    try:\n        os.fsync(fd)\n", "    fd = roots.open_source(kept.path)\n    try:\n        pass\n", power("xfs-cut")),
    Mutant("records/reserved.py", "        yield (file.fileno(),)\n", "        yield ()\n", power("xfs-plain")),
    Mutant("targets/inplace.py", "        fd = _open_same(roots, current)\n        try:\n            os.fsync(fd)\n", "        fd = _open_same(roots, current)\n        try:\n            pass\n", unit("devices", "a_commit_ends_what_a_claim_began"),
           survives="the flush at the end of the copy is the same call on the same device; what PREPARE flushes again was never written by anybody else"),
    Mutant("targets/written.py", "            raise self._broken from None\n", "            return\n", unit("staged", "a_flush_that_failed_once_has_failed_for_ever")),
    Mutant("targets/written.py", "        if self._broken is not None:\n            raise self._broken\n", "", unit("staged", "a_flush_that_failed_once_has_failed_for_ever")),
    Mutant("targets/written.py", "        self._fd = os.open(f\"/proc/self/fd/{fd}\", os.O_WRONLY | os.O_CLOEXEC)\n", "        self._fd = os.dup(fd)\n", unit("devices", "a_flush_tells_of_what_was_lost_long_before_it")),
)
# fmt: on
