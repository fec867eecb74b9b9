"""One connection of the public client, in few words; and one of plain bytes."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Self

from qemu.qmp import ConnectError
from qemu.qmp.legacy import QEMUMonitorProtocol

DEADLINE = 30.0  # seconds for any one event
Data = dict[str, Any]


class Monitor:
    """``-`` of QMP's names is ``_`` here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._protocol = QEMUMonitorProtocol(str(path))
        self._protocol.connect()

    def again(self) -> None:
        """Connect anew, as soon as somebody answers."""
        self._protocol.close()
        deadline = monotonic() + DEADLINE
        while True:
            self._protocol = QEMUMonitorProtocol(str(self._path))
            try:
                self._protocol.connect()
                return
            except ConnectError:
                assert monotonic() < deadline, f"nobody answers at {self._path}"
                select.select([], [], [], 0.05)

    def close(self) -> None:
        self._protocol.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def raw(self, command: str, /, **words: object) -> Data:
        return self._protocol.cmd_raw(command, args={k.replace("_", "-"): v for k, v in words.items()})

    def ok(self, command: str, /, **words: object) -> Any:
        reply = self.raw(command, **words)
        assert "return" in reply, f"{command} {words}: {reply}"
        return reply["return"]

    def refused(self, command: str, /, **words: object) -> tuple[str, str]:
        """Class and text of the error."""
        reply = self.raw(command, **words)
        assert "error" in reply, f"{command} {words}: {reply}"
        return reply["error"]["class"], reply["error"]["desc"]

    def no(self, command: str, /, **words: object) -> str:
        """The text of a GenericError."""
        kind, text = self.refused(command, **words)
        assert kind == "GenericError", (kind, text)
        return text

    def events(self) -> Iterator[Data]:
        """Every event from here on, until the deadline."""
        deadline = monotonic() + DEADLINE
        while (left := deadline - monotonic()) > 0:
            event = self._protocol.pull_event(wait=left)
            assert event is not None
            yield dict(event)

    def until(self, name: str, job: str = "", **data: object) -> list[Data]:
        """Every event up to the first of this name, job and data."""
        seen = []
        for event in self.events():
            seen.append(event)
            told = event["data"]
            if (
                event["event"] == name
                and (not job or job in (told.get("device"), told.get("id")))
                and data.items() <= told.items()
            ):
                return seen
        raise AssertionError(f"no {name} {job} {data}, but {seen}")

    def until_status(self, job: str, status: str) -> list[Data]:
        return self.until("JOB_STATUS_CHANGE", job, status=status)

    def status(self, job: str) -> str:
        return next(each["status"] for each in self.ok("query-jobs") if each["id"] == job)

    def backup(self, job: str, device: str, target: str, **more: object) -> None:
        self.ok("blockdev-backup", job_id=job, device=device, target=target, sync="full", **more)

    def transaction(self, *actions: tuple[str, str, str], mode: str = "grouped", **more: object) -> Data:
        """Backups as (job, device, target)."""
        return self.raw("transaction", actions=[action(*each, **more) for each in actions],
                        properties={"completion-mode": mode})  # fmt: skip


def action(job: str, device: str, target: str, **more: object) -> Data:
    words = {name.replace("_", "-"): value for name, value in more.items()}
    return {"type": "blockdev-backup",
            "data": {"job-id": job, "device": device, "target": target, "sync": "full", **words}}  # fmt: skip


def story(events: list[Data]) -> list[str]:
    """Events in short: ``j1 running``, ``j1 BLOCK_JOB_COMPLETED``."""
    return [f"{each['data'].get('id') or each['data'].get('device')} {each['data'].get('status') or each['event']}"
            for each in events]  # fmt: skip


class Plain:
    """Bytes to a server, JSON back; negotiated unless told otherwise."""

    def __init__(self, path: Path, *, negotiate: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")
        self.greeting = self.read()
        if negotiate:
            assert self.say(b'{"execute": "qmp_capabilities"}') == {"return": {}}

    def read(self) -> Any:
        return json.loads(self._file.readline())

    def say(self, text: bytes) -> Any:
        self.socket.sendall(text + b"\n")
        return self.read()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
