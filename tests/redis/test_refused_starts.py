"""A start that is refused: those are told whom its file lists, once, and nobody where somebody looks."""

from __future__ import annotations

import sys

import pytest
from puppets import ALPHA
from test_overlap import FIRST, plan

from blockjobs.cli import refusal
from blockjobs.daemons.lookout import Lookout
from blockjobs.model.errors import NoSuchRun
from blockjobs.registry import keys
from blockjobs.registry.attention import KEPT

pytestmark = pytest.mark.durable

FILE = """\
version: 1
name: nightly
overdue: 26h
notify: {attention: ["https://ops.example.com/hidden"]}
jobs: [{id: one, source: "alpha:/srv/one.img", target: "alpha:/backup/{run}/one.img"}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nightly.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def fleet(fleet):
    fleet.registry.hosts.judge(ALPHA, "up")
    return fleet


def told(fleet):
    """What those are told that are told now, by one that takes all of it."""
    taken = [fleet.registry.notices.take(run, n, "me", lease=60) for run, n in fleet.registry.notices.due()]
    return [each.said for each in taken if each is not None]


@pytest.mark.parametrize(
    "why", ["another one goes on", "a host is down", "the file is wrong", "a transaction is not there"]
)
def test_a_refused_start_is_told_once_with_its_reason_by_the_coordinator(fleet, command, file, why):
    words = ["run", str(file), "--detach"]
    match why:
        case "another one goes on":
            fleet.registry.submit.submit(plan(FIRST))
            says = f"{FIRST} is still going"
        case "a host is down":
            fleet.registry.hosts.judge(ALPHA, "down")
            says = "host 'alpha' is down"
        case "the file is wrong":
            file.write_text(FILE.replace("version: 1", "version: 2"))
            says = "nightly.yaml:1: version: 2 is not supported"
        case _:
            words += ["--only", "web"]
            says = "has no such transaction"
    code, _, err = command(*words)
    assert code == 2
    assert "a notification of the refusal goes to https://ops.example.com/***" in err
    (said,) = told(fleet)
    assert (said["verdict"], said["name"], said["run"], said["needs"][0]["cause"]) == (
        "attention",
        "nightly",
        None,
        "refused",
    )
    assert says in said["needs"][0]["text"]
    assert command(*words)[0] == 2
    assert told(fleet) == [], "the same reason is not told again"
    assert "hidden" not in command("events")[1]


def test_another_reason_is_told_and_so_is_the_same_one_after_a_start_that_was_not_refused(fleet, command, file):
    def refuse(version):
        file.write_text(FILE.replace("version: 1", f"version: {version}"))
        assert command("run", str(file))[0] == 2
        return len(told(fleet))

    assert [refuse(2), refuse(3), refuse(3)] == [1, 1, 0]
    file.write_text(FILE)
    assert command("run", str(file), "--detach")[0] == 0
    assert refuse(3) == 1
    turn, why = fleet.client.hget(keys.names(), "told:refused nightly").decode().split()
    fleet.client.hset(keys.names(), "told:refused nightly", f"{int(turn) - 1} {why}")  # half a day ago
    assert [refuse(3), refuse(3)] == [1, 0]


def test_the_events_show_whether_it_was_told(fleet, command, file):
    fleet.registry.hosts.judge(ALPHA, "down")
    command("run", str(file))
    ((run, number),) = fleet.registry.notices.due()
    fleet.registry.notices.sent(fleet.registry.notices.take(run, number, "me", lease=60))
    assert "notification 'attention' sent to https://ops.example.com/***" in command("events")[1]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (("version: 1", "version: ["), None),
        (("nightly", "9nightly"), None),
        (("https://ops", "no URL"), None),
        (("overdue: 26h", "overdue: soon"), "nightly"),
        (("jobs:", "job:"), "nightly"),
    ],
    ids=["no YAML", "no name", "no URL", "only its time is wrong", "another field is wrong"],
)
def test_of_a_wrong_file_those_are_told_whom_it_names_where_that_can_be_read(fleet, command, file, change, name):
    file.write_text(FILE.replace(*change))
    code, _, err = command("run", str(file))
    assert code == 2
    assert [said["name"] for said in told(fleet)] == [name] * bool(name)
    assert ("a notification of the refusal goes to" in err) == bool(name)


def test_a_terminal_is_somebody(fleet, command, file, monkeypatch):
    fleet.registry.hosts.judge(ALPHA, "down")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(NoSuchRun), refusal.refusal_told(file, None):
        raise NoSuchRun("x")
    assert told(fleet) == []


def test_what_skip_means_is_no_refusal_and_is_told_to_nobody(fleet, command, file):
    file.write_text(FILE + "on-overlap: skip\n")
    fleet.registry.submit.submit(plan(FIRST))
    assert command("run", str(file))[0] == 0
    assert told(fleet) == []


def test_its_notices_are_forgotten_after_a_while_as_no_run_takes_them_along(fleet, command, file):
    fleet.registry.hosts.judge(ALPHA, "down")
    command("run", str(file))
    (name,) = fleet.client.keys(f"{keys.run_notices('@*')}")
    assert 0 < fleet.client.pttl(name) <= KEPT
    fleet.client.delete(name)
    assert told(fleet) == []
    assert not fleet.client.exists(keys.notices())


def test_a_name_whose_first_start_is_refused_is_overdue_all_the_same_when_its_time_is_over(fleet, command, file):
    fleet.registry.hosts.judge(ALPHA, "down")
    command("run", str(file))
    told(fleet)
    fleet.client.hincrby(keys.names(), "since:nightly", -27 * 3600 * 1000)
    command("run", str(file))
    assert command("overdue", "nightly")[0] == 2
    Lookout(fleet.registry).look()
    assert [said["needs"][0]["cause"] for said in told(fleet)] == ["overdue"]
