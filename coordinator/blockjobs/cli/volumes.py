"""``volumes``: names for volumes, to be used wherever a volume is written, and by QMP as ``node-name``."""

from __future__ import annotations

import json as notation

import click

from blockjobs.cli.options import redis_option
from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BadInput

TITLES = ["NAME", "DRIVER", "VOLUME"]


@click.group()
def volumes() -> None:
    """Name volumes. In a run file, a word without ':' and '/' is the name of a volume.

    \b
    Example:
      blockjobs volumes add root web1:/srv/images/root.img
    """


@volumes.command()
@click.argument("name")
@click.argument("volume")
@redis_option
def add(name: str, volume: str, url: str | None) -> None:
    """Name a volume: HOST:/PATH, or a JSON object of QEMU's blockdev-add keys and "host".

    \b
    Example:
      blockjobs volumes add root web1:/srv/images/root.img
      blockjobs volumes add scratch '{"host": "web1", "driver": "null-co", "size": 1073741824}'
    """
    with Fleet(url) as fleet:
        fleet.add_volume(name, parse_typed_volume(volume))


def parse_typed_volume(text: str) -> object:
    """A typed volume.

    Raises:
        BadInput: the text looks like JSON and is malformed.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        value: object = notation.loads(text, object_pairs_hook=_mapping_of_unique_keys, parse_constant=_no_constant)
        notation.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise BadInput(f"volume {text[:60]!r}: nested too deeply; a JSON object of a volume was expected") from None
    except UnicodeEncodeError:
        wrong = "half of a surrogate pair is not a character"
        raise BadInput(f"volume {text[:60]!r}: {wrong}; a JSON object was expected") from None
    except ValueError as malformed:
        raise BadInput(f"volume {text[:60]!r}: {malformed}; a JSON object was expected") from None
    return value


def _mapping_of_unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no number of JSON")


@volumes.command("list")
@click.option("--json", "json", is_flag=True, help="Print them as JSON.")
@redis_option
def list_(json: bool, url: str | None) -> None:
    """List the named volumes."""
    with Fleet(url) as fleet:
        found = list(fleet.volumes())
    if json:
        print_json([node.to_json() for node in found])
        return
    rows = [[node.name, node.volume.volume.driver, node.volume.text] for node in found]
    for text in aligned_lines([TITLES, *rows]) if rows else ["no volume has a name"]:
        click.echo(text)


@volumes.command()
@click.argument("name")
@redis_option
def remove(name: str, url: str | None) -> None:
    """Forget the name of a volume; the volume itself is not touched. Refused while a job uses the name."""
    with Fleet(url) as fleet:
        fleet.remove_volume(name)
