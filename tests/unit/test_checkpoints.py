"""A checkpoint counts for the very file that it was made of, and for no other."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from carried import Unhindered, attempt_with, open_job

from blockjobs.model.errors import JobFailed, VolumeError
from blockjobs.model.jobs import Checkpoint
from blockjobs.registry.attempts import Claim
from blockworker.drivers.backup import Backup
from blockworker.targets.opening import find_member

WHOLE = ((0, 2 << 20 | 4),)  # bytes of the image of a site


@pytest.fixture
def opened(site):
    site.image()
    return open_job(Backup(), site.roots, site.spec(snapshot="none"))[1]


def second_attempt(site, opened, durable):
    spec = site.spec(snapshot="none")
    return attempt_with(Backup(), site.roots, Unhindered(Claim(2, "a2", spec, opened, durable, 0, 2, 0, {})))


def copied(site):
    return (site.backup / "R" / find_member(site.roots, site.spec()).staging).read_bytes()


def test_what_is_durable_in_another_file_is_copied_again(site, opened):
    durable, _ = second_attempt(site, opened, Checkpoint("of-another-file", WHOLE))
    assert copied(site) == (site.images / "root.img").read_bytes()
    assert durable.staging == find_member(site.roots, site.spec()).uuid


def test_what_is_durable_in_this_file_is_not_copied_again(site, opened):
    second_attempt(site, opened, Checkpoint(find_member(site.roots, site.spec()).uuid, WHOLE))
    assert copied(site) == bytes(WHOLE[0][1])  # the control: nobody had copied it


def test_a_prepare_of_what_is_durable_in_another_file_is_refused(site, opened):
    durable, result = second_attempt(site, opened, Checkpoint())
    other = Checkpoint("of-another-file", durable.ranges)
    with pytest.raises(JobFailed, match="is not in the file that was opened"):
        Backup().prepare(site.roots, site.spec(snapshot="none"), other, opened, result)


class Obeying(Unhindered):
    """A job whose orders are looked at while a sync that was begun does not return."""

    def __init__(self, claim):
        super().__init__(claim)
        self.syncing, self.obeyed = threading.Event(), threading.Event()

    def point(self):
        if self.syncing.is_set():
            self.obeyed.set()


@pytest.mark.parametrize("code", [0, errno.EIO])
def test_orders_are_obeyed_while_the_last_flush_lasts(site, opened, monkeypatch, code):
    job = Obeying(Claim(1, "a1", site.spec(snapshot="none"), opened, Checkpoint(), 0, 1, 0, {}))
    waited, real = [], os.fdatasync

    def fdatasync(fd):
        job.syncing.set()
        waited.append(job.obeyed.wait(20))
        if code:
            raise OSError(code, os.strerror(code))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    if code:
        with pytest.raises(VolumeError) as failed:
            attempt_with(Backup(), site.roots, job)
        assert failed.value.operation == "flush"
    else:
        durable, _ = attempt_with(Backup(), site.roots, job)
        assert durable.ranges == WHOLE
    assert all(waited)
    assert waited
