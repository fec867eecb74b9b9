"""What is left behind: an image that cannot be published (``resolve``), the files of a lost registry (``sweep``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from commands import run_command
from fleet import MIB, Fleet, files

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.resolve import Resolve
from blockjobs.ask.sweep import Sweep
from blockjobs.model.errors import Refused
from blockjobs.model.ids import Host
from blockjobs.model.resolutions import Resolution
from blockjobs.process.spawn import spawn_child
from blockjobs.registry import keys

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
    nothing = "nothing is left of transactions that the registry does not know\n"
    assert command(fleet, "sweep", "--dry-run") == (0, nothing)
    run = fleet.submit(fleet.plan([job], speed=MIB // 16))
    fleet.until("ATTEMPT_CLAIMED", f"{run}.x")
    assert list(sweep(fleet.hosts, dry=False)) == []
    gone = lose_registry(fleet)
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


RULES = """version: 1
name: nightly
transactions:
  - name: db
    keep: {{last: 1}}
    jobs:
      - {{id: disk, source: "a:{top}/night.img", target: "a:{top}/nights/{{run}}/disk.img"}}
"""


def lose_registry(fleet: Fleet) -> str:
    """As if the disk of Redis had gone, and with it all that was in it; the registry that was there."""
    for name in list(fleet.processes):
        fleet.kill(name)
    gone = fleet.registry.hosts.incarnate()
    fleet.client.flushall()
    fleet.seq = "0"
    fleet.mend()
    return gone


def test_after_the_loss_of_a_registry_a_rescan_brings_the_nights_back_and_they_are_kept(fleet: Fleet) -> None:
    """docs/restore.md, the registry is lost: the steps that it names, one after the other."""
    source, top = fleet.image("a", "night.img", 2), fleet.root("a")
    nights, plan = top / "nights", top / "nightly.yaml"
    nights.mkdir()
    fleet.env["STATE_DIRECTORY"] = str(fleet.place / "finalizer")
    fleet.restart("finalizer")
    plan.write_text(RULES.format(top=top))
    first, second = source.read_bytes(), b"second".ljust(2 * MIB, b".")
    assert command(fleet, "run", str(plan))[0] == 0
    (night,) = (path.name for path in nights.iterdir())
    image = str(nights / night / "disk.img")
    told = run_command("verify", image, url="redis://127.0.0.1:1/0")
    assert (told.returncode, "bytes as in the manifest" in told.stdout) == (0, True), "no Redis is asked"
    number = int(fleet.client.get(keys.decisions()))
    fleet.until_closed()
    gone = lose_registry(fleet)
    assert "no runs yet" in command(fleet, "history")[1]
    by_path = ("restore", f"a:{nights}/{night}/disk.img", f"a:{top}/by-path.img")
    code, told = command(fleet, *by_path)
    way = f"registry accept-loss --registry {gone} {number}"
    assert (code, way in told) == (2, True), told
    assert command(fleet, "registry", "accept-loss", "--registry", gone, str(number - 1), "--yes")[0] == 2
    code, told = command(fleet, *way.split(), "--yes")
    assert (code, told.splitlines()) == (0, [
        f"the next decision is number {number + 1}", "a: carries out the decisions of this registry from now on"
    ]), told  # fmt: skip
    fleet.until_true(lambda: not fleet.registry.memory.doubt_hosts(fleet.hosts))  # it has beaten anew
    code, told = command(fleet, *by_path)
    assert code == 0, told
    assert (top / "by-path.img").read_bytes() == first, "a path needs an empty registry only"

    dry, told = command(fleet, "rescan", "--dry-run")
    assert "would be added" in told
    code, told = command(fleet, "rescan", "a")
    assert (code, dry) == (0, 0), told
    assert "they are not pruned until `blockjobs prune " in told
    known = command(fleet, "history", "nightly")[1]
    assert (night in known, "kept: found by a rescan" in known) == (True, True), known
    assert command(fleet, "rescan")[1].endswith("nothing was found that is not known\n")
    code, told = command(fleet, "verify", night)
    assert code == 0, told
    code, told = command(fleet, "restore", f"{night}.disk", f"a:{top}/by-job.img")
    assert code == 0, told
    assert (top / "by-job.img").read_bytes() == first

    source.write_bytes(second)
    for _ in range(2):
        assert command(fleet, "run", str(plan))[0] == 0
    fleet.until_true(lambda: len([*nights.iterdir()]) == 2)  # the coordinator prunes behind each
    there = {path.name: (path / "disk.img").read_bytes() for path in nights.iterdir()}
    assert there.pop(night) == first, "the rules do not hold for it"
    assert [*there.values()] == [second]
    would = command(fleet, "prune", "nightly", "--dry-run")[1]
    assert f"would be pruned  {night}" in would
    assert (nights / night).is_dir()
    code, told = command(fleet, "prune", "nightly", "--yes")
    assert code == 0, told
    assert [path.name for path in nights.iterdir()] == [*there]
    ended = {line.split()[0]: line.split()[-1] for line in command(fleet, "history", "nightly")[1].splitlines()}
    assert ended[night] == "pruned"


def test_a_host_that_has_another_name_keeps_its_nights(fleet: Fleet) -> None:
    """docs/restore.md, a host has another name: its state directory is named in host.toml, and stays."""
    source, top = fleet.image("a", "named.img", 1), fleet.root("a")
    run = fleet.submit(fleet.plan([{"id": "x", "source": f"a:{source}", "target": f"a:{top}/{{run}}-named.img"}]))
    fleet.until("RUN_ENDED", run)
    assert "has a worker that is there" in command(fleet, "hosts", "rename", "a", "a2", "--yes")[1]
    for name in ("steps@a", "copy@a"):
        fleet.kill(name)
    fleet.until("HOST_DOWN", "a")
    config = (fleet.place / "a.toml").read_text()
    (fleet.place / "a2.toml").write_text(config.replace('name = "a"', 'name = "a2"'))
    for queue in ("steps", "copy"):
        words = ["worker", "--host", "a2", "--queue", queue, "--config", str(fleet.place / "a2.toml")]
        env = os.environ | {"BLOCKJOBS_REDIS_URL": fleet.server.url, **fleet.env}
        log = fleet.place / "logs" / f"{queue}@a2.log"
        fleet.processes[f"{queue}@a2"] = spawn_child([sys.executable, "-m", "blockjobs", *words], log=log, env=env)
    fleet.until("HOST_UP", "a2")
    code, told = command(fleet, "rescan", "a2")
    assert (code, "nothing was found" in told, "`blockjobs hosts rename a a2`" in told) == (0, True, True), told
    code, told = command(fleet, "hosts", "rename", "a", "a2", "--yes")
    assert code == 0, told
    fleet.until_true(lambda: [*fleet.registry.hosts.known()] == [Host("a2")])
    code, told = command(fleet, "verify", run)
    assert code == 0, told
    code, told = command(fleet, "restore", f"{run}.x", f"a2:{top}/renamed.img")
    assert code == 0, told
    code, told = command(fleet, "rescan", "--json")
    (host,) = json.loads(told)
    assert (code, host["host"], host["found"], host["moved"]) == (0, "a2", 0, 0)
    assert host["known"] >= 1
    (top / "moved").mkdir()
    for beside in ("", ".blake3", ".manifest.json"):
        (top / f"{run}-named.img{beside}").rename(top / "moved" / f"{run}-named.img{beside}")
    assert command(fleet, "verify", run)[0] == 1
    code, told = command(fleet, "rescan", "--json")
    assert (code, [host["moved"] for host in json.loads(told)]) == (0, [1]), told
    code, told = command(fleet, "verify", run)
    assert code == 0, told
