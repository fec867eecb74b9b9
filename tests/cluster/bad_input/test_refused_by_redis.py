"""A Redis that is not there, would forget, or refuses: exit 3, and no password is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sites import SECRET, Site, job

from blockjobs.registry.connection import connect_client
from blockjobs.server import RedisServer
from blockjobs.settings import URL

URLS: dict[str, tuple[str, str]] = {
    "nobody listens":  (f"redis://user:{SECRET}@127.0.0.1:1/0", "not reachable at redis://user:***@127.0.0.1:1/0:"),
    "no socket":       ("unix:///nowhere.sock?db=0", "not reachable at unix:///nowhere.sock?db=0: Error 2"),
    "no such machine": (f"redis://:{SECRET}@no.invalid/0", "is not reachable at redis://:***@no.invalid/0: Error -"),
    "secret option":   (f"redis://127.0.0.1:1/0?password={SECRET}", "cannot be used: user and password stand before"),
    "secret with #":   (f"redis://u:{SECRET}#{SECRET}@127.0.0.1:1", "cannot be used:"),
    "secret with ?":   (f"redis://u:{SECRET}?{SECRET}@127.0.0.1:1", "cannot be used:"),
    "secret with /":   (f"redis://u:{SECRET}/{SECRET}@127.0.0.1:1", "cannot be used:"),
    "secret with @":   (f"redis://u:{SECRET}@{SECRET}@127.0.0.1:1", "is not reachable at redis://u:***@127.0.0.1:1:"),
    "no URL":          (SECRET, "Redis URL '***' cannot be used: redis://"),
    "another scheme":  (f"http://u:{SECRET}@x/", "Redis URL 'http://u:***@x/' cannot be used: redis://"),
    "no port":         ("redis://127.0.0.1:99999", "Redis URL 'redis://127.0.0.1:99999' cannot be used"),
    "unknown option":  (f"redis://127.0.0.1:1/0?pass={SECRET}", "Redis URL 'redis://127.0.0.1:1/0' cannot be used"),
    "nothing":         ("", "no URL is given and none is in "),
}  # fmt: skip


@pytest.mark.parametrize(("url", "said"), URLS.values(), ids=URLS)
def test_a_redis_that_is_not_there_is_exit_3_and_no_password_is_shown(site: Site, monkeypatch, tmp_path, url, said):
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv("BLOCKJOBS_DIR", str(tmp_path))
    site.say("status").refused(said, "Redis", code=3)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("other")) as server:
        yield server


SETTINGS = {
    "evicts":        ("maxmemory-policy", "allkeys-lru", "'noeviction' is needed, because an eviction would delete"),
    "evicts random": ("maxmemory-policy", "volatile-random", "'noeviction' is needed, because"),
    "keeps nothing": ("appendonly", "no", "'yes' is needed, because a restart would lose the registry"),
    "keeps late":    ("appendfsync", "everysec", "'always' is needed, because 'everysec' lost acknowledged writes"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), SETTINGS.values(), ids=SETTINGS)
def test_a_redis_that_would_forget_is_exit_3_and_not_written_to(site, other, name, value, said):
    os.environ[URL] = other.url  # ``site`` sets it back
    with connect_client(other.url) as client:
        good = client.config_get(name)[name]
        client.config_set(name, value)
        for words in (["run", site.file(job())], ["status"], ["coordinator"], ["finalizer"]):
            site.say(*words).refused(f"it has '{name} {value}': {said}", f"set '{name} {good}' in redis.conf", code=3)
        client.config_set(name, good)
        assert client.dbsize() == 0
    assert site.say("status").code == 0


def test_a_redis_that_refuses_commands_is_exit_3(site: Site, other: RedisServer, monkeypatch: pytest.MonkeyPatch):
    with connect_client(other.url) as client:
        client.acl_setuser("weak", enabled=True, nopass=True, commands=["+ping", "+hello", "+client", "+config"])
        client.set("bj:runs", "of another type")
        monkeypatch.setenv(URL, other.url)
        site.say("status").refused("Redis refused a command: ", "wrong kind of value", code=3)
        monkeypatch.setenv(URL, f"unix://weak:{SECRET}@{other.socket}?db=0")
        site.say("status").refused("Redis does not let the user of this URL do that: ", "has no permissions", code=2)
        client.acl_setuser("weak", enabled=True, reset_passwords=True, passwords=[f"+{SECRET}{SECRET}"])
        site.say("status").refused("Redis is not reachable at ", "invalid username-password pair", code=3)
        client.delete("bj:runs")
