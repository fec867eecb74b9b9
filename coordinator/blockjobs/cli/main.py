"""``blockjobs``: the command line.  Commands are imported when used; errors become one line and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

import click
import redis
import redis.exceptions

from blockjobs import __version__
from blockjobs.cli.outlets import OutputLost, flush_output, open_outlets
from blockjobs.cli.output import naming_odd_records, print_error
from blockjobs.model.errors import BlockjobsError
from blockjobs.model.exits import Exit

# command -> module:object, in the order of the help; commands of the data plane join by entry point
COMMANDS: Final = {
    "up":          "blockjobs.cli.up:up",
    "coordinator": "blockjobs.cli.daemons:coordinator",
    "finalizer":   "blockjobs.cli.daemons:finalizer",
    "init":        "blockjobs.cli.init:init",
    "check":       "blockjobs.cli.check:check",
    "plan":        "blockjobs.cli.plan:plan",
    "run":         "blockjobs.cli.run:run",
    "retry":       "blockjobs.cli.retry:retry",
    "backup":      "blockjobs.cli.run:backup",
    "mirror":      "blockjobs.cli.mirror:mirror",
    "restore":     "blockjobs.cli.restore:restore",
    "status":      "blockjobs.cli.status:status",
    "show":        "blockjobs.cli.show:show",
    "wait":        "blockjobs.cli.wait:wait",
    "history":     "blockjobs.cli.history:history",
    "overdue":     "blockjobs.cli.overdue:overdue",
    "report":      "blockjobs.cli.report:report",
    "prune":       "blockjobs.cli.prune:prune",
    "pause":       "blockjobs.cli.verbs:pause",
    "resume":      "blockjobs.cli.verbs:resume",
    "pause-all":   "blockjobs.cli.pause_all:pause_all",
    "resume-all":  "blockjobs.cli.pause_all:resume_all",
    "drain":       "blockjobs.cli.drain:drain",
    "undrain":     "blockjobs.cli.drain:undrain",
    "move":        "blockjobs.cli.move:move",
    "abandon":     "blockjobs.cli.abandon:abandon",
    "registry":    "blockjobs.cli.registry:registry",
    "resolve":     "blockjobs.cli.resolve:resolve",
    "sweep":       "blockjobs.cli.sweep:sweep",
    "rescan":      "blockjobs.cli.rescan:rescan",
    "cancel":      "blockjobs.cli.verbs:cancel",
    "complete":    "blockjobs.cli.verbs:complete",
    "set-speed":   "blockjobs.cli.verbs:set_speed",
    "finalize":    "blockjobs.cli.verbs:finalize",
    "dismiss":     "blockjobs.cli.verbs:dismiss",
    "events":      "blockjobs.cli.events:events",
    "hosts":       "blockjobs.cli.hosts:hosts",
    "doctor":      "blockjobs.cli.doctor:doctor",
    "notify":      "blockjobs.cli.notify:notify",
    "stores":      "blockjobs.cli.stores:stores",
    "volumes":     "blockjobs.cli.volumes:volumes",
    "demo":        "blockjobs.cli.demo:demo",
}  # fmt: skip


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*COMMANDS, *(point.name for point in entry_points(group="blockjobs.commands"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        for point in entry_points(group="blockjobs.commands", name=cmd_name):
            found: click.Command = point.load()
            return found
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """QEMU's block jobs for a fleet: backup runs that commit on every host or leave nothing."""


def main() -> None:
    """Run the command in the process' arguments; the exit codes are in ``model.exits``."""
    open_outlets()
    sys.exit(run_command_guarded(lambda: cli.main(standalone_mode=False)))


def run_command_guarded(call: Callable[[], object]) -> int:
    """Run a command; turn its exception into one line and an exit code."""
    try:
        with naming_odd_records():
            result = call()
            flush_output()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.REFUSED
    except click.UsageError as error:
        where = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        print_error(" ".join(error.format_message().split()).rstrip(".") + where)
        return Exit.REFUSED
    except click.ClickException as error:
        error.show()
        return Exit.REFUSED
    except click.Abort:
        return Exit.INTERRUPTED
    except BlockjobsError as error:
        print_error(str(error))
        return error.exit_code
    except (redis.ConnectionError, redis.TimeoutError) as error:
        print_error(f"Redis is not reachable: {error}")
        return Exit.NO_REDIS
    except redis.exceptions.NoPermissionError as error:
        print_error(f"Redis does not let the user of this URL do that: {error}; see docs/security.md")
        return Exit.REFUSED
    except redis.RedisError as error:  # full, a replica, a key of another type, a missing right
        print_error(f"Redis refused a command: {error}")
        return Exit.NO_REDIS
    except UnicodeEncodeError as error:
        print_error(f"'{error.object}' is not valid UTF-8: text in UTF-8 was expected")
        return Exit.REFUSED
    except OutputLost as lost:
        if lost.errno == errno.EPIPE:
            return Exit.READER_GONE
        print_error(str(lost))
        return Exit.OUTPUT_LOST
    except Exception:  # a script that follows a run must not take this for a failed run
        traceback.print_exc()
        return Exit.FAULT
    return result if isinstance(result, int) else 0
