"""The examples of deploy/ are fit to be used: a server takes its settings and users, systemd its units."""

from __future__ import annotations

import configparser
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
import redis

from blockjobs.server import Server

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("deploy")) as server, closing(redis.Redis.from_url(server.url)) as client:
        for line in (DEPLOY / "users.acl").read_text().splitlines():
            _, name, *rules = line.split()
            if name != "default":
                client.execute_command("ACL", "SETUSER", name, *rules)
        yield client


def test_a_server_takes_every_setting(client):
    lines = [line.split(maxsplit=1) for line in (DEPLOY / "redis.conf").read_text().splitlines() if line]
    for name, value in (line for line in lines if line[0] not in ("#", "aclfile")):
        assert client.config_set(name, value.strip('"'))


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("bj:h:web1:job:x", True), ("bj:events", True), ("bj:due", True), ("bj:due:wake", True),
     ("bj:h:web2:job:x", False), ("bj:txn:x", False), ("bj:run:x", False), ("other", False)],
)  # fmt: skip
def test_a_worker_writes_what_belongs_to_its_host_and_nothing_else(client, key, allowed):
    answer = client.execute_command("ACL", "DRYRUN", "worker-web1", "SET", key, "value")
    assert (answer in (True, b"OK")) is allowed


@pytest.mark.parametrize("command", [("FLUSHALL",), ("CONFIG", "SET", "save", ""), ("SHUTDOWN",), ("KEYS", "*")])
@pytest.mark.parametrize("user", ["worker-web1", "control"])
def test_nobody_but_the_admin_can_do_harm(client, user, command):
    assert client.execute_command("ACL", "DRYRUN", user, *command) not in (True, b"OK")


def test_every_unit_starts_one_of_our_commands():
    started = []
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.read(path)
        program, command = unit["Service"]["ExecStart"].split()[:2]
        assert program.endswith("/bin/blockjobs")
        started.append(command)
    assert started == ["coordinator", "finalizer", "worker"]


def test_the_host_file_is_toml_with_the_documented_keys():
    keys = tomllib.loads((DEPLOY / "host.toml").read_text())
    roots = {"read-roots", "write-roots", "allow-overwrite", "allow-in-place", "devices"}
    assert set(keys) == {"name", "slots", "thaw-after", "commands"} | roots
