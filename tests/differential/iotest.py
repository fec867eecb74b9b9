"""What QEMU's own block job tests are written with, on top of the public client: one connection, and their words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Final

from qemu.qmp.legacy import QEMUMonitorProtocol
from stages import Stage

MIB: Final = 1 << 20
SLOW: Final = 1  # bytes/s: what a breakpoint in the source does in the originals
DEADLINE: Final = 30.0  # seconds for any one event
MOMENT: Final = 0.5  # seconds in which a paused job must not move
BLINK: Final = 0.02  # seconds between two looks
Reply = dict[str, Any]


class Bench:
    """A server with images, nodes and jobs; a server of the original or of ours."""

    def __init__(self, stage: Stage, folder: str) -> None:
        self.place = stage.images / folder
        self.place.mkdir()
        self._monitor = QEMUMonitorProtocol(str(stage.socket))
        self._monitor.connect()
        self._nodes: list[str] = []

    # --- images and nodes ---------------------------------------------------------------------------------

    def image(self, name: str, size: int = 4 * MIB, *, fill: bool = False, holes: bool = False) -> Path:
        """A file and a ``file`` node of the same name."""
        path = self.place / name
        with path.open("wb") as file:
            if fill:
                file.write(os.urandom(size))
            elif holes:
                file.write(b"AA" * 32768)
            file.truncate(size)
        self.node(name, driver="file", filename=str(path))
        return path

    def node(self, name: str, **options: object) -> None:
        self.ok("blockdev-add", node_name=name, **options)
        self._nodes.append(name)

    def remove(self, name: str) -> None:
        self.ok("blockdev-del", node_name=name)
        self._nodes.remove(name)

    def fault(self, name: str, image: str, iotype: str, errno: int, offset: int = MIB) -> None:
        """A node in front of another that fails once at an offset."""
        rule = {"event": "none", "iotype": iotype, "errno": errno, "sector": offset // 512, "once": True}
        self.node(name, driver="blkdebug", image=image, inject_error=[rule])

    def same(self, one: str, other: str) -> bool:
        return (self.place / one).read_bytes() == (self.place / other).read_bytes()

    # --- commands -----------------------------------------------------------------------------------------

    def qmp(self, command: str, arguments: Reply | None = None, **words: object) -> Reply:
        told = {name.replace("_", "-"): value for name, value in {**(arguments or {}), **words}.items()}
        return self._monitor.cmd_raw(command, args=told)

    def ok(self, command: str, **words: object) -> Any:
        reply = self.qmp(command, **words)
        assert "return" in reply, f"{command} {words}: {reply}"
        return reply["return"]

    def refused(self, command: str, **words: object) -> str:
        """The text of a GenericError."""
        reply = self.qmp(command, **words)
        assert reply.get("error", {}).get("class") == "GenericError", f"{command} {words}: {reply}"
        return str(reply["error"]["desc"])

    def job(self, job: str) -> Reply:
        return next(info for info in self.ok("query-block-jobs") if info["device"] == job)

    def assert_no_active_block_jobs(self) -> None:
        assert self.ok("query-block-jobs") == []

    def patience(self, seconds: float) -> None:
        """Give up on a command that is not answered within this."""
        self._monitor.settimeout(seconds)

    # --- events -------------------------------------------------------------------------------------------

    def events(self, limit: float = DEADLINE) -> Iterator[Reply]:
        """Every event from here on, in order, until the limit."""
        deadline = monotonic() + limit
        while (left := deadline - monotonic()) > 0:
            try:
                event = self._monitor.pull_event(wait=left)
            except TimeoutError:
                return
            if event is not None:
                yield dict(event)

    def event(self, *names: str, job: str = "", status: str = "") -> Reply:
        """The next event of one of these names, for a job, with a status."""
        seen = []
        for event in self.events():
            data = event["data"]
            named = event["event"] in names and (not job or job in (data.get("device"), data.get("id")))
            if named and (not status or data.get("status") == status):
                return dict(data)
            seen.append(event)
        raise AssertionError(f"no {names} {job} {status} within {DEADLINE} s, but {seen}")

    def until(self, job: str, status: str) -> None:
        self.event("JOB_STATUS_CHANGE", job=job, status=status)

    # --- what iotests.py calls QMPTestCase ------------------------------------------------------------------

    def cancel_and_wait(self, job: str, *, force: bool = False) -> Reply:
        self.ok("block-job-cancel", device=job, force=force)
        data = self.event("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", job=job)
        self.until(job, "null")
        self.assert_no_active_block_jobs()
        return data

    def wait_until_completed(self, job: str, error: str = "") -> Reply:
        data = self.event("BLOCK_JOB_COMPLETED", job=job)
        assert data.get("error", "") == error
        if not error:
            assert data["offset"] == data["len"]
        self.until(job, "null")
        self.assert_no_active_block_jobs()
        return data

    def wait_ready(self, job: str) -> Reply:
        return self.event("BLOCK_JOB_READY", job=job)

    def complete_and_wait(self, job: str, *, ready: bool = False) -> Reply:
        if not ready:
            self.wait_ready(job)
        self.ok("block-job-complete", device=job)
        return self.wait_until_completed(job)

    def wait_ready_and_cancel(self, job: str) -> None:
        self.wait_ready(job)
        self.ok("block-job-cancel", device=job)
        assert self.wait_until_completed(job)["type"] == "mirror"

    def pause_wait(self, job: str) -> Reply:
        deadline = monotonic() + DEADLINE
        while not ((info := self.job(job))["paused"] and not info["busy"]):
            assert monotonic() < deadline, info
            list(self.events(BLINK))
        return info

    def pause_job(self, job: str) -> None:
        """Pause, be quiescent, and stay where it is for a moment."""
        self.ok("block-job-pause", device=job)
        offset = self.pause_wait(job)["offset"]
        list(self.events(MOMENT))
        assert self.job(job)["offset"] == offset

    def await_status(self, job: str, status: str) -> None:
        """Ask until a job that somebody else started has come so far."""
        deadline = monotonic() + DEADLINE
        while (status, job) not in [(info["status"], info["id"]) for info in self.ok("query-jobs")]:
            assert monotonic() < deadline, f"{job} is not {status}"
            list(self.events(BLINK))

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what still runs, remove every node."""
        try:
            deadline = monotonic() + DEADLINE
            while jobs := self.ok("query-jobs"):
                assert monotonic() < deadline, jobs
                for job in jobs:
                    self.qmp("job-dismiss" if job["status"] == "concluded" else "job-cancel", id=job["id"])
                list(self.events(BLINK))
            for name in reversed(self._nodes):
                self.ok("blockdev-del", node_name=name)
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        self._monitor.close()
