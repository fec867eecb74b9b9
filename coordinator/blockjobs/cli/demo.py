"""``demo``: three hosts on this machine back up real disk images as one transaction; then a source breaks.

The files of the demo are in a single directory, made anew at every start; the fleet runs as long as the demo.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click

from blockjobs import settings
from blockjobs.cli import demo_images, runfile
from blockjobs.cli.board import Board
from blockjobs.cli.demo_images import IMAGES, DemoImage
from blockjobs.cli.demo_table import run_stories, story_rows
from blockjobs.cli.follow import outcome_lines, shown_progress
from blockjobs.cli.job_options import SizeType
from blockjobs.cli.outlets import bear_lost_output
from blockjobs.cli.output import aligned_lines
from blockjobs.cli.phrases import counted_noun
from blockjobs.cli.start import follow_submitted_run
from blockjobs.client.fleet import Fleet
from blockjobs.model.errors import BadInput, BlockjobsError
from blockjobs.model.ids import JobId, RunId
from blockjobs.model.numbers import size_text as text_of
from blockjobs.model.policies import RunOutcome
from blockjobs.process.spawn import spawn_child
from blockjobs.server import last_line

HOSTS: Final = ("web1", "web2", "db1")
MARK: Final = ".blockjobs-demo"  # marks a directory that the demo may remove
SMALLEST: Final = 8 << 20  # bytes of the smallest image with a file system and files
SECONDS: Final = 12  # duration of the copy of the largest image: time to see something
PAUSE: Final = 2.5  # seconds of a job's pause
READY_LIMIT: Final = 90.0  # seconds
LEFTOVER_LIMIT: Final = 20.0  # seconds that the processes of a killed demo may take to end
PAUSED_JOB: Final = "db1-data"
BROKEN_JOB: Final = "web2-root"


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-data"),
    show_default=True,
    help="Directory for all files of the demo; made anew.",
)
@click.option("--size", type=SizeType(), default="256MiB", show_default=True, help="Size of each disk image.")
def demo(directory: Path, size: int) -> int:
    """Show a backup run of three hosts that commits, and a run that fails and leaves no files behind.

    Needs no root user, no Redis, and disk space of about 4 times the size of the images.

    \b
    Example:
      blockjobs demo --size 64MiB
    """
    bear_lost_output()
    signal.signal(signal.SIGTERM, _interrupt_demo)
    size = size >> 20 << 20
    place = Demo(settings.absolute_path(directory, "--dir"), size)
    if size < SMALLEST:
        raise BadInput(f"--size {text_of(size)}: at least {text_of(SMALLEST)} was expected")
    clear_demo(place.directory)
    place.make_images()
    with place.fleet() as url, Fleet(url) as fleet:
        place.commits(fleet, pause=True)
        place.fails(fleet)
        place.commits(fleet, pause=False)
        echo_title("What the event stream says")
        for line in aligned_lines(list(story_rows(run_stories(fleet.events())))):
            click.echo(line)
    click.echo(f"\nEverything is in {directory}: images, backups, logs.  `make clean` removes it.")
    return 0


def _interrupt_demo(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the kernel's signature
    """Unwind on SIGTERM as on Ctrl-C, so that no process is left running."""
    raise KeyboardInterrupt


def echo_title(text: str) -> None:
    click.echo(f"\n== {text}")


class Demo:
    def __init__(self, directory: Path, size: int) -> None:
        self.directory, self.size = directory, size
        self.state = directory / "state"

    def root(self, host: str) -> Path:
        return self.directory / host

    def source(self, image: DemoImage) -> Path:
        return self.root(image.host) / "images" / f"{image.name}.img"

    def target(self, image: DemoImage, run: RunId) -> Path:
        return self.root(image.host) / "backup" / run / f"{image.name}.img"

    # --- the setting --------------------------------------------------------------------------------------

    def make_images(self) -> None:
        echo_title(f"{len(IMAGES)} disk images of {text_of(self.size)} on {len(HOSTS)} hosts")
        free = shutil.disk_usage(self.directory).free
        if free < 4 * len(IMAGES) * self.size:
            raise BlockjobsError(
                f"{self.directory}: {text_of(4 * len(IMAGES) * self.size)} are needed, {text_of(free)} are free; "
                "give --size or --dir"
            )
        if not demo_images.e2fsprogs_path("mke2fs"):
            click.echo("mke2fs is missing (install e2fsprogs): the images are tar archives, not file systems")
        for host in HOSTS:
            (self.root(host) / "images").mkdir(parents=True)
            (self.root(host) / "backup").mkdir()
        for image in IMAGES:
            path = self.source(image)
            demo_images.make_demo_image(image, path, self.size, self.directory / "scratch")
            held = path.stat().st_blocks * 512
            click.echo(f"{image.host}:{path}  {text_of(held)} of data, the rest holes")

    @contextmanager
    def fleet(self) -> Iterator[str]:
        """Run ``blockjobs up`` with the demo's hosts during the context; gives the URL of the fleet's Redis."""
        echo_title("blockjobs up: Redis, coordinator, finalizer, and two workers for each host")
        log = self.directory / "up.log"
        hosts = [f"--host={host}={self.root(host)}" for host in HOSTS]
        argv = [sys.executable, "-P", "-m", "blockjobs", "up", f"--dir={self.state}", *hosts]
        # The environment must not lead to a fleet that the user works with.
        env = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKJOBS_")}
        process = spawn_child(argv, log=log, env=env)
        try:
            give_up = time.monotonic() + READY_LIMIT
            while not (ready := [line for line in log.read_text().splitlines() if line.startswith("ready")]):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise BlockjobsError(f"`blockjobs up` does not come up: {last_line(log)} (see {log})")
                time.sleep(0.1)
            click.echo(ready[0])
            yield settings.read_env(self.state)
        except KeyboardInterrupt:
            click.echo("\nstopping the fleet; the next demo starts anew", err=True)
            raise
        finally:
            process.terminate()
            process.wait()

    def write(self, name: str, *, broken: bool) -> Path:
        """Write the run file; ``broken``: a source answers EIO half-way."""
        speed = max(1 << 20, self.size // SECONDS)
        lines = ["version: 1", f"name: {name}", "completion-mode: grouped", f"defaults: {{speed: {speed}}}", "jobs:"]
        for image in IMAGES:
            job = f"{image.host}-{image.name}"
            source = f'"{image.host}:{_escaped_path(self.source(image))}"'
            if broken and job == BROKEN_JOB:
                sector = demo_images.data_at(self.source(image), self.size // 2) // 512
                source = (
                    f"{{driver: blkdebug, host: {image.host}, "
                    f'image: {{driver: file, filename: "{_escaped_path(self.source(image))}"}}, '
                    f"inject-error: [{{event: none, iotype: read, errno: 5, sector: {sector}, once: false}}]}}"
                )
            base = _escaped_path(self.root(image.host) / "backup")
            target = f'"{image.host}:{base}/{{run}}/{image.name}.img"'
            lines.append(f"  - {{id: {job}, type: backup, sync: full, source: {source}, target: {target}}}")
        path = self.directory / f"{name}.yaml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    # --- the story ----------------------------------------------------------------------------------------

    def run(self, fleet: Fleet, file: Path, *, pause: bool = False) -> tuple[RunId, Board]:
        """Do the work of ``blockjobs run FILE``; with ``pause`` a job is paused and resumed on the way."""
        click.echo(f"$ blockjobs run {file}")
        plan = runfile.load_run_file(file, now=datetime.now(UTC))
        seq = fleet.registry.events.last()
        fleet.submit(plan)
        interlude = Interlude(fleet, JobId(f"{plan.run}.{PAUSED_JOB}")) if pause else None
        with shown_progress() as show:
            board = follow_submitted_run(fleet, plan, seq, show, each=interlude.look if interlude else lambda _: None)
        click.echo("\n".join(outcome_lines(board, plan.run)))
        return plan.run, board

    def commits(self, fleet: Fleet, *, pause: bool) -> None:
        if pause:
            echo_title(f"One transaction over {len(HOSTS)} hosts; {PAUSED_JOB} is paused for {PAUSE} s on the way")
        else:
            echo_title("The first run again: nothing is in its way, it commits under its new name")
        run, board = self.run(fleet, self.write("nightly", broken=False), pause=pause)
        if board.runs[run].outcome is not RunOutcome.COMMITTED:
            raise BlockjobsError(f"run {run} was to commit and did not: see {self.state / 'logs'}")
        targets = [self.target(image, run) for image in IMAGES]
        for image, target in zip(IMAGES, targets, strict=True):
            if not demo_images.are_files_equal(self.source(image), target):
                raise BlockjobsError(f"{target} is not what {self.source(image)} is")
            demo_images.check_demo_image(target)
        checked = ", `e2fsck -fn` finds no fault" if demo_images.e2fsprogs_path("e2fsck") else ""
        click.echo(f"{counted_noun(len(targets), 'target')}: bit for bit the same as their sources{checked}")
        subprocess.run(
            [sys.executable, "-P", "-m", "blockjobs", "verify", *map(str, targets)], check=True, capture_output=True
        )
        click.echo("blockjobs verify: every chunk is as in the manifests")

    def fails(self, fleet: Fleet) -> None:
        echo_title(f"A second run, in which the source of {BROKEN_JOB} answers EIO half-way")
        before = self.files()
        run, board = self.run(fleet, self.write("broken", broken=True))
        if board.runs[run].words["done"]:
            raise BlockjobsError(f"run {run} was to leave nothing, and {board.runs[run].words['done']} jobs committed")
        if left := sorted(self.files() - before):
            raise BlockjobsError(f"run {run} was to leave nothing: {left[0]} is there")
        click.echo("what the records of its jobs say:")
        for image in IMAGES:
            job = fleet.get(f"{run}.{image.host}-{image.name}")
            click.echo(f"  {job.id}: {job.error}")
        click.echo(f"looked through all roots: no target, no staging file, no directory of it ({len(before)} entries)")

    def files(self) -> set[Path]:
        """The files in the roots, without journals (an ended transaction leaves a tombstone)."""
        found = set()
        for host in HOSTS:
            found |= {path for path in self.root(host).rglob("*") if ".blockjobs" not in path.parts}
        return found


class Interlude:
    """Pause a job at a third of the copy, and resume the job a little later; driven by the follower's updates."""

    def __init__(self, fleet: Fleet, job: JobId) -> None:
        self._here, self._job, self._resume_at, self._over = fleet, job, 0.0, False

    def look(self, board: Board) -> None:
        row = board.rows[self._job]
        if self._over:
            return
        if not self._resume_at and row.word == "running" and row.offset * 3 > row.len > 0:
            self._here.pause(self._job)
            self._resume_at = time.monotonic() + PAUSE
        elif self._resume_at and time.monotonic() >= self._resume_at:
            self._here.resume(self._job)
            self._over = True


def clear_demo(directory: Path) -> None:
    """Make ``directory`` anew; remove the files of an earlier demo.

    Raises:
        BadInput: the directory holds other files, or another demo runs in it.
    """
    mark = directory / MARK
    if directory.exists() and not mark.exists() and any(directory.iterdir()):
        raise BadInput(f"--dir {directory}: it is not of an earlier demo; an empty directory or a new one was expected")
    if mark.exists():
        _await_end(directory / "state" / "up.lock")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    mark.write_text("Made by `blockjobs demo`, which removes this directory at its next start.\n", encoding="utf-8")


def _await_end(lock: Path) -> None:
    """Wait for the fleet of a killed demo to be gone."""
    if not lock.exists():
        return
    with lock.open("rb") as held:
        give_up = time.monotonic() + LEFTOVER_LIMIT
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise BadInput(f"another demo runs in {lock.parent.parent}: stop it or give --dir") from None
                time.sleep(0.1)
            else:
                return


def _escaped_path(path: Path) -> str:
    """A path, escaped for a run file's templates and for YAML's double quotes."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"').replace("{", "{{").replace("}", "}}")
