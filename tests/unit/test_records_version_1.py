"""What version 1 left on a disk is read, resumed, committed and aborted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from recorded import RECORDS, STATES, lay_out

from blockjobs.model.errors import JobFailed
from blockworker.host.roots import Root
from blockworker.records import devices, journal
from blockworker.records.devices import DeviceState
from blockworker.targets import manifest, settle
from blockworker.targets.opening import find_member
from blockworker.targets.proof import NotPublished
from blockworker.targets.staged import StagedTarget

IMAGE = b"A" * (1 << 20) + b"B" * (1 << 20) + b"tail"
NAMES = ("root", "data")


@pytest.fixture
def old(site):
    """A host whose write root holds a transaction of two jobs in the given state."""
    site.image(IMAGE)

    def left(state):
        lay_out(state, site.base, IMAGE)
        return site, [site.spec(f"R.{name}", f"R/{name}.img") for name in NAMES]

    return left


def published(site):
    """Whether both images are there, whole, and nothing else is beside them."""
    beside = ("", ".blake3", ".manifest.json")
    expected = sorted(f"{name}.img{suffix}" for name in NAMES for suffix in beside)
    assert sorted(os.listdir(site.backup / "R")) == expected
    for name in NAMES:
        path = f"{site.backup}/R/{name}.img"
        assert Path(path).read_bytes() == IMAGE
        assert not manifest.verify_image(path, manifest.load_manifest(f"{path}.manifest.json")).bad
    return True


def give_number(site, device):
    """Have the journal name another device number, as where its file system is mounted again."""
    path = site.backup / ".blockjobs/R.journal"
    keys = json.loads(path.read_text())
    for member in keys["members"].values():
        member["dev"] = device
    path.write_text(json.dumps(keys))


UNMOUNTED = os.makedev(4095, 1048575)


@pytest.mark.parametrize("end", ["commit", "abort"])
@pytest.mark.parametrize("state", ["opened", "copied", "prepared"])
def test_a_file_system_that_was_mounted_again_keeps_its_transaction(old, state, end):
    site, specs = old(state)
    give_number(site, UNMOUNTED)
    if end == "commit" and state != "prepared":
        for spec in specs:
            site.prepared(spec)
    settle_all(site, specs, end)
    if end == "commit":
        assert published(site)
    else:
        assert site.tree() == [".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal"]


def test_a_commit_that_dies_behind_the_rename_on_such_a_file_system_is_finished(old, monkeypatch):
    site, specs = old("prepared")
    give_number(site, UNMOUNTED)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(settle, "publish_description", dies)
        with pytest.raises(KeyboardInterrupt):
            settle.commit_job(site.roots, specs[0], 9)
    assert (site.backup / "R/root.img").exists()
    settle_all(site, specs, "commit")
    assert published(site)


def test_a_file_on_another_file_system_that_is_mounted_beside_it_is_not_taken(old):
    site, specs = old("prepared")
    give_number(site, os.stat("/proc").st_dev)
    for spec in specs:
        with pytest.raises(NotPublished, match=r"is another file than .*blockjobs resolve R\.\w+ --discard"):
            settle.commit_job(site.roots, spec, 9)
    assert not list((site.backup / "R").glob("*.img"))


def settle_all(site, specs, how):
    for spec in specs:
        if how == "commit":
            settle.commit_job(site.roots, spec, 9)
        else:
            settle.abort_job(site.roots, spec, 9, opened=True)
    assert settle.clean_transaction(site.roots, "R", Root(str(site.backup)))


def test_every_state_that_is_recorded_is_tested():
    assert {path.name for path in RECORDS.iterdir()} == {*STATES, "devices", "highest.json"}


@pytest.mark.parametrize("state", ["opened", "copied"])
def test_what_was_opened_is_opened_again_copied_prepared_and_committed(old, state):
    site, specs = old(state)
    before = [find_member(site.roots, spec).uuid for spec in specs]
    members = [site.prepared(spec) for spec in specs]
    assert [member.uuid for member in members] == before, "another OPEN finds the files that the first one made"
    settle_all(site, specs, "commit")
    assert published(site)


def test_a_token_of_an_earlier_attempt_still_counts(old):
    site, specs = old("copied")
    StagedTarget.take(site.roots, find_member(site.roots, specs[0]), 1).close()
    with pytest.raises(Exception, match=r"R\.root"):
        StagedTarget.take(site.roots, find_member(site.roots, specs[0]), 0)


@pytest.mark.parametrize("state", ["prepared", "commit-half-done"])
def test_what_was_prepared_is_committed(old, state):
    site, specs = old(state)
    settle_all(site, specs, "commit")
    assert published(site)


@pytest.mark.parametrize("state", ["opened", "copied", "prepared", "abort-half-done"])
def test_what_is_undecided_or_was_to_be_aborted_is_aborted_and_leaves_nothing(old, state):
    site, specs = old(state)
    settle_all(site, specs, "abort")
    assert site.tree() == [".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal"]


def test_a_decision_that_was_noted_is_not_turned(old):
    site, specs = old("commit-half-done")
    noted = journal.read_journal(site.roots, Root(str(site.backup)), "R")
    assert noted is not None
    with pytest.raises(JobFailed, match="committed"):
        settle.abort_job(site.roots, specs[1], noted.decision_number, opened=True)
    for spec in specs:  # by a registry that has lost that decision
        settle.abort_job(site.roots, spec, noted.decision_number + 1, opened=True)
    assert published(site)


def test_a_tombstone_answers_a_commit_that_comes_again_and_lets_nothing_be_opened(old):
    site, specs = old("tombstone")
    settle_all(site, specs, "commit")
    assert published(site)
    with pytest.raises(JobFailed):
        site.opened(site.spec("R.late", "R/late.img"))
    record = journal.read_journal(site.roots, Root(str(site.backup)), "R")
    assert (record.clean, record.decision, record.decision_number) == (True, "commit", 9)


@pytest.mark.parametrize("state", DeviceState)
def test_a_record_of_a_device_is_read(state):
    record = devices.DeviceRecord.parse((RECORDS / "devices" / f"{state}.json").read_bytes(), "it")
    assert (record.state, record.job, record.size, record.device_size) == (state, "R.root", 2 << 20, 4 << 20)
    assert bool(record.left_by) == (state in (DeviceState.INVALID, DeviceState.UNDEFINED))
