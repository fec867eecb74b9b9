"""The judges of a storm see each kind of harm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from oracles import World, violations
from workload import Member, Sent, digest

from blockjobs.server import RedisServer

HOSTS = ("a", "b")
RUN = "story1"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with RedisServer(tmp_path_factory.mktemp("judged")) as server, closing(redis.Redis.from_url(server.url)) as client:
        yield client


@pytest.fixture
def world(client: redis.Redis, tmp_path: Path) -> World:
    """Two hosts, and a grouped run of both that committed."""
    client.flushall()
    members = []
    for host in HOSTS:
        root = tmp_path / host
        root.mkdir()
        (root / "source.img").write_bytes(host.encode() * 100)
        (root / "target.img").write_bytes(host.encode() * 100)
        members.append(Member(f"{RUN}.{host}", host, RUN, root / "source.img", root / "target.img"))
        client.hset(f"bj:h:{host}:job:{RUN}.{host}", mapping={"status": "concluded"})
    client.hset(f"bj:run:{RUN}", mapping={"name": "story", "ended": 1})
    sent = Sent(RUN, members, acknowledged=True)
    digests = {member.source: digest(member.source) for member in members}
    return World(client, [sent], digests, {host: tmp_path / host for host in HOSTS}, frozenset(), frozenset())


def member(world: World) -> Member:
    return world.sent[0].members[0]


def journal(world: World, text: str, name: str = f"{RUN}.journal") -> None:
    folder = world.roots["a"] / ".blockjobs"
    folder.mkdir()
    (folder / name).write_text(text)
    (folder / f".{name}.new").touch()


HARM: dict[str, Callable[[World], object]] = {
    "source .* was changed": lambda world: member(world).source.write_bytes(b"x"),
    "is there and differs": lambda world: member(world).target.write_bytes(b"x"),
    "1 of 2 targets": lambda world: member(world).target.unlink(),
    "and its target is not there": lambda world: member(world).target.unlink(),
    "is b'running' after": lambda world: world.client.hset(f"bj:h:a:job:{RUN}.a", "status", "running"),
    "and its target is there": lambda world: world.client.hset(f"bj:h:a:job:{RUN}.a", "ret", "-5"),
    "does not know it": lambda world: world.client.delete(f"bj:run:{RUN}"),
    "is not over": lambda world: world.client.hdel(f"bj:run:{RUN}", "ended"),
    "part is left on host a": lambda world: (world.roots["a"] / ".target.img.1.part").touch(),
    "journal is left on host a": lambda world: journal(world, '{"decision": null}'),
    "odd.journal is left on host a": lambda world: journal(world, "odd", "odd.journal"),
    "left in attempts of host a": lambda world: world.client.hset("bj:h:a:attempts", f"{RUN}.a", "x"),
    "left in locks of host b": lambda world: world.client.hset("bj:h:b:locks", "w:1", f"{RUN}.b"),
    "left in ready of host b": lambda world: world.client.zadd("bj:h:b:ready", {f"{RUN}.b": 1}),
    "left in unfinished": lambda world: world.client.zadd("bj:unfinished", {RUN: 1}),
}


def test_nothing_is_wrong_with_a_world_that_is_whole(world: World) -> None:
    assert violations(world) == []


def test_a_journal_of_what_was_decided_is_no_harm(world: World) -> None:
    journal(world, '{"decision": "abort"}')
    assert violations(world) == []


@pytest.mark.parametrize("text", HARM)
def test_each_harm_is_seen(world: World, text: str) -> None:

    HARM[text](world)
    assert [each for each in violations(world) if re.search(text, each)]
