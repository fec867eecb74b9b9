"""Attempts of a job whose only process is this one, which plays its host and the finalizer."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import redis
from children import end_child
from swallowing import Proxy

from blockjobs.daemons.finalizer import Finalizer
from blockjobs.model import templates
from blockjobs.model.barriers import Step
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.resolutions import Resolution
from blockjobs.model.runs import RunPlan, job_volumes
from blockjobs.process.clock import read_boot_id
from blockjobs.registry import codec, keys
from blockjobs.registry.attempts import Claim, Who
from blockjobs.registry.connection import connect_client, connect_control_line
from blockjobs.registry.doors import HostRegistry, Registry
from blockjobs.registry.views import JobView
from blockjobs.server import RedisServer
from blockworker import drivers
from blockworker.attempt import attempt, control, pause_point
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.questions.resolving import resolve_committed
from blockworker.records.highest_decision import NAME, Highest
from blockworker.steps.steps import Steps
from blockworker.system.processname import named_after
from blockworker.system.processstart import read_start
from blockworker.system.sparefile import spare_name
from blockworker.watch.watcher import Watcher

MIB = 1 << 20
RUN, JOB = RunId("here"), JobId("here.j")


class Inline:
    """A doorbell that does the steps itself, at once."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def step(self, host: Host, step: str, txn: TxnId) -> None:
        self._steps.take(step, txn)

    def copy(self, host: Host, job: JobId) -> None:
        raise AssertionError("the finalizer rings for no copies")


@dataclass
class Scene:
    """One job on host a, which may begin."""

    registry: Registry
    host: HostRegistry
    roots: Roots
    finalizer: Finalizer
    job: JobSpec
    source: Path
    target: Path
    server: RedisServer

    def attempt(self) -> str:
        return attempt.run_attempt(self.host.attempts, self.roots, JOB, draining=bool, tell=str)

    def ring(self) -> None:
        self.registry.hosts.ring(Host("a"), 2, lost_after_ms=1000)

    def view(self) -> JobView:
        return self.registry.views.job(JOB)

    def attempt_beside(self) -> tuple[threading.Thread, list[str]]:
        """An attempt by a thread, which copies already; how it ended."""
        ended: list[str] = []
        copies = threading.Thread(target=lambda: ended.append(self.attempt()))
        self.ring()
        copies.start()
        until(lambda: self.written() > 0)
        return copies, ended

    def claim(self, who: Who) -> Claim:
        self.ring()
        claim = self.host.attempts.claim(JOB, who)
        assert isinstance(claim, Claim)
        return claim

    def written(self) -> int:
        """Bytes that the staging file takes up."""
        return sum(path.stat().st_blocks for path in self.target.parent.glob(f".{self.target.name}.*.part")) * 512

    def conclude(self) -> JobView:
        while not self.view().ended:
            self.finalizer.once()
        return self.view()


def until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    """Look until it happened."""
    over = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < over, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    source, target = tmp_path / "disk.img", tmp_path / "copy.img"
    source.write_bytes(os.urandom(24 * MIB))
    with RedisServer(tmp_path / "redis") as server, connect_client(server.url) as client:
        registry, host = Registry(client), HostRegistry(client, Host("a"))
        roots = Roots(HostConfig(name=Host("a"), read_roots=(str(tmp_path),), write_roots=(str(tmp_path),)))
        host.hosts.beat(Host("a"), "m", 2, {})
        registry.hosts.judge(Host("a"), "up")
        registry.memory.note_restart(registry.hosts.run_id(), [])  # as a finalizer does that runs before all jobs
        read, written, base = job_volumes(
            f"a:{source}", f"a:{target}", templates.template_words(RUN, "j", datetime.now(UTC))
        )
        job = JobSpec(
            id=JOB, transaction=TxnId(RUN), run=RUN, source=read, target=written, target_base=base, speed=8 * MIB
        )
        registry.submit.submit(RunPlan(RUN, "here", grouped=True, transactions=((job,),)))
        finalizer = Finalizer(registry, Inline(Steps(host.answers, roots)))
        while (view := registry.transactions.view(job.transaction)) and (
            view.owing(Step.OPEN) or view.owing(Step.START)
        ):
            finalizer.once()
        yield Scene(registry, host, roots, finalizer, job, source, target, server)


