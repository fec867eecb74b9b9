"""``retry`` of a run file, end to end: what fails is tried again within its run, whoever dies in between."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from commands import Ended, run_command
from fleet import MIB, Fleet, files

from blockjobs.model.ids import RunId
from blockjobs.registry import keys

Run = Callable[..., Ended]
FILE = """
version: 1
name: {name}
transactions:
  - name: each
    completion-mode: individual
    retry: {retry}
    retry-wait: {wait}
    jobs:
      - {{id: one, source: "a:{image}", target: "a:{place}/a/{{run}}/one.img"}}
      - {{id: two, source: "b:{image}", target: "b:{place}/b/{{run}}/two.img"}}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts that see the same images, each with its own place for backups."""
    place = tmp_path_factory.mktemp("tries")
    (place / "images").mkdir()
    fleet = Fleet(place, ["a", "b"], read_roots=(str(place),))
    yield fleet
    fleet.close()


@pytest.fixture
def command(pair: Fleet) -> Run:
    pair.mend()
    return partial(run_command, url=pair.server.url)


@pytest.fixture
def image(pair: Fleet, request: pytest.FixtureRequest) -> Path:
    """An image that is there, of a name that no other test has."""
    path = pair.place / "images" / f"{request.node.name}.img"
    path.write_bytes(os.urandom(3 * MIB))
    return path


def file(pair: Fleet, name: str, image: Path, *, retry: int = 2, wait: str = "1s") -> str:
    path = pair.place / f"{name}.yaml"
    path.write_text(FILE.format(name=name, retry=retry, wait=wait, image=image, place=pair.place))
    return str(path)


def started(pair: Fleet, ended: Ended) -> RunId:
    assert ended.returncode == 0, ended.stderr
    return RunId(ended.stdout.split()[1].rstrip(":"))


def test_what_was_mended_in_time_commits_and_the_run_with_it(pair: Fleet, command: Run, image: Path) -> None:
    away = image.rename(image.with_suffix(".away"))
    pair.seq = pair.registry.events.last()
    run = started(pair, command("run", file(pair, "mended", image), "--detach"))
    assert pair.until("JOB_RETRIED").fields["error"].startswith(f"source {image} does not exist on host ")
    away.rename(image)
    assert command("wait", run).returncode == 0, [job.error for job in pair.jobs(run)]
    view = pair.registry.views.run(run)
    assert (view.failed, view.cancelled, view.open) == (0, 0, 0)
    assert view.retried >= 1
    for host in "ab":
        (target,) = (pair.root(host) / run).glob("*.img")
        assert target.read_bytes() == image.read_bytes()
        manifest = json.loads(Path(f"{target}.manifest.json").read_text())
        assert manifest["transaction"] == pair.job(f"{run}.{target.stem}").transaction


def test_who_follows_sees_every_try_and_the_last_one_counts(pair: Fleet, command: Run, image: Path) -> None:
    image.unlink()
    before = {host: files(pair.root(host)) for host in "ab"}
    ended = command("run", file(pair, "hopeless", image, retry=1))
    assert ended.returncode == 1
    assert ended.stdout.count("try 2 of 2 begins in 1 s") == 2
    assert ended.stdout.count(f"failed: source {image} does not exist") == 4
    assert "ended: 2 jobs, 2 failed, 0 cancelled, 2 further tries" in ended.stdout
    assert "0 done, 2 failed, 0 cancelled" in ended.stderr
    assert {host: files(pair.root(host)) for host in "ab"} == before
    run = ended.stdout.split()[1].rstrip(":")
    again = command("retry", run)
    assert again.returncode == 1, "that is a run of its own, with tries of its own"
    assert again.stdout.count("try 2 of 2") == 2


def test_the_next_try_comes_although_everybody_died_meanwhile(pair: Fleet, command: Run, image: Path) -> None:
    away = image.rename(image.with_suffix(".away"))
    pair.seq = pair.registry.events.last()
    run = started(pair, command("run", file(pair, "deaths", image, wait="2s", retry=3), "--detach"))
    pair.until("JOB_RETRIED")
    for name in [*pair.processes]:
        pair.kill(name, signal.SIGKILL)
    away.rename(image)
    pair.mend()
    assert command("wait", run).returncode == 0, [job.error for job in pair.jobs(run)]
    assert pair.registry.views.run(run).failed == 0
    assert not pair.client.exists(keys.retries())


def test_a_run_that_waits_for_a_next_try_can_be_cancelled_at_once(pair: Fleet, command: Run, image: Path) -> None:
    image.unlink()
    pair.seq = pair.registry.events.last()
    run = started(pair, command("run", file(pair, "off", image, wait="1h"), "--detach"))
    pair.until("JOB_RETRIED")
    pair.until("JOB_RETRIED")
    shown = command("show", run)
    assert "try 2 of 3 begins at" in shown.stdout
    assert command("cancel", run).returncode == 0
    pair.until("RUN_ENDED", run)
    assert pair.registry.views.run(run).cancelled == 2
