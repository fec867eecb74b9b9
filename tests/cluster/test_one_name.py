"""One name is one machine's: a second one is refused for both workers, by name, and the first one is not disturbed."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet import DEADLINE, MIB, Fleet
from forks import BLOCKJOBS, forks

from blockjobs.model.ids import Host
from blockjobs.model.liveness import WorkerName
from blockjobs.registry import keys
from blockjobs.registry.connection import Client, connect_client
from blockjobs.registry.doors import HostRegistry
from blockjobs.registry.heartbeats import HostTaken
from blockjobs.server import RedisServer
from blockworker.host import machine
from blockworker.host.config import HostConfig
from blockworker.system.processstart import read_start
from blockworker.watch import heartbeat
from blockworker.watch.heartbeat import Heartbeat

STEPS, COPY = WorkerName.STEPS, WorkerName.COPY
HOST = Host("a")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("names") / "redis") as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Client]:
    with connect_client(server.url) as client:
        client.flushall()
        yield client


class Machine:
    """A machine with records of its own; its boot and its machine-id are those of this one, unless a test says so."""

    def __init__(self, client: Client, state: Path) -> None:
        self.registry, self.state = HostRegistry(client, HOST), state
        state.mkdir(exist_ok=True)

    def worker(self, name: WorkerName) -> Heartbeat:
        machine._token_of.cache_clear()  # each worker is a process
        config = HostConfig(name=HOST, read_roots=(), write_roots=(), state=str(self.state))
        return Heartbeat(self.registry.hosts, config, worker=name)


@pytest.fixture
def first(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(heartbeat, "SECOND", 0.05)
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "TAKEOVER", 0.2)
    return Machine(client, tmp_path / "first")


def another_installation(first: Machine, patch: pytest.MonkeyPatch) -> Machine:
    return Machine(first.registry.hosts._redis, first.state.parent / "second")


def a_clone(first: Machine, patch: pytest.MonkeyPatch) -> Machine:
    """With a copy of every record, booted on its own."""
    patch.setattr(machine, "read_boot_id", lambda: "another boot")
    return Machine(first.registry.hosts._redis, shutil.copytree(first.state, first.state.parent / "clone"))


def a_clone_with_a_machine_id_of_its_own(first: Machine, patch: pytest.MonkeyPatch) -> Machine:
    patch.setattr(machine, "machine_id", lambda: "another id")
    return Machine(first.registry.hosts._redis, shutil.copytree(first.state, first.state.parent / "clone"))


def the_same_machine(first: Machine, patch: pytest.MonkeyPatch) -> Machine:
    return first


def fail(why: str) -> None:
    """In the place of the end of this process."""
    raise AssertionError(why)


Other = Callable[[Machine, pytest.MonkeyPatch], Machine]
OTHERS: list[Other] = [another_installation, a_clone, a_clone_with_a_machine_id_of_its_own]


@pytest.mark.parametrize("worker", WorkerName)
@pytest.mark.parametrize("held", [STEPS, COPY], ids=["steps-is-there", "copy-is-there"])
@pytest.mark.parametrize("other", [*OTHERS, the_same_machine])
def test_no_second_machine_gets_a_name_that_is_held(
    first: Machine, monkeypatch: pytest.MonkeyPatch, worker: WorkerName, held: WorkerName, other: Other
) -> None:
    there = [first.worker(name) for name in WorkerName if name is held]
    for each in there:
        each.register()
        each.start()
    second = other(first, monkeypatch).worker(worker)
    if other is the_same_machine and held is not worker:
        second.register()  # the two belong together
    else:
        with pytest.raises(HostTaken, match=r"host name 'a' is held by another (steps|copy) worker, which beats since"):
            second.register()
    for each in there:
        assert each._thread.is_alive()
        each.close()


@pytest.mark.parametrize("worker", WorkerName)
@pytest.mark.parametrize("other", OTHERS)
def test_a_name_that_was_left_or_lost_is_another_machines_and_the_first_is_told(
    first: Machine, monkeypatch: pytest.MonkeyPatch, worker: WorkerName, other: Other
) -> None:
    """It was cut off for a while: no message that it has got meanwhile may be obeyed."""
    there = first.worker(worker)
    there.register()
    second = other(first, monkeypatch).worker(worker)
    second.register()
    monkeypatch.setattr(heartbeat, "end_process", fail)
    with pytest.raises(AssertionError, match="host name 'a' is held by another"):
        there._beat_or_end()
    there.close()
    second.close()
    there.register()
    there.close()


@pytest.fixture
def killed(first: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[WorkerName], None]:
    """Leaves a worker on record that was killed."""

    def leave(worker: WorkerName) -> None:
        with subprocess.Popen(["sleep", "600"]) as dead:
            started = read_start(dead.pid)
            dead.kill()
        mine = machine.this_process()
        with monkeypatch.context() as patch:
            patch.setattr(machine, "this_process", lambda: mine._replace(pid=dead.pid, start=started))
            first.worker(worker).register()
        monkeypatch.setattr(heartbeat, "TAKEOVER", DEADLINE)

    return leave


@pytest.mark.parametrize("worker", WorkerName)
def test_a_worker_that_was_killed_is_followed_at_once_by_its_successor(
    first: Machine, killed: Callable[[WorkerName], None], worker: WorkerName
) -> None:
    killed(worker)
    first.worker(worker).register()


@pytest.mark.parametrize("worker", WorkerName)
def test_a_worker_goes_on_where_an_older_registry_names_the_one_before_it_that_was_killed(
    first: Machine, client: Client, killed: Callable[[WorkerName], None], worker: WorkerName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    killed(worker)
    older = client.dump(keys.card(HOST))
    mine = first.worker(worker)
    mine.register()
    client.restore(keys.card(HOST), 0, older, replace=True)
    mine._answered.write(0.0)
    monkeypatch.setattr(heartbeat, "end_process", fail)
    mine.renew()
    assert mine.is_current()
    with pytest.raises(HostTaken):  # its place is its own again
        first.worker(worker)._beat()


@pytest.mark.parametrize("worker", WorkerName)
def test_no_message_is_taken_on_the_word_of_a_beat_that_is_too_old(first: Machine, worker: WorkerName) -> None:
    mine = first.worker(worker)
    assert not mine.is_current()
    mine.register()
    assert mine.is_current()
    mine._answered.write(0.0)  # as after a stop of ten seconds
    assert not mine.await_current(0.1)
    threading.Timer(0.2, mine._beat).start()
    assert mine.await_current(DEADLINE)
    mine._answered.write(0.0)
    mine.renew()
    assert mine.is_current()


def test_two_real_machines_of_one_name_are_told_apart_by_both_workers(fleet: Fleet) -> None:
    """They have the machine-id and the boot in common, as two containers have, and everything else of their own."""
    registered = fleet.client.hmget(keys.card(HOST), "machine", "process", "copy-process")
    other = fleet.place / "other.toml"
    records = str(fleet.place / "state")
    other.write_text((fleet.place / "a.toml").read_text().replace(records, f"{records}-of-the-other"))
    env = {"BLOCKJOBS_REDIS_URL": fleet.server.url_of("worker-a"), **fleet.env}
    logs = {queue: fleet.place / "logs" / f"other-{queue}.log" for queue in WorkerName}
    words = ["worker", "--host", "a", "--config", str(other), "--queue"]
    others = [forks().start(BLOCKJOBS, [*words, queue], log=log, env=env) for queue, log in logs.items()]
    jobs: list[dict[str, object]] = [
        {"id": "j", "source": f"a:{fleet.image('a', 'one.img', 1)}", "target": f"a:{fleet.root('a')}/{{run}}.img"}
    ]
    run = fleet.submit(fleet.plan(jobs, speed=MIB))
    assert fleet.until("RUN_ENDED", run).fields["failed"] == "0"
    assert [process.wait(DEADLINE) for process in others] == [2, 2]
    for log in logs.values():
        assert log.read_text().splitlines()[-1].startswith("blockjobs: host name 'a' is held by another ")
    assert fleet.client.hmget(keys.card(HOST), "machine", "process", "copy-process") == registered
    assert fleet.registry.hosts.known()[HOST].state == "up"
