"""Identity of the sender of a host's beats: this machine as long as it runs, and this very process.

A machine is known by three properties together, as two machines may share any two: the machine-id (equal on a copied
disk), the boot (shared by containers), and a token among the host's records (also equal on a copied disk, but with
another boot).
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import time
import uuid
from collections.abc import Callable
from functools import cache
from typing import Final

import psutil
from blake3 import blake3

from blockjobs.model.errors import JobFailed
from blockjobs.model.liveness import WorkerProcess
from blockjobs.process.clock import read_boot_id
from blockworker.host import state
from blockworker.host.config import HANGS_AFTER, HostConfig, machine_id
from blockworker.host.state import StatePlace
from blockworker.system.crew import Crew
from blockworker.system.processstart import has_started_at, read_start

log = logging.getLogger(__name__)

NAME: Final = "machine"  # the record of the token


def draw_token(config: HostConfig) -> None:
    """Put a token among the host's records, if none exists: before the first use of this machine's name.

    If no token can be kept, the machine is known by machine-id and boot alone.

    Raises:
        JobFailed: the directory of the records does not answer.
    """
    if (place := state.state_directory_of(config)) is not None:
        try:
            _call_with_deadline(_draw_token, place)
        except OSError as error:
            log.warning("%s/%s: %s: this machine is known by its boot alone", place.path, NAME, error.strerror)


def machine_name(config: HostConfig) -> str:
    """Name of this machine since its boot, for both workers of a host: 16 hexadecimal digits.

    Raises:
        JobFailed: the directory of the host's records does not answer.
    """
    place = state.state_directory_of(config)
    token = _token_of(place) if place is not None else ""
    return blake3(f"{machine_id()}:{read_boot_id()}:{token}".encode()).hexdigest()[:16]


def this_process() -> WorkerProcess:
    """This process, with a name that no other process has or had."""
    pid = os.getpid()
    return WorkerProcess(uuid.uuid4().hex, pid, read_start(pid), _pid_namespace(), platform.node())


def is_gone(process: WorkerProcess) -> bool:
    """Whether a process of this boot of this machine has surely ended; False also if this process cannot tell."""
    if process.namespace != _pid_namespace():
        return False
    try:
        same = has_started_at(process.pid, process.start)
        return not same or psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return True


@cache
def _token_of(place: StatePlace) -> str:
    """The token among the host's records; "" if none exists or can be read."""
    try:
        return _call_with_deadline(_read_token, place)
    except OSError:
        return ""


def _call_with_deadline(act: Callable[[StatePlace], str], place: StatePlace) -> str:
    """Call ``act`` in a thread and return its result. Raises JobFailed: the call hangs."""
    found = Crew(act, {place: place}, {place: place}).wait([place], time.monotonic() + HANGS_AFTER)
    if place not in found:
        raise JobFailed(errno.ETIMEDOUT, f"the directory of this host's records, {place.path}, does not answer")
    return found[place]


def _read_token(place: StatePlace) -> str:
    return (state.read_record(place, NAME) or b"").decode("ascii", "replace").strip()


def _draw_token(place: StatePlace) -> str:
    if not _read_token(place):
        with state.locked_record(place, NAME):  # the other worker may draw a token at this moment
            if not _read_token(place):
                state.write_record(place, NAME, uuid.uuid4().hex.encode() + b"\n")
    return _read_token(place)


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
