"""The room that a target is going to need: estimated, added up over a host's share, and no reason to refuse a guess."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import JobId, RunId
from blockjobs.model.jobs import JobSpec, OnError, RoomCheck
from blockjobs.model.room import Estimate, backup_series, estimate_room
from blockworker.drivers.backup import Backup
from blockworker.steps.steps import _room_for
from blockworker.targets.room import Room

MIB = 1 << 20
QCOW2 = {"driver": "qcow2", "host": "web1", "file": {"driver": "file", "filename": "/backup/root.qcow2"}}


@pytest.mark.parametrize(
    ("last", "allocated", "compress", "expected"),
    [
        (0, 7, False, Estimate(7, "data of the source")),
        (5, 7, False, Estimate(5, "last backup")),
        (5, None, False, Estimate(5, "last backup")),
        (5, 7, True, Estimate(5, "last backup")),
        (0, 7, True, None),
        (0, None, False, None),
        (0, 0, False, Estimate(0, "data of the source")),
    ],
)
def test_the_estimate_is_the_last_backup_or_the_data_of_a_raw_file(site, last, allocated, compress, expected):
    assert estimate_room(site.spec(compress=compress), last=last, allocated=allocated) == expected


def test_backups_of_one_job_are_a_series_whatever_the_run_is(site):
    first = site.spec(run=RunId("nightly-20261122T103000Z"), id=JobId("nightly-20261122T103000Z.web1-root"))
    again = replace(first, run=RunId("nightly-20261123T103000Z"), id=JobId("nightly-20261123T103000Z.web1-root"))
    assert backup_series(first) == backup_series(again) == "nightly web1-root full raw"
    other = [
        replace(first, id=JobId("nightly-20261122T103000Z.web2-root")),
        replace(first, run=RunId("weekly-20261122T103000Z"), id=JobId("weekly-20261122T103000Z.web1-root")),
        replace(first, target=volumespec.parse_volume(QCOW2)),
        replace(first, target=volumespec.parse_volume(QCOW2), compress=True),
        replace(first, sync="top"),
    ]
    assert len({backup_series(first), *map(backup_series, other)}) == 6


@pytest.mark.parametrize("kind", ["restore", "verify"])
def test_what_makes_no_backup_is_of_no_series(site, kind):
    assert backup_series(site.spec(type=kind)) == ""


def test_a_sparse_image_needs_its_data_and_not_its_size(site):
    with site.image(b"").open("r+b") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"x" * MIB)
    opened = Backup().open(site.roots, site.spec(snapshot="none"), lambda: True)
    assert opened.allocated is not None
    assert MIB <= opened.allocated < 2 * MIB


def too_much(site) -> int:
    about = os.statvfs(site.backup)
    return about.f_bavail * about.f_frsize + (1 << 40)


def test_too_little_room_refuses_a_job_that_is_checked_and_warns_one_that_is_not(site):
    spec, needed = site.spec(), too_much(site)
    for words in ({"last": needed, "allocated": None}, {"last": 0, "allocated": needed}):
        with pytest.raises(JobFailed, match=r"needs .* bytes, .* are free; with 'room: warn'") as failed:
            _room_for(Room(site.roots), spec, **words)
        assert failed.value.errno == errno.ENOSPC
        need, warnings = _room_for(Room(site.roots), replace(spec, room=RoomCheck.WARN), **words)
        assert need == (os.stat(site.backup).st_dev, needed)
        assert len(warnings) == 1
        assert ("last backup" in warnings[0]) is bool(words["last"])


def test_a_job_that_stops_where_there_is_no_space_waits_for_room_later(site):
    spec = site.spec(on_target_error=OnError.ENOSPC)
    _, warnings = _room_for(Room(site.roots), spec, too_much(site), None)
    assert "will stop and wait for room" in warnings[0]


def test_nothing_is_refused_where_nobody_can_tell(site):
    need, warnings = _room_for(Room(site.roots), site.spec(), 0, None)
    assert need is None
    assert "nobody can tell how much room" in warnings[0]


def test_the_needs_of_a_thousand_members_are_added_up_over_their_batches(site):
    about = os.statvfs(site.backup)
    each = about.f_bavail * about.f_frsize // 500
    told: dict[int, int] = {}  # what the registry adds up of the batches that were answered
    fitting = 0

    def batch() -> None:
        nonlocal fitting
        room = Room(site.roots, told)
        for _ in range(100):
            (system, needed), _ = _room_for(room, site.spec(), each, None)
            told[system] = told.get(system, 0) + needed
            fitting += 1

    for _ in range(4):
        batch()
    refused = 0
    while not refused:
        try:
            batch()
        except JobFailed:
            refused = fitting
    assert 480 < refused < 520, "free space may change a little meanwhile"


def test_a_spec_of_an_earlier_release_is_checked(site):
    keys = site.spec().to_dict()
    del keys["room"]
    assert JobSpec.from_dict(keys).room is RoomCheck.CHECK
    assert JobSpec.from_dict(site.spec(room=RoomCheck.WARN).to_dict()).room is RoomCheck.WARN
