"""The cage: QEMU's tools run in a cage and can open only the files handed to them.

An image may name any file of the host, and has many ways to do so. ``volumes/headers.py`` reads the headers for good
messages; the kernel, by Landlock and seccomp (``launch.py``), is the protection.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.system.cage import launch
from blockworker.system.cage.limits import MEMORY

PACKAGE: Final = "qemu-utils"  # the Debian package of the tools
KEY: Final = "uncaged-formats"  # the key of host.toml for tools without a cage


@dataclass(frozen=True, slots=True)
class Cage:
    """The parts of a cage that this kernel offers, and whether the host's owner accepts a tool without a cage.

    ``abi``: the version of Landlock, 0 for none; ``filters``: whether system calls can be filtered.
    """

    abi: int
    filters: bool
    uncaged: bool = False

    @property
    def lack(self) -> str:
        """The missing part of a whole cage, as text; "" if the cage is whole."""
        if not self.abi:
            return "no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK, and 'landlock' in its list of LSMs)"
        return "" if self.filters else f"no filter of system calls (seccomp) for {platform.machine()}"

    def command_line(
        self, tool: str, arguments: Sequence[str], files: Iterable[int], *, listener: int | None = None
    ) -> list[str]:
        """The command line that starts a tool in the cage, from the calling thread.

        ``files``: descriptors that the tool may open as ``/dev/fd/N``; pass ``files`` and the ``listener`` to the
        child.

        Raises:
            JobFailed: the tool is missing, or this kernel has no cage and the host's owner insists on a cage.
        """
        if self.lack and not self.uncaged:
            text = (
                f"images of a format are refused: the kernel of this host has {self.lack}, and nothing would keep QEMU "
                f"from the files that an image names; '{KEY} = true' in host.toml takes that risk"
            )
            raise JobFailed(errno.ENOTSUP, text)
        program = shutil.which(tool)
        if program is None:
            raise JobFailed(errno.ENOTSUP, f"images of a format need {tool} on this host (Debian's package {PACKAGE})")
        return [
            sys.executable,
            "-I",
            "-S",
            launch.__file__,
            str(os.getpid()),
            str(0 if self.lack else self.abi),
            str(int(self.filters)),
            str(MEMORY),
            "-" if listener is None else str(listener),
            ",".join(map(str, files)),
            os.path.abspath(program),
            *arguments,
        ]


@cache
def kernel_cage() -> Cage:
    """The cage that the running kernel offers, for a host that insists on a cage."""
    return Cage(launch.landlock_abi(), launch.has_filter())
