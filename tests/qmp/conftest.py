"""Two servers to talk to: ``face`` stands on a bare registry, ``fleet`` on a real host that may replace its files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import puppets
import pytest
from fleet import MIB, Fleet
from mounts import memory
from shared import share
from talk import Monitor

from blockjobs import server as redis_server
from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.probe import Probe
from blockjobs.ask.resize import Resize
from blockjobs.client.fleet import Fleet as Client
from blockjobs.qmp import fleet as spoken
from blockjobs.qmp.server import QmpServer


@pytest.fixture(scope="session")
def registry_server() -> Iterator[redis_server.RedisServer]:
    with tempfile.TemporaryDirectory(dir=memory()) as place, redis_server.RedisServer(Path(place)) as server:
        yield server


@dataclass
class Face:
    """A QMP server whose fleet is played: ``puppets`` stand in for hosts and daemons."""

    path: Path
    puppets: puppets.Fleet


@pytest.fixture(scope="session")
def session_face(registry_server: redis_server.RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    with Client(registry_server.url) as here:
        path = tmp_path_factory.mktemp("face") / "qmp.sock"
        doorbell = Doorbell(registry_server.url)
        server = QmpServer(spoken.Backend(here, Probe(here.registry, doorbell), Resize(here.registry, doorbell)), path)
        server.start()
        yield Face(path, puppets.Fleet(here.registry.client))
        server.close()


@pytest.fixture
def face(session_face: Face) -> Face:
    """With an empty registry."""
    session_face.puppets.client.flushall()
    return Face(session_face.path, puppets.Fleet(session_face.puppets.client))


@pytest.fixture
def talk(face: Face) -> Iterator[Monitor]:
    with Monitor(face.path) as monitor:
        yield monitor


@pytest.fixture(scope="module")
def one_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    def made() -> AbstractContextManager[Fleet]:
        return closing(Fleet(tmp_path_factory.mktemp("qmp"), ["a"], slots=4, allow_overwrite=True, qmp=True))

    return share(request, made)


@pytest.fixture
def fleet(one_host: Fleet) -> Fleet:
    """The fleet, whole, without a job and without a node."""
    one_host.mend()
    return one_host


@pytest.fixture
def monitor(fleet: Fleet) -> Iterator[Monitor]:
    assert fleet.qmp is not None
    with Monitor(fleet.qmp) as monitor:
        yield monitor
        for job in monitor.ok("query-jobs"):
            if job["status"] != "concluded":
                monitor.raw("job-cancel", id=job["id"])
                monitor.until_status(job["id"], "concluded")
            monitor.raw("job-dismiss", id=job["id"])
        nodes = {node["node-name"] for node in monitor.ok("query-named-block-nodes")}
        while nodes:  # those that others are built on come later
            nodes -= {name for name in nodes if "return" in monitor.raw("blockdev-del", node_name=name)}


@pytest.fixture
def images(fleet: Fleet, monitor: Monitor) -> Path:
    """Five images of 4 MiB, ``a`` to ``e``, and a node of each one's name; ``small`` is smaller.  Nothing else."""
    root = fleet.root("a")
    for left in root.iterdir():
        if left.is_file() or left.is_symlink():
            left.unlink()
    for name in "abcde":
        fleet.image("a", f"{name}.img", 4)
    (root / "small.img").write_bytes(b"s" * MIB)
    for name in [*"abcde", "small"]:
        monitor.ok("blockdev-add", driver="file", node_name=name, filename=str(root / f"{name}.img"))
    return root
