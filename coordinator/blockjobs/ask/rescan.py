"""Rescan of hosts: hosts read the manifests below their write roots, page by page, and unknown backups are recorded.

A rescan may be repeated at any time: known backups are left unchanged.  A host's answers are untrusted data, as are its
manifests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model.errors import BadInput, HostDown, Refused
from blockjobs.model.ids import Host, RunId
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.rescan import BackupStanding, FoundBackup, judge_found, name_of, number_among
from blockjobs.registry.doors import Registry
from blockjobs.registry.hosts import check_host
from blockjobs.registry.odd import STRICT, Unreadable

PATIENCE: Final = 60.0  # seconds; a page takes a host 15
PAGES: Final = 1_000_000  # pages per host: a bound against false answers
FAULTS: Final = (BadInput, TypeError, ValueError, LookupError, AttributeError)  # exceptions of reading an answer
MOST: Final = 2000  # entries read of one page
COPY: Final = "copies of what is known"
SAID: Final = 100  # lines kept about one host; further lines are counted


@dataclass(slots=True)
class HostScan:
    """The result for one host.

    ``added``: backups newly recorded, and moved backups; ``counts``: the number of backups by standing; ``aside``:
    reasons to leave backups unchanged, with the number of backups; ``odd``: invalid manifests and directories with the
    reasons, and ``more`` unlisted ones; ``lost``: roots not read to the end, with the reasons, or the whole host ("").
    """

    host: Host
    counts: Counter[BackupStanding] = field(default_factory=Counter)
    added: list[FoundBackup] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)
    odd: list[tuple[str, str]] = field(default_factory=list)
    more: int = 0
    restored: int = 0
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every manifest was read and is valid."""
        return not (self.lost or self.odd or self.more)

    def note(self, path: str, why: str) -> None:
        if len(self.odd) < SAID:
            self.odd.append((path, why))
        else:
            self.more += 1

    def leave(self, standing: BackupStanding, why: str) -> None:
        """Count a backup left unchanged; ``why``: the reason shown to users, "" for none."""
        self.counts[standing] += 1
        if why:
            self.aside[why] += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "host": self.host, "found": self.counts[BackupStanding.NEW], "moved": self.counts[BackupStanding.MOVED],
            "known": self.counts[BackupStanding.KNOWN], "of-other-hosts": self.counts[BackupStanding.FOREIGN],
            "going": self.counts[BackupStanding.GOING], "restored": self.restored,
            "backups": [
                {"run": each.run, "job": each.job, "target": f"{each.host}:{each.path}", "size": each.size}
                for each in self.added
            ],
            "aside": [{"why": why, "backups": number} for why, number in self.aside.items()],
            "odd": [{"path": path, "why": why} for path, why in self.odd], "more": self.more,
            "not-read": [{"root": root or None, "why": why} for root, why in self.lost.items()],
        }  # fmt: skip


class _Page(NamedTuple):
    """A page of a host's answer.

    ``lost``: the rest of the root cannot be read; ``following``: the next page, or None.
    """

    rows: Sequence[Any]
    odd: Sequence[tuple[str, str]]
    more: int
    restored: int
    lost: bool
    following: tuple[str, Any] | None

    @classmethod
    def of(cls, answer: Any) -> _Page:
        """Parse an answer; raises an exception of ``FAULTS`` for a malformed answer."""
        if "errno" in answer:  # a version without this question
            return cls((), (("", str(answer["text"])),), 0, 0, lost=True, following=None)
        odd = [(str(path), str(why)) for path, why in answer["odd"][:MOST]]
        following = None
        if answer["next"] is not None:
            root, after = answer["next"]
            following = (str(root), after)
        return cls(
            answer.get("rows", [])[:MOST],
            odd,
            int(answer.get("more", 0)),
            int(answer.get("restored", 0)),
            lost=bool(answer.get("lost")),
            following=following,
        )


@dataclass(slots=True)
class _Turn:
    """A host being scanned: the current question, and the work left for the end."""

    scan: HostScan
    question: str = ""
    root: str = ""
    there: set[tuple[str, str]] = field(default_factory=set)  # entries, by run, at their recorded place
    maybe: list[tuple[FoundBackup, PublishedTarget]] = field(default_factory=list)  # backups that may have moved

    @property
    def host(self) -> Host:
        return self.scan.host


