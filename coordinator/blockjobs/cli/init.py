"""``init``: a commented example of a run file or of a host's configuration, to begin with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

import click

from blockjobs.model.errors import Refused

EXAMPLES: Final = {"run": "run.yaml", "host": "host.toml"}


@click.command()
@click.argument("what", type=click.Choice(list(EXAMPLES)))
@click.argument("file", required=False, type=click.Path(path_type=Path))
def init(what: str, file: Path | None) -> None:
    """Print an example with comments: a run file, or what a host allows; or write it to FILE, which must not exist.

    \b
    Example:
      blockjobs init run nightly.yaml
      blockjobs init host > /etc/blockjobs/host.toml
    """
    text = example(what)
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}; the name of a file to be made was expected") from None
    click.echo(f"{file} is made" + (f"; change it, then: blockjobs check {file}" if what == "run" else ""))


def example(what: str) -> str:
    return (resources.files("blockjobs.cli") / "examples" / EXAMPLES[what]).read_text(encoding="utf-8")
