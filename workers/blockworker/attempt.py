"""One attempt at a job: claim it, copy, obey, and say how it ended.

Order of precedence at every look: lost lease, cancel, drain, lease in doubt, pause, trouble, work.  The copy's
lanes never wait for Redis; this file is the attempt's main thread, which moves them by ``hold`` and ``release``.
"""

from __future__ import annotations

import errno
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import psutil
import redis

from blockjobs.model import errors
from blockjobs.model.ids import JobId
from blockjobs.model.jobs import OnChange
from blockjobs.store.attempts import Attempts, Claim, Progress, Who
from blockworker.control import ControlLine, boottime
from blockworker.copy.engine import Copy
from blockworker.copy.throttle import Throttle
from blockworker.drivers import DRIVERS
from blockworker.drivers.base import Attached
from blockworker.durability import Durability
from blockworker.host import boot_id
from blockworker.policy import Action, judge
from blockworker.roots import Roots
from blockworker.volumes import Identity

log = logging.getLogger(__name__)

LOOK: Final = 0.2  # seconds between looks at what nobody wakes us for (drain, the lease)
PARK_AFTER: Final = 60.0  # seconds paused after which a job gives its slot back
TELL_EVERY: Final = 2.0  # seconds between progress events for dashboards


def run(
    attempts: Attempts, roots: Roots, job_id: JobId, *, draining: Callable[[], bool], tell: Callable[[str], None]
) -> str:
    """Claim and run a job until it is done, fails, is cancelled, or gives its slot back; returns how it ended."""
    who = Who(uuid.uuid4().hex, os.getpid(), psutil.Process().create_time(), boot_id())
    claim = attempts.claim(job_id, who)
    if isinstance(claim, str):
        log.info("job %s: not claimed: %s", job_id, claim)
        return f"not claimed: {claim}"
    log.info("job %s: attempt %d claimed with token %d", job_id, claim.number, claim.token)
    how = Attempt(attempts, roots, claim, draining, tell).run()
    log.info("job %s: attempt %d %s", job_id, claim.number, how)
    return how


