"""``blockjobs resolve``: a run whose image cannot be published ends as a user says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fleet import Fleet

WAYS = {"replace": "disk.img", "beside": "disk.img.{run}", "discard": ""}  # and the image that is published


def command(fleet: Fleet, *words: str) -> tuple[int, str]:
    env = os.environ | {"BLOCKJOBS_REDIS_URL": fleet.server.url}
    done = subprocess.run(
        [sys.executable, "-m", "blockjobs", *words], capture_output=True, text=True, env=env, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """One host that allows images to be replaced."""
    with closing(Fleet(tmp_path, ["a"], allow_overwrite=True)) as made:
        yield made


def test_each_way_out_of_a_name_that_a_foreign_file_has_ends_the_run(fleet: Fleet) -> None:
    source, top = fleet.image("a", "resolve.img", 1), fleet.root("a")
    for way, name in WAYS.items():
        target = f"a:{top}/{{run}}/disk.img"
        job: dict[str, object] = {"id": way, "source": f"a:{source}", "target": target, "auto_finalize": False}
        run = fleet.submit(fleet.plan([job]))
        job_id, place = f"{run}.{way}", top / run
        fleet.until("BLOCK_JOB_PENDING", job_id)
        code, told = command(fleet, "resolve", job_id, f"--{way}")
        assert (code, "is not one that is committed and cannot be published" in told) == (2, True)
        (place / "disk.img").write_text("foreign")
        fleet.registry.verbs.finalize(job_id)
        fleet.until("JOB_UNSETTLED", job_id)
        code, told = command(fleet, "resolve", job_id, f"--{way}", "--json")
        assert (code, json.loads(told)["resolved"]) == (0, way), told
        assert fleet.until("JOB_RESOLVED", job_id).fields["how"] == way
        ended = fleet.until("RUN_ENDED", run)
        assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")
        published = name.format(run=run)
        contents = {path.name: path.read_bytes() for path in place.iterdir() if "disk.img" in path.name}
        foreign = {key for key, content in contents.items() if content == b"foreign"}
        assert foreign == {f"disk.img.replaced-{run}" if way == "replace" else "disk.img"}
        assert contents.get(published) == (source.read_bytes() if published else None)
        kept = [target.path for target in fleet.registry.history.targets([fleet.registry.views.run(run)])]
        assert kept == ([f"{place}/{published}"] if published else [])
        assert "resolved:" in command(fleet, "show", job_id)[1]
    code, told = command(fleet, "resolve", job_id, "--discard")
    assert (code, "status 'concluded'" in told) == (2, True)
