"""A look at the host itself, for ``blockjobs doctor``: roots, devices, commands and tools.

Only facts; the reader judges them. A dead network file system blocks every touching process, for ever: therefore a
separate process looks, with a thread per path, and ends by itself in time.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import select
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import blockjobs
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.machine import machine_name
from blockworker.host.roots import Roots
from blockworker.system import filesystem

A_PATH: Final = 5.0  # seconds for a look at a path
LIMIT: Final = 10.0  # seconds for the whole look; the asker waits a little longer
LINGER: Final = 600.0  # seconds that hanging threads are waited for after the answer
MOST: Final = 10_000  # journals reported for one root
TOOLS: Final = ("qemu-nbd", "qemu-img")


def inspect_host(config: HostConfig) -> dict[str, Any]:
    """All facts about this host, within ``LIMIT`` seconds."""
    argv = [sys.executable, "-P", "-m", "blockworker.questions.checkup"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        found: dict[str, Any] = json.loads(_ask_process(child, json.dumps(asdict(config)).encode()))
    except (TimeoutError, OSError, ValueError):
        child.kill()
        found = {"failed": f"looking took longer than {LIMIT:.0f} s, or ended without a result"}
    finally:
        for pipe in filter(None, (child.stdin, child.stdout)):
            with suppress(OSError):
                pipe.close()
        with suppress(subprocess.TimeoutExpired):  # a process that hangs in the kernel ends later
            child.wait(1.0)
    return found | machine_and_clock(config)


def _ask_process(child: subprocess.Popen[bytes], question: bytes) -> bytes:
    """The answer of the process, which may outlive its answer. Raises TimeoutError."""
    if child.stdin is None or child.stdout is None:
        raise OSError(errno.EPIPE, "no pipe to the process that looks")
    child.stdin.write(question)
    child.stdin.close()
    answer, give_up = b"", time.monotonic() + LIMIT
    while select.select([child.stdout], [], [], max(0.0, give_up - time.monotonic()))[0]:
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece:
            return answer
        answer += piece
    raise TimeoutError


def machine_and_clock(config: HostConfig) -> dict[str, Any]:
    """Identity of the answering host, and its clock's time."""
    return {"machine": machine_name(config), "version": blockjobs.__version__, "clock": time.time()}


def host_findings(config: HostConfig) -> dict[str, Any]:
    """The facts of every look; a hanging path has ``hangs``."""
    roots = Roots(config)
    looks: list[tuple[str, str, Callable[[], Mapping[str, Any]]]] = [
        ("state", "directory", partial(_inspect_state_directory, config)),
        *(("read-root", path, partial(_inspect_root, roots, path, write=False)) for path in config.read_roots),
        *(("write-root", path, partial(_inspect_root, roots, path, write=True)) for path in config.write_roots),
        *(("restore-root", path, partial(_inspect_root, roots, path, write=True)) for path in config.restore_roots),
        *(("device", path, partial(_inspect_device, roots, path)) for path in config.devices),
        *(("command", name, partial(_inspect_command, argv[0])) for name, argv in config.commands.items()),
        *(("tool", name, partial(_inspect_tool, name)) for name in TOOLS),
        ("cage", "cage", partial(_cage_state, roots)),
    ]
    results: list[dict[str, Any]] = [{"kind": kind, "name": name, "hangs": True} for kind, name, _ in looks]

    def run(at: int) -> None:
        kind, name, ask = looks[at]
        results[at] = {"kind": kind, "name": name, **ask()}

    threads = []
    for at in range(len(looks)):
        threads.append(threading.Thread(target=run, args=(at,), daemon=True))
        threads[-1].start()
    give_up = time.monotonic() + A_PATH
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return {"user": _user_name(), "slots": config.slots, "looks": list(results)}


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _inspect_state_directory(config: HostConfig) -> dict[str, Any]:
    """The directory of the host's records, and whether it can be written."""
    place = state.state_directory_of(config)
    if place is None:
        return {"path": "", "own": False, "wanted": config.state}
    found = {"path": place.path, "own": place.owned, "wanted": config.state}
    try:
        fd = place.open(make=place.owned)
    except FileNotFoundError:
        return found  # beneath a write root: made for the first record
    except OSError as error:
        return found | {"error": f"{place.path}: {error.strerror}"}
    try:
        return found | {"writable": os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK)}
    finally:
        os.close(fd)


def _inspect_root(roots: Roots, path: str, *, write: bool) -> dict[str, Any]:
    try:
        fd = roots.open_dir(path, write=write)
    except JobFailed as failed:
        return {"error": failed.text}
    except OSError as error:  # the root itself
        return {"error": error.strerror or str(error)}
    try:
        kind, local = filesystem.filesystem_kind(fd)
        found = {"fs": kind, "local": local, **filesystem.free_space(fd), "listed": True, "device": os.fstat(fd).st_dev}
        try:
            with os.scandir(fd) as entries:
                next(entries, None)
        except OSError:
            found["listed"] = False
        more = {"abilities": filesystem.try_abilities(fd), "transactions": _open_transactions(fd)} if write else {}
        return found | more
    except OSError as error:
        return {"error": error.strerror or str(error)}
    finally:
        os.close(fd)


def _open_transactions(root: int) -> list[str]:
    """The transactions with an open journal beneath a write root, at most ``MOST``."""
    try:
        folder = os.open(state.FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return []
    try:
        names = (name for name in os.listdir(folder) if name.endswith(".journal") and not name.startswith("."))
        return [name.removesuffix(".journal") for name in names][:MOST]
    finally:
        os.close(folder)


def _inspect_device(roots: Roots, path: str) -> dict[str, Any]:
    try:
        fd = roots.open_device(path)
    except JobFailed as failed:
        return {"error": failed.text}
    try:
        return {"size": os.lseek(fd, 0, os.SEEK_END)}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    finally:
        os.close(fd)


def _inspect_command(program: str) -> dict[str, Any]:
    try:
        st = os.stat(program)
        above = os.stat(os.path.dirname(os.path.realpath(program)))
    except OSError as error:
        return {"program": program, "error": error.strerror or str(error)}
    sticky = bool(above.st_mode & stat.S_ISVTX)
    return {
        "program": program,
        "executable": stat.S_ISREG(st.st_mode) and os.access(program, os.X_OK),
        "world-writable": bool(st.st_mode & stat.S_IWOTH) or (bool(above.st_mode & stat.S_IWOTH) and not sticky),
    }


def _inspect_tool(name: str) -> dict[str, Any]:
    path = shutil.which(name)
    if path is None:
        return {"version": ""}
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=A_PATH, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"version": "", "error": str(error)}
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return {"version": found[0] if found else "unknown"}


def _cage_state(roots: Roots) -> dict[str, Any]:
    """The cage for QEMU's tools on this host, and whether the host's owner does without."""
    return {"landlock": roots.cage.abi, "lack": roots.cage.lack, "uncaged": roots.cage.uncaged}


def main() -> None:
    keys = json.load(sys.stdin)
    lists = {name: tuple(keys[name]) for name in ("read_roots", "write_roots", "restore_roots", "devices")}
    commands = {name: tuple(argv) for name, argv in keys["commands"].items()}
    config = HostConfig(**{**keys, **lists, "commands": commands, "name": Host(keys["name"])})
    json.dump(host_findings(config), sys.stdout)
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the end of the answer
    # A hanging thread removes the files of its trials, if the file system answers again.
    give_up = time.monotonic() + LINGER
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(max(0.0, give_up - time.monotonic()))
    os._exit(0)


if __name__ == "__main__":
    main()
