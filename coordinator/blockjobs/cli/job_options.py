"""The options of commands that start runs, and the types of these options' values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from blockjobs.cli import runfile
from blockjobs.cli.follow import patience_option
from blockjobs.cli.options import redis_option
from blockjobs.model import cuts
from blockjobs.model.errors import (
    BadInput,
)
from blockjobs.model.jobs import QEMU_POLICIES, OnDamage, OnError, RoomCheck
from blockjobs.model.volumespec import FORMATS

POLICIES: Final = click.Choice([str(policy) for policy in QEMU_POLICIES])
SOURCE_POLICIES: Final = click.Choice([str(policy) for policy in OnError])


def follower_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that starts a run."""
    json = click.option("--json", "json", is_flag=True, help="Print the final result as JSON, and nothing else.")
    detach = click.option("--detach", is_flag=True, help="Return as soon as the run is submitted.")
    return detach(json(patience_option(redis_option(command))))


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that reads a run file."""
    only = click.option(
        "--only", multiple=True, metavar="NAME", help="Start only this transaction; may be given more than once."
    )
    changes = click.option(
        "--set", "changes", multiple=True, metavar="KEY=VALUE",
        help="Override a value of the file, e.g. defaults.speed=50MiB or transactions.web.retry=0.",
    )  # fmt: skip
    return only(changes(command))


class SizeType(click.ParamType[int]):
    """Bytes, or bytes a second, with or without a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return runfile.parse_size(value)
        except ValueError as wrong:
            self.fail(str(wrong), param, ctx)


in_place_option = click.option(
    "--in-place", is_flag=True, help="The target is a block device: overwrite it (the host must allow it, too)."
)


class Snapshot(click.ParamType[str]):
    """A way to make a cut."""

    name = "how"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return cuts.checked_snapshot(str(value))
        except BadInput as wrong:
            self.fail(str(wrong), param, ctx)


format_option = click.option(
    "--format", "form", type=click.Choice(["raw", *FORMATS]), default="raw", show_default=True,
    help="The target's format; any but raw needs QEMU's tools on the host.",
)  # fmt: skip
source_format_option = click.option(
    "--source-format", "source_form", type=click.Choice(["raw", *FORMATS]), default="raw", show_default=True,
    help="The source's format: raw: copy all bytes of the file; any other: copy the content of the image.",
)  # fmt: skip
damage_option = click.option(
    "--on-source-damage", type=click.Choice([str(c) for c in OnDamage]), default="fail", show_default=True,
    help="Action on a source image with damaged tables; report: note the damage in the manifest.",
)  # fmt: skip
room_option = click.option(
    "--room", type=click.Choice([str(c) for c in RoomCheck]), default="check", show_default=True,
    help="Action on too little room for the target: refuse the job, or go on with a warning.",
)  # fmt: skip