class Attempt:
    def __init__(
        self, attempts: Attempts, roots: Roots, claim: Claim, draining: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        self._attempts, self._roots, self._claim = attempts, roots, claim
        self._draining, self._tell, self._told = draining, tell, 0.0
        self._spec = claim.spec
        self._throttle = Throttle()
        self._made: Durability | None = None  # the copy and what makes it durable, once both volumes are open
        self._started = False
        self._size = self._recopied = 0
        self._source_change = "unknown"
        self._began = datetime.now(UTC)
        self._line = ControlLine(attempts, claim, self.progress)

    def run(self) -> str:
        self._line.start()
        try:
            code, text = self._outcome()
            self._finish(code, text)
        except errors.LeaseLost:
            return "lost its lease"
        except errors.Parked as why:
            return str(why)
        finally:
            self._line.close()
        return f"failed: {text}" if code else "done"

    def _wake(self) -> None:
        """The copy has something new to look at: called by its lanes."""
        self._line.wake()
        if self._made is not None:
            self._made.wake()

    def progress(self) -> Progress:
        """Where the copy stands; asked for by the control line's thread."""
        before = self._claim.counts
        if self._made is None:
            return Progress(self._claim.offset, int(self._claim.opened.get("size", 0)), before)
        copy = self._made.copy
        counts = {
            "read": copy.bytes_read, "written": copy.bytes_written, "zero": copy.bytes_zero,
            "skipped": copy.bytes_skipped, "recopied": self._recopied,
        }  # fmt: skip
        return Progress(copy.offset, self._size, {name: before.get(name, 0) + n for name, n in counts.items()})

    # --- from the claim to the end of the copy --------------------------------------------------------

    def _outcome(self) -> tuple[int, str]:
        """The errno and text that the job ends with; 0 for success."""
        try:
            with self._attached() as attached:
                self._size = attached.source.size
                # What the attempt before had come to and not made durable is copied twice.
                self._recopied = max(0, self._claim.offset - attached.done.total())
                copy = Copy(
                    attached.source, attached.target, size=self._size, done=attached.done,
                    throttle=self._throttle, digests=attached.digests, wake=self._wake,
                )  # fmt: skip
                self._made = Durability(copy, self._line, attached.staging)
                self._obey()  # a pause point before the first chunk
                copy.start()
                self._started = True
                try:
                    with self._made as durability:
                        self._work(durability)
                        copy.stop()
                        durability.flush()
                finally:
                    copy.stop()
                self._check_source(attached)
        except errors.JobCancelled:
            return errno.ECANCELED, errors.ECANCELED_TEXT
        except errors.JobFailed as failed:
            log.warning("job %s: %s", self._spec.id, failed.text)
            return failed.errno, failed.text
        except OSError as error:
            log.exception("job %s: an error nobody expected", self._spec.id)
            return error.errno or errno.EIO, f"{error.filename or self._spec.target.text}: {error.strerror}"
        return 0, ""

    @contextmanager
    def _attached(self) -> Iterator[Attached]:
        attached = DRIVERS[self._spec.type].attach(self._roots, self._claim)
        try:
            self._check_source(attached)
            yield attached
        finally:
            attached.close()

    def _check_source(self, attached: Attached) -> None:
        """Compare the source with what OPEN saw: a source that changed under the copy is never silent."""
        opened = self._claim.opened.get("identity")
        if opened is None:
            return
        what = Identity.from_list(opened).changed(attached.source.identity())
        self._source_change = "unknown" if what is None else "changed" if what else "unchanged"
        if what:
            log.warning("job %s: %s changed (%s)", self._spec.id, self._spec.source.text, what)
            if self._spec.on_source_change is OnChange.FAIL:
                raise errors.SourceChanged(f"source {self._spec.source.text}", what)

    def _work(self, durability: Durability) -> None:
        copy = durability.copy
        while not copy.finished:
            self._line.wait(LOOK)
            self._obey()
            durability.check()
            for trouble in copy.troubles:
                self._judge(trouble)
            if copy.troubles:
                self._obey()  # it may be this attempt's own order to stop
                copy.retry()
            self._show(copy)

    # --- obeying --------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """The pause point: returns at once while there is nothing to obey, stays while held, unwinds when cancelled."""
        self._throttle.speed = self._line.orders.speed
        self._unwind()
        if not self._line.safe:
            self._stand_still()
        if self._line.orders.pause:
            self._pause()

    def _unwind(self) -> None:
        if self._line.lost:
            raise errors.LeaseLost(self._spec.id)
        if self._line.orders.cancel:
            raise errors.JobCancelled
        if self._draining():
            self._give_back("drained")

    def _pause(self) -> None:
        """Quiesce, acknowledge, then flush; stay until the last hold is lifted, or give the slot back after a while."""
        running = self._running
        if running is not None:
            running.copy.hold()
        since, told = boottime(), False
        while self._line.orders.pause:
            if not told:
                told = self._acknowledge()
                if running is not None:  # after the acknowledgement: a slow disk is no reason to look busy
                    running.flush()
            self._line.wait(LOOK)
            self._unwind()
            if boottime() - since > PARK_AFTER:
                self._give_back("parked")
        log.info("job %s: resumed", self._spec.id)
        if running is not None:
            running.copy.release()

    def _acknowledge(self) -> bool:
        try:
            self._line.checkpoint(quiet=True)
        except redis.RedisError:
            return False
        return True

    def _stand_still(self) -> None:
        """Redis does not answer and the lease may be over: write nothing until it is surely ours again."""
        log.warning("job %s: no word from Redis: standing still", self._spec.id)
        running = self._running
        if running is not None:
            running.copy.hold()
        while not self._line.safe:
            self._line.wait(LOOK)
            self._unwind()
        log.info("job %s: going on", self._spec.id)
        if running is not None:
            running.copy.release()

    def _give_back(self, why: str) -> None:
        """End the attempt and not the job: durable, and the slot free."""
        running = self._running
        if running is not None:
            running.copy.stop()
            running.flush()
        spec, claim = self._spec, self._claim
        self._insist(lambda: self._attempts.release(spec.id, spec.transaction, claim.token, claim.attempt, why=why))
        raise errors.Parked(why)

    @property
    def _running(self) -> Durability | None:
        """The copy, once its lanes were started."""
        return self._made if self._started else None

    # --- errors, the end, and the view ----------------------------------------------------------------

    def _judge(self, trouble: errors.VolumeError) -> None:
        """Ask the job's policy what an I/O error does; raises the error where it ends the job."""
        policy = self._spec.on_source_error if trouble.operation == "read" else self._spec.on_target_error
        if trouble.operation == "internal":
            raise trouble
        action, io_status = judge(policy, trouble.errno)
        log.warning("job %s: %s: %s", self._spec.id, trouble.text, action)
        self._insist(
            lambda: self._attempts.error(
                self._claim, operation="read" if trouble.operation == "read" else "write", action=action,
                io_status=io_status, text=trouble.text,
            )
        )  # fmt: skip
        if action is Action.REPORT:
            raise trouble
        if action is Action.STOP:
            self._insist(self._line.checkpoint)

    def _finish(self, code: int, text: str) -> None:
        durable = self._made.durable if self._made is not None else None
        result: dict[str, Any] = {
            "source-change": self._source_change, "attempts": self._claim.number, "token": self._claim.token,
            "started": self._began.timestamp(), "finished": datetime.now(UTC).timestamp(),
            "counts": dict(self.progress().counts or {}),
        }  # fmt: skip
        self._insist(
            lambda: self._attempts.finish(
                self._claim, self.progress(), durable=durable, result=result, errno=code, text=text
            )
        )

    def _insist(self, call: Callable[[], object]) -> None:
        """Call until Redis answers; only a lost lease ends it.  Every script that is called so may be called twice."""
        while True:
            try:
                call()
            except redis.RedisError as error:
                log.warning("job %s: Redis is away: %s", self._spec.id, error)
                self._line.wait(LOOK)
                if self._line.lost:
                    raise errors.LeaseLost(self._spec.id) from error
            else:
                return

    def _show(self, copy: Copy) -> None:
        if boottime() - self._told >= TELL_EVERY:
            self._told = boottime()
            percent = 100 * copy.offset // max(1, self._size)
            self._tell(f"{percent} % of {self._size >> 20} MiB")