def test_a_job_paused_for_longer_than_the_limit_is_parked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives its slot back, and goes on where it was when it is resumed."""
    monkeypatch.setattr(pause_point, "PARK_AFTER", 0.3)
    ended: list[str] = []
    slot = threading.Thread(target=lambda: ended.append(scene.attempt()))
    slot.start()
    scene.ring()
    until(lambda: scene.view().claimed)
    scene.registry.verbs.pause(JOB)
    slot.join(30)
    assert ended == ["parked"]
    parked = scene.view()
    assert (str(parked.status), parked.claimed, parked.busy, parked.paused) == ("paused", False, False, True)

    assert scene.registry.verbs.resume(JOB) == "running"
    scene.registry.verbs.set_speed(JOB, 0)
    assert scene.attempt() == "done"
    view = scene.conclude()
    assert (view.attempts, view.bytes["recopied"], view.error) == (2, 0, "")
    assert scene.target.read_bytes() == scene.source.read_bytes()


@pytest.mark.parametrize("cancelled", [True, False])
def test_an_attempt_that_finds_its_target_taken_away_by_a_cancel_is_cancelled(scene: Scene, cancelled: bool) -> None:
    """That its staging file is gone is an error of its own only where nobody cancelled it."""
    scene.ring()
    claim = scene.host.attempts.claim(JOB, Who("me", os.getpid(), 1.0, "boot"))
    assert isinstance(claim, Claim)
    if cancelled:
        scene.registry.verbs.cancel(JOB)
    drivers.find_driver("backup", "a").abort(scene.roots, scene.job, 1, opened=True)
    point = pause_point.PausePoint(scene.host.attempts, claim, draining=bool, tell=str)
    attempt.Attempt(scene.host.attempts, scene.roots, claim, point).run()
    view = scene.conclude()
    assert (view.error == "Operation canceled") is cancelled
    assert (view.error.startswith(f"staging file {scene.target.parent}")) is not cancelled
    assert not scene.target.exists()


def test_a_decision_that_the_host_cannot_note_is_not_carried_out(scene: Scene) -> None:
    """Its record is durable before the first effect, so that a registry that was rolled back is known by it."""
    scene.registry.verbs.set_speed(JOB, 0)
    scene.ring()
    assert scene.attempt() == "done"
    place = state.state_directory_of(scene.roots.config)
    assert place is not None
    spare = Path(place.path, spare_name(NAME))
    spare.mkdir(parents=True)
    steps, answers = Steps(scene.host.answers, scene.roots), scene.host.answers
    while not answers.decision(scene.job.transaction)[0]:
        scene.finalizer.once()
    steps.take(Step.SETTLE, scene.job.transaction)
    with pytest.raises(IsADirectoryError):
        resolve_committed(
            answers, scene.roots, Highest(scene.roots.config), txn=scene.job.transaction, job=JOB,
            how=Resolution.DISCARD, permitted=lambda: True,
        )  # fmt: skip
    assert not scene.target.exists()
    assert len(list(scene.target.parent.glob(".copy.img.*.part"))) == 1
    spare.rmdir()
    steps.take(Step.SETTLE, scene.job.transaction)
    assert scene.target.read_bytes() == scene.source.read_bytes()


def test_an_attempt_whose_lease_is_in_doubt_writes_nothing_until_redis_answers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "LEASE", 4.0)
    monkeypatch.setattr(control, "MARGIN", 2.0)
    copies, ended = scene.attempt_beside()
    assert scene.server.pid is not None
    server = psutil.Process(scene.server.pid)
    server.suspend()
    try:
        until(lambda: "standing still" in caplog.text)
        stood = scene.written()
        time.sleep(0.7)
        assert scene.written() == stood < 20 * MIB
    finally:
        server.resume()
    copies.join(30)
    assert ended == ["done"]
    assert scene.written() > stood


def test_an_attempt_whose_job_is_another_ones_ends_and_says_nothing_more(scene: Scene) -> None:
    copies, ended = scene.attempt_beside()
    (claim,) = scene.host.attempts.live()
    standing = claim.standing()
    assert scene.host.attempts.release(JOB, standing.txn, standing.token, standing.attempt, why="dead")
    second = scene.claim(Who("second", os.getpid(), 1.0, "boot"))
    copies.join(10)
    assert ended == ["lost its lease"]
    assert scene.written() < 20 * MIB
    view = scene.view()
    assert (str(view.status), view.claimed, second.token) == ("running", True, standing.token + 1)


Runs = Callable[[str], psutil.Process]


@pytest.fixture
def running() -> Iterator[Runs]:
    """Makes processes that do nothing under the name of an attempt; "": they have run one, and run none.

    Whoever ends one leaves a zombie of it.
    """
    children: list[int] = []

    def fork(attempt: str) -> psutil.Process:
        named, names = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with named_after(attempt or "before"):
                    if attempt:
                        os.write(names, b".")
                        signal.pause()
                os.write(names, b".")
                signal.pause()
            finally:
                os._exit(0)
        children.append(child)
        os.close(names)
        assert os.read(named, 1) == b"."
        os.close(named)
        return psutil.Process(child)

    yield fork
    for child in children:
        end_child(child)


@pytest.fixture
def process(running: Runs) -> psutil.Process:
    """A process that runs the attempt "a1"."""
    return running("a1")


@pytest.mark.parametrize("other", ["nothing", "boot", "start", "gone", "zombie"])
def test_an_attempt_is_released_where_its_very_process_is_gone(
    scene: Scene, process: psutil.Process, other: str
) -> None:
    """A process has a pid, a time of its start and a boot of its host: another one may have the same pid since."""
    started = read_start(process.pid) - (1.0 if other == "start" else 0.0)
    scene.claim(Who("a1", process.pid, started, "another" if other == "boot" else read_boot_id()))
    if other in ("gone", "zombie"):
        process.kill()
        until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    if other == "gone":
        os.waitpid(process.pid, 0)
    Watcher(scene.host.attempts, scene.roots).look()
    assert scene.view().claimed == (other == "nothing")


def test_an_attempt_that_was_fenced_is_killed_before_its_job_is_released(scene: Scene, process: psutil.Process) -> None:
    """A stopped process holds its locks: only when it is gone may another one write."""
    claim = scene.claim(Who("a1", process.pid, read_start(process.pid), read_boot_id()))
    process.suspend()
    scene.registry.hosts.fence(Host("a"), JOB, claim.attempt)
    Watcher(scene.host.attempts, scene.roots).look()
    assert not process.is_running()
    assert not scene.view().claimed


@pytest.mark.parametrize("runs", ["", "a2"], ids=["none", "another"])
def test_a_process_is_not_killed_for_an_attempt_that_it_does_not_run(scene: Scene, running: Runs, runs: str) -> None:
    """Its claim was made and never heard of, or given up: the process runs another job by now, or waits for one."""
    process = running(runs)
    claim = scene.claim(Who("a1", process.pid, read_start(process.pid), read_boot_id()))
    scene.registry.hosts.fence(Host("a"), JOB, claim.attempt)
    Watcher(scene.host.attempts, scene.roots).look()
    assert process.status() != psutil.STATUS_ZOMBIE
    assert not scene.view().claimed


def test_a_claim_by_a_process_of_an_earlier_version_is_told_by_its_process_alone(scene: Scene) -> None:
    """Such a process has no name of an attempt, and runs it all the same."""
    with subprocess.Popen(["sleep", "600"]) as sleep:
        try:
            process = psutil.Process(sleep.pid)
            scene.claim(Who("a1", process.pid, process.create_time(), read_boot_id()))
            Watcher(scene.host.attempts, scene.roots).look()
            assert scene.view().claimed
        finally:
            sleep.kill()


ODD = {
    "bytes": b"\x00\xff",
    "a newer version": b"\x02\x94",
    "too few": codec.pack_value(["a0", 1]),
    "a pid that is none": codec.pack_value(["a0", "one", 1.0, "boot"]),
    "a map": codec.pack_value({"attempt": "a0"}),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_claim_is_named_and_keeps_no_other_from_being_released(scene: Scene, odd: str) -> None:
    scene.registry.client.hset(keys.attempts(Host("a")), "here.a", ODD[odd])
    scene.claim(Who("a1", 1, 1.0, "another boot"))
    watcher = Watcher(scene.host.attempts, scene.roots)
    watcher.look()
    assert not scene.view().claimed
    assert list(watcher.aside.told()) == ["claim of job here.a"]
    scene.registry.client.hdel(keys.attempts(Host("a")), "here.a")
    watcher.look()
    assert watcher.aside.told() == {}


@pytest.mark.parametrize("field", ["token", "hangs", "attempt"])
def test_an_odd_record_of_a_claimed_job_is_named_and_keeps_no_other_from_being_released(
    scene: Scene, field: str
) -> None:
    client, other = scene.registry.client, JobId("here.a")
    client.hset(keys.attempts(Host("a")), other, codec.pack_value(["a0", 1, 1.0, "another boot"]))
    client.hset(keys.job(Host("a"), other), mapping={"txn": "here", "token": "1", "attempt": "a0", field: b"\xff x"})
    scene.claim(Who("a1", 1, 1.0, "another boot"))
    watcher = Watcher(scene.host.attempts, scene.roots)
    watcher.look()
    assert not scene.view().claimed
    assert list(watcher.aside.told()) == ["claim of job here.a"]


def test_a_process_that_may_not_be_killed_is_named_and_keeps_no_other_from_being_released(
    scene: Scene, running: Runs
) -> None:
    """The watcher runs as one user, and the process as another one."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    process, other, client = running("a0"), JobId("here.a"), scene.registry.client
    who = ["a0", process.pid, read_start(process.pid), read_boot_id()]
    client.hset(keys.attempts(Host("a")), other, codec.pack_value(who))
    client.hset(keys.job(Host("a"), other), mapping={"txn": "here", "token": "1", "attempt": "a0"})
    assert scene.registry.hosts.fence(Host("a"), other, "a0")
    scene.claim(Who("a1", 1, 1.0, "another boot"))
    watcher = Watcher(scene.host.attempts, scene.roots)
    os.setresuid(65534, 65534, 0)
    try:
        watcher.look()
    finally:
        os.setresuid(0, 0, 0)
    assert not scene.view().claimed
    (told,) = watcher.aside.told().values()
    assert f"process {process.pid} cannot be killed (Operation not permitted): does it run as another user?" in told
    assert process.status() != psutil.STATUS_ZOMBIE


