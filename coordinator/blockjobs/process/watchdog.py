"""Reports of a process to systemd or to ``up``: the process serves, and from then on is alive.

The protocol is sd_notify(3): a datagram to the socket named by NOTIFY_SOCKET. Nothing is sent without the variable.
The code uses no package, as no maintained package for the protocol does more than these lines.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
_REPORTS: Final = 3  # reports of life within systemd's timeout


def report_ready() -> None:
    """Report that this process serves."""
    _send_report(READY)


def report_alive() -> None:
    """Report that this process is alive."""
    _send_report(ALIVE)


def report_interval() -> float | None:
    """Seconds between two reports of life; None without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(microseconds) / 1e6 / _REPORTS if microseconds.isdecimal() and int(microseconds) and ours else None


def _send_report(state: str) -> None:
    """Send a report; a failure to send does not stop the process."""
    name = os.environ.get(SOCKET, "")
    if name[:1] not in ("/", "@"):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(0)
        sender.sendto(state.encode(), address)
