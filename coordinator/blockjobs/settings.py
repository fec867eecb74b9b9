"""The environment, read in this module only: the URL of Redis, the directory of ``up``, the coordinator's settings."""

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
QMP: Final = "BLOCKJOBS_QMP"  # for shells only: the socket of the coordinator run by `up`

DAY: Final = 24 * 3600 * 1000  # ms


def state_directory() -> Path | None:
    """``~/.local/state/blockjobs``, or where XDG_STATE_HOME says; None: this user has no home directory."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = os.path.expanduser("~")  # unchanged where neither HOME nor passwd names a directory
    # The XDG rule: a relative path in XDG_STATE_HOME is ignored.
    if base.startswith("/"):
        return Path(base, "blockjobs")
    return Path(home, ".local/state/blockjobs") if home.startswith("/") else None


def absolute_path(path: Path, what: str) -> Path:
    """The absolute form of a path; ``what``: names the path in an error.

    Raises:
        BadInput: the path is relative, and the current directory was removed or cannot be read.
    """
    return path if path.is_absolute() else current_directory(f"{what} {path}") / path


def current_directory(what: str) -> Path:
    """The current directory of this process; ``what``: names its user in an error.

    Raises:
        BadInput: the directory was removed, or cannot be read.
    """
    try:
        return Path.cwd()
    except OSError as wrong:
        raise BadInput(
            f"{what}: the current directory cannot be found ({wrong.strerror}): an absolute path was expected"
        ) from None


class Settings(BaseModel):
    """The settings of the environment: ``redis_url`` is BLOCKJOBS_REDIS_URL, and so on."""

    model_config = ConfigDict(frozen=True)

    redis_url: str = ""  # empty: look in ``dir``/env
    redis_password_file: Path | None = None  # password of a user named in the URL, if the URL has none
    dir: Path | None = Field(default_factory=state_directory)
    # The key that signs webhooks: the secret itself, or the file whose first line is the secret.  Never in a run file.
    notify_secret: SecretStr = SecretStr("")
    notify_secret_file: Path | None = None
    notify_delays: str = "10,30,120,420"  # seconds between tries to send a notice: five tries in ten minutes
    # Records of runs use the memory of Redis: a fleet of many small runs keeps records for a shorter time.
    keep_runs_days: float = Field(default=90, gt=0, le=36_500)  # figures and records of ended runs
    keep_events_days: float = Field(default=7, gt=0, le=36_500)
    # How long a condition lasts until it needs a person (``notify.attention`` of a run file).
    held_minutes: float = Field(default=30, gt=0, le=1_000_000)  # a job is held
    owes_minutes: float = Field(default=10, gt=0, le=1_000_000)  # a host does not answer
    idle_minutes: float = Field(default=15, gt=0, le=1_000_000)  # jobs wait for a host with free slots

    @field_validator("notify_delays")
    @classmethod
    def _numbers(cls, text: str) -> str:
        if not re.fullmatch(r"([0-9]{1,6}(\.[0-9]+)?(,|$)){0,50}", text) or text.endswith(","):
            raise ValueError("seconds, separated by commas, were expected")
        return text

    @property
    def keep(self) -> tuple[int, int]:
        """Retention of ended runs, and of events, in milliseconds."""
        return round(self.keep_runs_days * DAY), round(self.keep_events_days * DAY)

    @property
    def delays(self) -> tuple[float, ...]:
        return tuple(float(each) for each in self.notify_delays.split(",") if each)

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(held=60 * self.held_minutes, owes=60 * self.owes_minutes, idle=60 * self.idle_minutes)

    def secret(self) -> str:
        """The key that signs webhooks, read now; "" without a key.

        Raises:
            OSError, UnicodeDecodeError: the file cannot be read.
        """
        given = self.notify_secret.get_secret_value()
        if given or self.notify_secret_file is None:
            return given
        return self.notify_secret_file.read_text(encoding="utf-8").split("\n", 1)[0].strip()


def read_settings() -> Settings:
    """The settings of the environment; raises BadInput: a variable is malformed."""
    variables = {name: f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    given = {name: os.environ[variable] for name, variable in variables.items() if variable in os.environ}
    try:
        return Settings.model_validate(given)
    except ValidationError as invalid:
        wrong = invalid.errors(include_url=False, include_input=False)[0]
        name = variables[str(wrong["loc"][0])]
        raise BadInput(f"{name}: {wrong['msg'].removeprefix('Value error, ')}") from None


def find_url(flag: str | None = None, settings: Settings | None = None) -> str:
    """The URL of Redis: the flag, else BLOCKJOBS_REDIS_URL, else the URL in the ``env`` file of a running ``up``.

    If the URL names a user without a password, the password is in BLOCKJOBS_REDIS_PASSWORD_FILE, and not in the URL.

    Raises:
        NoRedis: no URL is given.
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
    """The URL in ``directory/env``; "" without such a line."""
    try:
        lines = (directory / "env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((line.removeprefix(f"{URL}=") for line in lines if line.startswith(f"{URL}=")), "")


def write_env(directory: Path, url: str, qmp: Path | None = None) -> None:
    """Write ``url`` to ``directory/env`` for the CLI and for shells; a reader sees the old file or the new file."""
    new = directory / "env.new"
    new.write_text(f"{URL}={url}\n" + (f"{QMP}={qmp}\n" if qmp else ""), encoding="utf-8")
    new.chmod(0o600)  # a URL may hold a password
    new.replace(directory / "env")
