"""A job goes on upon another host that sees the same disks, and is refused by one that does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from fleet import MIB, Fleet, files
from mounts import mounted

from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import errors
from blockworker.host.config import HostConfig, host_config_text


class Shared(Fleet):
    """Hosts m and n see one directory, each beside its own; o does not see it."""

    @property
    def common(self) -> Path:
        return self.place / "common"

    def start(self, name: str, *, wrapper: Iterable[str] = ()) -> None:
        self.common.mkdir(exist_ok=True)
        for host in self.hosts[:2]:
            roots = (str(self.root(host)), str(self.common))
            config = HostConfig(name=host, slots=2, read_roots=roots, write_roots=roots)
            path = self.place / f"{host}.toml"
            if path.read_text() != host_config_text(
                config
            ):  # else a worker that starts meanwhile might find the file empty
                path.write_text(host_config_text(config))
        super().start(name, wrapper=wrapper)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    fleet = Shared(tmp_path_factory.mktemp("shared"), ["m", "n", "o"])
    yield fleet
    fleet.close()


def backup(fleet: Shared, place: Path, *more: dict[str, object]) -> tuple[str, str, Path, Path]:
    """Start a backup on host m from and to one directory, which takes longer than what a test does meanwhile, whatever
    the disk has to do; run, job id, source, target."""
    source = place / "source.img"
    if not source.exists():
        fleet.image("m", "fresh.img", 40).rename(source)
    job = {"id": "job", "source": f"m:{source}", "target": f"m:{place}/{{run}}.img", "speed": 2 * MIB}
    run = fleet.submit(fleet.plan([job, *more]))
    fleet.until_offset(f"{run}.job", 2 * MIB)
    return run, f"{run}.job", source, place / f"{run}.img"


def test_a_job_takes_its_cut_along(tmp_path: Path) -> None:
    with mounted("xfs", tmp_path / "xfs") as top:
        fleet = Shared(top, ["m", "n"])
        try:
            run, job, source, target = backup(fleet, fleet.common)
            before = source.read_bytes()
            source.write_bytes(bytes(len(before)))
            with Client(fleet.server.url) as here:
                assert here.move(job, "n", timeout=20) == "running"
            fleet.registry.verbs.set_speed(job, 0)
            assert fleet.until("RUN_ENDED", run).fields["failed"] == "0"
            assert target.read_bytes() == before
            assert not [name for name in files(fleet.common) if name.endswith(".cut")]
        finally:
            fleet.close()


def test_a_job_moves_and_copies_nothing_twice(shared: Shared) -> None:
    other = {
        "id": "stays",
        "source": f"m:{shared.image('m', 'stays.img', 2)}",
        "target": f"m:{shared.root('m')}/stays.out",
    }
    run, job, source, target = backup(shared, shared.common, other)
    with Client(shared.server.url) as here:
        first = shared.writer("m", job)
        assert here.move(job, "n", timeout=20) == "running"
        shared.until("JOB_MOVED", job)
        shared.until("ATTEMPT_CLAIMED", job)
        assert shared.writer("n", job) != first
        here.set_speed(job, 0)
        assert here.wait([run], 40) == {run: True}
        view = here.get(job)
    assert (view.host, view.attempts, view.lost, view.bytes["recopied"]) == ("n", 2, 0, 0)
    assert target.read_bytes() == source.read_bytes()
    assert (shared.root("m") / "stays.out").exists()


def test_a_moved_job_that_is_cancelled_leaves_nothing(shared: Shared) -> None:
    before = files(shared.common)
    run, job, *_ = backup(shared, shared.common)
    with Client(shared.server.url) as here:
        here.pause(job)
        assert here.move(job, "n", timeout=20) == "paused", "its user holds it still"
        here.cancel(job, wait=True, timeout=20)
        assert here.run(run).cancelled == 1
    assert files(shared.common) <= before | {"source.img"}


@pytest.mark.parametrize(("host", "why"), [
    ("n", "is outside the"), ("o", "is outside the"), ("m", "is on host 'm' already"), ("x", "is not known"),
])  # fmt: skip
def test_a_host_that_does_not_see_the_disks_is_refused_and_the_job_goes_on(shared: Shared, host: str, why: str) -> None:
    run, job, source, target = backup(shared, shared.root("m"))
    with Client(shared.server.url) as here:
        with pytest.raises(errors.Refused, match=why):
            here.move(job, host, timeout=20)
        assert not here.get(job).paused
        here.set_speed(job, 0)
        assert here.wait([run], 40) == {run: True}
    assert target.read_bytes() == source.read_bytes()


def test_a_ready_mirror_moves_and_goes_on_though_its_source_was_written_to(shared: Shared) -> None:
    source = shared.common / "mirrored.img"
    shared.image("m", "fresh.img", 8).rename(source)
    job: dict[str, object] = {
        "id": "job", "type": "mirror", "source": f"m:{source}", "target": f"m:{shared.common}/{{run}}.img",
    }  # fmt: skip
    run = shared.submit(shared.plan([job]))
    shared.until("BLOCK_JOB_READY", f"{run}.job")
    with source.open("r+b") as file:
        file.write(b"written before the move")
    with Client(shared.server.url) as here:
        assert here.move(f"{run}.job", "n", timeout=20) == "ready"
        shared.until("ATTEMPT_CLAIMED", f"{run}.job")
        with source.open("r+b") as file:
            file.seek(5 * MIB)
            file.write(b"written behind it")
        here.complete(f"{run}.job")
        assert here.wait([run], 40) == {run: True}
        assert here.get(f"{run}.job").host == "n"
    assert (shared.common / f"{run}.img").read_bytes() == source.read_bytes()
