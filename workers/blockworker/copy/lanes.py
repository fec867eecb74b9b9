"""The lanes of a copy: threads that take pieces from one plan, a gate that stops them, an account of finished bytes.

Rules: nothing is written while the gate is closed (the copy is then quiescent); a failed piece is kept, and nothing
goes on until the error is decided. The whole work of a lane on a piece, planning included, has a single handler: any
error becomes a trouble listed by ``troubles``, and never ends a thread.
"""

from __future__ import annotations

import errno
import logging
import mmap
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blockjobs.model.errors import VolumeError, unexpected_error_text
from blockworker.copy.interval import Interval
from blockworker.copy.plan import Piece, Plan
from blockworker.copy.throttle import Throttle
from blockworker.system.threads import vital_thread
from blockworker.volumes.extents import RangeSet

INTERNAL: Final = "internal"  # the operation of a trouble that ends the attempt, whatever the error policy says

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Unwinds a lane in the middle of a piece; the piece is kept."""


@dataclass(slots=True)
class Turn:
    """The resources and results of a lane's piece: returned to the account, however the work ends."""

    reserved: int = 0  # bytes of the interval
    piece: Piece | None = None
    inside: bool = False  # the lane is past the gate
    written: int = 0  # bytes to be made durable
    lost: tuple[tuple[int, int], ...] = ()  # unreadable ranges of the source


