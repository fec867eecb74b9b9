"""A worker with short patience, in which something breaks once it is ready; its first word says what."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

from celery.signals import worker_ready

from blockjobs.cli.main import main as blockjobs


def nothing() -> None:
    """A worker that is whole."""


def connection() -> None:
    """Soon after its start, its connection to the broker is cut without a word."""

    def deafen(sender: Any, **_: object) -> None:
        def cut() -> None:
            mute, far = socket.socketpair()
            os.set_blocking(mute.fileno(), False)
            os.dup2(mute.fileno(), sender.task_consumer.channel.client.connection._sock.fileno())
            sender.kept = far
            print("cut", flush=True)

        sender.timer.call_after(0.5, cut)

    worker_ready.connect(deafen, weak=False)


def threads() -> None:
    """Each thread that takes a message waits for ever."""
    from blockworker import app  # noqa: PLC0415 - it has memory that only a worker and its children may share

    def wait(*_: object) -> None:
        threading.Event().wait()

    app.Heartbeat.renew = wait  # type: ignore[method-assign]


BREAKS = {each.__name__: each for each in (nothing, connection, threads)}


def main() -> None:
    from blockworker.watch import pulse  # noqa: PLC0415

    pulse.LOOK, pulse.PATIENCE = 0.5, 2.0  # type: ignore[misc]
    BREAKS[sys.argv.pop(1)]()
    blockjobs()
