"""``on-source-error: skip`` through a fleet: a salvaged backup is committed, told, and never taken for a whole one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from fleet import MIB, Fleet

from blockjobs.model.policies import Verdict

PAGE = 4096
BAD = 5 * MIB + 3 * PAGE  # the page that cannot be read


def start(fleet: Fleet, name: str, mib: int, **more: object) -> tuple[str, str, Path, Path]:
    """A backup of an image with one bad sector; run, job, source, target."""
    source, target = fleet.image("d", f"{name}.img", mib), fleet.root("d") / f"{name}.out"
    image = {"driver": "file", "filename": str(source)}
    rule = {"iotype": "read", "errno": 5, "sector": BAD // 512 + 1}
    volume = {"driver": "blkdebug", "host": "d", "image": image, "inject-error": [rule]}
    job = {"id": name, "source": volume, "target": f"d:{target}", "on_source_error": "skip", **more}
    run = fleet.submit(fleet.plan([job]))
    return run, f"{run}.{name}", source, target


def expect_salvaged(fleet: Fleet, run: str, job: str, source: Path, target: Path) -> None:
    content = bytearray(source.read_bytes())
    content[BAD : BAD + PAGE] = bytes(PAGE)
    assert target.read_bytes() == bytes(content)
    manifest = json.loads(target.with_name(f"{target.name}.manifest.json").read_text())
    assert manifest["salvaged"] == [[BAD, BAD + PAGE]]
    assert fleet.job(job).result["salvaged"] == [[BAD, BAD + PAGE]]
    assert fleet.registry.views.run(run).salvaged == 1
    assert fleet.registry.views.verdict(run) is Verdict.FAILED


def test_a_bad_sector_costs_its_page_and_the_run_ends_with_one(fleet: Fleet) -> None:
    run, job, source, target = start(fleet, "salvaged", 8)
    fleet.until("RUN_ENDED", run)
    assert fleet.job(job).ret == 0
    expect_salvaged(fleet, run, job, source, target)


def test_what_a_killed_worker_had_skipped_is_in_the_manifest(fleet: Fleet) -> None:
    run, job, source, target = start(fleet, "killed", 96, speed=24 * MIB)
    fleet.until("ATTEMPT_CLAIMED", job)
    fleet.until_offset(job, 16 * MIB)
    fleet.until_durable("d", job)
    os.kill(fleet.writer("d", job), signal.SIGKILL)
    fleet.until("ATTEMPT_RELEASED", job)
    fleet.registry.verbs.set_speed(job, 0)
    fleet.until("RUN_ENDED", run)
    assert fleet.job(job).attempts == 2
    assert fleet.job(job).bytes["read"] < 2 * 96 * MIB
    expect_salvaged(fleet, run, job, source, target)
