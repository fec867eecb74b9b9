"""``roots``: the file systems of a host's write roots, now and before; run on that host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from blockjobs.cli.output import aligned_lines, print_json
from blockjobs.model.errors import JobFailed, Refused
from blockworker.host.config import load_host_config
from blockworker.host.mounts import Mounts
from blockworker.host.roots import Root, Roots
from blockworker.host.seen import directory_identity
from blockworker.records import journal

config_option = click.option(
    "--config", type=click.Path(path_type=Path), default=Path("/etc/blockjobs/host.toml"), show_default=True
)


@click.group(invoke_without_command=True)
@config_option
@click.option("--json", "json", is_flag=True, help="Print it as JSON: a list of path, was, is, write_root and state.")
@click.pass_context
def roots(context: click.Context, config: Path, *, json: bool) -> None:
    """List the write roots of this host and the mounts below them, with their file systems.

    A write root on another file system than before is refused, as its disk is probably not mounted.

    \b
    Example:
      blockjobs roots
      blockjobs roots accept /backup
      blockjobs roots forget /old-backup
    """
    if context.invoked_subcommand is not None:
        return
    with _errors_as_refusals():
        rows = [*_root_rows(Roots(load_host_config(config)))]
    if json:
        print_json(rows)
        return
    for line in aligned_lines([[row["path"], row["state"], row["is"] or row["was"]] for row in rows]):
        click.echo(line)


@roots.command()
@click.argument("path")
@config_option
def accept(path: str, config: Path) -> None:
    """Accept the present file system of PATH as the right one.

    PATH is a write root of this host, or a mount below a write root: after the disk was replaced, or the data moved.

    \b
    Example:
      blockjobs roots accept /backup
    """
    with _errors_as_refusals():
        before, now = Mounts(load_host_config(config)).accept(_without_end_slash(path))
    was = f" (before: {before.title})" if before is not None else ""
    click.echo(f"{now.path}: on file system {now.title}{was}")


@roots.command()
@click.argument("path")
@config_option
def forget(path: str, config: Path) -> None:
    """Forget a PATH that is no longer a write root or a mount. Refused while a transaction beneath PATH is open.

    \b
    Example:
      blockjobs roots forget /old-backup
    """
    with _errors_as_refusals():
        here, path = Roots(load_host_config(config)), _without_end_slash(path)
        known = here.with_former()
        if any(Root(each) == Root(path) and os.path.isdir(each) for each in known.config.target_roots):
            for record in journal.scan_open_journals(known, Root(path)):
                raise Refused(f"{path}: transaction '{record.transaction}' is still open beneath this path")
        here.mounts.forget(path)
    click.echo(f"{path}: forgotten")


@contextmanager
def _errors_as_refusals() -> Iterator[None]:
    """Turn errors into refusals: the record belongs to the workers' user, or to root."""
    try:
        yield
    except JobFailed as why:
        raise Refused(why.text) from None
    except OSError as error:
        raise Refused(f"{error.filename or 'the record of write roots'}: {error.strerror}") from None


def _without_end_slash(path: str) -> str:
    return path if path == "/" else path.removesuffix("/")


def _root_rows(here: Roots) -> Iterator[dict[str, Any]]:
    seen = here.mounts.seen()
    for path in dict.fromkeys((*here.config.target_roots, *seen)):
        before, now, state = seen.get(path), "", "not used yet"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = directory_identity(path, fd)
            finally:
                os.close(fd)
            now = found.title
            if before is not None:
                state = "ok" if before.is_same(found) else "CHANGED"
        except OSError as error:
            state = error.strerror or str(error)
        if before is not None and before.write_root and path not in here.config.target_roots:
            state = f"no longer a write root, {state}"
        yield {
            "path": path,
            "was": before.title if before is not None else "",
            "is": now,
            "state": state,
            "write_root": before is None or before.write_root,
        }
