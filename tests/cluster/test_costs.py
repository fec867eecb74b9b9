"""What a host that rests, and a copy that runs, cost Redis, the broker's share included: commands and connections."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from fleet import MIB, Fleet

SECONDS = 9.0  # three beats of each worker, four checkpoints of a copy
A_SECOND = 4  # commands
CONNECTIONS = 6
OF_A_COPY = 8  # commands a second


def connections_of(fleet: Fleet, user: str) -> int:
    return sum(each["user"] == user for each in fleet.client.client_list())


def monitored(fleet: Fleet) -> tuple[list[dict[str, Any]], float]:
    """What Redis was asked for, those within scripts included, as MONITOR has it; and for how many seconds."""
    rows: list[dict[str, Any]] = []
    with fleet.client.monitor() as monitor:
        while not rows or rows[-1]["time"] - rows[0]["time"] < SECONDS:
            rows.append(monitor.next_command())
    return rows, rows[-1]["time"] - rows[0]["time"]


def commands_of(fleet: Fleet, host: str) -> tuple[Counter[str], float]:
    """The commands that name one host and no other one, those within scripts included; and how long was looked."""
    seen: Counter[str] = Counter()
    rows, seconds = monitored(fleet)
    for row in rows:
        if {*re.findall(r"bj:(?:h:|celery:steps\.|celery:copy\.)(\w+)", row["command"])} == {host}:
            seen[row["command"].split(" ")[0].upper()] += 1
        elif row["command"].startswith("PUBLISH"):  # Celery's signs of life, in which no text names the host
            seen["PUBLISH of all hosts"] += 1
    seen["PUBLISH"] = -(-seen.pop("PUBLISH of all hosts", 0) // len(fleet.hosts))
    return seen, seconds


def test_a_host_that_rests_costs_four_commands_a_second_and_six_connections(fleet: Fleet) -> None:
    fleet.until_quiet()
    # Those of its start are closed, and those of an errand come and go.
    fleet.until_true(lambda: 0 < connections_of(fleet, "worker-d") <= CONNECTIONS)
    seen, seconds = commands_of(fleet, "d")
    assert seen["EVALSHA"] >= 4, "both of its workers beat"
    assert seen.total() <= A_SECOND * seconds, seen


def commands_of_copy(fleet: Fleet, job: str) -> tuple[Counter[str], float]:
    """The commands for a copy on host a, the only one of its fleet; those in scripts are counted, as by ``INFO``."""
    names = (job, "bj:h:a:attempts", "bj:h:a:fences", "task.progress")
    seen: Counter[str] = Counter()
    rows, seconds = monitored(fleet)
    ours = False
    for row in rows:
        if row["client_type"] != "lua":  # what a script calls follows it
            ours = any(name in row["command"] for name in names)
        if ours:
            seen[row["command"].split(" ")[0].upper()] += 1
    return seen, seconds


def test_a_copy_that_runs_costs_eight_commands_a_second(fleet: Fleet) -> None:
    source = fleet.image("a", "long.img", 64)
    job = {"id": "long", "source": f"a:{source}", "target": f"a:{source.with_name('copy.img')}", "speed": MIB}
    run = fleet.submit(fleet.plan([job]))
    fleet.until_offset(f"{run}.long", MIB)
    seen, seconds = commands_of_copy(fleet, f"{run}.long")
    assert fleet.job(f"{run}.long").status == "running"
    assert min(seen[name] for name in ("BLPOP", "EVALSHA", "HGETALL", "HMGET")) >= 3, "its line and the watcher look"
    assert seen.total() <= OF_A_COPY * seconds, seen
