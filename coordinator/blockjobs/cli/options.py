"""Options shared by commands of every kind."""

from __future__ import annotations

import getpass
import socket
from contextlib import suppress

import click

redis_option = click.option("--redis", "url", help="URL of the registry  [default: BLOCKJOBS_REDIS_URL]")
cause_option = click.option("--cause", default="", metavar="TEXT", help="The reason; shown with every held job.")
for_option = click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), default=None, metavar="S",
    help="Seconds after which the hold ends by itself  [default: never]",
)  # fmt: skip


def user_and_machine() -> str:
    """The user and the machine of this command, as the owner of a hold or change."""
    with suppress(OSError, KeyError):  # a user id without a name
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return socket.gethostname()
