"""What only the host can see: the job fails, and the disks are as they were."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from fleet import MIB
from sites import DISK, FREE, Site

DEVICE = {"driver": "host_device", "host": "a", "filename": "/dev/none"}
FAILS: dict[str, tuple[object, str, dict[str, object], str]] = {
    "missing source":       ("a:ROOT/no.img", FREE, {}, "source ROOT/no.img does not exist on host a"),
    "source is a dir":      ("a:ROOT/dir", FREE, {}, "source ROOT/dir is a directory: a regular file was expected"),
    "source is a FIFO":     ("a:ROOT/fifo", FREE, {}, "source ROOT/fifo is a FIFO: a regular file was expected"),
    "source is a socket":   ("a:ROOT/socket", FREE, {}, "source ROOT/socket is a socket: a regular file was expected"),
    "source is below one":  ("a:ROOT/disk.img/x", FREE, {}, "source ROOT/disk.img/x: a part of it is not a directory"),
    "source is a link":     ("a:ROOT/link.img", FREE, {}, "source ROOT/link.img is or lies behind a symlink"),
    "source behind a link": ("a:ROOT/away/disk.img", FREE, {}, "away/disk.img is or lies behind a symlink: a path"),
    "source outside":       ("a:/etc/passwd", FREE, {}, "/etc/passwd is outside the read roots of host a ("),
    "source in /proc":      ("a:/proc/self/fd/0", FREE, {}, "/proc/self/fd/0 is outside the read roots of host a ("),
    "device not allowed":   ({"driver": "host_device", "host": "a", "filename": "/dev/zero"}, FREE, {},
                             "/dev/zero is not in the devices of host a (none)"),
    "device not writable":  (DISK, "a:/dev/none", {"in-place": True},
                             "host a does not allow devices to be written (/dev/none)"),
    "restore of no backup":  (DISK, FREE, {"type": "restore"}, "disk.img.manifest.json does not exist on host a"),
    "restore of a node":    (DEVICE, FREE, {"type": "restore"}, "the file of a published image was expected"),
    "target exists":        (DISK, "a:ROOT/there.img", {}, "target ROOT/there.img exists already and 'overwrite' was"),
    "overwrite forbidden":  (DISK, "a:ROOT/there.img", {"overwrite": True},
                             "target ROOT/there.img exists already and host a does not allow overwriting"),
    "target is a dir":      (DISK, "a:ROOT/dir", {"overwrite": True}, "target ROOT/dir exists already and is a"),
    "target is a FIFO":     (DISK, "a:ROOT/fifo", {}, "target ROOT/fifo exists already and is a FIFO"),
    "target is a link":     (DISK, "a:ROOT/link.img", {}, "target ROOT/link.img exists already and is a symlink"),
    "target hard-linked":   (DISK, "a:ROOT/twin.img", {}, "ROOT/twin.img is the source itself, or a hard link of it"),
    "hard link, overwrite": (DISK, "a:ROOT/twin.img", {"overwrite": True}, "is the source itself, or a hard link of"),
    "target behind a link": (DISK, "a:ROOT/away/x", {}, "target directory ROOT/away is or lies behind a symlink"),
    "no target directory":  (DISK, "a:ROOT/no/x", {}, "target directory ROOT/no does not exist on host a"),
    "no base directory":    (DISK, "a:ROOT/no/{run}/x", {}, "target directory ROOT/no does not exist on host a"),
    "target below a file":  (DISK, "a:ROOT/disk.img/x", {}, "directory ROOT/disk.img: a part of it is not a directory"),
    "target outside":       (DISK, "a:/var/blockjobs-bad-input", {}, "is outside the write roots of host a ("),
    "target of host b":     (DISK, "a:OTHER/x", {}, "OTHER/x is outside the write roots of host a ("),
    "target is the root":   (DISK, "a:ABOVE", {}, "target ABOVE is a write root itself: a file beneath it was"),
    "target of our names":  (DISK, "a:ROOT/backup/x.part", {}, "names ending in .part, .manifest.json, .blake3 are"),
    "target in a journal":  (DISK, "a:ABOVE/.blockjobs/x", {}, ".blockjobs is the folder of the journals"),
    "name too long":        (DISK, "a:ROOT/backup/" + "n" * 240, {}, "a name of at most 230 bytes was expected"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "target", "keys", "said"), FAILS.values(), ids=FAILS)
def test_what_a_host_refuses_fails_the_job_and_leaves_the_disks_as_they_were(site: Site, source, target, keys, said):
    def full(text: str) -> str:
        return site.path(text.replace("ABOVE", str(site.root.parent)).replace("OTHER", str(site.fleet.root("b"))))

    before = site.disks()
    answer = site.start(source, full(target), **keys)
    answer.line(1, full(said), "aborted after")
    assert site.disks() == before
    assert not site.fleet.client.exists("bj:texts", "bj:h:a:locks")
    site.good()


def test_a_backup_says_so_too_and_again_within_the_same_second(site: Site):
    before = site.disks()
    for _ in range(2):
        words = [site.path(word) for word in ("a:ROOT/no.img", FREE)]
        site.say("backup", *words).line(1, "run backup-", "no.img does not exist on host a")
    assert site.disks() == before


def test_one_bad_member_of_a_group_is_named_and_nothing_is_left_of_the_others(site: Site):
    before = site.disks()
    jobs = [{"id": f"j{n}", "source": DISK, "target": f"a:ROOT/backup/{{run}}/{n}/x"} for n in range(3)]
    said = site.say("run", site.file(*jobs, {"id": "bad", "source": "a:ROOT/no.img", "target": FREE}))
    assert said.code == 1
    first, second = said.err.splitlines()
    assert first.endswith("0 done, 1 failed, 3 cancelled")
    assert second.endswith(site.path("bad failed: source ROOT/no.img does not exist on host a"))
    assert site.disks() == before


def fill(rest: Path) -> None:
    """Let a file take all that is free on its file system."""
    with rest.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_fills_up_fails_the_group_that_does_not_fit_and_the_copy_it_meets(site: Site):
    full = site.root / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "blockjobs-test", full]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        full.rmdir()
        pytest.skip("a small file system cannot be mounted here")
    try:
        before = site.disks()
        jobs = [{"id": f"j{n}", "source": DISK, "target": f"a:ROOT/full/{n}"} for n in range(3)]
        said = site.say("run", site.file(*jobs))
        assert said.code == 1
        assert f"the file system of {full} on host a needs {3 * (3 * MIB - 5)} bytes, 8" in said.err
        assert site.disks() == before

        slow = site.say("run", "--detach", site.file({**jobs[0], "id": "slow", "speed": "512KiB"}))
        job = slow.out.split()[1].removesuffix(":") + ".slow"
        site.fleet.until_offset(job, MIB)
        fill(full / "rest")  # the copy takes of it, too
        site.say("set-speed", job, "0")
        assert site.say("wait", job).code == 1
        error = json.loads(site.say("show", "--json", job).out)["error"]
        assert "/full/" in error
        assert error.endswith("No space left on device")
        assert [path.name for path in full.iterdir()] == ["rest"]

        fill(full / "rest")
        os.truncate(full / "rest", (full / "rest").stat().st_size - MIB)  # too little room at OPEN already
        said = site.say("run", "--detach", site.file({**jobs[0], "id": "waits", "on-target-error": "enospc"}))
        job = said.out.split()[1].removesuffix(":") + ".waits"
        site.fleet.until("JOB_WARNING", job, lambda event: "will stop and wait for room" in event.fields["text"])
        site.fleet.until_status(job, "paused")
        assert site.fleet.job(job).io_status == "nospace"
        (full / "rest").unlink()
        assert site.say("resume", job).code == 0
        assert site.say("wait", job).code == 0
        assert (full / "0").read_bytes() == (site.root / "disk.img").read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", full], check=True)
        full.rmdir()
    site.good()