class CopyLanes(ABC):
    """Threads that work off a plan. All methods but ``stop`` return within the time of a step of a piece."""

    def __init__(
        self,
        plan: Plan,
        account: Interval,
        *,
        size: int,
        chunk: int,
        lanes: int,
        throttle: Throttle,
        wake: Callable[[], None],
    ) -> None:
        self.size, self._chunk = size, chunk
        self.started = False
        self._throttle, self._wake = throttle, wake
        self._plan, self._account = plan, account
        self._planning = threading.Lock()
        self._kept: deque[Piece] = deque()  # pieces that failed, or were taken and not begun
        self._state = threading.Condition()
        self._held = self._stopping = self._exhausted = False
        self._inside = 0  # lanes that are in a piece
        self._told_due = False
        self._troubles: list[VolumeError] = []
        self._salvaged = RangeSet()  # unreadable ranges of the source
        names = (f"lane-{number}" for number in range(lanes))
        self._lanes = [vital_thread(self._lane, name) for name in names]
        self._working = lanes

    @abstractmethod
    def _copy(self, turn: Turn, piece: Piece, view: memoryview) -> None:
        """Copy a piece, with ``view`` as its buffer; note the results in the turn."""

    # --- orders -----------------------------------------------------------------------------------

    def start(self) -> None:
        self.started = True
        self._throttle.proceed()
        for lane in self._lanes:
            lane.start()
        if self.finished:
            self._wake()

    def hold(self) -> None:
        """Close the gate; return when no lane is in a piece: nothing is written until ``release``."""
        with self._state:
            self._held = True
            self._throttle.interrupt()
            self._state.wait_for(lambda: not self._inside)

    def release(self) -> None:
        """Open the gate again, unless troubles keep it closed."""
        with self._state:
            self._held = False
            self._reopen()

    def retry(self) -> None:
        """Forget the troubles and try their pieces again."""
        with self._state:
            self._troubles = []
            self._reopen()

    def stop(self) -> None:
        """End the lanes and wait for them. Finished pieces can still be flushed."""
        with self._state:
            self._stopping = True
            self._throttle.interrupt()
            self._state.notify_all()
        for lane in self._lanes:
            if lane.is_alive():
                lane.join()

    # --- what it has come to ------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether every range is done; not necessarily durable."""
        with self._state:
            return self._account.finished.covers(0, self.size)

    @property
    def troubles(self) -> list[VolumeError]:
        """Why the gate is closed, if it is not held."""
        with self._state:
            return list(self._troubles)

    @property
    def offset(self) -> int:
        """Number of finished bytes, holes and earlier attempts included."""
        with self._state:
            return self._account.finished.total()

    # --- the lanes ----------------------------------------------------------------------------------

    def _lane(self) -> None:
        turn = Turn()
        failed: VolumeError | None = None
        try:
            view = memoryview(mmap.mmap(-1, self._chunk))  # page aligned
            while self._begin(turn):
                self._work(turn, view)
                turn = Turn()
        except BaseException as error:  # the error handler itself has failed
            failed = _unexpected_error(error, turn.piece)
        with self._state:
            self._working -= 1
            if failed is None and not self._working and not self._stopping and not self._troubles:
                failed = self._ended_early()
        if failed is not None:
            self._end(turn, failed)

    def _begin(self, turn: Turn) -> bool:
        """Wait for room and an open gate; give the turn a kept piece, or room for a chunk. False: the end."""
        with self._state:
            while not self._stopping and not self._ended() and (self._closed() or not self._account.has_room):
                self._state.wait()
            if self._stopping or self._ended():
                return False
            if self._kept:
                turn.piece = self._kept.popleft()
            # The next piece may be a whole chunk: its size is not known yet.
            self._reserve(turn, turn.piece.bytes if turn.piece is not None else self._chunk)
            return True

    def _work(self, turn: Turn, view: memoryview) -> None:
        """Do one piece: plan, pay, read, digest, write and count. ``_end`` is called in any case."""
        failed: VolumeError | None = None
        try:
            if turn.piece is None:
                turn.piece = self._take_planned()
            if turn.piece is None:
                with self._state:
                    self._exhausted = True
            else:
                self._enter(turn, turn.piece.bytes)
                self._copy(turn, turn.piece, view[: min(turn.piece.end - turn.piece.start, self._chunk)])
        except _Stopped:
            self._end(turn, None, kept=True)
            return
        except VolumeError as error:
            failed = error.with_traceback(None)  # its frames hold the buffer
        except Exception as error:
            failed = _unexpected_error(error, turn.piece)
        self._end(turn, failed)

    def _take_planned(self) -> Piece | None:
        with self._planning:
            return self._plan.take_piece()

    def _enter(self, turn: Turn, n: int) -> None:
        """Pay for ``n`` bytes and pass the gate; between two steps of a piece, the lane leaves meanwhile."""
        if turn.inside:
            with self._state:
                self._leave(turn)
        elif turn.piece is not None and turn.reserved != turn.piece.bytes:
            with self._state:
                self._reserve(turn, turn.piece.bytes)
        paid = not n
        while True:
            if not paid:
                paid = self._throttle.take(n)
            with self._state:
                if self._stopping:
                    raise _Stopped
                if self._closed():
                    self._state.wait()
                elif paid:
                    self._inside += 1
                    turn.inside = True
                    return

    def _obey(self, turn: Turn) -> None:
        """Wait at a closed gate, between two steps of a long piece."""
        with self._state:
            if not self._closed() and not self._stopping:
                return
        self._enter(turn, 0)

    def _end(self, turn: Turn, failed: VolumeError | None, *, kept: bool = False) -> None:
        """Release a lane's resources, note the end of its piece, and wake the copy's owner if the owner has to act."""
        with self._state:
            self._leave(turn)
            self._reserve(turn, 0)
            piece, turn.piece = turn.piece, None
            if piece is not None and (failed is not None or kept):
                self._kept.append(piece)
            elif piece is not None:
                self._account.finish(piece.start, piece.end, turn.written)
                for start, end in turn.lost:
                    self._salvaged.add(start, end)
            told, self._told_due = self._told_due, self._account.half_full
            if failed is not None:
                self._troubles.append(failed)
                self._throttle.interrupt()
            covered = self._account.finished.covers(0, self.size)
            self._state.notify_all()
        if failed is not None or covered or (self._told_due and not told):
            self._wake()

    # --- under the lock -----------------------------------------------------------------------------

    def _leave(self, turn: Turn) -> None:
        if turn.inside:
            turn.inside = False
            self._inside -= 1
            self._state.notify_all()

    def _reserve(self, turn: Turn, n: int) -> None:
        self._account.reserve(n - turn.reserved)
        turn.reserved = n
        self._state.notify_all()

    def _closed(self) -> bool:
        return self._held or bool(self._troubles)

    def _reopen(self) -> None:
        if not self._closed() and not self._stopping:
            self._throttle.proceed()
            self._state.notify_all()

    def _ended(self) -> bool:
        """Whether no piece is left to take; a failed piece is tried again by its lane."""
        return self._exhausted and not self._kept

    def _ended_early(self) -> VolumeError | None:
        """Why the last lane should not have ended; None if every byte is done."""
        gap = next(self._account.finished.missing(0, self.size), None)
        if gap is None:
            return None
        text = f"internal error: the lanes ended, and bytes {gap[0]} to {gap[1]} were not copied"
        return VolumeError(errno.EIO, text, operation=INTERNAL, offset=gap[0], length=gap[1] - gap[0])


def _unexpected_error(error: BaseException, piece: Piece | None) -> VolumeError:
    """An unexpected exception, as the trouble that ends the attempt, whatever the error policy says."""
    start, end = (piece.start, piece.end) if piece is not None else (0, 0)
    log.error("copy of %d..%d failed", start, end, exc_info=error)
    return VolumeError(errno.EIO, unexpected_error_text(error), operation=INTERNAL, offset=start, length=end - start)
