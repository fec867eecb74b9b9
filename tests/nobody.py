"""A user of whom the machine knows nothing: no entry of passwd, no home, no environment, no current directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

NOBODY = 12345
# It may read everything, as the interpreter may lie in somebody's home, and write what is its own.
_PROGRAM = (
    'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec setpriv --reuid=$0 --regid=$0 --clear-groups '
    '--inh-caps=+dac_read_search --ambient-caps=+dac_read_search env -i "$@"'
)


def as_nobody(*words: object, env: Mapping[str, str] | None = None) -> list[str]:
    """The words by which nobody runs ``blockjobs WORDS``, with nothing but ``env`` in its environment."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    told = (f"{name}={value}" for name, value in (env or {}).items())
    blockjobs = (sys.executable, "-P", "-m", "blockjobs")
    return ["bash", "-c", _PROGRAM, str(NOBODY), *told, *blockjobs, *map(str, words)]


def run_as_nobody(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(as_nobody(*words, env=env), capture_output=True, text=True, check=False, timeout=120)
