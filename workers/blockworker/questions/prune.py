"""Remove published backups that no rule keeps: image, digests and manifest, and the directories made for them.

Rule: a file is removed only if the manifest beside it names this job, and the file is unchanged since the manifest. The
manifest goes last: after a kill half-way, the next try still knows the owner of the rest.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from blockjobs.model.errors import BadInput, JobFailed
from blockworker.copy.digests import root_of
from blockworker.host.roots import Root, Roots, directories_between, file_kind
from blockworker.records import journal
from blockworker.records.files import remove_dirs, stat_of, unlink_if_exists
from blockworker.records.folder import LockBusy
from blockworker.system import image_locks
from blockworker.targets import chains
from blockworker.targets import manifest as manifests
from blockworker.targets.proof import DIGESTS, MANIFEST
from blockworker.targets.replaced import expect_no_loop

log = logging.getLogger(__name__)


class PruneRefused(Exception):
    """A target stays unchanged; the text says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """The removed and the remaining targets on this host, and whether the removal is only a trial."""

    going: Sequence[Mapping[str, str]]  # path, job, run, transaction, base
    remaining: Sequence[str]  # the paths of remaining backups
    also: Sequence[str] = ()  # paths of backups removed by another question: nothing depends on them
    dry: bool = False


class Pruner:
    """Prunes targets. ``in_use``: whether a job has this file, or this name in a directory.

    ``permitted``: asked before the first change; after a refusal (the asker gave up waiting) nothing is changed any
    more.
    """

    def __init__(
        self, roots: Roots, *, in_use: Callable[[str, str], bool], permitted: Callable[[], bool] = lambda: True
    ) -> None:
        self._roots, self._in_use, self._permitted = roots, in_use, permitted
        self._permit: bool | None = None

    def answer(self, question: Question) -> list[dict[str, str]]:
        """The state of every target: pruned (``dry``: would be), gone (missing before), or left, with the reason."""
        leaving = {target["path"] for target in question.going} | set(question.also)
        staying = chains.Staying(self._roots, question.remaining, leaving)
        answers = []
        for target in question.going:
            answers.append(answer := self._one(target, staying, dry=question.dry))
            if answer["state"] == "left":
                staying.stay(target["path"])
        return answers

    def _one(self, target: Mapping[str, str], staying: chains.Staying, *, dry: bool) -> dict[str, str]:
        try:
            state = self._prune(target, staying, dry=dry)
        except (PruneRefused, LockBusy) as left:
            return {"state": "left", "text": str(left)}
        except JobFailed as failed:
            return {"state": "left", "text": failed.text}
        except BadInput as wrong:
            return {"state": "left", "text": str(wrong)}
        except OSError as error:
            return {"state": "left", "text": error.strerror or str(error)}
        if state == "pruned" and not dry:
            log.info("target %s of job %s: pruned, no rule keeps it", target["path"], target["job"])
        return {"state": state}

    def _prune(self, target: Mapping[str, str], staying: chains.Staying, *, dry: bool) -> str:
        path, base = target["path"], target["base"]
        self._roots.expect_target(path)
        root = self._roots.root_of(path, write=True)
        try:
            directory = self._roots.open_dir(os.path.dirname(path), what="target directory")
        except JobFailed as failed:
            if failed.errno != errno.ENOENT:
                raise
            return _confirm_pruned(target, staying)
        try:
            beside = stat_of(directory, os.path.basename(path) + MANIFEST)
            if beside is None:
                return self._without_manifest(directory, target, staying, dry=dry)
            manifest = _load_target_manifest(directory, target)
            image = self._checked(directory, target, manifest, beside)
            try:
                if why := staying.needs(target):
                    raise PruneRefused(why)
                self._expect_unused(directory, path, image)
                if not dry:
                    with self._alone(root, target["transaction"]):
                        self._remove(directory, os.path.basename(path), manifest)
            finally:
                if image >= 0:
                    image_locks.close_locked_image(image)
        finally:
            os.close(directory)
        if not dry:
            self._tidy(path, base)
        return "pruned"

    def _without_manifest(
        self, directory: int, target: Mapping[str, str], staying: chains.Staying, *, dry: bool
    ) -> str:
        if stat_of(directory, os.path.basename(target["path"])) is not None:
            raise PruneRefused(f"{target['path']} has no manifest beside it: nobody knows that it is of this job")
        state = _confirm_pruned(target, staying)
        if not dry and self._asked():
            self._tidy(target["path"], target["base"])
        return state

    def _expect_unused(self, directory: int, path: str, image: int) -> None:
        """Check that no job has the file, and lock the image: from here on QEMU does not start on it.

        Raises PruneRefused: a job has the file. Raises JobFailed: QEMU has the file open.
        """
        identity = ""
        if image >= 0:
            st = os.fstat(image)
            identity = f"{st.st_dev}:{st.st_ino}"
            image_locks.lock_as_sole_writer(image, path)
            expect_no_loop(image, path)
        place = os.fstat(directory)
        if self._in_use(identity, f"{place.st_dev}:{place.st_ino}/{os.path.basename(path)}"):
            raise PruneRefused(f"{path} is in use by a job")

    def _checked(
        self, directory: int, target: Mapping[str, str], manifest: Mapping[str, Any], beside: os.stat_result
    ) -> int:
        """A descriptor of the image, -1 if the image is missing. Raises PruneRefused: not the published image."""
        path, name = target["path"], os.path.basename(target["path"])
        if (manifest.get("job"), manifest.get("run")) != (target["job"], target["run"]):
            raise PruneRefused(f"{path} was replaced: its manifest is of job '{str(manifest.get('job'))[:200]}'")
        found = stat_of(directory, name)
        if found is None:
            return -1
        if not stat.S_ISREG(found.st_mode):
            raise PruneRefused(f"{path} is {file_kind(found)}: a regular file was expected")
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            same = manifests.is_image_of_manifest(manifest, fd)
            if same is None:  # a manifest without the file's identity: only the order of times is left
                raw, st = manifest.get("format", "raw") == "raw", os.fstat(fd)
                same = st.st_mtime_ns <= beside.st_mtime_ns and (not raw or st.st_size == manifest["size"])
            if not same:
                raise PruneRefused(f"{path} was changed or replaced after it was committed")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _asked(self) -> bool:
        if self._permit is None:
            self._permit = self._permitted()
        return self._permit

    def _alone(self, root: Root, transaction: str) -> AbstractContextManager[Any]:
        if not self._asked():
            raise PruneRefused("whoever asked gave up waiting")
        return journal.locked_open_journal(self._roots, root, transaction)

    def _remove(self, directory: int, name: str, manifest: Mapping[str, Any]) -> None:
        unlink_if_exists(directory, name)
        if _has_digests(directory, name + DIGESTS, manifest):
            unlink_if_exists(directory, name + DIGESTS)
        os.fsync(directory)
        unlink_if_exists(directory, name + MANIFEST)
        os.fsync(directory)

    def _tidy(self, path: str, base: str) -> None:
        if base and Root(base).holds(path):
            remove_dirs(self._roots, directories_between(base, os.path.dirname(path)))


