"""``init``: files to begin with, printed or written from the installed package: no checkout is needed."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import click

from blockjobs.model import ids
from blockjobs.model.errors import Refused
from blockjobs.settings import absolute_path

PROGRAM: Final = "/opt/blockjobs/bin/blockjobs"  # the program's path in the packaged units
HOST: Final = "web1"  # the host in the examples
_ANY: Final = ">change-me-"  # placeholder of a password in the example of the users
_FILES: Final = {
    # command: (file of the package, its description)
    "run": ("run.yaml", "a run file"),
    "host": ("host.toml", "what a host allows"),
    "redis": ("redis.conf", "what Redis has to be set to; include it from its own redis.conf"),
}

file_argument = click.argument("file", required=False, type=click.Path(path_type=Path))


@click.group()
def init() -> None:
    """Print commented example files, or write them to FILE; an existing FILE is not overwritten.

    \b
    Example:
      blockjobs init run nightly.yaml
      blockjobs init host > /etc/blockjobs/host.toml
      blockjobs init units /etc/systemd/system
      blockjobs init command lvm /etc/blockjobs/commands/lvm.sh
      blockjobs init acl --passwords /root/blockjobs --host web1 --host db1 > /etc/redis/users.acl
    """


def _example_command(name: str, what: str) -> click.Command:
    @click.command(name, help=f"Print an example of {what}; or write it to FILE.")
    @file_argument
    def command(file: Path | None) -> None:
        print_or_write_text(
            example_text(name), file, f"; change it, then: blockjobs check {file}" if name == "run" else ""
        )

    return command


for _name, (_, _what) in _FILES.items():
    init.add_command(_example_command(_name, _what))


@init.command()
@click.argument("role", type=click.Choice(["control", "operator", "worker"]))
@file_argument
def env(role: str, file: Path | None) -> None:
    """Print the environment file of the units of a ROLE (how to reach Redis), or write it to FILE.

    The file belongs at /etc/blockjobs/ROLE.env, and the password at /etc/blockjobs/ROLE.password.
    """
    print_or_write_text(example_text(f"{role}.env"), file, "")


@init.command("command")
@click.argument("tool", type=click.Choice(["lvm", "btrfs", "zfs", "libvirt"]))
@file_argument
def cut_command(tool: str, file: Path | None) -> None:
    """Print a program by which a host cuts its sources with lvm, btrfs or zfs, or quiesces a guest of libvirt; or write
    it to FILE, which may be executed.

    The first lines of each say what [commands] of host.toml has to name.
    """
    print_or_write_text(
        example_text(f"commands/{tool}.sh"), file, "; the first lines say what to write into host.toml", mode=0o777
    )


@init.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--program", help="The program that the units start  [default: the one that runs now]")
@click.option("--replace", is_flag=True, help="Overwrite existing units; drop-ins of your own stay.")
def units(directory: Path | None, program: str | None, *, replace: bool) -> None:
    """Print systemd units, or write them to DIRECTORY (/etc/systemd/system); existing units are not overwritten.

    Files that end in .example are off; the first lines of each file state the purpose.
    """
    ready = [(name, text.replace(PROGRAM, program or this_program())) for name, text in all_units()]
    if directory is None:
        click.echo("\n".join(f"# --- {name}\n{text}" for name, text in ready), nl=False)
        return
    if not replace and (there := [name for name, _ in ready if (directory / name).exists()]):
        raise Refused(f"{directory / there[0]}: File exists; a directory without blockjobs' units was expected")
    for name, text in ready:
        (directory / name).parent.mkdir(exist_ok=True)
        if replace:
            (directory / name).unlink(missing_ok=True)
        print_or_write_text(text, directory / name, "")


@init.command()
@file_argument
@click.option(
    "--passwords",
    required=True,
    metavar="DIRECTORY",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the passwords, one file USER.password each; missing passwords are generated.",
)
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="A host that gets a user; may be given many times."
)
def acl(file: Path | None, passwords: Path, hosts: tuple[str, ...]) -> None:
    """Print the users of Redis, with hashes of their passwords: admin, control, operator, viewer, and one a host.

    A password that is missing in DIRECTORY is generated, in a file readable by its owner alone. The printed text holds
    no password. With one more host, the output for the other users is the same as before.
    """
    names = [str(ids.checked_host_name(name)) for name in dict.fromkeys(hosts)]
    try:
        passwords.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in users_of(names, lambda user: hash_of(passwords, user)))
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"--passwords {passwords}: {error}; a directory of this user's own was expected") from None
    print_or_write_text(text, file, f"; the passwords are in {passwords}")


def users_of(hosts: list[str], hashed: Any) -> Iterator[str]:
    """The lines of an ACL file; ``hashed``: the hash of a user's password, by the user's name."""
    for line in example_text("users.acl").splitlines():
        words = line.split(" ")
        for host in hosts if words[1] == f"worker-{HOST}" else [HOST]:
            mine = [word.replace(HOST, host) if words[1].startswith("worker-") else word for word in words]
            yield " ".join(f"#{hashed(mine[1])}" if word.startswith(_ANY) else word for word in mine)


def hash_of(passwords: Path, user: str) -> str:
    """The hash of a user's password for an ACL file; a missing password is generated."""
    path = passwords / f"{user}.password"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        password = path.read_text(encoding="utf-8").split("\n", 1)[0]
        if not password:
            raise OSError(f"{path.name} is empty") from None
    else:
        password = secrets.token_urlsafe(32)
        with os.fdopen(fd, "w", encoding="utf-8") as new:
            new.write(f"{password}\n")
    return hashlib.sha256(password.encode()).hexdigest()


def all_units() -> Iterator[tuple[str, str]]:
    """The files for systemd, by their names below the directory."""
    for entry in sorted(_example_resource("systemd").iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            yield from ((f"{entry.name}/{each.name}", each.read_text(encoding="utf-8")) for each in entry.iterdir())
        else:
            yield entry.name, entry.read_text(encoding="utf-8")


def this_program() -> str:
    """The running program, as a path for units."""
    program = absolute_path(Path(sys.argv[0]), "program")
    return str(program) if program.name == "blockjobs" else PROGRAM


def example_text(name: str) -> str:
    """A file of the package."""
    return _example_resource(_FILES[name][0] if name in _FILES else name).read_text(encoding="utf-8")


def _example_resource(name: str) -> Traversable:
    return resources.files("blockjobs.cli") / "examples" / name


def print_or_write_text(text: str, file: Path | None, more: str, *, mode: int = 0o666) -> None:
    """Print a text, or write it to a new file; ``mode``: the file's permission bits before the umask."""
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "w", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}; the name of a file to be made was expected") from None
    click.echo(f"{file} is made{more}")
