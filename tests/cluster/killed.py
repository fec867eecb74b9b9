"""Processes that are killed at a point of their work, found by counting."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from redis.connection import AbstractConnection

from blockworker.system import kernel

T = TypeVar("T")

# What changes a file system, as audit events of Python; before each of them a process can die.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
# The same for system calls by ctypes, of which Python's audit hooks see nothing: attributes of
# ``blockworker.system.kernel``.
KERNEL_CHANGES = ("rename_noreplace", "rename_exchange", "clone_file", "clone_range", "punch_hole", "allocate_range")


def forked(act: Callable[[], object]) -> int:
    """A process that does this and nothing else; its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:  # it must not go on as a second pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def was_killed(status: int) -> bool:
    """Of a process that ended: whether by its count; else it came through."""
    assert status in (0, signal.SIGKILL), f"it failed without being killed: {status}"
    return os.WIFSIGNALED(status)


def killed(act: Callable[[], object]) -> bool:
    """Do this in a process of its own, to its end; whether that was its count's."""
    return was_killed(os.waitpid(forked(act), 0)[1])


def countdown(point: int) -> Callable[[], None]:
    """What is called before each point: at the n-th one this process gets SIGKILL."""
    left = iter(range(point - 1, -1, -1))

    def passing() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return passing


def die_before(point: int, *more: tuple[Any, str]) -> None:
    """This process gets SIGKILL before its n-th send to Redis, or call of ``more``, which are attributes of modules."""
    passing = countdown(point)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            passing()
            return call(*args, **kwargs)

        return counting

    for of, name in [(AbstractConnection, "send_packed_command"), *more]:
        setattr(of, name, counted(getattr(of, name)))


def die_before_change(point: int) -> None:
    """Kill this process with SIGKILL before its n-th change of a file system."""
    passing = countdown(point)

    def audited(event: str, args: tuple[Any, ...]) -> None:
        makes_file = event == "open" and isinstance(args[2], int) and args[2] & (os.O_CREAT | os.O_TRUNC)
        if makes_file or event in CHANGES:
            passing()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any) -> Any:
            passing()
            return call(*args)

        return counting

    for name in KERNEL_CHANGES:
        setattr(kernel, name, counted(getattr(kernel, name)))
    sys.addaudithook(audited)


def _die_at(point: int, action: Callable[[T], object], place: T) -> None:
    die_before_change(point)
    action(place)


def kill_at_every_change(
    set_up: Callable[[], T], action: Callable[[T], object], check: Callable[[T, bool], object], *, at_least: int
) -> None:
    """Kill ``action`` before its first change of the file system, then before its second one, until it comes through.

    Each time ``set_up`` makes a fresh place for it, ``action`` runs there in a process of its own, and ``check`` judges
    what is there; its second argument says whether the process was killed.  Fails where fewer than ``at_least`` kills
    happened: a loop in which nobody is killed shows nothing.
    """
    kills, died = 0, True
    while died:
        place = set_up()
        died = killed(partial(_die_at, kills + 1, action, place))
        check(place, died)
        kills += died
    print("KILLS", kills)
    assert kills >= at_least, f"the process was killed at {kills} changes: at least {at_least} were expected"
