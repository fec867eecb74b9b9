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
    """List devices of this host with undefined content after a failed job; `blockjobs hosts` lists them, too.

    \b
    Example:
      blockjobs devices clear /dev/vg0/copy
    """


@devices.command()
@click.argument("device")
@click.option("--config", type=click.Path(path_type=Path), default=Path("/etc/blockjobs/host.toml"), show_default=True)
def clear(device: str, config: Path) -> None:
    """Declare the content of a DEVICE of this host known again; the device is neither read nor written.

    Jobs may read the device from then on, as it is. Refused while an unfinished job uses the device.
    """
    try:
        found = records.clear_device_record(Roots(load_host_config(config)), device)
    except (JobFailed, LockBusy) as why:
        raise Refused(str(why)) from None
    except OSError as error:  # the records belong to the workers' user, or to root
        raise Refused(f"the record of {device}: {error.strerror}") from None
    for record in found:
        click.echo(f"{record.path}: no longer undefined by job '{record.left_by}'")
