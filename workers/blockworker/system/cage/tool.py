"""Run a tool of QEMU in the cage until the tool ends or its time is over; only a part of its output is kept."""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from blockworker.system.cage import Cage
from blockworker.system.cage.limits import PATIENCE, ToolPatience

log = logging.getLogger(__name__)

Idle = Callable[[], None]
_TICK: Final = 0.2  # seconds
_LONGEST: Final = 1 << 20  # bytes kept of a tool's texts: the first of its output, the last of its errors


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """The end of a tool: exit code (negative: the signal; None: its time was over), output and errors."""

    code: int | None
    output: bytes
    errors: bytes


def run_tool(
    cage: Cage,
    argv: Sequence[str],
    files: Collection[int],
    *,
    seconds: float,
    patience: ToolPatience = PATIENCE,
    idle: Idle = lambda: None,
) -> ToolEnd:
    """Run ``argv`` with the descriptors ``files`` for at most ``seconds``; then the tool is killed.

    ``idle`` is called five times a second meanwhile; an exception from ``idle`` ends the tool.

    Raises:
        JobFailed: the tool cannot be started (``Cage.command_line``).
    """
    command = cage.command_line(argv[0], argv[1:], files)
    (outputs, output), (problems, error) = os.pipe(), os.pipe()
    try:
        try:
            process = subprocess.Popen(
                command, pass_fds=list(files), stdin=subprocess.DEVNULL, stdout=output, stderr=error
            )
        finally:
            os.close(output)
            os.close(error)
        try:
            said, in_time = _read_until_closed(outputs, problems, time.monotonic() + seconds, idle)
            code = process.wait(patience.death) if in_time else None
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_process(process, patience)
    finally:
        os.close(outputs)
        os.close(problems)
    return ToolEnd(code, bytes(said[outputs]), bytes(said[problems]))


def _read_until_closed(outputs: int, problems: int, deadline: float, idle: Idle) -> tuple[dict[int, bytearray], bool]:
    """The text that a process writes on two pipes until it closes both, and whether both closed before the deadline."""
    said = {outputs: bytearray(), problems: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in said:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            ready = selector.select(min(left, _TICK))
            if not ready:
                began = time.monotonic()
                idle()
                deadline += time.monotonic() - began  # ``idle`` may hold the caller: that time does not count
            for key, _ in ready:
                if not (piece := os.read(key.fd, 1 << 16)):
                    selector.unregister(key.fd)
                said[key.fd] += piece
                if key.fd == outputs:
                    del said[outputs][_LONGEST:]
                else:
                    del said[problems][:-_LONGEST]
        return said, not selector.get_map()


def end_process(process: subprocess.Popen[bytes], patience: ToolPatience = PATIENCE) -> None:
    """Kill a tool that has not ended. A tool that hangs in the kernel stays behind and holds its files."""
    if process.poll() is not None:
        return
    process.kill()
    try:
        process.wait(patience.death)
    except subprocess.TimeoutExpired:
        log.error("process %d was killed and does not end: it hangs in the kernel (a dead disk?)", process.pid)
