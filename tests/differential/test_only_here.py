"""What docs/qmp-differences.md says of ours that no story can show."""

from __future__ import annotations

import pytest
from iotest import MIB, SLOW, Bench
from vocabulary import backup, group, member

GUESTS = ("block-stream", "block-commit", "blockdev-snapshot", "blockdev-snapshot-sync", "nbd-server-start",
          "block-export-add", "query-block", "quit")  # fmt: skip


@pytest.mark.parametrize("command", GUESTS)
def test_what_needs_a_guest_or_a_graph_is_not_found(fleet: Bench, command: str) -> None:
    error = {"class": "CommandNotFound", "desc": f"The command {command} has not been found"}
    assert fleet.qmp(command)["error"] == error
    assert command not in [known["name"] for known in fleet.ok("query-commands")]


def test_a_backup_of_what_a_guest_overwrites_is_refused(fleet: Bench) -> None:
    fleet.image("a0")
    fleet.image("b0")
    assert fleet.refused("blockdev-backup", **member(0, sync="none").arguments) == "Sync mode 'none' not supported"
    fleet.assert_no_active_block_jobs()


def test_the_version_is_the_one_whose_texts_are_followed(fleet: Bench) -> None:
    version = fleet.ok("query-version")
    assert version["qemu"] == {"major": 11, "minor": 0, "micro": 0}
    assert version["package"].startswith("blockjobs ")


def test_a_cancelled_backup_leaves_its_target_as_it_was(fleet: Bench) -> None:
    fleet.image("a0", fill=True)
    before = fleet.image("b0", fill=True).read_bytes()
    fleet.ok("blockdev-backup", **member(0, speed=SLOW).arguments)
    fleet.until("j0", "running")
    fleet.cancel_and_wait("j0")
    assert (fleet.place / "b0").read_bytes() == before
    assert sorted(path.name for path in fleet.place.iterdir()) == ["a0", "b0"]


def test_a_group_that_fails_leaves_the_targets_of_members_that_had_finished(fleet: Bench) -> None:
    for n in range(2):
        fleet.image(f"a{n}", fill=True)
        fleet.image(f"b{n}", fill=True)
    before = (fleet.place / "b0").read_bytes()
    fleet.fault("bad", "a1", "read", errno=5, offset=2 * MIB)
    failing = backup("j1", "bad", "b1", speed=SLOW)
    fleet.ok("transaction", **group(member(0), failing).arguments)
    fleet.until("j0", "waiting")
    fleet.ok("block-job-set-speed", device="j1", speed=0)
    fleet.until("j0", "null")
    assert (fleet.place / "b0").read_bytes() == before
    assert sorted(path.name for path in fleet.place.iterdir()) == ["a0", "a1", "b0", "b1"]


def test_a_client_that_comes_back_asks_for_what_it_missed(fleet: Bench) -> None:
    fleet.image("a0", fill=True)
    fleet.image("b0")
    fleet.ok("blockdev-backup", **member(0).arguments)
    seen = []
    for event in fleet.events():
        seen.append(event)
        if event["data"].get("status") == "null":
            break
    again = fleet.ok("x-events-since", since=seen[0]["timestamp"])
    assert [event for event in again["events"] if event in seen] == seen[1:]
    assert (again["more"], again["gap"]) == (False, False)
