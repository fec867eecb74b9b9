"""``mirror``: copy an image in use, follow the changes, and end with ``complete``."""

from __future__ import annotations

import click

from blockjobs.cli.job_options import (
    POLICIES,
    SizeType,
    damage_option,
    follower_options,
    format_option,
    in_place_option,
    room_option,
    source_format_option,
)
from blockjobs.cli.start import complete_volumes, start_and_follow
from blockjobs.client.fleet import Fleet
from blockjobs.model import mirrors
from blockjobs.model.jobs import OnDamage, OnError, RoomCheck
from blockjobs.model.runs import plan_backup


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--id", "job_id", help="The job's id  [default: made of the run's id and the target's name]")
@click.option(
    "--sync",
    type=click.Choice(mirrors.SYNC),
    default="full",
    show_default=True,
    help="none: copy only data that is written from now on.",
)
@click.option("--speed", type=SizeType(), default=0, help="Bytes a second at most, e.g. 200MiB")
@click.option("--granularity", type=SizeType(), default=0, help="Granularity of the copied changes  [default: 64KiB]")
@click.option("--buf-size", type=SizeType(), default=0, help="Bytes in flight at most  [default: 16MiB]")
@click.option("--quiesce", default="", help="A command of host.toml that freezes the source for the last pass.")
@click.option("--overwrite", is_flag=True, help="Replace a target that exists (the host must allow it, too).")
@in_place_option
@format_option
@source_format_option
@click.option("--no-digests", is_flag=True, help="Write no digests: `verify` cannot check the target.")
@click.option("--on-source-error", type=POLICIES, default="report", show_default=True)
@click.option("--on-target-error", type=POLICIES, default="report", show_default=True)
@damage_option
@room_option
@click.option("--no-auto-finalize", is_flag=True, help="Commit only after `blockjobs finalize`.")
@click.option("--auto-dismiss", is_flag=True, help="Dismiss the job when it is concluded.")
@follower_options
def mirror(  # noqa: PLR0917 - click passes by name
    source: str,
    target: str,
    url: str | None,
    detach: bool,
    json: bool,
    patience: float,
    job_id: str | None,
    sync: str,
    speed: int,
    granularity: int,
    buf_size: int,
    quiesce: str,
    overwrite: bool,
    in_place: bool,
    form: str,
    source_form: str,
    no_digests: bool,
    on_source_error: str,
    on_target_error: str,
    on_source_damage: str,
    room: str,
    no_auto_finalize: bool,
    auto_dismiss: bool,
) -> int:
    """Mirror an image that may be in use: copy it, then follow it until `blockjobs complete`.

    SOURCE and TARGET are as for `backup`. The job is ready when the copy has caught up with the source; `complete`
    makes a last pass, and publishes a copy of one point in time.

    \b
    Example:
      blockjobs mirror web1:/srv/images/root.img web1:/backup/root-{date}.img --detach
      blockjobs complete mirror-20261122T103000Z
    """
    given = {"granularity": granularity, "buf-size": buf_size, "quiesce": quiesce}
    with Fleet(url) as fleet:
        (read, written), host = complete_volumes(fleet, source, target)
        return start_and_follow(
            fleet,
            lambda now: plan_backup(
                read,
                written,
                now=now,
                job_id=job_id,
                default_host=host,
                named=fleet.volume,
                form=form,
                source_form=source_form,
                type="mirror",
                sync=sync,
                speed=speed,
                overwrite=overwrite,
                in_place=in_place,
                digests=not no_digests,
                on_source_error=OnError(on_source_error),
                on_target_error=OnError(on_target_error),
                on_source_damage=OnDamage(on_source_damage),
                room=RoomCheck(room),
                auto_finalize=not no_auto_finalize,
                auto_dismiss=auto_dismiss,
                options=mirrors.mirror_options(given, sync=sync),
            ),
            detach=detach,
            json=json,
            patience=patience,
        )
