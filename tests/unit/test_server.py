"""Our own Redis server: what it is set to, what survives its death, where its socket goes."""

from __future__ import annotations

import stat
import tempfile
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from blockjobs import server as servers
from blockjobs import settings
from blockjobs.model.errors import NoRedis
from blockjobs.server import LONGEST_SOCKET, RedisServer


def client(server: RedisServer):
    return closing(redis.Redis.from_url(server.url, socket_timeout=5))


def test_a_started_server_answers_and_a_stopped_one_is_gone(tmp_path):
    with RedisServer(tmp_path) as server:
        assert server.answers()
        process = psutil.Process(server.pid)
    assert not server.answers()
    assert not process.is_running()
    assert server.pid is None


def test_it_is_set_up_to_lose_nothing(tmp_path):
    wanted = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no",
              "maxmemory-policy": "noeviction", "save": "", "port": "0"}  # fmt: skip
    with RedisServer(tmp_path) as server, client(server) as redis_client:
        assert {name: redis_client.config_get(name)[name] for name in wanted} == wanted


def test_only_its_owner_reaches_the_socket(tmp_path):
    with RedisServer(tmp_path / "new") as server:
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700


def test_every_acknowledged_write_survives_a_kill_9(tmp_path):
    server = RedisServer(tmp_path).start()
    with client(server) as redis_client:
        for number in range(100):
            redis_client.rpush("numbers", number)
    server.kill()
    with server.start(), client(server) as redis_client:
        assert redis_client.lrange("numbers", 0, -1) == [str(number).encode() for number in range(100)]


def test_a_server_left_behind_is_ended_before_another_one_starts(tmp_path):
    left = RedisServer(tmp_path).start()
    process = psutil.Process(left.pid)
    with client(left) as redis_client:
        redis_client.set("kept", "yes")
    with RedisServer(tmp_path) as server, client(server) as redis_client:
        assert not process.is_running()
        assert redis_client.get("kept") == b"yes"
    left.stop()


def test_a_pid_file_of_somebody_else_s_process_harms_nobody(tmp_path):
    (tmp_path / "redis.pid").write_text(str(psutil.Process().ppid()))
    with RedisServer(tmp_path) as server:
        assert server.pid != psutil.Process().ppid()
    assert psutil.pid_exists(psutil.Process().ppid())


@pytest.fixture
def short():
    """A folder with a short name, whatever the tests' own are called."""
    with tempfile.TemporaryDirectory(prefix="bj-") as place:
        yield Path(place)


def test_a_path_too_long_for_a_socket_gets_a_short_one_of_its_own(tmp_path, short, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    server = RedisServer(tmp_path / ("x" * 60) / ('a "quoted" name ' * 4))
    assert len(bytes(server.socket)) <= LONGEST_SOCKET
    assert server.socket == RedisServer(server.directory).socket
    with server:
        assert server.answers()
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    assert list(short.iterdir()) == []


def test_a_directory_that_others_can_reach_is_not_used_for_the_socket(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = RedisServer(tmp_path / ("x" * LONGEST_SOCKET))
    server.socket.parent.mkdir()
    server.socket.parent.chmod(0o755)
    with pytest.raises(NoRedis, match="is not a private directory"):
        server.start()


def test_a_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(NoRedis, match=r"did not start: .*AOF manifest"):
        RedisServer(tmp_path).start()


def test_a_server_on_path_is_preferred_to_the_wheel_s(tmp_path, monkeypatch):
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert servers.find_binary() == str(program)
    program.unlink()
    assert Path(servers.find_binary()).name.endswith("-server")


# --- where Redis is ------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Neither URL nor directory in the environment; the state directory is empty."""
    for name in ("BLOCKJOBS_REDIS_URL", "BLOCKJOBS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = tmp_path / "blockjobs"
    directory.mkdir()
    return directory


def test_the_flag_wins_over_the_environment_and_that_over_the_file(bare, monkeypatch):
    settings.write_env(bare, "unix:///from/file?db=0")
    assert settings.find_url() == "unix:///from/file?db=0"
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", "redis://environment")
    assert settings.find_url() == "redis://environment"
    assert settings.find_url("redis://flag") == "redis://flag"


def test_without_any_url_the_error_says_what_to_do(bare):
    with pytest.raises(NoRedis, match=r"not reachable: no URL .* start `blockjobs up` or set BLOCKJOBS_REDIS_URL"):
        settings.find_url()


def test_only_its_owner_can_read_the_url(bare):
    settings.write_env(bare, "redis://:secret@host")
    assert stat.S_IMODE((bare / "env").stat().st_mode) == 0o600
    assert [path.name for path in bare.iterdir()] == ["env"]
