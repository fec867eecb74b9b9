"""``resolve``: decide the fate of an image that is committed and cannot be published."""

from __future__ import annotations

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import print_json
from blockjobs.client.fleet import Fleet
from blockjobs.model.resolutions import Resolution, resolution_text


@click.command()
@click.argument("job")
@click.option("--replace", "how", flag_value="replace", help="Put the foreign file aside as NAME.replaced-RUN.")
@click.option("--beside", "how", flag_value="beside", help="Publish the image as NAME.RUN.")
@click.option("--discard", "how", flag_value="discard", help="Remove the staging file and give up the backup.")
@click.option("--json", "json", is_flag=True, help="Print the result as JSON: id, resolved, published-as.")
@redis_option
def resolve(job: str, how: str | None, json: bool, url: str | None) -> None:
    """Resolve a JOB that is committed and cannot be published.

    A foreign file has the name of the target, or the staging file of the job was changed; `blockjobs show JOB` names
    the cause. --replace and --beside publish the image and keep the foreign file; --replace needs `allow-overwrite` in
    the host.toml of the host. --discard gives up the image.

    \b
    Example:
      blockjobs resolve nightly-20261122T103000Z.db1-data --beside
      blockjobs resolve nightly-20261122T103000Z.db1-data --replace
      blockjobs resolve nightly-20261122T103000Z.db1-data --discard --json
    """
    from blockjobs.ask.doorbell import Doorbell  # noqa: PLC0415 - Celery takes half a second to import
    from blockjobs.ask.resolve import Resolve  # noqa: PLC0415

    if how is None:
        raise click.UsageError("one of --replace, --beside and --discard was expected")
    with Fleet(url) as fleet:
        run = fleet.get(job).run
        done = Resolve(fleet.registry, Doorbell(fleet.url))(job, Resolution(how))
    if json:
        print_json({"id": job, "resolved": done["resolved"], "published-as": done.get("published-as") or None})
    else:
        click.echo(f"{job}: {resolution_text(done['resolved'], done.get('published-as', ''), run)}")
