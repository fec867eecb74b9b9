"""A night of forty hosts of which two are down: what each ``offline`` policy does, and the exit codes.

Stand-ins for the workers, with the product's own copies of tiny files; the commands are the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from forks import forks

from blockjobs.cli import main
from blockjobs.client.fleet import Fleet as Client
from blockjobs.model.ids import Host, RunId
from blockjobs.model.policies import Verdict

STANDINS = "standins:main"
HOSTS = [f"web{number:02}" for number in range(1, 41)]
DOWN = HOSTS[-2:]
NIGHT = """\
version: 1
name: {name}
hosts: {web: ["web[01-40]"]}
stores: {nas1: {path: "{root}/backup"}}
transactions:
- name: web
  completion-mode: individual
  hosts: web
  store: nas1
  target: "{store}/{host}/{run}/{name}"
  sources: ["{root}/images/{host}.img"]
"""
Command = Callable[..., tuple[int, str, str]]


class Forty(Fleet):
    """The lead fleet's server and daemons; one process stands in for 38 hosts, another for the two that go down."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, [])
        self.disks = place / "disks"
        (self.disks / "backup").mkdir(parents=True)
        (self.disks / "images" / "many").mkdir(parents=True)
        for host in HOSTS:
            self.image(host)
        self.up("most", HOSTS[:-2])

    def image(self, host: str) -> None:
        (self.disks / "images" / f"{host}.img").write_bytes(host.encode() * 1000)

    def up(self, name: str, hosts: list[str]) -> None:
        words, log = ["--root", str(self.disks), self.server.url, *hosts], self.place / "logs" / f"{name}.log"
        self.processes[name] = forks().start(STANDINS, words, log=log, env=os.environ)
        self.await_up(hosts)

    def file(self, name: str, *more: str) -> Path:
        """A run file of that name, with lines added to its transaction."""
        path = self.place / f"{name}.yaml"
        text = NIGHT.replace("{root}", str(self.disks)).replace("{name}\nhosts", f"{name}\nhosts")
        path.write_text(text + "".join(f"  {line}\n" for line in more))
        return path

    def newest(self, name: str) -> RunId:
        return next(run.id for run in self.registry.views.runs() if run.name == name)


def await_down(fleet: Forty) -> None:
    """Whichever of them is noticed first."""
    up = set(DOWN)
    while up:
        up.discard(fleet.until("HOST_DOWN", when=lambda event: event.id in up).id)


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forty]:
    """Two hosts have been up, and are down."""
    fleet = Forty(tmp_path_factory.mktemp("forty"))
    fleet.up("two", DOWN)
    fleet.kill("two")
    await_down(fleet)
    yield fleet
    fleet.close()


