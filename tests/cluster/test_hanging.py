"""File systems of one host hang, each at another stage of a grouped run over three hosts; then they answer again.

The story is told once, by a fixture: five file systems are frozen at one moment, and what is seen meanwhile, and
afterwards, is written down.  The tests read it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from click.testing import CliRunner
from fleet import DEADLINE, MIB, Fleet, children, files
from mounts import mounted

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.probe import Probe
from blockjobs.cli.main import cli
from blockjobs.model.errors import HostDown
from blockjobs.model.hanging import hanging_under
from blockjobs.model.ids import Host, RunId, TxnId
from blockworker.host.config import host_config_text, load_host_config

STAGES: Final = ("open", "cut", "copy", "prepare", "settle")
NAMED_WITHIN: Final = 30.0  # seconds
B: Final = Host("b")


@contextmanager
def frozen(tops: list[Path]) -> Iterator[None]:
    """Freeze file systems.  A process of its own thaws them at the end, and also if this one dies."""
    thaw = "; ".join(f"fsfreeze -u {top}" for top in tops)
    watchdog = subprocess.Popen(["sh", "-c", f"cat >/dev/null; {thaw}"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        for top in tops:
            subprocess.run(["fsfreeze", "-f", str(top)], check=True)
        yield
    finally:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        assert watchdog.wait(DEADLINE) == 0


@dataclass
class Story:
    fleet: Fleet
    tops: dict[str, Path]
    runs: dict[str, RunId] = field(default_factory=dict)
    named_after: float = 0.0
    shown: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = field(default_factory=dict)  # by stage
    hosts: str = ""
    hosts_json: list[dict[str, Any]] = field(default_factory=list)
    doctor: list[dict[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # errors of the run on other roots, while these hang
    answers: list[dict[str, Any]] | HostDown = field(default_factory=list)
    answered_after: float = 0.0
    ended_after: float = 0.0  # the steps worker, when it was told to
    copies_ended_after: float = 0.0  # the copy worker
    copying: int = 0  # processes of the copy worker while one attempt hangs
    left: dict[str, set[str]] = field(default_factory=dict)  # files, by stage
    errors: dict[str, str] = field(default_factory=dict)
    after: list[Any] = field(default_factory=list)  # what is told to hang in the end
    family: list[psutil.Process] = field(default_factory=list)
    given_up: int = 0  # processes of errands that hung when their worker ended
    outlived: list[int] = field(default_factory=list)  # those of them that are there in the end
    journals: dict[str, list[str]] = field(default_factory=dict)

    def cli(self, *words: str) -> str:
        done = CliRunner().invoke(cli, words, env={"BLOCKJOBS_REDIS_URL": self.fleet.server.url})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done.stdout

    def submit(self, stage: str, **options: Any) -> RunId:
        """A grouped run over three hosts, of which one member touches the file system of a stage."""
        fleet, top = self.fleet, self.tops[stage]
        own = fleet.root("b") / ("large.img" if stage == "copy" else "small.img")
        sources = {host: fleet.root(host) / "small.img" for host in "ac"}
        sources["b"] = top / "source.img" if stage == "cut" else own
        targets = {"a": fleet.root("a"), "b": fleet.root("b") if stage == "cut" else top, "c": fleet.root("c")}
        jobs: list[dict[str, object]] = [
            {"id": host, "source": f"{host}:{sources[host]}", "target": f"{host}:{targets[host]}/{{run}}.img"}
            for host in "abc"
        ]
        jobs[1]["snapshot"] = "reflink" if stage == "cut" else "auto"
        run = fleet.submit(fleet.plan(jobs, **options))
        self.runs[stage] = run
        return run

    def elsewhere(self) -> None:
        """A run over three hosts on other roots, to its end."""
        fleet = self.fleet
        run = fleet.submit(
            fleet.plan(
                [{"id": f"{host}{n}", "source": f"{host}:{fleet.root(host)}/small.img",
                  "target": f"{host}:{fleet.root(host)}/{{run}}.{n}.img"} for host in "abc" for n in range(2)],
                grouped=False,
            )
        )  # fmt: skip
        fleet.until("RUN_ENDED", run)
        self.others += [job.error for job in fleet.jobs(run)]

    def at(self, stage: str, barrier: str) -> bool:
        txn = self.fleet.registry.views.transaction(TxnId(self.runs[stage]))
        return txn is not None and txn.barrier == barrier

    def passed(self, stage: str, step: str) -> bool:
        return self.fleet.job(f"{self.runs[stage]}.b").passed == step


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    place = tmp_path_factory.mktemp("hanging")
    with ExitStack() as stack:
        tops = {stage: stack.enter_context(mounted("xfs", place / "disks" / stage, gib=1)) for stage in STAGES}
        (place / "fleet").mkdir()
        fleet = Fleet(place / "fleet", ["a", "b", "c"])
        stack.callback(fleet.close)
        told = Story(fleet, tops)
        configure(told)
        before(told)
        with frozen(list(tops.values())):
            meanwhile(told)
        afterwards(told)
        yield told


def configure(told: Story) -> None:
    """Give host b a root on each file system, and every host something to copy."""
    fleet, path = told.fleet, told.fleet.place / "b.toml"
    more = tuple(map(str, told.tops.values()))
    config = load_host_config(path)
    path.write_text(
        host_config_text(replace(config, read_roots=config.read_roots + more, write_roots=config.write_roots + more))
    )
    for name in ("steps@b", "copy@b"):
        fleet.kill(name, signal.SIGTERM)
    fleet.until_true(lambda: fleet.registry.hosts.known()[B][0] != "up")
    for name in ("steps@b", "copy@b"):
        fleet.start(name)
    fleet.await_up(["b"])
    for host in "abc":
        fleet.image(host, "small.img", 1)
    fleet.image("b", "large.img", 24)
    (told.tops["cut"] / "source.img").write_bytes(os.urandom(MIB))


def before(told: Story) -> None:
    """Bring a run to each stage."""
    fleet = told.fleet
    for stage in ("prepare", "settle"):
        told.submit(stage, auto_finalize=False)
    told.submit("copy", speed=MIB)
    fleet.until_durable("b", f"{told.runs['copy']}.b")
    for stage in ("prepare", "settle"):
        fleet.until_true(partial(told.at, stage, "finalize"))
    fleet.kill("steps@a", signal.SIGSTOP)  # who holds up the barrier before the cut
    told.submit("cut")
    fleet.until_true(lambda: told.passed("cut", "open"))


def meanwhile(told: Story) -> None:
    """What is seen while they hang."""
    fleet, began = told.fleet, time.monotonic()
    fleet.kill("steps@a", signal.SIGCONT)
    told.submit("open")
    fleet.registry.verbs.finalize(f"{told.runs['prepare']}.b")
    fleet.registry.verbs.cancel(f"{told.runs['settle']}.b")
    told.elsewhere()
    specs = {stage: fleet.job(f"{run}.b").spec for stage, run in told.runs.items()}
    fleet.until_true(lambda: all(hanging_under(fleet.registry.hosts.hanging(B), spec) for spec in specs.values()))
    told.named_after = time.monotonic() - began
    told.hosts, told.hosts_json = told.cli("hosts"), json.loads(told.cli("hosts", "--json"))
    told.doctor = json.loads(told.cli("doctor", "b", "--json"))
    for stage, run in told.runs.items():
        told.shown[stage] = (
            told.cli("show", run), told.cli("show", f"{run}.b"), json.loads(told.cli("show", run, "--json")),
            json.loads(told.cli("show", f"{run}.b", "--json")),
        )  # fmt: skip
    ask(told)
    told.elsewhere()
    told.copying = len(psutil.Process(fleet.processes["copy@b"].pid).children())
    stop(told)


def ask(told: Story) -> None:
    """Ask the host what it sees, on a file system that hangs and on one that does not."""
    fleet = told.fleet
    looks = [
        {"as": "source", "volume": f"b:{fleet.root('b')}/small.img"},
        {"as": "room", "spec": fleet.job(f"{told.runs['open']}.b").spec.to_dict()},
    ]
    began = time.monotonic()
    told.answers = Probe(fleet.registry, Doorbell(fleet.server.url)).each({B: looks})[B]
    told.answered_after = time.monotonic() - began


def stop(told: Story) -> None:
    """End both workers, and start them again, while processes of theirs hang."""
    fleet = told.fleet
    told.family = children(fleet.processes["copy@b"].pid)
    began = time.monotonic()
    fleet.kill("copy@b", signal.SIGTERM)
    told.copies_ended_after = time.monotonic() - began
    fleet.start("copy@b")
    family, began = children(fleet.processes["steps@b"].pid), time.monotonic()
    fleet.kill("steps@b", signal.SIGTERM)
    told.ended_after = time.monotonic() - began
    told.given_up = len([process for process in family if process.is_running()])
    told.family += family
    fleet.until_true(lambda: fleet.registry.hosts.known()[B][0] != "up")
    fleet.start("steps@b")
    fleet.await_up(["b"])
    told.elsewhere()


def afterwards(told: Story) -> None:
    """What comes of it by itself."""
    fleet = told.fleet
    for stage, run in told.runs.items():
        fleet.until_true(lambda run=run: fleet.registry.views.run(run).ended)
        job = fleet.job(f"{run}.b")
        told.errors[stage] = job.error or job.unsettled
    fleet.until_closed()
    fleet.until_true(lambda: not fleet.registry.hosts.hanging(B))
    _, outlived = psutil.wait_procs(told.family, timeout=DEADLINE)
    told.outlived = [process.pid for process in outlived]
    told.after = list(fleet.registry.hosts.hanging(B))
    for stage, top in told.tops.items():
        told.left[stage] = files(top) | {name for name in files(fleet.root("b")) if told.runs[stage] in name}
        told.journals[stage] = [path.name for path in (top / ".blockjobs").glob("*.journal")]


# --- what was written down --------------------------------------------------------------------------------


def test_runs_on_other_roots_of_the_host_come_to_their_end_meanwhile(story: Story) -> None:
    assert story.others == [""] * 18


def test_every_path_is_named_in_time(story: Story) -> None:
    assert story.named_after < NAMED_WITHIN


@pytest.mark.parametrize("stage", STAGES)
def test_hosts_and_doctor_name_the_path(story: Story, stage: str) -> None:
    top = str(story.tops[stage])
    assert re.search(f"^b: {top}.* hangs since", story.hosts, re.MULTILINE)
    (told,) = [host for host in story.hosts_json if host["name"] == "b"]
    assert [each for each in told["hanging"] if each["path"].startswith(top) and each["point"] == top]
    assert [f for f in story.doctor if f["level"] == "error" and f["subject"].startswith(f"host b path {top}")]


@pytest.mark.parametrize("stage", STAGES)
def test_show_names_the_path_for_the_run_and_for_the_job(story: Story, stage: str) -> None:
    top = str(story.tops[stage])
    run, job, run_json, job_json = story.shown[stage]
    for text in (run, job):
        assert [line for line in text.splitlines() if f"{top}" in line and "hangs since" in line], text
    assert [each for each in run_json["hanging"] if each["host"] == "b" and each["path"].startswith(top)]
    assert [reason for reason in job_json["waits"] if top in reason]


def test_the_attempt_that_hangs_is_told_with_the_file_and_its_slot_goes_to_others(story: Story) -> None:
    _, _, _, job = story.shown["copy"]
    assert job["hangs"]["path"].startswith(str(story.tops["copy"]))
    assert story.copying == 2 + 1, "a process more than slots, for one attempt that hangs"


def test_a_question_is_answered_in_time_and_names_what_hangs(story: Story) -> None:
    assert isinstance(story.answers, list), story.answers
    assert story.answers[0]["size"] == MIB
    assert story.answered_after < 3.5


def test_the_worker_ends_at_once_when_it_is_told_to(story: Story) -> None:
    assert story.ended_after < 10


def test_the_copy_worker_does_not_wait_for_a_copy_that_hangs(story: Story) -> None:
    assert story.copies_ended_after < 20, "it is given five seconds, on a machine that is busy"


@pytest.mark.parametrize("stage", STAGES)
def test_all_of_it_ends_by_itself_and_leaves_nothing(story: Story, stage: str) -> None:
    run, error = story.runs[stage], story.errors[stage]
    if stage == "settle":
        assert error == "Operation canceled"
    elif error:  # a deadline may have passed, on a machine that is busy
        assert str(story.tops[stage]) in error
    published = set() if error else {f"{run}.img{suffix}" for suffix in ("", ".blake3", ".manifest.json")}
    sources = {"source.img"} if stage == "cut" else set()
    assert story.left[stage] == published | sources
    assert story.journals[stage] == []


def test_nothing_is_told_to_hang_any_more(story: Story) -> None:
    assert story.after == []


def test_no_process_that_was_given_up_is_left(story: Story) -> None:
    assert story.given_up > 0, "the steps worker was ended while some hung"
    assert story.outlived == []
