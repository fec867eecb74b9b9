"""``run`` and ``backup``: submit, and follow to the end."""

from __future__ import annotations

from pathlib import Path

import click

from blockjobs.cli import runfile
from blockjobs.cli.gather import gather_fleet_facts
from blockjobs.cli.job_options import (
    POLICIES,
    SOURCE_POLICIES,
    SizeType,
    Snapshot,
    damage_option,
    file_options,
    follower_options,
    format_option,
    in_place_option,
    room_option,
    source_format_option,
)
from blockjobs.cli.refusal import refusal_told
from blockjobs.cli.start import (
    complete_volumes,
    read_whole,
    start_and_follow,
)
from blockjobs.client.fleet import Fleet
from blockjobs.model import cuts
from blockjobs.model.errors import (
    BadInput,
)
from blockjobs.model.jobs import OnChange, OnDamage, OnError, RoomCheck
from blockjobs.model.runs import plan_backup


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@file_options
@follower_options
@click.option(
    "--on-term",
    type=click.Choice(["detach", "cancel"]),
    default="detach",
    show_default=True,
    help="Action on SIGTERM: leave the run going, or cancel the run.",
)
def run(  # noqa: PLR0917 - click passes by name
    file: Path,
    url: str | None,
    detach: bool,
    json: bool,
    patience: float,
    only: tuple[str, ...],
    changes: tuple[str, ...],
    on_term: str,
) -> int:
    """Start the run that FILE describes, and follow it to the end.

    Exit code 0: every job committed; 1: at least one job failed or was cancelled; 2: refused, nothing was started; 3:
    no Redis, nothing was started; 4: partly committed, accepted by the run file (`succeed-if`, `offline: skip`); 6: the
    run is gone from the registry; 7: Redis was away for longer than --patience, the run goes on. Ctrl-C only stops
    following: the run goes on. If stderr is no terminal, the URLs of notify.attention in the file are notified of a
    refused start.

    \b
    Example:
      blockjobs run nightly.yaml
      blockjobs run nightly.yaml --only db --set defaults.speed=50MiB --detach
    """
    with refusal_told(file, url):
        read = read_whole(file, changes, only)  # a bad file is refused with and without Redis
        with Fleet(url) as fleet:
            facts = runfile.FleetFacts()

            def ask() -> None:
                nonlocal facts
                facts = gather_fleet_facts(fleet, read, lambda text: click.echo(text, err=True))

            return start_and_follow(
                fleet,
                lambda now: read.plan(now, facts),
                detach=detach,
                json=json,
                patience=patience,
                before=ask,
                cancels=on_term == "cancel",
            )


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--id", "job_id", help="The job's id  [default: made of the run's id and the target's name]")
@click.option("--speed", type=SizeType(), default=0, help="Bytes a second at most, e.g. 200MiB  [default: no limit]")
@click.option("--overwrite", is_flag=True, help="Replace a target that exists (the host must allow it, too).")
@in_place_option
@click.option("--no-digests", is_flag=True, help="Write no digests: `verify` cannot check the target.")
@format_option
@source_format_option
@click.option("--compress", is_flag=True, help="Compress the target; needs a --format that can.")
@click.option(
    "--snapshot",
    type=Snapshot(),
    default=cuts.AUTO,
    show_default=True,
    help="Method of the cut of the source: auto, reflink, command:NAME (of host.toml) or none.",
)
@click.option("--live", is_flag=True, help="Read a source in use without a cut.")
@click.option(
    "--quiesce", default="", metavar="NAME", help="A command of host.toml that freezes the source for the cut."
)
@click.option(
    "--on-source-error",
    type=SOURCE_POLICIES,
    default="report",
    show_default=True,
    help="`skip`: unreadable parts become zeros in the target, and are listed; the run ends with 1.",
)
@click.option("--on-target-error", type=POLICIES, default="report", show_default=True)
@click.option("--on-source-change", type=click.Choice([str(c) for c in OnChange]), default="fail", show_default=True)
@damage_option
@room_option
@click.option("--no-auto-finalize", is_flag=True, help="Commit only after `blockjobs finalize`.")
@click.option("--auto-dismiss", is_flag=True, help="Dismiss the job when it is concluded.")
@follower_options
def backup(  # noqa: PLR0917 - click passes by name
    source: str,
    target: str,
    url: str | None,
    detach: bool,
    json: bool,
    patience: float,
    job_id: str | None,
    speed: int,
    overwrite: bool,
    in_place: bool,
    no_digests: bool,
    form: str,
    source_form: str,
    compress: bool,
    snapshot: str,
    live: bool,
    quiesce: str,
    on_source_error: str,
    on_target_error: str,
    on_source_change: str,
    on_source_damage: str,
    room: str,
    no_auto_finalize: bool,
    auto_dismiss: bool,
) -> int:
    """Back up one image: a run of one job.

    SOURCE and TARGET are HOST:/PATH or a name of `volumes list`; a path without a host needs a fleet of one host.
    {run}, {date}, {time}, {host} and {name} in TARGET are replaced.

    \b
    Example:
      blockjobs backup web1:/srv/images/root.img web1:/backup/root-{date}.img
      blockjobs backup disk.img backup/disk.img --speed 50MiB
      blockjobs backup web1:/srv/images/root.img web1:/backup/root.qcow2 --format qcow2 --compress
      blockjobs backup web1:/srv/images/db.img web1:/backup/db.img --snapshot reflink --quiesce freeze-db
    """
    if quiesce and snapshot == cuts.NONE:
        raise BadInput("--quiesce: a source is frozen for its cut: a --snapshot was expected")
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
                compress=compress,
                speed=speed,
                overwrite=overwrite,
                in_place=in_place,
                digests=not no_digests,
                on_source_error=OnError(on_source_error),
                on_target_error=OnError(on_target_error),
                on_source_change=OnChange(on_source_change),
                on_source_damage=OnDamage(on_source_damage),
                room=RoomCheck(room),
                auto_finalize=not no_auto_finalize,
                auto_dismiss=auto_dismiss,
                snapshot=snapshot,
                live=live,
                options={"quiesce": quiesce} if quiesce else {},
            ),
            detach=detach,
            json=json,
            patience=patience,
        )
