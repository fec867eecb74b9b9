"""The environment, read once and here: where Redis is, where ``up`` keeps its state, and what the coordinator needs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from blockjobs.model.attention import Thresholds
from blockjobs.model.errors import BadInput, NoRedis
from blockjobs.registry.address import has_user_alone, with_password_file

PREFIX: Final = "BLOCKJOBS_"
URL: Final = "BLOCKJOBS_REDIS_URL"
QMP: Final = "BLOCKJOBS_QMP"  # for shells only: the socket of the coordinator that `up` runs

DAY: Final = 24 * 3600 * 1000  # ms


def state_directory() -> Path | None:
    """``~/.local/state/blockjobs``, or where XDG_STATE_HOME says; None: this user has no home directory."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = os.path.expanduser("~")  # unchanged where neither HOME nor an entry of passwd says where it is
    # The XDG rule: a relative path there is to be ignored.
    if base.startswith("/"):
        return Path(base, "blockjobs")
    return Path(home, ".local/state/blockjobs") if home.startswith("/") else None


def absolute(path: Path, what: str) -> Path:
    """A path as it is from every directory; ``what``: it was given as that.

    Raises:
        BadInput: it is relative, and the current directory was removed or cannot be read.
    """
    return path if path.is_absolute() else current_directory(f"{what} {path}") / path


def current_directory(what: str) -> Path:
    """Where this process is; ``what``: needs it.

    Raises:
        BadInput: it was removed, or cannot be read.
    """
    try:
        return Path.cwd()
    except OSError as wrong:
        raise BadInput(
            f"{what}: the current directory cannot be found ({wrong.strerror}): an absolute path was expected"
        ) from None


class Settings(BaseModel):
    """``redis_url`` is BLOCKJOBS_REDIS_URL, and so on."""

    model_config = ConfigDict(frozen=True)

    redis_url: str = ""  # empty: look in ``dir``/env
    redis_password_file: Path | None = None  # of the user that the URL names without a password
    dir: Path | None = Field(default_factory=state_directory)
    # What webhooks are signed with: itself, or the file it is the first line of.  Never in a run file.
    notify_secret: SecretStr = SecretStr("")
    notify_secret_file: Path | None = None
    notify_delays: str = "10,30,120,420"  # seconds between the tries to tell somebody: five of them in ten minutes
    # What runs leave in Redis is its memory: a fleet of many small runs keeps them for less long.
    keep_runs_days: float = Field(default=90, gt=0, le=36_500)  # figures and records of runs that are over
    keep_events_days: float = Field(default=7, gt=0, le=36_500)
    # When what lasts needs a person (``notify.attention`` of a run file).
    held_minutes: float = Field(default=30, gt=0, le=1_000_000)  # a job is held
    owes_minutes: float = Field(default=10, gt=0, le=1_000_000)  # a host does not answer
    idle_minutes: float = Field(default=15, gt=0, le=1_000_000)  # jobs wait for a host whose slots are free

    @field_validator("notify_delays")
    @classmethod
    def _numbers(cls, text: str) -> str:
        if not re.fullmatch(r"([0-9]{1,6}(\.[0-9]+)?(,|$)){0,50}", text) or text.endswith(","):
            raise ValueError("seconds, separated by commas, were expected")
        return text

    @property
    def keep(self) -> tuple[int, int]:
        """How long runs that are over, and events, are kept, in milliseconds."""
        return round(self.keep_runs_days * DAY), round(self.keep_events_days * DAY)

    @property
    def delays(self) -> tuple[float, ...]:
        return tuple(float(each) for each in self.notify_delays.split(",") if each)

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(held=60 * self.held_minutes, owes=60 * self.owes_minutes, idle=60 * self.idle_minutes)

    def secret(self) -> str:
        """What webhooks are signed with, read now; "" where nobody gave one.

        Raises:
            OSError, UnicodeDecodeError: the file cannot be read.
        """
        given = self.notify_secret.get_secret_value()
        if given or self.notify_secret_file is None:
            return given
        return self.notify_secret_file.read_text(encoding="utf-8").split("\n", 1)[0].strip()


def read_settings() -> Settings:
    """The environment; raises BadInput: one of its variables is malformed."""
    variables = {name: f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    given = {name: os.environ[variable] for name, variable in variables.items() if variable in os.environ}
    try:
        return Settings.model_validate(given)
    except ValidationError as invalid:
        wrong = invalid.errors(include_url=False, include_input=False)[0]
        name = variables[str(wrong["loc"][0])]
        raise BadInput(f"{name}: {wrong['msg'].removeprefix('Value error, ')}") from None


def find_url(flag: str | None = None, settings: Settings | None = None) -> str:
    """Where Redis is: the flag, else BLOCKJOBS_REDIS_URL, else what a running ``up`` wrote down.

    The password of a user whom the URL names without one is in BLOCKJOBS_REDIS_PASSWORD_FILE, and is not in the URL.

    Raises:
        NoRedis: nobody says where it is.
    """
    known = settings or read_settings()
    if url := flag or known.redis_url or (read_env(known.dir) if known.dir else ""):
        file = known.redis_password_file
        return with_password_file(url, str(file)) if file is not None and has_user_alone(url) else url
    if known.dir is None:
        raise NoRedis(f"Redis is not reachable: no URL is given, and this user has no home directory; set {URL}")
    raise NoRedis(
        f"Redis is not reachable: no URL is given and none is in {known.dir / 'env'}; start `blockjobs up` or set {URL}"
    )


def read_env(directory: Path) -> str:
    """The URL in ``directory/env``; empty where there is none."""
    try:
        lines = (directory / "env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((line.removeprefix(f"{URL}=") for line in lines if line.startswith(f"{URL}=")), "")


def write_env(directory: Path, url: str, qmp: Path | None = None) -> None:
    """Leave ``url`` in ``directory/env`` for the CLI and for shells; readers see the old file or the new one."""
    new = directory / "env.new"
    new.write_text(f"{URL}={url}\n" + (f"{QMP}={qmp}\n" if qmp else ""), encoding="utf-8")
    new.chmod(0o600)  # a URL may hold a password
    new.replace(directory / "env")
