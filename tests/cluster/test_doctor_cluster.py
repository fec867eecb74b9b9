"""``doctor`` on a fleet that is well, and on one that is not."""

from __future__ import annotations

import json

from commands import run_command
from fleet import Fleet

from blockjobs.model.ids import Host
from blockworker.host.config import HostConfig, host_config_text


def doctor(fleet: Fleet, *words: str) -> tuple[int, list[dict[str, str]]]:
    done = run_command("doctor", "--json", *words, url=fleet.server.url)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def errors(findings: list[dict[str, str]]) -> list[str]:
    return [f"{each['subject']}: {each['text']}" for each in findings if each["level"] == "error"]


def test_a_fleet_that_is_well_has_no_errors_and_every_root_is_looked_at(fleet: Fleet) -> None:
    code, findings = doctor(fleet)
    assert (code, errors(findings)) == (0, [])
    subjects = {each["subject"] for each in findings}
    assert {"redis", "registry", "coordinator", "finalizer"} <= subjects
    for host in fleet.hosts:
        assert {f"host {host}", f"host {host} read-root {fleet.root(host)}"} <= subjects
        assert f"host {host} write-root {fleet.root(host)}" in subjects
        assert not list(fleet.root(host).glob(".blockjobs-doctor-*"))
    assert not [each for each in findings if "HOST" in each["text"]]


def test_what_is_wrong_is_named_and_ends_with_1(fleet: Fleet) -> None:
    fleet.client.config_set("appendfsync", "everysec")
    try:
        code, findings = doctor(fleet, "a")
        assert code == 1
        (wrong,) = errors(findings)
        assert wrong.startswith("redis: it has 'appendfsync everysec'")
        assert not [each for each in findings if each["subject"].startswith("host b")], "only the host that was named"
    finally:
        fleet.client.config_set("appendfsync", "always")


def test_a_root_that_is_gone_a_host_that_is_down_and_a_dead_daemon_are_errors(fleet: Fleet) -> None:
    moved = fleet.place / "moved"
    fleet.kill("steps@c")
    fleet.kill("copy@c")
    fleet.until("HOST_DOWN", "c")
    fleet.kill("finalizer")
    fleet.until_true(lambda: not fleet.registry.hosts.daemons()["finalizer"])
    fleet.root("a").rename(moved)
    try:
        code, findings = doctor(fleet)
    finally:
        moved.rename(fleet.root("a"))
    assert code == 1
    found = errors(findings)
    assert [each for each in found if each.startswith("host c: it is down")]
    for side in ("read", "write"):
        about = [each for each in found if each.startswith(f"host a {side}-root {fleet.root('a')}: ")]
        assert len(about) == 1
        assert f"{fleet.root('a')} does not exist on host a" in about[0]
    assert "finalizer: it does not run: no run goes on or ends until it does" in found


def test_a_host_of_which_the_configuration_names_what_is_not_there(fleet: Fleet) -> None:
    root = str(fleet.root("d"))
    path = fleet.place / "d.toml"
    before = path.read_text()
    whose = {"name": Host("d"), "state": str(fleet.place / "state" / "d")}
    config = HostConfig(**whose, read_roots=(root,), write_roots=(root,), commands={"freeze": ("/no/where",)})
    path.write_text(host_config_text(config))
    try:
        fleet.restart("steps@d")
        fleet.await_up(["d"])
        assert errors(doctor(fleet, "d")[1]) == ["host d command freeze: /no/where: No such file or directory"]
    finally:
        path.write_text(before)
        fleet.restart("steps@d")
        fleet.await_up(["d"])
