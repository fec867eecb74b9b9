"""Processes that are killed at a point of their work, found by counting."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

from redis.connection import AbstractConnection


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
