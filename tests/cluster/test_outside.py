"""A driver and a volume outside our packages, found where they are installed: anyone can write one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import MIB, Fleet

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.jobs import OnError

OUTSIDE = Path(__file__).parent / "outside"
PATTERN = {"driver": "pattern", "host": "d", "byte": 65, "size": 3 * MIB + 5}


@pytest.fixture(scope="module")
def installed(four_hosts: Fleet) -> Iterator[Fleet]:
    """The distribution ``outside`` on host d, and here, where runs are submitted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(OUTSIDE))
        patch.setattr(sys, "path", [*sys.path, str(OUTSIDE)])
        volumespec.external_driver.cache_clear()
        for name in ("steps@d", "copy@d"):
            four_hosts.restart(name)
        four_hosts.await_up(["d"])
        yield four_hosts
    volumespec.external_driver.cache_clear()
    for name in ("steps@d", "copy@d"):
        four_hosts.restart(name)


def test_a_job_of_somebody_elses_driver_obeys_every_verb(installed: Fleet) -> None:
    source = installed.image("d", "scrubbed.img", 2)
    rule = {"iotype": "read", "sector": MIB // 512, "once": True}
    image = {"driver": "file", "filename": str(source)}
    sick = {"driver": "blkdebug", "host": "d", "image": image, "inject-error": [rule]}
    job: dict[str, object] = {
        "id": "s", "type": "scrub", "sync": "all", "source": sick, "target": {"driver": "null-co", "host": "d"},
        "options": {"rounds": 3}, "on_source_error": OnError.STOP,
    }  # fmt: skip
    run = installed.submit(installed.plan([job]))
    installed.until_status(f"{run}.s", "paused")
    assert installed.job(f"{run}.s").io_status == "failed"
    installed.registry.verbs.resume(f"{run}.s")
    ready = installed.until("BLOCK_JOB_READY", f"{run}.s")
    assert (ready.fields["type"], ready.fields["offset"]) == ("scrub", str(6 * MIB))
    installed.registry.verbs.pause(f"{run}.s")
    installed.until_status(f"{run}.s", "standby")
    installed.registry.verbs.resume(f"{run}.s")
    installed.registry.verbs.complete(f"{run}.s")
    ended = installed.until("RUN_ENDED", run)
    assert (ended.fields["failed"], ended.fields["cancelled"]) == ("0", "0")


@pytest.mark.parametrize("type_", ["backup", "mirror"])
def test_a_volume_of_somebody_elses_kind_is_copied_by_our_drivers(installed: Fleet, type_: str) -> None:
    target = installed.root("d") / f"pattern-{type_}.img"
    job: dict[str, object] = {"id": "p", "type": type_, "source": PATTERN, "target": f"d:{target}"}
    run = installed.submit(installed.plan([job]))
    if type_ == "mirror":
        installed.until("BLOCK_JOB_READY", f"{run}.p")
        installed.registry.verbs.complete(f"{run}.p")
    installed.until("RUN_ENDED", run)
    assert target.read_bytes() == b"A" * (3 * MIB + 5)


def test_a_driver_that_its_host_does_not_have_is_named_at_open(fleet: Fleet) -> None:
    source = fleet.image("a", "unscrubbed.img", 1)
    job: dict[str, object] = {
        "id": "s", "type": "scrub", "source": f"a:{source}", "target": {"driver": "null-co", "host": "a"}
    }  # fmt: skip
    run = fleet.submit(fleet.plan([job]))
    fleet.until("RUN_ENDED", run)
    assert fleet.job(f"{run}.s").error == "no driver 'scrub' on host a"


def test_a_volume_of_an_unknown_kind_is_refused_with_qemus_text() -> None:
    with pytest.raises(BadInput, match="Parameter 'driver' does not accept value 'qcow3'"):
        volumespec.parse_volume({**PATTERN, "driver": "qcow3"})


def test_a_stored_volume_is_read_back_also_where_its_driver_is_not_installed(installed: Fleet) -> None:
    volume = volumespec.parse_volume(PATTERN)
    stored = volumespec.to_dict(volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [path for path in sys.path if path != str(OUTSIDE)])
        volumespec.external_driver.cache_clear()
        assert volumespec.parse_volume(stored) == volume
    volumespec.external_driver.cache_clear()
    assert volume.lock == f"d:pattern-65-{3 * MIB + 5}"
