"""A language for QMP stories, and the player that acts one out against a server and writes down what it saw.

A story is a list of steps. What is kept are the replies in order, each job's own events in order, and the order in
which jobs ended: what two servers must agree on, however fast each of them is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qemu.qmp import ExecuteError, Message, QMPClient

MIB: Final = 1 << 20
SLOW: Final = 1  # bytes/s: one chunk, then a sleep that outlives the story
DEADLINE: Final = 30.0  # seconds for any one thing that is waited for
ENDINGS: Final = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")


# --- the steps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a command; its reply is part of the transcript."""

    command: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Until:
    """Wait for an event of a job: a status, or a ``BLOCK_JOB_...``; it may have come since the last verb was sent."""

    job: str
    what: str


@dataclass(frozen=True, slots=True)
class Image:
    """Make a file and a ``file`` node of the same name; bytes are random where it is to be ``full``."""

    name: str
    size: int
    full: bool


@dataclass(frozen=True, slots=True)
class Quiet:
    """Wait until a job is quiescent: paused, and no longer busy."""

    job: str


@dataclass(frozen=True, slots=True)
class Same:
    """Write down whether two files are the same."""

    one: str
    other: str


Step = Ask | Until | Image | Quiet | Same


def ask(command: str, arguments: Mapping[str, object] | None = None, **words: object) -> Ask:
    """A command; ``job_id="j"`` stands for ``"job-id": "j"``."""
    return Ask(command, dict(arguments or {}) | {name.replace("_", "-"): value for name, value in words.items()})


def until(job: str, what: str) -> Until:
    return Until(job, what)


def source(name: str = "a", size: int = 4 * MIB) -> Image:
    return Image(name, size, full=True)


def target(name: str = "b", size: int = 4 * MIB) -> Image:
    return Image(name, size, full=False)


@dataclass(frozen=True, slots=True)
class Story:
    name: str
    steps: Sequence[Step]
    differs: tuple[str, ...] = ()  # names of documented differences that it meets
    ordered: bool = True  # whether the order in which its jobs end is decided, not raced for


# --- what was seen --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Transcript:
    replies: list[str] = field(default_factory=list)
    jobs: dict[str, list[str]] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        jobs = [f"{job}: {line}" for job in sorted(self.jobs) for line in self.jobs[job]]
        return [*self.replies, *jobs, *(f"ended: {line}" for line in self.endings)]


def job_of(event: Message) -> str:
    data = event["data"]
    return str(data.get("id") or data.get("device"))


class Player:
    """One client of one server that acts out one story in a folder of its own."""

    def __init__(self, client: QMPClient, place: Path, normal: Callable[[object], object]) -> None:
        self._client = client
        self._place = place
        self._normal = normal
        self._news = asyncio.Event()
        self._marks: dict[str, int] = {}  # by job, "" for all: events before are not waited for
        self._nodes: list[str] = []
        self.events: list[Message] = []
        self.asked_for: set[int] = set()  # places of the pauses that the story waited for
        self.transcript = Transcript()

    async def act(self, steps: Sequence[Step]) -> None:
        with self._client.listener() as listener:

            async def follow() -> None:
                async for event in listener:
                    self.events.append(event)
                    self._news.set()

            follower = asyncio.create_task(follow())
            try:
                for step in steps:
                    await self._act(step)
            finally:
                await self._leave_nothing()
                follower.cancel()
                with suppress(asyncio.CancelledError):
                    await follower

    async def _act(self, step: Step) -> None:
        match step:
            case Ask(command, arguments):
                await self._ask(command, arguments)
            case Until(job, what):
                await self._until(job, what)
            case Image(name, size, full):
                path = self._place / name
                path.write_bytes(os.urandom(size) if full else bytes(size))
                await self._ask("blockdev-add", {"driver": "file", "node-name": name, "filename": str(path)})
            case Quiet(job):
                await self._poll(job)
            case Same(one, other):
                same = (self._place / one).read_bytes() == (self._place / other).read_bytes()
                self.transcript.replies.append(f"{one} and {other} are {'the same' if same else 'not the same'}")

    async def _ask(self, command: str, arguments: Mapping[str, object]) -> None:
        if not command.startswith("query-"):
            self._marks = {"": len(self.events)}
        told = self._told(arguments)
        try:
            reply: object = await asyncio.wait_for(self._client.execute(command, told), DEADLINE)
            if command == "blockdev-add":
                self._nodes.append(str(arguments["node-name"]))
            elif command == "blockdev-del":
                self._nodes.remove(str(arguments["node-name"]))
        except ExecuteError as error:
            reply = f"{error.error_class}: {error.error.error.desc}"
        shown = " ".join([command, *(f"{name}={value}" for name, value in arguments.items())])
        self.transcript.replies.append(f"{shown} -> {self._normal(reply)}".replace(str(self._place), "PLACE"))

    def _told(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments, with PLACE as the folder of the story."""
        return {
            name: value.replace("PLACE", str(self._place)) if isinstance(value, str) else value
            for name, value in arguments.items()
        }

    async def _until(self, job: str, what: str) -> None:
        async with asyncio.timeout(DEADLINE):
            seen = self._marks.get(job, self._marks.get("", 0))
            while True:
                self._news.clear()
                for place in range(seen, len(self.events)):
                    event = self.events[place]
                    if job_of(event) == job and what in (event["event"], event["data"].get("status")):
                        self.asked_for.add(place)
                        self._marks[job] = place + 1
                        return
                seen = len(self.events)
                await self._news.wait()

    async def _poll(self, job: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while True:
                for info in await self._client.execute("query-block-jobs"):
                    if info["device"] == job and info["paused"] and not info["busy"]:
                        return
                await asyncio.sleep(0.02)

    async def _leave_nothing(self) -> None:
        """End every job and remove every node, so that the next story finds the server as this one did."""
        listed = len(self.events)
        async with asyncio.timeout(DEADLINE):
            while jobs := await self._client.execute("query-jobs"):
                for job in jobs:
                    with suppress(ExecuteError):
                        verb = "job-dismiss" if job["status"] == "concluded" else "job-cancel"
                        await self._client.execute(verb, {"id": job["id"]})
                await asyncio.sleep(0.02)
            for node in reversed(self._nodes):
                await self._client.execute("blockdev-del", {"node-name": node})
        del self.events[listed:]


async def play(story: Story, socket: Path, place: Path, normal: Callable[[object], object]) -> Player:
    """Act a story out; a wait that fails says what had been seen until then."""
    place.mkdir(parents=True)
    client = QMPClient(story.name)
    async with asyncio.timeout(DEADLINE):
        await client.connect(str(socket))
    player = Player(client, place, normal)
    try:
        await player.act(story.steps)
    except TimeoutError:
        seen = "\n".join([*player.transcript.replies, *map(str, player.events)])
        raise AssertionError(f"{story.name}: waited in vain after\n{seen}") from None
    finally:
        await client.disconnect()
    return player
