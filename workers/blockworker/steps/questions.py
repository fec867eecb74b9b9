"""Questions with a waiting asker: volumes to be looked at, an image to be resized, targets to be pruned.

A question is split by file system and handed to the lanes. The answer is given when the answers of every part are
known, or when the asker's patience is nearly over: then a missing part is answered with the hanging path.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import redis

from blockjobs.registry import questions as store
from blockworker.host.config import HostConfig
from blockworker.questions import checkup
from blockworker.steps.board import Errand, Lane
from blockworker.steps.lanes import Lanes
from blockworker.steps.touched import TOUCHED, PointOf, lane_of, look_paths, prune_paths

log = logging.getLogger(__name__)

SLACK: Final = 0.5  # seconds before the end of the asker's patience; then a question is answered with the parts known
SWEEP: Final = 120.0  # seconds that the asker of a sweep waits
REPLACE: Final = 15.0  # seconds that the asker of a change of the registry waits
RESOLVE: Final = 30.0  # seconds that the asker of a resolve waits
# the lane of looks that end by themselves, even if a file system hangs
WHOLE_HOST: Final = frozenset({"the whole host"})
DOCTOR: Final = 12.0  # seconds for a look at the whole host, which ends earlier by itself


@dataclass
class Pending:
    """A question with unanswered parts. ``late`` makes the answer when the time is over."""

    until: float
    missing: int
    finish: Callable[[], None]
    late: Callable[[], None]
    over: bool = False


@contextmanager
def redis_may_be_away(what: str) -> Iterator[None]:
    """Log an absence of Redis, and go on: the asker waits, and asks again."""
    try:
        yield
    except redis.RedisError as error:
        log.warning("%s: Redis is away: %s", what, error)


class QuestionDesk:
    """Hands questions to the lanes, and answers them."""

    def __init__(self, answers: store.Questions, config: HostConfig, lanes: Lanes, point_of: PointOf) -> None:
        self._answers, self._config, self._lanes, self._point_of = answers, config, lanes, point_of
        self._one = threading.Lock()
        self._pending: list[Pending] = []

    # --- questions --------------------------------------------------------------------------------------

    def probe(self, question: str, looks: Sequence[Mapping[str, Any]], patience: float) -> None:
        """Have volumes looked at; a hanging look is answered with the path when the asker's patience is nearly over."""
        answers: list[dict[str, Any] | None] = [None] * len(looks)
        sorted_: dict[Lane, list[int]] = {}
        for at, look in enumerate(looks):
            if look.get("as") == "machine":
                answers[at] = checkup.machine_and_clock(self._config)
            elif look.get("as") == "doctor":
                patience = max(patience, DOCTOR + SLACK)
                sorted_.setdefault(WHOLE_HOST, []).append(at)
            else:
                sorted_.setdefault(lane_of(look_paths(self._config, look), self._point_of), []).append(at)

        until = _end_of(patience)

        def finish() -> None:
            told = [answer or self._missing(look, until, patience) for answer, look in zip(answers, looks, strict=True)]
            self._answers.answer(self._config.name, question, told)

        pending = self._await(until, len(sorted_), finish, finish)
        for lane, places in sorted_.items():

            def done(found: Any, places: Sequence[int] = tuple(places)) -> None:
                for at, answer in zip(places, found or (), strict=False):
                    answers[at] = answer
                self._part_done(pending)

            touched = tuple(path for at in places for path in look_paths(self._config, looks[at]))
            words = {"looks": [dict(looks[at]) for at in places]}
            self._ask(
                Errand(
                    "look", ("look", question, *sorted(lane)), lane, words, "a question", touched, pending.until, done
                )
            )

    def resize(self, question: str, volume: Mapping[str, Any], size: int, patience: float) -> None:
        """Have an image resized, if the question is still permitted."""
        paths = look_paths(self._config, {"volume": volume})
        words = {"question": question, "volume": dict(volume), "size": size}
        self._change(
            Errand("resize", ("resize", question), lane_of(paths, self._point_of), words, "a resize", paths),
            patience,
            lambda why: {"errno": errno.ETIMEDOUT, "text": why},
        )

    def prune(self, question: str, keys: Mapping[str, Any], patience: float) -> None:
        """Have targets pruned, if the question is still permitted."""
        words, paths = {"question": question, "keys": dict(keys)}, prune_paths(keys)
        self._change(
            Errand("prune", ("prune", question), lane_of(paths, self._point_of), words, "a prune", paths[:TOUCHED]),
            patience,
            lambda why: [{"state": "left", "text": why}] * len(keys["going"]),
            free=bool(keys.get("dry")),
        )

    def resolve(self, question: str, words: Mapping[str, Any], lane: Lane, paths: Sequence[str]) -> None:
        """Have a job resolved, if the question is still permitted."""
        errand = Errand(
            "resolve", ("resolve", question), lane, {"question": question, **words}, "a resolve", tuple(paths)
        )
        self._change(errand, RESOLVE, lambda why: {"errno": errno.ETIMEDOUT, "text": why})

    def sweep(self, question: str, *, dry: bool, lost: str) -> None:
        """Have every write and restore root swept of files unknown to the registry; ``lost``: a lost registry."""
        roots, until = self._config.target_roots, _end_of(SWEEP)
        answers: list[list[dict[str, str]] | None] = [None] * len(roots)

        def finish() -> None:
            rows: list[dict[str, str]] = []
            for path, found in zip(roots, answers, strict=True):
                late = {"what": "root", "path": path, "state": "left", "text": self._why([path], until, SWEEP)}
                rows += [late] if found is None else found
            self._answers.answer(self._config.name, question, rows)

        pending = self._await(until, len(roots), finish, finish)
        for at, path in enumerate(roots):

            def done(found: Any, at: int = at) -> None:
                answers[at] = found
                self._part_done(pending)

            words = {"path": path, "dry": dry, "lost": lost}
            lane = lane_of([path], self._point_of)
            self._ask(
                Errand(
                    "lost", ("lost", question, path), lane, words, f"the sweep of {path}", (path,), pending.until, done
                )
            )

    def replace(self, question: str, gone: str, records: Sequence[str]) -> None:
        """Have this host replace a lost registry by the present registry, if the question is still permitted."""
        words, lane = {"question": question, "gone": gone}, lane_of(records, self._point_of)
        errand = Errand("replace", ("replace", question), lane, words, "a change of the registry", tuple(records))
        self._change(errand, REPLACE, lambda why: {"errno": errno.ETIMEDOUT, "text": why})

    def rescan(self, question: str, root: str, after: Sequence[bytes] | None, patience: float) -> None:
        """Have a page of the manifests below a write root read ("": the first root), from position ``after`` on.

        The answer names the root and the position of the next page; None: no page is left.
        """
        roots = self._config.write_roots
        path = root or next(iter(roots), "")
        if path not in roots:
            said = [[path, f"it is no write root of host {self._config.name} any more"]] if path else []
            self._answers.answer(self._config.name, question, {"root": path, "odd": said, "next": None})
            return
        until, found = _end_of(patience), list[Any]()
        following = next(iter(roots[roots.index(path) + 1 :]), "")

        def finish() -> None:
            page = found[0] if found and found[0] is not None else None
            said = page or {"odd": [[path, self._why([path], until, patience)]], "lost": True}
            then = [path, page["after"]] if page and page["after"] is not None else [following, None]
            answer = {**said, "root": path, "next": then if then[0] else None}
            self._answers.answer(self._config.name, question, answer)

        pending = self._await(until, 1, finish, finish)

        def done(value: Any) -> None:
            found.append(value)
            self._part_done(pending)

        lane = lane_of([path], self._point_of)
        self._ask(
            Errand(
                "rescan",
                ("rescan", question),
                lane,
                {"path": path, "after": after},
                f"a rescan of {path}",
                (path,),
                pending.until,
                done,
            )
        )

    def _change(self, errand: Errand, patience: float, refused: Callable[[str], Any], *, free: bool = False) -> None:
        """Hand in a change; a change needs a permit unless ``free``.

        A change is refused in time only if the change has surely not begun and never will: the permit, which only one
        process can take, is taken away from the change.
        """
        question = errand.words["question"]
        found: list[Any] = []

        until = _end_of(patience)

        def finish() -> None:
            if found[0] is not None:
                self._answers.answer(self._config.name, question, found[0])
            else:
                late()

        def late() -> None:
            if free or self._answers.take_permit(self._config.name, question):
                why = self._why(errand.paths, until, patience)
                self._answers.answer(self._config.name, question, refused(why))

        pending = self._await(until, 1, finish, late)

        def done(value: Any) -> None:
            found.append(value)
            self._part_done(pending)

        self._ask(replace(errand, until=pending.until, done=done))

    def _ask(self, errand: Errand) -> None:
        if not self._lanes.hand(errand):
            errand.done(None)

    def _await(self, until: float, parts: int, finish: Callable[[], None], late: Callable[[], None]) -> Pending:
        pending = Pending(until, parts, finish, late)
        if not parts:
            pending.over = True
            finish()
            return pending
        with self._one:
            self._pending.append(pending)
        return pending

    def _part_done(self, pending: Pending) -> None:
        with self._one:
            pending.missing -= 1
            if pending.missing or pending.over:
                return
            pending.over = True
            self._pending.remove(pending)
        self._answer(pending.finish)

    def expire(self) -> None:
        """Answer the questions whose askers will soon stop waiting."""
        now = time.monotonic()
        with self._one:
            late = [each for each in self._pending if each.until <= now]
            self._pending = [each for each in self._pending if each.until > now]
            for each in late:
                each.over = True
        for each in late:
            self._answer(each.late)

    def _answer(self, finish: Callable[[], None]) -> None:
        with redis_may_be_away("a question was not answered"):
            finish()

    def _missing(self, look: Mapping[str, Any], until: float, patience: float) -> dict[str, Any]:
        """The answer to a look without a result."""
        code = errno.ETIMEDOUT if time.monotonic() >= until else errno.EIO
        return {"errno": code, "text": self._why(look_paths(self._config, look), until, patience)}

    def _why(self, paths: Sequence[str], until: float, patience: float) -> str:
        """Why no result came back: the time is over, or the process at work has ended."""
        path = paths[0] if paths else "a path"
        if time.monotonic() < until:
            why = "nobody could look: the process for it has ended, or too much waits before it"
            return f"{path} on host {self._config.name}: {why}; the log of its steps worker says more"
        path = self._lanes.blamed(lane_of(paths, self._point_of)) or path
        return f"{path} on host {self._config.name} hangs: nothing came back within {patience - SLACK:.1f} s"


def _end_of(patience: float) -> float:
    """When a question is answered with the parts known by then, by the monotonic clock."""
    return time.monotonic() + patience - SLACK
