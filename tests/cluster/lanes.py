"""A lane of small runs, one after the other, of all kinds: each story is a run file or two, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Final

from fleet import DEADLINE, MIB, Fleet
from talk import Monitor

from blockjobs.cli import runfile
from blockjobs.cli.gather import gather_fleet_facts
from blockjobs.cli.start import read_whole, submit_run
from blockjobs.client.event_stream import Stream
from blockjobs.client.fleet import Fleet as Client
from blockjobs.model.errors import NoSuchJob
from blockjobs.model.ids import RunId
from blockjobs.registry.events import Event

HOSTS: Final = ("a", "b")
SEED: Final = "seed.img"  # of host a: what is restored
PACE: Final = 0.6  # seconds


class Lane:
    """Runs stories, one after the other; each is a run file or two."""

    def __init__(self, fleet: Fleet, number: int, receiver: str) -> None:
        self.fleet, self.number, self.receiver = fleet, number, receiver
        self.done: Counter[str] = Counter()
        self.told = 0
        self.last_kept: list[RunId] = []
        self.here = Client(fleet.server.url)
        self.file = fleet.place / f"lane{number}.yaml"
        self._numbers = count()

    def close(self) -> None:
        self.here.close()

    def stories(self) -> list[Callable[[], None]]:
        every = [
            self.grouped, self.individual, self.failing_member, self.tried_again, self.cancelled, self.paused,
            self.mirrored, self.cut, self.stored, self.queued, self.late, self.stopped, self.restored, self.globbed,
            self.kept,
        ]  # fmt: skip
        own = [[self.killed], [self.by_qmp], [self.dismissed, self.manual]][self.number % 3]
        turn = self.number * 5 % len(every)
        return [*every[turn:], *every[:turn], *own]

    def run(self, over: threading.Event) -> None:
        """One story after the other until it is over, at most one in ``PACE`` seconds: others want the machine, too."""
        for story in cycle(self.stories()):
            began = time.monotonic()
            story()
            self.done[story.__name__] += 1
            if over.wait(max(0.0, began + PACE - time.monotonic())):
                return

    # --- their words --------------------------------------------------------------------------------------

    def submit(self, name: str, body: str, top: str = "") -> RunId:
        """Start a run file as ``run`` does."""
        for host in HOSTS:
            self.out(host, name).mkdir(parents=True, exist_ok=True)
        self.file.write_text(f"version: 1\nname: {name}-{self.number}\n{top}\n{body}\n")
        read, known = read_whole(self.file, (), ()), runfile.FleetFacts()

        def ask() -> None:
            nonlocal known
            known = gather_fleet_facts(self.here, read, lambda _: None)

        self.listen(Stream(self.here.registry, self.here.registry.events.last()))
        return submit_run(self.here, lambda now: read.plan(now, known), ask).run

    def out(self, host: str, name: str) -> Path:
        return self.fleet.root(host) / "out" / f"{name}-{self.number}"

    def job(self, name: str, id_: str, host: str, more: str = "", source: str = "disk.img") -> str:
        """A line of a run file."""
        root = self.fleet.root(host)
        target = f"{self.out(host, name)}/{{run}}/{id_}.img"
        return f'  - {{id: {id_}, source: "{host}:{root}/{source}", target: "{host}:{target}", {more}}}'

    def jobs(self, *lines: str) -> str:
        return "\n".join(["jobs:", *lines])

    def transaction(self, words: str, *lines: str) -> str:
        """One with words of its own."""
        jobs = ", ".join(line.removeprefix("  - ") for line in lines)
        return f"transactions:\n  - {{name: all, {words}, jobs: [{jobs}]}}"

    def until(self, name: str, id_: str, status: str = "") -> Event:
        """The next such event."""
        give_up = time.monotonic() + DEADLINE
        while time.monotonic() < give_up:
            while self._page:
                event = self._page.pop(0)
                if (event.name, event.id) == (name, id_) and status in ("", event.fields.get("status")):
                    return event
            self._page = self.stream.take(0.5)
        raise AssertionError(f"no {name} {id_} {status}\n{self.fleet.tails()}")

    def listen(self, stream: Stream) -> None:
        """Wait for events of this stream from here on."""
        self.stream = stream
        self._page: list[Event] = []

    def ended(self, run: RunId, *, failed: int = 0, cancelled: int = 0) -> None:
        """It has ended, and so."""
        event = self.until("RUN_ENDED", run)
        found = int(event.fields["failed"]), int(event.fields["cancelled"])
        assert found == (failed, cancelled), f"{run}: {event.fields}\n{self.fleet.tails()}"

    def clear(self, name: str, run: RunId) -> None:
        """Its targets are the user's, who removes them."""
        for host in HOSTS:
            shutil.rmtree(self.out(host, name) / run, ignore_errors=True)

    def nothing(self, name: str, run: RunId) -> None:
        """Nothing of it is left."""
        assert not [host for host in HOSTS if (self.out(host, name) / run).exists()], run

    # --- the stories --------------------------------------------------------------------------------------

    def grouped(self) -> None:
        run = self.submit("grouped", self.jobs(self.job("grouped", "one", "a"), self.job("grouped", "two", "b")),
                          f"notify: {{success: ['{self.receiver}']}}")  # fmt: skip
        self.ended(run)
        self.told += 1
        self.clear("grouped", run)

    def individual(self) -> None:
        lines = [self.job("single", "one", "a", "auto-dismiss: true"), self.job("single", "two", "b"),
                 self.job("single", "away", "b", source="nobody.img")]  # fmt: skip
        run = self.submit("single", self.jobs(*lines), "completion-mode: individual")
        self.ended(run, failed=1)
        self.clear("single", run)

    def failing_member(self) -> None:
        lines = [self.job("fails", "one", "a"), self.job("fails", "away", "b", source="nobody.img")]
        run = self.submit("fails", self.jobs(*lines), f"notify: {{failure: ['{self.receiver}']}}")
        self.ended(run, failed=1, cancelled=1)
        self.told += 1
        self.nothing("fails", run)

    def tried_again(self) -> None:
        lines = [self.job("again", "one", "a"), self.job("again", "away", "b", source="nobody.img")]
        words = "completion-mode: individual, retry: 1, retry-wait: 1s"
        run = self.submit("again", self.transaction(words, *lines))
        self.ended(run, failed=1)
        self.clear("again", run)

    def cancelled(self) -> None:
        slow = "speed: 64KiB"
        run = self.submit(
            "cancel", self.jobs(self.job("cancel", "one", "a", slow), self.job("cancel", "two", "b", slow))
        )
        self.until("ATTEMPT_CLAIMED", f"{run}.one")
        self.here.cancel(f"{run}.one")
        self.ended(run, cancelled=2)
        self.nothing("cancel", run)

    def paused(self) -> None:
        run = self.submit("pause", self.jobs(self.job("pause", "one", "a", "speed: 256KiB")))
        job = f"{run}.one"
        self.until("ATTEMPT_CLAIMED", job)
        self.here.pause(job, owner="endurance", cause="a rest", seconds=600)
        self.until("JOB_STATUS_CHANGE", job, "paused")
        self.here.set_speed(job, 0)
        self.here.resume(job)
        self.ended(run)
        self.clear("pause", run)

    def mirrored(self) -> None:
        run = self.submit("mirror", self.jobs(self.job("mirror", "one", "a", "type: mirror")))
        self.until("BLOCK_JOB_READY", f"{run}.one")
        self.here.complete(f"{run}.one")
        self.ended(run)
        self.clear("mirror", run)

    def cut(self) -> None:
        snap = "snapshot: 'command:snap'"
        run = self.submit("cut", self.jobs(self.job("cut", "one", "a", snap), self.job("cut", "two", "b", snap)))
        self.ended(run)
        self.clear("cut", run)

    def stored(self) -> None:
        lines = [self.job("stored", f"{host}{n}", host) for host in HOSTS for n in range(2)]
        stores = f"stores: {{nas: {{path: {self.fleet.place}, jobs: 1, speed: 64MiB/s}}}}"
        run = self.submit("stored", self.transaction("completion-mode: individual, store: nas", *lines), stores)
        self.ended(run)
        self.clear("stored", run)

    def queued(self) -> None:
        body = self.jobs(self.job("queue", "one", "b"))
        runs = [self.submit("queue", body, "on-overlap: queue")]
        stream = self.stream
        runs.append(self.submit("queue", body, "on-overlap: queue"))
        self.listen(stream)
        for run in runs:
            self.ended(run)
            self.clear("queue", run)

    def late(self) -> None:
        run = self.submit("late", self.jobs(self.job("late", "one", "b")), "deadline: 6h")
        self.ended(run)
        self.clear("late", run)

    def stopped(self) -> None:
        image = f"{{driver: file, filename: {self.fleet.root('a')}/disk.img}}"
        bad = f"{{driver: blkdebug, host: a, image: {image}, inject-error: [{{iotype: read, once: true}}]}}"
        target = f"a:{self.out('a', 'stop')}/{{run}}/one.img"
        line = f'  - {{id: one, source: {bad}, target: "{target}", on-source-error: stop}}'
        run = self.submit("stop", self.jobs(line), "hold-timeout: 30m")
        self.until("JOB_STATUS_CHANGE", f"{run}.one", "paused")
        self.here.resume(f"{run}.one")
        self.ended(run)
        self.clear("stop", run)

    def restored(self) -> None:
        root = self.fleet.root("a")
        line = self.job("restore", "one", "a", "type: restore", source=SEED)
        run = self.submit("restore", self.jobs(line))
        self.ended(run)
        assert (self.out("a", "restore") / run / "one.img").read_bytes() == (root / "disk.img").read_bytes()
        self.clear("restore", run)

    def globbed(self) -> None:
        """The hosts are asked what the pattern means."""
        body = "\n".join(
            f"""  - {{name: of-{host}, hosts: {host}, target: "{self.out(host, "glob")}/{{run}}/{{name}}.img", """
            f"""sources: ["{self.fleet.root(host)}/dis*.img"]}}"""
            for host in HOSTS
        )
        run = self.submit("glob", f"transactions:\n{body}")
        self.ended(run)
        self.clear("glob", run)

    def kept(self) -> None:
        """The coordinator prunes."""
        body = self.transaction("keep: {last: 2}", self.job("kept", "one", "a"), self.job("kept", "two", "b"))
        run = self.submit("kept", body, f"notify: {{success: ['{self.receiver}']}}")
        self.ended(run)
        self.told += 1
        self.last_kept = [*self.last_kept, run][-2:]

    def dismissed(self) -> None:
        run = self.submit("dismiss", self.jobs(self.job("dismiss", "one", "a"), self.job("dismiss", "two", "b")))
        self.ended(run)
        for name in ("one", "two"):
            with suppress(NoSuchJob):  # forgotten with its run
                self.here.dismiss(f"{run}.{name}")
        self.clear("dismiss", run)

    def manual(self) -> None:
        run = self.submit("manual", self.jobs(self.job("manual", "one", "a", "auto-finalize: false")))
        self.until("JOB_STATUS_CHANGE", f"{run}.one", "pending")
        self.here.finalize(f"{run}.one")
        self.ended(run)
        self.clear("manual", run)

    def killed(self) -> None:
        """The writer dies, and the job goes on in another process."""
        run = self.submit("killed", self.jobs(self.job("killed", "one", "a", "speed: 256KiB")))
        job = f"{run}.one"
        self.until("ATTEMPT_CLAIMED", job)
        os.kill(self.fleet.writer("a", job), signal.SIGKILL)
        self.until("ATTEMPT_RELEASED", job)
        self.here.set_speed(job, 0)
        self.ended(run)
        self.clear("killed", run)

    def by_qmp(self) -> None:
        """A client comes, copies, and goes."""
        root, job = self.fleet.root("a"), f"q{next(self._numbers)}"
        source, target = root / "qmp.img", root / f"{job}.img"  # its own: nobody else may read a node that is removed
        target.write_bytes(bytes(MIB))
        assert self.fleet.qmp is not None
        with Monitor(self.fleet.qmp) as monitor:
            for node, path in (("from", source), ("to", target)):
                monitor.ok("blockdev-add", driver="file", node_name=node, filename=str(path), host="a")
            monitor.backup(job, "from", "to")
            monitor.until_status(job, "null")
            for node in ("from", "to"):
                monitor.ok("blockdev-del", node_name=node)
        assert target.read_bytes() == source.read_bytes()
        for path in root.glob(f"{job}.img*"):
            path.unlink()
