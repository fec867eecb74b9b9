"""``verify``: reads images on this machine directly; images of runs and jobs are read on their hosts, by a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import click

from blockjobs.cli.job_options import SizeType, follower_options
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import print_error
from blockjobs.cli.start import HOSTED
from blockjobs.cli.verify import verify_there
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BlockjobsError
from blockworker.targets import manifest
from blockworker.targets.proof import MANIFEST


@click.command()
@click.argument("targets", nargs=-1, required=True)
@click.option("--speed", type=SizeType(), default=0, help="Bytes a second for each image at most, e.g. 50MiB")
@follower_options
def verify(  # noqa: PLR0917 - click passes by name
    targets: tuple[str, ...], speed: int, url: str | None, detach: bool, json: bool, patience: float
) -> int:
    """Compare published images with their manifests and digests, MiB by MiB, and check the tables of formats.

    TARGETS are runs (with every published image), jobs (RUN.JOB), quoted globs over both, or HOST:/PATH: each image is
    read on its host, by a run that can be followed, paused and cancelled like any other run. TARGETS may also be paths
    of images on this machine, which are read at once, without Redis.

    Exit code 0: every image is as it was written; 1: at least one image differs, or could not be read; 2: refused (for
    a path: the image cannot be compared); 3: no Redis; 6 and 7: see `run`.

    \b
    Example:
      blockjobs verify nightly-20261122T103000Z
      blockjobs verify 'nightly-*.web1-*' --speed 50MiB --detach
      blockjobs verify /backup/nightly-20261122T103000Z/root.img
    """
    paths = [Path(text) for text in targets if is_here(text)]
    if paths and len(paths) < len(targets):
        raise click.UsageError("paths on this machine and IDs exclude each other; a call for each was expected")
    if paths and (speed or detach or json):
        raise click.UsageError("--speed, --detach and --json are for IDs: a path on this machine is read here and now")
    if paths:
        bear_lost_output()
        return verify_here(paths)
    with Fleet(url) as fleet:
        return verify_there(fleet, targets, speed=speed, detach=detach, json=json, patience=patience)


def is_here(text: str) -> bool:
    """Whether ``text`` is the path of a present or former image on this machine: no ID and no HOST has a ``/``."""
    if HOSTED.match(text):
        return False
    return "/" in text or os.path.lexists(text) or os.path.lexists(text + MANIFEST)


def verify_here(targets: Iterable[Path]) -> int:
    """Read images on this machine; return the exit code."""
    codes = set()
    for target in targets:
        try:
            record = manifest.load_manifest(f"{target}{MANIFEST}")
            found = manifest.verify_image(os.fspath(target), record)
        except BlockjobsError as wrong:  # an unreadable image does not keep the others from being read
            print_error(str(wrong))
            codes.add(wrong.exit_code)
            continue
        for start, end in found.unreadable:
            click.echo(f"{target}: bytes {start} to {end} cannot be read")
        for start, end in found.differing:
            click.echo(f"{target}: bytes {start} to {end} differ from the manifest")
        for line in found.damage:
            click.echo(f"{target}: its tables are damaged: {line}")
        if found.bad:
            codes.add(1)
        else:
            doubt = "" if found.from_medium else ", which may have come from the page cache and not from the medium"
            click.echo(f"{target}: {record['size']} bytes as in the manifest{doubt}")
            codes.add(0)
    return 1 if 1 in codes else max(codes)
