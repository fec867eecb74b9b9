"""What a host costs Redis while nothing is to be done, the broker's share included: commands and connections."""

from __future__ import annotations

import re
from collections import Counter

from fleet import Fleet

SECONDS = 9.0  # three beats of each worker
A_SECOND = 4  # commands
CONNECTIONS = 6


def connections_of(fleet: Fleet, user: str) -> int:
    return sum(each["user"] == user for each in fleet.client.client_list())


def commands_of(fleet: Fleet, host: str) -> tuple[Counter[str], float]:
    """The commands that name one host and no other one, those within scripts included; and how long was looked."""
    seen: Counter[str] = Counter()
    with fleet.client.monitor() as monitor:
        began = ended = 0.0
        while ended - began < SECONDS:
            row = monitor.next_command()
            began, ended = began or row["time"], row["time"]
            if {*re.findall(r"bj:(?:h:|celery:steps\.|celery:copy\.)(\w+)", row["command"])} == {host}:
                seen[row["command"].split(" ")[0].upper()] += 1
            elif row["command"].startswith("PUBLISH"):  # Celery's signs of life, in which no text names the host
                seen["PUBLISH of all hosts"] += 1
    seen["PUBLISH"] = -(-seen.pop("PUBLISH of all hosts", 0) // len(fleet.hosts))
    return seen, ended - began


def test_a_host_that_rests_costs_four_commands_a_second_and_six_connections(fleet: Fleet) -> None:
    fleet.until_quiet()
    # Those of its start are closed, and those of an errand come and go.
    fleet.until_true(lambda: 0 < connections_of(fleet, "worker-d") <= CONNECTIONS)
    seen, seconds = commands_of(fleet, "d")
    assert seen["EVALSHA"] >= 4, "both of its workers beat"
    assert seen.total() <= A_SECOND * seconds, seen
