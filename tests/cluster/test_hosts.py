"""Hosts do their own work, and one that is away is named."""

from __future__ import annotations

import signal

import psutil
from fleet import MIB, Fleet


def test_the_processes_that_write_belong_to_the_hosts_that_own_the_targets(fleet: Fleet) -> None:
    jobs: list[dict[str, object]] = [
        {"id": host, "source": f"{host}:{fleet.image(host, 'own.img', 8)}",
         "target": f"{host}:{fleet.root(host)}/{{run}}.img"}
        for host in fleet.hosts
    ]  # fmt: skip
    run = fleet.submit(fleet.plan(jobs, speed=4 * MIB))
    seen: set[str] = set()
    while len(seen) < len(jobs):
        seen.add(fleet.until("ATTEMPT_CLAIMED").id)
    for host in fleet.hosts:
        fleet.until_offset(f"{run}.{host}", 1)
        pid = fleet.writer(host, f"{run}.{host}")
        assert psutil.Process(pid).ppid() == fleet.processes[f"copy@{host}"].pid
        open_files = {file.path for file in psutil.Process(pid).open_files() if ".part" in file.path}
        assert open_files == {str(path) for path in fleet.root(host).glob(f".{run}.img.*.part")}
    fleet.until("RUN_ENDED", run)


def test_a_host_that_goes_down_in_run_is_shown_with_what_it_owes(fleet: Fleet) -> None:
    jobs: list[dict[str, object]] = [
        {"id": host, "source": f"{host}:{fleet.image(host, 'down.img', 12)}",
         "target": f"{host}:{fleet.root(host)}/{{run}}.img"}
        for host in ("a", "b")
    ]  # fmt: skip
    run = fleet.submit(fleet.plan(jobs, speed=4 * MIB))
    fleet.until("ATTEMPT_CLAIMED", f"{run}.b")
    fleet.kill("copy@b", signal.SIGKILL)
    fleet.kill("steps@b", signal.SIGKILL)
    fleet.until_status(f"{run}.a", "waiting")
    fleet.until("HOST_DOWN", "b")
    view = fleet.registry.views.transaction(fleet.job(f"{run}.a").transaction)
    assert view is not None
    assert (view.barrier, view.decision) == ("run", "")
    assert view.owing[fleet.hosts[1]]["run"] == 1
    assert view.owing[fleet.hosts[0]]["run"] == 0
    assert fleet.registry.hosts.known()[fleet.hosts[1]][0] == "down"
    fleet.start("steps@b")
    fleet.start("copy@b")
    ended = fleet.until("RUN_ENDED", run)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")


def test_an_aborted_run_concludes_without_a_host_that_is_down_which_settles_when_it_is_back(fleet: Fleet) -> None:
    jobs: list[dict[str, object]] = [
        {"id": host, "source": f"{host}:{fleet.image(host, 'away.img', 12)}",
         "target": f"{host}:{fleet.root(host)}/{{run}}.img"}
        for host in ("a", "c")
    ]  # fmt: skip
    run = fleet.submit(fleet.plan(jobs, speed=2 * MIB))
    fleet.until("ATTEMPT_CLAIMED", f"{run}.c")
    fleet.kill("copy@c", signal.SIGKILL)
    fleet.kill("steps@c", signal.SIGKILL)
    fleet.until("HOST_DOWN", "c")
    fleet.registry.verbs.cancel(f"{run}.a")
    fleet.until_status(f"{run}.a", "concluded")
    assert fleet.registry.views.run(run).open == 1
    assert list(fleet.root("c").glob(f".{run}.img.*.part")), "nobody else touched its files"
    fleet.start("steps@c")
    fleet.start("copy@c")
    fleet.until("RUN_ENDED", run)
    assert not list(fleet.root("c").glob(f".{run}.img.*"))