class Rescan:
    """A rescan of hosts.

    ``dry``: record nothing, and return the same results.  ``moved_from``: the former host of the backups on the scanned
    hosts.  ``progress`` is called for a host after each page but the last.
    """

    def __init__(
        self,
        registry: Registry,
        doorbell: Doorbell,
        *,
        dry: bool = False,
        moved_from: str = "",
        patience: float = PATIENCE,
        progress: Callable[[HostScan], None] = lambda _: None,
    ) -> None:
        self._registry, self._doorbell, self._patience = registry, doorbell, patience
        self._progress = progress
        self._dry, self._moved_from = dry, moved_from
        self._hosts = registry.hosts.known()
        self._numbered: dict[str, list[PublishedTarget]] = {}  # by name: the backups not found by a rescan

    def __call__(self, hosts: Sequence[Host]) -> Iterator[HostScan]:
        """Scan hosts in parallel; yield each host at its end."""
        waiting: list[_Turn] = []
        for host in hosts:
            turn = _Turn(HostScan(host))
            try:
                check_host(host, self._hosts.get(host))
            except HostDown as down:
                turn.scan.lost[""] = str(down)
                yield turn.scan
                continue
            self._ask(turn, "", None)
            waiting.append(turn)
        for _ in range(PAGES):
            for turn in [*waiting]:
                if not self._goes_on(turn):
                    waiting.remove(turn)
                    self._move(turn)
                    yield turn.scan
            if not waiting:
                return
        for turn in waiting:
            turn.scan.lost[turn.root] = "it has no end"
            yield turn.scan

    # --- a page ------------------------------------------------------------------------------------------------

    def _ask(self, turn: _Turn, root: str, after: Any) -> None:
        turn.root = root
        what = {"ask": "rescan", "root": root, "after": after, "patience": self._patience}
        questions = self._registry.questions
        turn.question = put_question(questions, self._doorbell, turn.host, what, patience=self._patience)

    def _goes_on(self, turn: _Turn) -> bool:
        """Take a page and ask for the next page; False if there is none."""
        page = self._registry.questions.wait(turn.host, turn.question, self._patience)
        if page is None:
            turn.scan.lost[turn.root] = f"host '{turn.host}' did not answer within {self._patience:.0f} s"
            return False
        try:
            read = _Page.of(page)
        except FAULTS as wrong:
            turn.scan.lost[turn.root] = f"host '{turn.host}' answered what cannot be read: {wrong}"
            return False
        self._take(turn, read)
        if read.following is None:
            return False
        self._progress(turn.scan)
        self._ask(turn, *read.following)
        return True

    def _take(self, turn: _Turn, page: _Page) -> None:
        scan = turn.scan
        if page.lost:
            scan.lost |= {path or turn.root: why for path, why in page.odd}
        else:
            for path, why in page.odd:
                scan.note(path, why)
        scan.more += page.more
        scan.restored += page.restored
        backups = []
        for row in page.rows:
            try:
                backups.append(FoundBackup.of(row, turn.host))
            except FAULTS as wrong:
                scan.note("", f"what the host tells of a manifest cannot be read: {wrong}")
        self._judge(turn, backups)

    def _judge(self, turn: _Turn, backups: Sequence[FoundBackup]) -> None:
        scan, new = turn.scan, dict[RunId, list[FoundBackup]]()
        entries, closed = self._entries({each.run for each in backups})
        for each in backups:
            found = judge_found(
                each, entries.get(each.run, ()), going=each.run in closed, hosts=self._hosts.keys(),
                moved_from=self._moved_from,
            )  # fmt: skip
            if found.known is not None and found.standing is BackupStanding.MOVED:
                turn.maybe.append((each, found.known))
                continue
            if found.known is not None:
                turn.there.add((each.run, found.known.entry))
            if found.standing is not BackupStanding.NEW:
                scan.leave(
                    found.standing, closed.get(each.run, "") if found.standing is BackupStanding.GOING else found.why
                )
            elif (each.run, each.entry) in turn.there:
                scan.leave(BackupStanding.KNOWN, COPY)
            else:
                turn.there.add((each.run, each.entry))
                new.setdefault(each.run, []).append(each)
        for run, members in new.items():
            self._add(scan, run, members, entries.get(run, ()))

    def _entries(self, ids: set[RunId]) -> tuple[dict[RunId, list[PublishedTarget]], dict[RunId, str]]:
        """The registry's entries of some runs, and the reasons to add nothing to other runs."""
        entries: dict[RunId, list[PublishedTarget]] = {}
        closed = dict.fromkeys(self._registry.found.unpublished(ids), "its run is not over")
        runs = {run.id: run for run in self._registry.views.runs_of(ids)}
        for run in ids - closed.keys():
            try:
                if run in runs:
                    entries[run] = self._registry.history.targets([runs[run]], STRICT)
                    if not runs[run].ended:
                        closed[run] = "its run is not over"
            except Unreadable as odd:
                closed[run] = str(odd)
        return entries, closed

    def _add(
        self, scan: HostScan, run: RunId, members: Sequence[FoundBackup], entries: Iterable[PublishedTarget]
    ) -> None:
        if not self._dry:
            try:
                number = max((entry.number for entry in entries), default=0) or number_among(
                    members[0].at, self._known_of(name_of(run)), self._registry.clock.now() / 1000
                )
                self._registry.found.add([(each, number) for each in members])
            except Refused as why:  # started meanwhile, or the records of the name are unreadable
                for _ in members:
                    scan.leave(BackupStanding.GOING, str(why))
                return
        scan.counts[BackupStanding.NEW] += len(members)
        scan.added += members

    def _known_of(self, name: str) -> list[PublishedTarget]:
        if name not in self._numbered:
            runs = [run for run in self._registry.views.runs(odd=STRICT) if run.name == name]
            targets = self._registry.history.targets(runs, STRICT)
            self._numbered[name] = [target for target in targets if not target.seal]
        return self._numbered[name]

    # --- moved backups -------------------------------------------------------------------------------------------

    def _move(self, turn: _Turn) -> None:
        """Correct the places of backups found elsewhere and missing at the recorded place."""
        scan = turn.scan
        for each, known in turn.maybe:
            if (each.run, known.entry) in turn.there:
                scan.leave(BackupStanding.KNOWN, COPY)
            elif known.host == each.host and (why := _why_unread(scan, known.path)):
                scan.leave(BackupStanding.KNOWN, f"known at another place, and {why}")
            elif self._dry or self._registry.found.move(known, each):
                turn.there.add((each.run, known.entry))
                scan.counts[BackupStanding.MOVED] += 1
                scan.added.append(each)


def _why_unread(scan: HostScan, path: str) -> str:
    """Why a backup may still lie at a path; "" if the path was read and the backup is gone."""
    if scan.more:
        return "not everything that could not be read is listed"
    for place in (*scan.lost, *(place for place, _ in scan.odd)):
        if not place or f"{path}/".startswith(f"{place.rstrip('/')}/"):
            return f"{place or 'the host'} could not be read to its end"
    return ""
