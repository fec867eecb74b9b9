"""What a process reports to whoever started it, systemd or ``up``: that it serves, and from then on that it lives.

The protocol is sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.  It is these few lines and no package,
as none of those that speak it is maintained and more than these lines.  Without the variable nothing is sent.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
_REPORTS: Final = 3  # reports of life within the time after which systemd would end the process


def report_ready() -> None:
    """Say that this process serves."""
    _send(READY)


def report_alive() -> None:
    """Say that this process lives."""
    _send(ALIVE)


def report_interval() -> float | None:
    """Seconds between two reports of life; None: nobody waits for them."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(microseconds) / 1e6 / _REPORTS if microseconds.isdecimal() and int(microseconds) and ours else None


def _send(state: str) -> None:
    """Send a report; one that cannot be sent is no reason to stop serving."""
    name = os.environ.get(SOCKET, "")
    if name[:1] not in ("/", "@"):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(0)
        sender.sendto(state.encode(), address)
