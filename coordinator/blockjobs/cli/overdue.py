"""``overdue``: names of run files without a timely success, in the form of a Nagios plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click
import redis

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import print_json
from blockjobs.cli.phrases import counted_noun
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BlockjobsError, Refused
from blockjobs.model.overdue import NameSeen, overdue_text
from blockjobs.model.volumespec import printable_text

OK: Final = 0
CRITICAL: Final = 2
UNKNOWN: Final = 3
WORDS: Final = {OK: "OK", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--forget", metavar="NAME", help="Forget a name whose run file is gone; the name is no longer overdue.")
@click.option("--json", "json", is_flag=True, help="Print it as JSON.")
@redis_option
def overdue(names: tuple[str, ...], forget: str | None, json: bool, url: str | None) -> int:
    """List the overdue run files: NAMEs (all) without a successful run within the time of `overdue`.

    A name is known from the first start of a run file with a key such as `overdue: 26h`, until the file is started
    without that key, or until --forget. A successful run ends with exit code 0 or 4 and is not skipped; a run of `run
    --only` does not count.

    Exit codes and first line are those of a Nagios plugin. 0: no name is overdue; 2: at least one name is overdue; 3:
    unknown, as Redis does not answer or NAME is not known.

    \b
    Example:
      blockjobs overdue
      blockjobs overdue nightly weekly
      blockjobs overdue --forget nightly
    """
    if forget is not None:
        if names:
            raise click.UsageError("--forget NAME is given alone")
        with Fleet(url) as fleet:
            if not fleet.registry.names.forget(forget):
                raise Refused(f"the name '{forget}' is not known; `blockjobs overdue` lists the known names")
        click.echo(f"{forget}: forgotten, until its run file is started with 'overdue' again")
        return OK
    try:
        with Fleet(url) as fleet:
            known = fleet.registry.names.all()
    except (BlockjobsError, redis.RedisError) as error:
        click.echo(f"OVERDUE UNKNOWN - {printable_text(' '.join(str(error).split()))}")
        return UNKNOWN
    chosen = [seen for seen in known if not names or seen.name in names]
    missing = [name for name in dict.fromkeys(names) if name not in {seen.name for seen in known}]
    code, text = overdue_verdict(chosen, missing)
    if json:
        print_json({"code": code, "text": text, "names": [seen.to_json() for seen in chosen], "unknown": missing})
        return code
    click.echo(f"OVERDUE {WORDS[code]} - {text}")
    for seen in chosen:
        click.echo(overdue_text(seen))
    return code


def overdue_verdict(chosen: Sequence[NameSeen], missing: Sequence[str]) -> tuple[int, str]:
    """The exit code, and the first line."""
    if late := [seen for seen in chosen if seen.is_overdue]:
        return CRITICAL, "; ".join(map(overdue_text, late))
    if missing:
        return UNKNOWN, f"no run file of the name '{missing[0]}' was started that says 'overdue'"
    if not chosen:
        return UNKNOWN, "no run file was started that says 'overdue'"
    return OK, f"{counted_noun(len(chosen), 'name')}, none is overdue"
