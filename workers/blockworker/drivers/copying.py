"""The work of a copy from start to end: lanes copy, a thread makes bytes durable, and the main thread supervises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

from blockjobs.model import errors
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import VolumeError
from blockjobs.model.jobs import Checkpoint, OnChange, OnError
from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.attempts import Progress
from blockworker.copy.engine import Copy
from blockworker.copy.lanes import INTERNAL
from blockworker.copy.proven import DIGEST
from blockworker.copy.recheck import find_difference
from blockworker.copy.throttle import Throttle
from blockworker.drivers.base import Job, Work
from blockworker.drivers.durability import Durability
from blockworker.drivers.staged import CHANGED, Attached, cut_of
from blockworker.volumes import REPLACED, Identity
from blockworker.volumes.in_use import SourceWatch

log = logging.getLogger(__name__)

LOOK: Final = 0.2  # seconds between checks of conditions that send no wake-up
_CHANGES: Final = {None: "unknown", "": "unchanged"}  # results of Identity.changed, in the words of manifests
LONGEST: Final = 5.0  # seconds between two tries of a piece that fails repeatedly while errors are ignored


class Copying(Work):
    """A copy of a whole volume."""

    def __init__(self, attached: Attached, job: Job) -> None:
        self._attached, self._job = attached, job
        self._spec, self._claim = job.spec, job.claim
        self._throttle = Throttle()
        self._size = attached.source.size
        # Bytes that the earlier attempt copied and did not make durable are copied twice.
        recopied = max(0, self._claim.offset - attached.done.total())
        before = self._claim.counts
        self._before: Mapping[str, int] = {**before, "recopied": before.get("recopied", 0) + recopied}
        self._ticks = 0  # checks during a wait: a sign of life
        self._stuck_at, self._patience, self._stuck_since = -1, 0.0, 0.0
        self._lost = False  # a volume is gone, and the error policy was asked
        self._source_change = "unknown"
        self._damage: tuple[str, ...] = ()
        self._opened = Identity.from_list(self._claim.opened.get("identity") or ["none"])
        self._made = Durability(self._copy(), job, attached.staging)

    @classmethod
    def of(cls, attached: Attached, job: Job) -> Self:
        """Build the work on open volumes; close the volumes if the source is not the source that OPEN saw."""
        try:
            work = cls(attached, job)
        except BaseException:
            attached.close()
            raise
        try:
            work.expect_no_writer(attached.watch)
            work.check_source()
        except BaseException:
            work.close()
            raise
        return work

    def _copy(self) -> Copy:
        attached = self._attached
        return Copy(
            attached.source,
            attached.target,
            size=self._size,
            done=attached.done,
            throttle=self._throttle,
            digests=attached.digests,
            wake=self._wake,
            lanes=attached.lanes,
            whole=attached.whole,
            hole_step=attached.hole_step,
            salvage=self._spec.on_source_error is OnError.SKIP,
            salvaged=attached.salvaged,
        )

    def start(self, job: Job) -> None:  # noqa: ARG002
        self.examine_source()
        self.run(self._made)
        self.expect_no_writer(self._attached.watch)
        self.check_source()
        self._compare_content()

    def examine_source(self) -> None:
        """Check for damage before the first byte is copied, if OPEN could not.  Raises JobFailed."""

        def idle() -> None:
            self._ticks += 1
            self._job.point()

        self._damage = self._attached.examine(idle)
        for line in self._damage:
            log.warning("job %s: source: %s", self._spec.id, line)

    def run(self, made: Durability) -> None:
        """Run a copy to its durable end."""
        copy = made.copy
        copy.start()
        try:
            with made:
                while not copy.finished:
                    self._job.wait(LOOK)
                    self._job.point()
                    made.check()
                    self._notice_death()
                    self.expect_no_writer(self._attached.watch, at_once=False)
                    if copy.troubles:
                        self._weigh(copy)
                        self._rest_from_trouble(copy)
                        copy.retry()
                copy.stop()
                self._flush_the_rest(made)
        finally:
            copy.stop()

    def _flush_the_rest(self, made: Durability) -> None:
        """Do the last flush, for which a slow disk may need minutes, and obey orders meanwhile.

        The flush gives no sign of life: a flush that hangs is noticed like any other call.
        """
        failed, over = list[Exception](), threading.Event()

        def flush() -> None:
            try:
                made.flush()
            except Exception as error:
                failed.append(error)
            over.set()
            self._job.wake()

        flushing = threading.Thread(target=flush, name="last-flush", daemon=True)
        flushing.start()
        try:
            while not over.is_set():
                self._job.wait(LOOK)
                self._job.point()
        finally:
            flushing.join()  # the flush's files stay open until then, however the attempt ends
        if failed:
            raise failed[0]

    def _notice_death(self) -> None:
        """Ask the error policy once about a volume that is gone; the volume's lanes may be waiting for the throttle."""
        try:
            if not self._lost:
                self._attached.check_alive()
        except VolumeError as gone:
            self._lost = True
            self._job.judge(gone)

    def _weigh(self, copy: Copy) -> None:
        """Judge every pending error before a piece is tried again: several errors at a time cause a single stop."""
        judged = 0
        while len(troubles := copy.troubles) > judged:
            for trouble in troubles[judged:]:
                if trouble.operation == DIGEST:  # no disk error: a second try changes nothing
                    raise trouble
                self._job.judge(trouble)
            judged = len(troubles)
            copy.hold()  # no lane is copying now: every failure is known
        self._expect_end(copy, troubles)
        copy.release()

    def _expect_end(self, copy: Copy, troubles: Sequence[VolumeError]) -> None:
        """Raise the first ignored error if no byte was copied for the length of the stall limit."""
        if copy.offset != self._stuck_at or not self._stuck_since:
            self._stuck_since = seconds_since_boot()
        ignored = next((trouble for trouble in troubles if self._ignores(trouble)), None)
        limit = self._spec.stall_limit
        if ignored is not None and seconds_since_boot() - self._stuck_since >= limit:
            start, end = ignored.offset, ignored.offset + ignored.length
            text = f"{ignored.text}; bytes {start} to {end} were tried for {limit} s, and no other byte came through"
            raise VolumeError(ignored.errno, text, operation=ignored.operation, offset=start, length=ignored.length)

    def _ignores(self, trouble: VolumeError) -> bool:
        reads = trouble.operation == "read"
        return (self._spec.on_source_error if reads else self._spec.on_target_error) is OnError.IGNORE

    def _rest_from_trouble(self, copy: Copy) -> None:
        """Wait before a failed piece is tried again: not at all, or ever longer while the copy makes no progress."""
        stuck, self._stuck_at = copy.offset == self._stuck_at, copy.offset
        self._patience = min(LONGEST, 2 * self._patience or LOOK) if stuck else 0.0
        self.rest(seconds_since_boot() + self._patience, lambda _: False)

    def rest(self, until: float, enough: Callable[[float], bool]) -> None:
        """Obey orders until a time, or until ``enough``, which gets the seconds left, returns true."""
        self._job.point()
        while (left := until - seconds_since_boot()) > 0 and not enough(left):
            self._job.wait(min(LOOK, left))
            self._ticks += 1
            self._job.point()

    def expect_no_writer(self, watch: SourceWatch | None, *, at_once: bool = True) -> None:
        """Raise SourceChanged if a process writes to the source of a copy without a cut, unless the job allows writers.

        A writer that would mix two states of an image is never allowed.  Without ``at_once`` the last check may be a
        second old.
        """
        writer = watch.writer(at_once=at_once) if watch is not None else None
        if writer is not None and (writer.mixed or self._spec.on_source_change is OnChange.FAIL):
            raise errors.SourceChanged(f"source {self._spec.source.text}", writer.who)

    def check_source(self) -> None:
        """Compare the source with the source that OPEN saw: a source that changed during the copy is always reported.

        Raises:
            SourceChanged: the source was replaced or has another size; or was written to, and the policy is to fail.
        """
        if cut := cut_of(self._claim):
            return self._check_cut(cut)
        if self._size != self._claim.opened.get("size", self._size):  # applies to a source without an identity too
            self._judge_change("size")
        return self._judge_change(self._opened.changed(self._attached.source.identity()))

    def _check_cut(self, cut: Cut) -> None:
        """Expect the cut unchanged, while its source may change; the layers below are not cut, and are compared."""
        now, made = self._attached.source.identity(), Identity.from_list(cut.identity)
        if what := made.changed(replace(now, layers=())):
            raise errors.SourceChanged(f"the cut of source {self._spec.source.text}", what)
        self._judge_change(self._opened.layers_changed(now))

    def _compare_content(self) -> None:
        """Read a source again if its time stamps prove nothing and its content can."""
        digests = self._attached.digests
        if self._source_change != _CHANGES[None] or digests is None or not self._opened.proved_by_content():
            return
        at = find_difference(self._attached.source, digests, self._rest_between_chunks)
        self._judge_change("" if at is None else f"content at {at}")

    def _rest_between_chunks(self) -> None:
        self._ticks += 1
        self._job.point()

    def _judge_change(self, what: str | None) -> None:
        """Record whether the source changed; ``what`` is a result of ``Identity.changed``.  Raises SourceChanged."""
        before, self._source_change = self._source_change, _CHANGES.get(what, CHANGED)
        if not what:
            return
        if before != CHANGED:
            log.warning("job %s: %s changed (%s)", self._spec.id, self._spec.source.text, what)
        if what in REPLACED or self._matters(what):
            raise errors.SourceChanged(f"source {self._spec.source.text}", what)

    def _matters(self, what: str) -> bool:  # noqa: ARG002
        """Whether a write to the source fails the job."""
        return self._spec.on_source_change is OnChange.FAIL

    def _wake(self) -> None:
        """Wake the main thread and the durability thread: called by the copy's lanes."""
        self._job.wake()
        self._made.wake()

    # --- orders -----------------------------------------------------------------------------------------

    def check(self) -> None:
        for failed in self._made.copy.troubles:
            if failed.operation == INTERNAL:
                raise failed
        self._attached.check_alive()

    def pause(self) -> None:
        self._made.copy.hold()

    def drain(self) -> None:
        self._made.flush()

    def resume(self) -> None:
        self._stuck_since = 0.0  # no byte could be copied while the job was held
        self._made.copy.release()

    def set_speed(self, speed: int) -> None:
        self._throttle.speed = speed

    # --- progress and result ----------------------------------------------------------------------------

    def progress(self) -> Progress:
        return Progress(self._made.copy.offset, self._size, sum_counts(self._before, self._made.copy))

    def pulse(self) -> int:
        return self._made.copy.offset + self._made.copy.tries + self._ticks

    @property
    def durable(self) -> Checkpoint | None:
        return self._made.durable

    def result(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"source-change": self._source_change}
        if self._attached.untouched:
            told["untouched"] = self._attached.untouched
        if self._damage:
            told["damage"] = list(self._damage)
        return told | (self.durable.salvaged.to_dict() if self.durable is not None else {})

    def close(self) -> None:
        self._attached.close()


def sum_counts(before: Mapping[str, int], copy: Copy) -> dict[str, int]:
    """Bytes by outcome: the sum of ``copy`` and the copies before."""
    counts = {
        "read": copy.bytes_read, "written": copy.bytes_written, "zero": copy.bytes_zero, "skipped": copy.bytes_skipped
    }  # fmt: skip
    return {**before, **{name: before.get(name, 0) + n for name, n in counts.items()}}
