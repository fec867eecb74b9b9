"""``restore``: a backup reversed, into a file or onto a device."""

from __future__ import annotations

from datetime import datetime

import click

from blockjobs.cli.job_options import POLICIES, SizeType, follower_options, format_option, in_place_option, room_option
from blockjobs.cli.output import print_error
from blockjobs.cli.start import HOSTED, complete_volumes, start_and_follow
from blockjobs.client.event_stream import Patience
from blockjobs.client.fleet import Fleet
from blockjobs.model import volumespec
from blockjobs.model.errors import NoSuchJob, Refused
from blockjobs.model.jobs import OnError, RoomCheck
from blockjobs.model.restores import FORCE, KEEP_DIGESTS, TYPE
from blockjobs.model.runs import RunPlan, plan_backup
from blockjobs.model.states import Status
from blockjobs.model.volumespec import FileVolume, FormatVolume


@click.command()
@click.argument("image")
@click.argument("dest")
@in_place_option
@click.option("--offset", type=SizeType(), default=0, help="Begin at this byte of the image  [default: 0]")
@click.option(
    "--length", type=SizeType(), default=0, help="Number of bytes to restore  [default: to the end of the image]"
)
@click.option("--force", is_flag=True, help="Write chunks that differ from their digests as well, and list them.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists (the host must allow it, too).")
@click.option("--id", "job_id", help="The job's id  [default: made of the run's id and the target's name]")
@click.option("--speed", type=SizeType(), default=0, help="Bytes a second at most, e.g. 200MiB")
@click.option("--keep-digests", is_flag=True, help="Leave digests and a manifest beside a file, for `verify`.")
@click.option(
    "--no-digests", is_flag=True, help="Make no digests of the written data; --keep-digests leaves a manifest."
)
@format_option
@click.option("--on-source-error", type=POLICIES, default="report", show_default=True)
@click.option("--on-target-error", type=POLICIES, default="report", show_default=True)
@room_option
@click.option("--no-auto-finalize", is_flag=True, help="Commit only after `blockjobs finalize`.")
@click.option("--auto-dismiss", is_flag=True, help="Dismiss the job when it is concluded.")
@follower_options
def restore(  # noqa: PLR0917 - click passes by name
    image: str,
    dest: str,
    url: str | None,
    detach: bool,
    json: bool,
    patience: float,
    in_place: bool,
    offset: int,
    length: int,
    force: bool,
    overwrite: bool,
    job_id: str | None,
    speed: int,
    keep_digests: bool,
    no_digests: bool,
    form: str,
    on_source_error: str,
    on_target_error: str,
    room: str,
    no_auto_finalize: bool,
    auto_dismiss: bool,
) -> int:
    """Restore a published image into a file, or onto a block device (--in-place).

    IMAGE is the job that made the image (RUN.JOB), or HOST:/PATH of an image with a manifest beside it; DEST is
    HOST:/PATH on the same host. Every chunk is compared with its digest before the chunk is written: a difference stops
    the restore. With --offset and --length exactly that range is restored: into a file of that length, or to the same
    place on a device.

    \b
    Example:
      blockjobs restore nightly-20261122T103000Z.web1-root web1:/srv/images/root.img
      blockjobs restore web1:/backup/root.img web1:/dev/vg0/root --in-place
      blockjobs restore web1:/backup/root.img web1:/tmp/superblock.bin --offset 1KiB --length 1KiB
    """
    with Fleet(url) as fleet:
        source = place_of_image(fleet, image)
        (read, written), host = complete_volumes(fleet, source, dest)
        plans: list[RunPlan] = []

        def plan(now: datetime) -> RunPlan:
            plans.append(
                plan_backup(
                    read,
                    written,
                    now=now,
                    job_id=job_id,
                    default_host=host,
                    named=fleet.volume,
                    form=form,
                    type=TYPE,
                    speed=speed,
                    overwrite=overwrite,
                    digests=not no_digests,
                    in_place=in_place,
                    offset=offset,
                    length=length,
                    on_source_error=OnError(on_source_error),
                    on_target_error=OnError(on_target_error),
                    room=RoomCheck(room),
                    auto_finalize=not no_auto_finalize,
                    auto_dismiss=auto_dismiss,
                    options={name: True for name, given in ((FORCE, force), (KEEP_DIGESTS, keep_digests)) if given},
                )
            )
            return plans[-1]

        code = start_and_follow(fleet, plan, detach=detach, json=json, patience=patience)
        if force and not detach:
            sight = Patience(patience, say=print_error, what=f"run {plans[-1].run}")
            sight.ask(lambda: warn_of_differing(fleet, plans[-1]))
        return code


def warn_of_differing(fleet: Fleet, plan: RunPlan) -> None:
    """Warn of ranges that were written although their digests differ."""
    for job in fleet.list(plan.run):
        for start_, end in job.result.get("differing", ()):
            text = f"warning: bytes {start_} to {end} differ from the digests of the manifest, and were written"
            click.echo(text, err=True)


def kept_of(fleet: Fleet, job: str) -> str:
    """The place of the image of a job that is no longer on record, by the history.

    Raises:
        Refused: the history has no image of the job, or images on several hosts.
    """
    places = [target.place for target in fleet.registry.history.targets(fleet.runs()) if target.job == job]
    if not places:
        raise Refused(f"no job is named '{job}'; RUN.JOB of a backup, or HOST:/PATH of its image was expected")
    if len(places) > 1:
        known = ", ".join(":".join(place) for place in places)
        raise Refused(f"job '{job}' has several images: one of {known} was expected")
    return ":".join(places[0]).replace("{", "{{").replace("}", "}}")


def place_of_image(fleet: Fleet, image: str) -> str:
    """The place of an image named by a job; any text of another form unchanged.

    Raises:
        Refused: the job has made no image, or the job's record is gone.
    """
    if HOSTED.match(image) or "/" in image or image in {node.name for node in fleet.volumes()}:
        return image
    try:
        job = fleet.get(image)
    except NoSuchJob:
        return kept_of(fleet, image)
    target = job.spec.target
    if not isinstance(target.volume, FileVolume | FormatVolume) or not isinstance(
        volumespec.bottom_volume(target.volume), FileVolume
    ):
        raise Refused(f"job '{image}' has left no image in a file: its target is {target.text}")
    if job.status is not Status.CONCLUDED or job.ret:
        raise Refused(f"job '{image}' has published nothing: {job.error or f'it is {job.status}'}")
    return (
        (job.published_as or target.text).replace("{", "{{").replace("}", "}}")
    )  # braces of an expanded path stand for themselves
