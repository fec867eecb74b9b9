"""The environment, read once and here: where Redis is, and where ``up`` keeps its state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from blockjobs.model.errors import NoRedis

URL: Final = "BLOCKJOBS_REDIS_URL"
QMP: Final = "BLOCKJOBS_QMP"  # for shells only: the socket of the coordinator that `up` runs


def state_directory() -> Path:
    """``~/.local/state/blockjobs``, or where XDG_STATE_HOME says."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG rule: a relative path there is to be ignored.
    return (Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()) / "blockjobs"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="BLOCKJOBS_", extra="ignore", frozen=True)

    redis_url: str = ""  # empty: look in ``dir``/env
    dir: Path = Field(default_factory=state_directory)


def find_url(flag: str | None = None, settings: Settings | None = None) -> str:
    """Where Redis is: the flag, else BLOCKJOBS_REDIS_URL, else what a running ``up`` wrote down.

    Raises:
        NoRedis: nobody says where it is.
    """
    known = settings or Settings()
    if url := flag or known.redis_url or read_env(known.dir):
        return url
    raise NoRedis(
        f"Redis is not reachable: no URL is given and none is in {known.dir / 'env'}; start `blockjobs up` or set {URL}"
    )


def read_env(directory: Path) -> str:
    """The URL in ``directory/env``; empty where there is none."""
    try:
        lines = (directory / "env").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix(f"{URL}=") for line in lines if line.startswith(f"{URL}=")), "")


def write_env(directory: Path, url: str, qmp: Path | None = None) -> None:
    """Leave ``url`` in ``directory/env`` for the CLI and for shells; readers see the old file or the new one."""
    new = directory / "env.new"
    new.write_text(f"{URL}={url}\n" + (f"{QMP}={qmp}\n" if qmp else ""), encoding="utf-8")
    new.chmod(0o600)  # a URL may hold a password
    new.replace(directory / "env")
