"""``rescan``: rebuild history and restore points from the manifests on the hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import print_json
from blockjobs.cli.phrases import counted_noun
from blockjobs.cli.selection import named_hosts
from blockjobs.client.fleet import Fleet
from blockjobs.model.rescan import BackupStanding, name_of
from blockjobs.model.volumespec import printable_text

if TYPE_CHECKING:
    from blockjobs.ask.rescan import HostScan

EVERY: Final = 5.0  # seconds between two lines of progress
SHOWN: Final = 20  # lines about a host's manifests that do not count


@click.command()
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only list the backups to add; nothing is changed.")
@click.option(
    "--moved-from", metavar="HOST", default="", help="Former host of backups that now lie on the scanned hosts."
)
@click.option("--json", "json", is_flag=True, help="Print it as JSON; docs/restore.md has the fields.")
@redis_option
def rescan(hosts: tuple[str, ...], dry_run: bool, moved_from: str, json: bool, url: str | None) -> int:
    """Find unknown backups by the manifests below the write roots of hosts, and add them to the history.

    For a registry that was lost or came back older, a host with a new name, and a repository that was moved. Without
    HOST all hosts are scanned. A manifest counts for the host whose write roots contain it; files named in a manifest
    are not opened. Known backups stay as they are, with the new place if they were moved; a second rescan adds nothing.
    Found backups are in `history`, and can be verified and restored. They are not pruned, and count for no rule of
    `keep`, until `blockjobs prune NAME` was confirmed once.

    Exit code 0: every root was read; 1: a host is down, or a manifest cannot be read or does not count.

    \b
    Example:
      blockjobs rescan --dry-run
      blockjobs rescan
      blockjobs rescan web1 web2
      blockjobs rescan nas2 --moved-from nas1
    """
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.rescan import Rescan  # noqa: PLC0415

    with Fleet(url) as fleet:
        known = fleet.registry.hosts.known()
        wanted = named_hosts(hosts, known) or [*known]
        scans = []
        rescanning = Rescan(
            fleet.registry, Doorbell(fleet.url), dry=dry_run, moved_from=moved_from, progress=RescanProgress().tell
        )
        for scan in rescanning(wanted):
            scans.append(scan)
            if not json:
                for text in host_scan_lines(scan):
                    click.echo(text)
    if json:
        print_json([scan.to_json() for scan in scans])
    elif not scans:
        click.echo("no host has registered")
    else:
        click.echo(rescan_summary(scans, dry=dry_run))
    return 0 if all(scan.whole for scan in scans) else 1


class RescanProgress:
    """A line on stderr now and then, about a slow host."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, scan: HostScan) -> None:
        if time.monotonic() >= self._last + EVERY:
            self._last = time.monotonic()
            click.echo(f"{scan.host}: {counted_noun(scan.counts.total() + scan.restored, 'manifest')} so far", err=True)


def host_scan_lines(scan: HostScan) -> Iterator[str]:
    """A line about a host, and further lines about odd findings."""
    if "" in scan.lost:
        yield f"{scan.host}: not read: {scan.lost['']}"
        return
    numbers = [f"{scan.counts[standing]} {standing}" for standing in BackupStanding if scan.counts[standing]]
    odd = len(scan.odd) + scan.more
    numbers += [f"{odd} that cannot be read or do not count"] * bool(odd)
    yield f"{scan.host}: {', '.join(numbers) or 'no backups'}"
    for root, why in scan.lost.items():
        yield f"  {printable_text(root)}: not read to its end: {printable_text(why)}"
    for why, number in scan.aside.items():
        yield f"  {number} {why}"
    for path, why in scan.odd[:SHOWN]:
        yield f"  {printable_text(path) or scan.host}: {printable_text(why)}"
    if (rest := odd - len(scan.odd[:SHOWN])) > 0:
        yield f"  ... and {rest} more"


def rescan_summary(scans: list[HostScan], *, dry: bool) -> str:
    """The number of added backups and of runs, and the way to allow pruning."""
    added = [each for scan in scans for each in scan.added]
    if not added:
        return "nothing was found that is not known"
    runs = {each.run for each in added}
    names = sorted({name_of(run) for run in runs})
    noted = f"{counted_noun(len(added), 'backup')} of {counted_noun(len(runs), 'run')}"
    if dry:
        return f"{noted} would be added (dry run: nothing was changed)"
    confirm = f"`blockjobs prune {names[0]}`" if len(names) == 1 else "`blockjobs prune NAME`"
    return f"{noted} added; they are not pruned until {confirm} was confirmed"
