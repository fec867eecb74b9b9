"""What is left behind: an image that cannot be published (``resolve``), the files of a lost registry (``sweep``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from commands import run_command
from fleet import MIB, Fleet, files

from blockjobs.daemons.doorbell import Doorbell
from blockjobs.daemons.resolve import Resolve
from blockjobs.daemons.sweep import Sweep
from blockjobs.model.errors import Refused
from blockjobs.model.resolutions import Resolution

WAYS = {"replace": "disk.img", "beside": "disk.img.{run}", "discard": ""}  # and the image that is published


def command(fleet: Fleet, *words: str) -> tuple[int, str]:
    done = run_command(*words, url=fleet.server.url)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One host that allows images to be replaced."""
    with closing(Fleet(tmp_path_factory.mktemp("left"), ["a"], allow_overwrite=True)) as made:
        yield made


def test_each_way_out_of_a_name_that_a_foreign_file_has_ends_the_run(fleet: Fleet) -> None:
    source, top = fleet.image("a", "resolve.img", 1), fleet.root("a")
    resolve = Resolve(fleet.registry, Doorbell(fleet.server.url))
    for way, name in WAYS.items():
        target = f"a:{top}/{{run}}/disk.img"
        job: dict[str, object] = {"id": way, "source": f"a:{source}", "target": target, "auto_finalize": False}
        run = fleet.submit(fleet.plan([job]))
        job_id, place = f"{run}.{way}", top / run
        fleet.until("BLOCK_JOB_PENDING", job_id)
        with pytest.raises(Refused, match="is not one that is committed and cannot be published"):
            resolve(job_id, Resolution(way))
        (place / "disk.img").write_text("foreign")
        fleet.registry.verbs.finalize(job_id)
        fleet.until("JOB_UNSETTLED", job_id)
        assert resolve(job_id, Resolution(way))["resolved"] == way
        assert fleet.until("JOB_RESOLVED", job_id).fields["how"] == way
        ended = fleet.until("RUN_ENDED", run)
        assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")
        published = name.format(run=run)
        contents = {path.name: path.read_bytes() for path in place.iterdir() if "disk.img" in path.name}
        foreign = {key for key, content in contents.items() if content == b"foreign"}
        assert foreign == {f"disk.img.replaced-{run}" if way == "replace" else "disk.img"}
        assert contents.get(published) == (source.read_bytes() if published else None)
        kept = [target.path for target in fleet.registry.history.targets([fleet.registry.views.run(run)])]
        assert kept == ([f"{place}/{published}"] if published else [])
    assert "resolved:    not published: its staging file was removed" in command(fleet, "show", job_id)[1]
    code, told = command(fleet, "resolve", job_id, "--discard")
    assert (code, "status 'concluded'" in told) == (2, True)


def test_what_a_lost_registry_left_is_swept_once_the_host_is_told_that_it_is_gone(fleet: Fleet) -> None:
    source, top = fleet.image("a", "lost.img", 8), fleet.root("a")
    job: dict[str, object] = {"id": "x", "source": f"a:{source}", "target": f"a:{top}/lost/{{run}}.img"}
    (top / "lost").mkdir()
    done = fleet.submit(fleet.plan([job]))
    fleet.until("RUN_ENDED", done)
    kept = files(top / "lost")
    sweep = Sweep(fleet.registry, Doorbell(fleet.server.url))
    assert list(sweep(fleet.hosts, dry=True)) == []
    run = fleet.submit(fleet.plan([job], speed=MIB // 16))
    fleet.until("ATTEMPT_CLAIMED", f"{run}.x")
    assert list(sweep(fleet.hosts, dry=False)) == []
    for name in list(fleet.processes):
        fleet.kill(name)
    gone = fleet.registry.hosts.incarnate()
    fleet.client.flushall()
    fleet.seq = "0"
    fleet.mend()
    (row,) = sweep(fleet.hosts, dry=False)
    assert (row["state"], f"has carried out decisions of registry {gone}" in row["text"]) == ("left", True)
    assert files(top / "lost") > kept
    (fleet.place / "state" / "a" / "highest.json").unlink()
    for name in ("steps@a", "copy@a"):
        fleet.restart(name)
    fleet.until_true(lambda: not fleet.registry.memory.doubt_hosts([fleet.hosts[0]]))
    assert "1 transactions have files here that the registry does not know" in command(fleet, "doctor", "a")[1]
    (row,) = sweep(fleet.hosts, dry=False)  # a host that forgets does not make a registry forget
    assert (row["state"], f"--lost {gone}" in row["text"]) == ("left", True)
    (would,) = sweep(fleet.hosts, dry=True, lost=gone)
    code, told = command(fleet, "sweep", "a", "--lost", gone, "--json")
    assert (code, json.loads(told)) == (0, [would]), told
    assert (would["state"], would["path"].endswith(".journal")) == ("removed", True)
    assert files(top / "lost") == kept
    again = fleet.submit(fleet.plan([job]))
    fleet.until("RUN_ENDED", again)