def test_the_claim_of_a_job_that_is_gone_is_forgotten(scene: Scene) -> None:
    scene.registry.client.hset(keys.attempts(Host("a")), "here.a", codec.pack_value(["a0", 1, 1.0, "another boot"]))
    Watcher(scene.host.attempts, scene.roots).look()
    assert not scene.registry.client.exists(keys.attempts(Host("a")))


@pytest.fixture
def lossy(scene: Scene, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """An attempt whose claim is answered, and whose answer is lost; how it ended."""
    with (
        Proxy(scene.server.socket, tmp_path / "proxy", b"$7\r\nclaimed\r\n") as proxy,
        connect_control_line(proxy.url) as client,
    ):

        def run() -> str:
            scene.ring()
            attempts = HostRegistry(client, Host("a")).attempts
            try:
                return attempt.run_attempt(attempts, scene.roots, JOB, draining=bool, tell=str)
            finally:
                assert proxy.swallowed == 1

        yield run


def test_a_claim_whose_answer_was_lost_is_asked_for_again_and_is_one_attempt(
    scene: Scene, lossy: Callable[[], str]
) -> None:
    scene.registry.verbs.set_speed(JOB, 0)
    assert lossy() == "done"
    view = scene.conclude()
    assert (view.attempts, view.error) == (1, "")
    assert scene.target.read_bytes() == scene.source.read_bytes()


def test_a_claim_that_nobody_heard_of_is_released_and_its_process_lives(
    scene: Scene, lossy: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives up asking has no attempt: the next doorbell begins another one, and nobody is killed."""
    monkeypatch.setattr(attempt, "PATIENCE", 0.0)
    with pytest.raises(redis.RedisError):
        lossy()
    assert scene.view().claimed
    (claim,) = scene.host.attempts.live()
    assert claim.who().pid == os.getpid()
    Watcher(scene.host.attempts, scene.roots).look()
    assert not scene.view().claimed
    scene.registry.verbs.set_speed(JOB, 0)
    scene.ring()
    assert scene.attempt() == "done"
    assert scene.view().attempts == 2