def _has_digests(directory: int, name: str, manifest: Mapping[str, Any]) -> bool:
    """Whether the digests beside an image match its manifest, by content."""
    named = manifest.get("digests")
    if not named:
        return False
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        return bool(stat.S_ISREG(os.fstat(fd).st_mode) and root_of(fd) == named.get("root"))
    finally:
        os.close(fd)


def _load_target_manifest(directory: int, target: Mapping[str, str]) -> dict[str, Any]:
    """The manifest beside a target, through no symlink.

    A bit of the manifest may have flipped: job, run and the image's size are compared, and that is enough.
    """
    path = target["path"] + MANIFEST
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(os.path.basename(path), flags, dir_fd=directory)
    try:
        return manifests.load_manifest(f"/proc/self/fd/{fd}", changed=True)
    except BadInput:
        raise PruneRefused(f"{path} is no manifest that is known here") from None
    finally:
        os.close(fd)


def _confirm_pruned(target: Mapping[str, str], staying: chains.Staying) -> str:
    """The state of a missing target: pruned before, unless every expected backup is missing."""
    if not staying.any_beneath(target["base"]):
        text = f"neither {target['path']} nor any other backup beneath {target['base'] or '/'} is there"
        raise PruneRefused(f"{text}: is it mounted?")
    return "gone"


def question_of(keys: Mapping[str, Any]) -> Question:
    """The question in a message."""
    return Question(keys["going"], keys["remaining"], keys.get("also", ()), bool(keys.get("dry")))
