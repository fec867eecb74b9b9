"""Mirror, ``copy-mode: background``: a bulk copy, then passes that follow the source until a user says complete.

The job is READY with the first pass that finds no dirty block.  After ``complete`` a last pass runs while the quiesce
command freezes the source.  Without a quiesce command, passes continue until a pass that began after ``complete`` finds
no dirty block: the target is then the source as of the instant that pass began.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.mirrors import ANEW, BUFFER, GRANULARITY, SIZES_DIFFER
from blockjobs.model.volumespec import NullVolume
from blockjobs.process.clock import seconds_since_boot
from blockjobs.registry.attempts import Progress
from blockworker.copy.convergence import Convergence
from blockworker.copy.digests import CHUNK
from blockworker.copy.engine import Copy
from blockworker.copy.ledger import Ledger, scratch_digest_file
from blockworker.copy.passes import Pass
from blockworker.cuts.quiesce import Quiesce
from blockworker.drivers.base import Job, Opened
from blockworker.drivers.copying import Copying, sum_counts
from blockworker.drivers.durability import Durability
from blockworker.drivers.staged import Attached, Staged, is_null, open_for_attempt
from blockworker.host.roots import Roots
from blockworker.records.batch import Batch
from blockworker.system.together import Durably
from blockworker.targets.existing import existing_contents
from blockworker.volumes import Identity, Source

log = logging.getLogger(__name__)

FOLLOW: Final = 1.0  # seconds between passes while ready, at least the last pass's length: half of the time is rest
ASKED: Final = 1.0  # longest rest in seconds once the end is requested


class Mirror(Staged):
    cuts, follows = False, True

    def opening(self, batch: Batch, spec: JobSpec, wanted: Callable[[], bool]) -> Durably[Opened]:
        # ``none``: the target has no copy to compare with, and the digests are the source's.
        return super().opening(batch, replace(spec, digests=spec.digests and spec.sync != "none"), wanted)

    def check(self, roots: Roots, spec: JobSpec, source: Source) -> None:
        Quiesce.of(roots.config, spec)
        size = None if spec.options.get(ANEW) else _existing_size(roots, spec)
        if size is not None and size != source.size:
            raise JobFailed(errno.EINVAL, SIZES_DIFFER)

    def abort(self, roots: Roots, spec: JobSpec, number: int, *, opened: bool) -> str | None:
        if opened:
            Quiesce.of(roots.config, spec).recover()  # an attempt killed in its last pass may have left a frozen source
        return super().abort(roots, spec, number, opened=opened)

    def attached(self, roots: Roots, job: Job) -> Mirroring:
        quiesce = Quiesce.of(roots.config, job.spec)
        if job.claim.number > 1:
            quiesce.recover()
        return Mirroring.of(open_for_attempt(roots, job.claim), job).with_hook(quiesce)


class Mirroring(Copying):
    """An attempt at a mirror."""

    def __init__(self, attached: Attached, job: Job) -> None:
        options = job.spec.options
        self._granularity = int(options.get("granularity") or GRANULARITY)
        self._lanes = max(1, min(2, int(options.get("buf-size") or BUFFER) // CHUNK))
        self._digests = attached.digests or scratch_digest_file(attached.source.size)
        self._ledger = Ledger(self._digests, attached.source.size)
        # Only a first attempt knows that no attempt wrote before: a later attempt copies the whole source.
        self._learning = job.spec.sync == "none" and job.claim.number == 1
        super().__init__(attached, job)
        self._quiesce = Quiesce()
        self._asked = False  # the end of the job is requested
        self._took = 0.0
        self._convergence = Convergence()
        self._clean: Identity | None = None  # the source's identity before the last clean pass
        # Bytes and counts of earlier copies, and the running copy: a single value, so that a reader on another thread
        # never sees a mixture.
        done = attached.done.total()
        settled = max(job.claim.offset, done) - done
        self._now: tuple[int, Mapping[str, int], Copy] = (settled, self._before, self._made.copy)

    def with_hook(self, quiesce: Quiesce) -> Mirroring:
        self._quiesce = quiesce
        return self

    def _copy(self) -> Copy:
        if self._learning:
            return self._pass(learning=True)
        attached = self._attached
        return Copy(
            attached.source,
            attached.target,
            size=self._size,
            done=attached.done,
            throttle=self._throttle,
            digests=self._ledger,
            wake=self._wake,
            lanes=self._lanes,
            hole_step=attached.hole_step,
        )

    def _pass(self, *, learning: bool = False) -> Pass:
        return Pass(
            self._attached.source,
            self._attached.target,
            size=self._size,
            ledger=self._ledger,
            throttle=self._throttle,
            wake=self._wake,
            granularity=self._granularity,
            lanes=self._lanes,
            learning=learning,
            hole_step=self._attached.hole_step,
        )

    # --- the work -----------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        self.examine_source()
        began = self._attached.source.identity()
        self.run(self._made)
        ready = self._learning
        if ready:
            self._clean = began
            job.ready()
        while True:
            self._rest(ready=ready)
            if self._idle():
                continue
            asked, frozen = self._asked, self._asked and ready and self._quiesce.freeze()
            try:
                clean = self._follow(job)
                done = asked and (clean or (frozen and self._quiesce.frozen))
            finally:
                self._quiesce.thaw()
            # With a quiesce command the last pass surely ends: the job is ready as soon as further passes do not help.
            if not ready and (clean or (self._convergence.diverging and self._quiesce.given)):
                ready = True
                job.ready()
                log.info("job %s: ready", job.spec.id)
            if done:
                return

    def _follow(self, job: Job) -> bool:
        """Run a pass durably; return whether the pass found no dirty block."""
        # The identity before the last pass is not needed; and while the source is frozen, each moment counts.
        before, began = None if self._asked else self._attached.source.identity(), seconds_since_boot()
        settled, counts, last = self._now
        this = self._pass()
        self._made = Durability(this, job, self._attached.staging)
        self._now = (_copied_bytes(settled, last), sum_counts(counts, last), this)
        self.run(self._made)
        self.check_source()
        self._clean = before if not this.dirty else None
        was = self._convergence.diverging
        rates = self._convergence.look(began, seconds_since_boot(), this.dirty)
        if rates is not None and not was:
            log.warning("job %s: does not converge: %s", job.spec.id, rates)
            job.diverging(passes=rates.passes, dirty_rate=rates.dirty, copy_rate=rates.copy)
        elif was and not self._convergence.diverging:
            job.diverging(passes=0, dirty_rate=0, copy_rate=0)
        self._took = seconds_since_boot() - began
        return not this.dirty

    def _idle(self) -> bool:
        """Whether a file's times prove that no write came since the last clean pass, and no end is requested."""
        if self._asked or self._clean is None:
            return False
        now = self._attached.source.identity()
        return self._clean.changed(now) == ""

    def _rest(self, *, ready: bool) -> None:
        following = ready and not self._convergence.diverging
        seconds = max(FOLLOW, self._took) if following else self._convergence.rest
        self.rest(seconds_since_boot() + seconds, lambda left: self._asked and (following or left <= seconds - ASKED))

    def _matters(self, what: str) -> bool:  # noqa: ARG002
        return False  # a mirror expects writes to its source

    # --- orders and the view ------------------------------------------------------------------------------

    def pause(self) -> None:
        super().pause()
        self._quiesce.thaw()  # a guest shall not stay frozen while the job is paused

    def complete(self) -> None:
        self._asked = True

    def progress(self) -> Progress:
        settled, counts, copy = self._now
        done = _copied_bytes(settled, copy)
        left = copy.dirty - copy.copied if isinstance(copy, Pass) else self._size - copy.offset
        return Progress(done, done + left, sum_counts(counts, copy))

    def pulse(self) -> int:
        *_, copy = self._now
        return self._ticks + copy.offset + copy.bytes_read

    def close(self) -> None:
        super().close()
        self._digests.close()  # scratch digests too; a repeated call is harmless


def _copied_bytes(settled: int, copy: Copy) -> int:
    return settled + (copy.copied if isinstance(copy, Pass) else copy.offset)


def _existing_size(roots: Roots, spec: JobSpec) -> int | None:
    """The size of the contents that the target would replace; None without contents."""
    if spec.in_place:
        return None  # a device may be larger
    if is_null(spec):
        bottom = volumespec.bottom_volume(spec.target.volume)
        return bottom.size if isinstance(bottom, NullVolume) else None
    held = existing_contents(roots, spec.target.volume) if spec.overwrite else None
    return None if held is None else held.size
