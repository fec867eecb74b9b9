"""A user of whom the machine knows nothing: no entry of passwd, no home, no environment, no current directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NOBODY = 12345
# It may read everything, as the interpreter may lie in somebody's home, and write what is its own.
_BECOME = (
    f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=+dac_read_search "
    "--ambient-caps=+dac_read_search"
)
_PROGRAM = 'd=$(mktemp -d); cd "$d"; rmdir "$d"; $0 env -i "$@"'


def as_nobody(*words: object, env: Mapping[str, str] | None = None) -> list[str]:
    """The words by which nobody runs ``blockjobs WORDS``, with nothing but ``env`` in its environment.

    Who is not root cannot become another user: it has an entry of passwd then, and the rest is the same.
    """
    told = (f"{name}={value}" for name, value in (env or {}).items())
    blockjobs = (sys.executable, "-P", "-m", "blockjobs")
    return ["bash", "-c", _PROGRAM, "exec" if os.geteuid() else f"exec {_BECOME}", *told, *blockjobs, *map(str, words)]


def run_as_nobody(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(as_nobody(*words, env=env), capture_output=True, text=True, check=False, timeout=120)


def give_to_nobody(*paths: Path) -> None:
    """Make nobody the owner of files, where it is another user than this one."""
    for path in paths if os.geteuid() == 0 else ():
        os.chown(path, NOBODY, NOBODY)
