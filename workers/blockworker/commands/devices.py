"""``devices``: the host's records of devices that are written in place; run on that host."""

from __future__ import annotations

from pathlib import Path

import click

from blockjobs.model.errors import JobFailed, Refused
from blockworker.host.config import load_host_config
from blockworker.host.roots import Roots
from blockworker.records import devices as records
from blockworker.records.folder import LockBusy


@click.group()
def devices() -> None:
    """Devices of this host that jobs have left undefined; `blockjobs hosts` lists them.

    \b
    Example:
      blockjobs devices clear /dev/vg0/copy
    """


@devices.command()
@click.argument("device")
@click.option("--config", type=click.Path(path_type=Path), default=Path("/etc/blockjobs/host.toml"), show_default=True)
def clear(device: str, config: Path) -> None:
    """Say that it is known again what is on a DEVICE of this host; it is neither read nor written.

    Jobs may read it from then on, as it is. Refused while a job that is not over has it.
    """
    try:
        found = records.clear_device_record(Roots(load_host_config(config)), device)
    except (JobFailed, LockBusy) as why:
        raise Refused(str(why)) from None
    except OSError as error:  # the records belong to the workers' user, or to root
        raise Refused(f"the record of {device}: {error.strerror}") from None
    for record in found:
        click.echo(f"{record.path}: no longer undefined by job '{record.left_by}'")
