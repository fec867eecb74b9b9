"""A run's own terms, end to end by the command line: on-overlap, deadline, hold-timeout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
from commands import Ended, run_command
from fleet import DEADLINE, MIB, Fleet, files

Run = Callable[..., Ended]
SLOW = 1 << 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("terms"), ["a", "b"])
    for host in fleet.hosts:
        fleet.image(host, "disk.img", 48)
    yield fleet
    fleet.close()


@pytest.fixture
def command(pair: Fleet) -> Run:
    pair.mend()

    return partial(run_command, url=pair.server.url)


def argv(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "blockjobs", *words]


def environment(pair: Fleet) -> Mapping[str, str]:
    return os.environ | {"BLOCKJOBS_REDIS_URL": pair.server.url}


def file(pair: Fleet, name: str, terms: str, *, defaults: str = "speed: 1MiB", target: str = "") -> str:
    """A run file: an image of each host, slowly."""
    path = pair.place / f"{name}.yaml"
    jobs = "\n".join(
        f"""  - {{id: {host}-disk, type: backup, sync: full, source: "{host}:{pair.root(host)}/disk.img", """
        f"""target: {target or f'"{host}:{pair.root(host)}/{{run}}.img"'}}}"""
        for host in pair.hosts[: 1 if target else 2]
    )
    path.write_text(f"version: 1\nname: {name}\n{terms}\ndefaults: {{{defaults}}}\njobs:\n{jobs}\n")
    return str(path)


def started(ended: Ended) -> str:
    """The id of a run started with --detach."""
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()[1].rstrip(":")


def quickly(pair: Fleet, run: str) -> None:
    """Let a slow run come to its end."""
    for job in pair.jobs(run):  # type: ignore[arg-type]
        pair.registry.verbs.set_speed(job.id, 0)


def test_refuse_ends_with_2_names_the_run_that_goes_on_and_creates_nothing(pair: Fleet, command: Run) -> None:
    path = file(pair, "refuse", "on-overlap: refuse")
    first = started(command("run", path, "--detach"))
    pair.until("ATTEMPT_CLAIMED")
    second = command("run", path)
    assert second.returncode == 2
    assert f"{first} is still going" in second.stderr
    assert len([run for run in pair.registry.views.runs() if run.name == "refuse"]) == 1
    quickly(pair, first)
    pair.until("RUN_ENDED", first)
    assert command("cancel", started(command("run", path, "--detach"))).returncode == 0


def test_skip_ends_with_0_says_so_and_creates_nothing(pair: Fleet, command: Run) -> None:
    path = file(pair, "skip", "on-overlap: skip")
    first = started(command("run", path, "--detach"))
    second = command("run", path)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == f"run 'skip': skipped, {first} is still going\n"
    third = command("run", path, "--json")
    assert (third.returncode, json.loads(third.stdout)["runs"]) == (0, [])
    assert len([run for run in pair.registry.views.runs() if run.name == "skip"]) == 1
    command("cancel", first)
    pair.until("RUN_ENDED", first)


def test_queue_waits_for_the_one_before_whatever_dies_and_the_newest_takes_its_place(pair: Fleet, command: Run) -> None:
    path = file(pair, "queue", "on-overlap: queue", defaults="speed: 256KiB")  # until it is told to be quick
    first = started(command("run", path, "--detach"))
    pair.until("ATTEMPT_CLAIMED")
    client = subprocess.Popen(argv("run", path), env=environment(pair), stdout=subprocess.DEVNULL)
    second = pair.until("RUN_PUBLISHED", "", lambda event: event.run.startswith("queue") and event.run != first).run
    client.kill()
    client.wait()
    pair.until_status(f"{second}.b-disk", "created")  # by the coordinator, where the client died before
    shown = command("status")
    assert f"{second}: 2 jobs, queued behind {first}" in shown.stdout
    assert f"queued: waits for run {first} to end" in command("show", f"{second}.a-disk").stdout
    third = started(command("run", path, "--detach"))
    assert json.loads(command("status", third, "--json").stdout)["runs"][0]["queued-behind"] == first
    pair.restart("coordinator")
    pair.restart("finalizer")
    pair.until("RUN_ENDED", second)
    waited = command("wait", second)
    assert (waited.returncode, f"skipped: replaced by run {third}" in waited.stdout) == (4, True)
    assert {job.status for job in pair.jobs(third)} == {"created"}  # type: ignore[arg-type]
    assert not pair.registry.views.run(first).ended
    quickly(pair, first)
    ended = pair.until("RUN_ENDED", first)
    began = pair.until("RUN_LAUNCHED", third)
    print(f"launched {began.at - ended.at:.2f} s after the end of the one before")
    pair.until("ATTEMPT_CLAIMED")
    quickly(pair, third)
    pair.until("RUN_ENDED", third)
    assert pair.registry.views.run(third).failed == pair.registry.views.run(third).cancelled == 0


def test_past_its_deadline_a_run_is_cancelled_and_says_why(pair: Fleet, command: Run) -> None:
    before = {host: files(pair.root(host)) for host in pair.hosts}
    path = file(pair, "late", "deadline: 3s")
    pair.seq = pair.registry.events.last()
    client = subprocess.Popen(
        argv("run", path), env=environment(pair), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run = pair.until("RUN_PUBLISHED").run
    pair.restart("coordinator")  # it is in the registry, not in a process
    stdout, stderr = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1
    assert "deadline of 3s passed" in stdout
    assert "deadline of 3s passed" in stderr
    view = pair.registry.views.run(run)
    assert view.cancelled == 2
    assert 3 <= (view.ended - view.published) / 1000 < 15
    assert {job.error for job in pair.jobs(run)} == {"deadline of 3s passed"}  # type: ignore[arg-type]
    assert {host: files(pair.root(host)) for host in pair.hosts} == before
    assert [e.id for e in pair.registry.events.all() if e.name == "RUN_LATE"] == [run]


def test_a_job_that_nobody_resumes_after_an_error_fails_with_it(pair: Fleet, command: Run) -> None:
    full = {"driver": "blkdebug", "host": "a",
            "image": {"driver": "file", "filename": str(pair.root("a") / "full.img")},
            "inject-error": [{"iotype": "write", "errno": 28, "sector": MIB // 512, "once": False}]}  # fmt: skip
    path = file(pair, "stuck", "hold-timeout: 2s", defaults="on-target-error: enospc", target=json.dumps(full))
    ended = command("run", path)
    assert ended.returncode == 1
    assert "No space left on device; nobody resumed it for 2s" in ended.stderr
    (job,) = pair.jobs(next(run.id for run in pair.registry.views.runs() if run.name == "stuck"))
    assert (job.ret, job.attempts) == (-28, 1)
    assert job.elapsed < 20


def test_a_store_of_a_run_file_limits_its_copies(pair: Fleet, command: Run) -> None:
    path = pair.place / "stored.yaml"
    where = 'store: nas1, target: "{store}/{host}/{run}/{name}"'
    members = "\n".join(
        f'  - {{name: {name}, hosts: a, {where}, sources: ["{pair.root("a")}/{name}.img"]}}'
        for name in ("disk", "more")
    )
    pair.image("a", "more.img", 48)
    stores = f"{{nas1: {{path: {pair.root('a')}, jobs: 1, speed: 1MiB/s}}}}"
    path.write_text(f"version: 1\nname: stored\nstores: {stores}\ntransactions:\n{members}\n")
    run = started(command("run", str(path), "--detach"))
    first = pair.until("ATTEMPT_CLAIMED", when=lambda event: event.id.startswith(f"{run}."))
    waits = next(job for job in pair.jobs(run) if job.id != first.id)  # type: ignore[arg-type]
    assert "waits for a place in store nas1: 1 of 1 copies run, 0 ahead" in command("show", waits.id).stdout
    assert "slowed to 1.0 MiB/s by store nas1" in command("show", first.id).stdout
    assert "store nas1 is full" in command("status", run).stdout
    assert command("stores", "set", "nas1", "--jobs", "2").returncode == 0
    pair.until("ATTEMPT_CLAIMED", waits.id)
    assert command("cancel", run).returncode == 0
    pair.until("RUN_ENDED", run)