@pytest.fixture
def command(forty: Forty, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", forty.server.url)

    def run(*words: object) -> tuple[int, str, str]:
        code = main.run_command_guarded(lambda: main.cli.main(list(map(str, words)), standalone_mode=False))
        return code, *capfd.readouterr()

    return run


def committed(forty: Forty, run: RunId) -> list[str]:
    """The hosts of which the image of a run is there, and right."""
    files = [forty.disks / "backup" / host / run / f"{host}-host" for host in HOSTS]
    return [
        host for host, file in zip(HOSTS, files, strict=True)
        if file.exists() and file.read_bytes() == (forty.disks / "images" / f"{host}.img").read_bytes()
    ]  # fmt: skip


def test_fail_refuses_the_run_and_names_the_hosts(forty, command):
    before = len(forty.registry.views.runs())
    code, out, err = command("run", forty.file("fails"))
    assert (code, out) == (2, "")
    assert err.startswith("blockjobs: host 'web39' is down since ")
    assert "; host 'web40' is down since " in err
    assert err.count("\n") == 1
    assert len(forty.registry.views.runs()) == before


def test_skip_goes_without_them_says_so_and_is_partial(forty, command):
    code, out, err = command("run", forty.file("skips", "offline: skip"))
    run = forty.newest("skips")
    assert code == 4, err
    assert out.startswith(f"run {run}: 38 jobs on 38 hosts, 2 skipped\n")
    assert f"run {run} committed: 38 jobs, " in err
    assert ", 2 skipped (accepted by the run file)" in err
    assert "  web40 skipped: web40-host: host 'web40' is down since " in err
    assert committed(forty, run) == HOSTS[:-2]
    assert command("wait", run)[0] == 4
    view = forty.registry.views.run(run)
    assert (view.jobs, view.skipped, view.mode) == (38, 2, "individual")
    assert [(left.host, left.jobs) for left in view.fields.skipped] == [(host, (f"{host}-host",)) for host in DOWN]
    seen = {event.name: event.fields for event in forty.registry.events.all() if event.id == run}
    assert seen["RUN_PUBLISHED"]["skipped"] == seen["RUN_ENDED"]["skipped"] == "2"
    assert "2 skipped" in command("status", run)[1]
    assert "skipped of transaction web: web39: web39-host: host 'web39' is down" in command("show", run)[1]


@pytest.mark.parametrize(("share", "code"), [("95%", 4), ("96%", 1)])
def test_a_share_of_all_hosts_is_enough_or_not(forty, command, share, code):
    """38 of 40 are 95 %."""
    file = forty.file(f"share{share[:2]}", "offline: skip", f"succeed-if: {share}")
    assert command("run", file)[0] == code
    assert command("wait", forty.newest(f"share{share[:2]}"))[0] == code


def test_a_job_that_fails_counts_like_a_host_that_is_away(forty, command):
    (forty.disks / "images" / "web07.img").unlink()
    try:
        file = forty.file("failing", "offline: skip", "succeed-if: 95%")
        code, _, err = command("run", file)
        run = forty.newest("failing")
        assert (code, f"{run}.web07-host failed: source " in err) == (1, True), err
        assert ": 37 done, 1 failed, 0 cancelled, 2 skipped\n" in err
        assert command("run", file, "--set", "transactions.web.succeed-if=92%")[0] == 4  # 37 of 40 are 92.5 %
        assert command("run", file, "--set", "transactions.web.succeed-if=100%")[0] == 1
        assert len(committed(forty, run)) == 37
    finally:
        forty.image("web07")


def test_all_of_those_that_are_up_is_all(forty, command):
    code, _, err = command("run", forty.file("whole"), "--set", "hosts.web=web[01-38]")
    assert (code, err) == (0, "")


def test_wait_gives_up_when_its_time_is_over(forty, command):
    code, out, err = command("run", forty.file("gives-up", "offline: wait 1s"))
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first == "waiting for 2 hosts, 1 s at most: web39, web40"
    assert second.startswith("blockjobs: host 'web39' is down since ")


def test_wait_goes_on_with_all_once_they_are_up(forty):
    argv = [sys.executable, "-m", "blockjobs", "run", str(forty.file("waits", "offline: wait 2m"))]
    env = os.environ | {"BLOCKJOBS_REDIS_URL": forty.server.url}
    with subprocess.Popen(argv, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        try:
            assert command.stderr is not None
            assert command.stderr.readline().startswith("waiting for 2 hosts, ")
            assert not [run for run in forty.registry.views.runs() if run.name == "waits"]
            forty.up("two", DOWN)
            _, err = command.communicate()
            assert command.returncode == 0, err
            assert committed(forty, forty.newest("waits")) == HOSTS
        finally:
            command.kill()
            forty.kill("two")
    await_down(forty)


def test_globs_are_resolved_on_the_hosts_and_a_run_may_mix_modes(forty, command):
    for name in ("b", "a"):
        (forty.disks / "images" / "many" / f"{name}.img").write_bytes(name.encode() * 5000)
    path = forty.place / "mixed.yaml"
    path.write_text(f"""\
version: 1
name: mixed
hosts: {{all: ["web[01-02]"]}}
defaults: {{target: "{forty.disks}/backup/{{host}}/{{run}}/{{name}}"}}
transactions:
- {{name: both, hosts: all, sources: ["{forty.disks}/images/many/*.img"]}}
- {{name: each, completion-mode: individual, hosts: [web03, web40], offline: skip, sources: ["{forty.disks}/images/many/?.img"]}}
""")  # noqa: E501 - a flow mapping is one line
    code, _, err = command("run", path, "--json")
    run = forty.newest("mixed")
    assert code == 4, err
    view = forty.registry.views.run(run)
    assert (view.mode, view.jobs, view.skipped) == ("mixed", 6, 1)
    jobs = {job.id.removeprefix(f"{run}."): job.transaction.removeprefix(f"{run}.") for job in forty.jobs(run)}
    assert jobs == {
        "web01-a": "both", "web01-b": "both", "web02-a": "both", "web02-b": "both",
        "web03-a": "each.web03-a", "web03-b": "each.web03-b",
    }  # fmt: skip
    assert (forty.disks / "backup" / "web02" / run / "web02-b").read_bytes() == b"b" * 5000
    assert json.loads(command("status", run, "--json")[1])["runs"][0]["completion-mode"] == "mixed"


def test_one_transaction_that_fails_leaves_the_others_of_its_run_alone(forty, command):
    path = forty.place / "two.yaml"
    path.write_text(f"""\
version: 1
name: two
defaults: {{target: "{forty.disks}/backup/{{host}}/{{run}}/{{name}}"}}
transactions:
- {{name: bad, hosts: [web01, web02], sources: ["{forty.disks}/images/{{host}}.img", "{forty.disks}/images/none.img"]}}
- {{name: good, hosts: [web01, web02], sources: ["{forty.disks}/images/{{host}}.img"]}}
""")
    code, _, err = command("run", path)
    run = forty.newest("two")
    assert code == 1, err
    names = {job.id: job.ret == 0 for job in forty.jobs(run)}
    assert sum(names.values()) == 2
    assert forty.registry.views.run(run).bad == {"bad": 4}
    assert forty.registry.views.verdict(run) is Verdict.FAILED
    with Client(forty.server.url) as here:
        assert here.verdict(run) is Verdict.FAILED
    assert Host("web01") in {job.host for job in forty.jobs(run)}
