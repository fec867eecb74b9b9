"""Restore roots: a restore writes below them, and reads what was published below any root; no other job does either."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from carried import Machine, carry_out, open_job, unprivileged

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput, JobFailed
from blockworker.cuts import cut_files
from blockworker.drivers.backup import Backup
from blockworker.drivers.mirror import Mirror
from blockworker.drivers.restore import Restore
from blockworker.host.config import load_host_config
from blockworker.host.ownership import expect_owner_can_be_given
from blockworker.host.roots import Roots
from blockworker.questions.forecast import forecast_job
from blockworker.questions.look import inspect_volumes
from blockworker.questions.prune import Pruner, Question
from blockworker.questions.resize import resize_image

CONTENT = b"A" * 5000 + bytes(70_000) + b"end"


@pytest.fixture
def machine(tmp_path) -> Machine:
    for name in ("images", "backup", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/root.img").write_bytes(CONTENT)
    return Machine(tmp_path)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(JobFailed) as failed:
        call()
    assert failed.value.errno in {errno.EACCES, errno.ENOENT, errno.EINVAL, errno.ENOTSUP}, failed.value
    return failed.value.text


def test_a_restore_reads_what_lies_below_a_write_root_and_writes_below_a_restore_root(machine):
    machine.backed_up()
    carry_out(Restore(), Roots(machine.config), machine.job("restore", "backup/root.img", "images/back.img"))
    assert (machine.base / "images/back.img").read_bytes() == CONTENT
    assert forecast_job(Roots(machine.config), machine.job("restore", "backup/root.img", "images/b2.img"))["bytes"] > 0


def test_a_restore_into_a_write_root_needs_no_restore_root(machine):
    machine.backed_up()
    roots = Roots(replace(machine.config, restore_roots=()))
    carry_out(Restore(), roots, machine.job("restore", "backup/root.img", "backup/back.img"))
    assert (machine.base / "backup/back.img").read_bytes() == CONTENT


def test_an_image_below_a_write_root_alone_is_restored_onto_a_device(machine):
    machine.backed_up()
    disk = machine.base / "disk"
    disk.write_bytes(bytes(1 << 20))
    attached = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        target = volumespec.parse_volume({"driver": "host_device", "host": machine.config.name, "filename": device})
        spec = replace(machine.job("restore", "backup/root.img", "unused"), target=target, in_place=True)
        roots = Roots(replace(machine.config, read_roots=(), devices=(device,), allow_in_place=True))
        carry_out(Restore(), roots, spec)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert disk.read_bytes() == CONTENT + bytes((1 << 20) - len(CONTENT))


NEVER: dict[str, Callable[[Machine, Roots], object]] = {
    "backup": lambda m, r: Backup().open(r, m.job("backup", "images/root.img", "images/copy.img"), lambda: True),
    "mirror": lambda m, r: Mirror().open(r, m.job("mirror", "images/root.img", "images/copy.img"), lambda: True),
    "backup from a write root": lambda m, r: Backup().open(
        r, m.job("backup", "backup/root.img", "backup/copy.img"), lambda: True
    ),
    "restore to elsewhere": lambda m, r: Restore().open(
        r, m.job("restore", "backup/root.img", "elsewhere/copy.img"), lambda: True
    ),
    "restore from elsewhere": lambda m, r: Restore().open(
        r, m.job("restore", "elsewhere/root.img", "images/copy.img"), lambda: True
    ),
    "restore of what was never published": lambda m, r: Restore().open(
        r, m.job("restore", "images/root.img", "images/copy.img"), lambda: True
    ),
    "plan of a backup": lambda m, r: forecast_job(r, m.job("backup", "images/root.img", "images/copy.img")),
    "reflink beside it": lambda m, r: cut_files.intended_cut(
        r, m.job("backup", "images/root.img", "backup/copy.img", snapshot="reflink"), "0" * 32
    ),
}


@pytest.mark.parametrize("what", NEVER)
def test_nothing_but_a_restore_of_what_was_published_uses_a_restore_root(machine, what):
    machine.backed_up()
    before = sorted(machine.base.rglob("*"))
    assert refused(lambda: NEVER[what](machine, Roots(machine.config)))
    assert sorted(machine.base.rglob("*")) == before, "nothing was made"


def test_nothing_below_a_restore_root_is_resized_pruned_or_offered_as_a_target(machine):
    roots, path = Roots(replace(machine.config, allow_overwrite=True)), f"{machine.base}/images/root.img"
    volume = volumespec.to_dict(volumespec.parse_volume(f"web1:{path}"))
    answer = resize_image(roots, volume, 1, in_use=lambda *_: False, permitted=lambda: True)
    assert answer is not None
    assert answer["errno"] == errno.EACCES
    target = {"path": path, "job": "R.a", "run": "R", "transaction": "R", "base": os.path.dirname(path)}
    pruned = Pruner(roots, in_use=lambda *_: False).answer(Question([target], ()))
    assert "outside the write roots" in pruned[0]["text"]
    assert inspect_volumes(roots, [{"as": "target", "volume": volume}])[0]["errno"] == errno.EACCES
    assert Path(path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("source", "target", "key"),
    [
        ("backup/root.img", "elsewhere/x.img", 'restore-roots = ["{base}/images", "{base}/elsewhere"]'),
        ("elsewhere/root.img", "images/x.img", 'read-roots = ["{base}/images", "{base}/elsewhere"]'),
    ],
)
def test_a_refused_restore_names_the_key_and_the_file_that_would_allow_it(machine, source, target, key):
    machine.backed_up()
    said = refused(lambda: open_job(Restore(), Roots(machine.config), machine.job("restore", source, target)))
    assert said.endswith(f"; to allow it, set {key.format(base=machine.base)} in /etc/here/host.toml of host web1")


def test_a_restore_root_below_a_write_root_changes_no_place_of_a_journal(machine):
    config = replace(machine.config, restore_roots=(f"{machine.base}/backup/vms", f"{machine.base}/backup"))
    assert config.target_roots == config.write_roots


# --- owner and mode of backups -----------------------------------------------------------------------------


def written(base: Path, more: str) -> Path:
    path = base / "host.toml"
    path.write_text(f'name = "web1"\nread-roots = ["{base}"]\nwrite-roots = ["{base}"]\n{more}\n')
    return path


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('backup-mode = "0777"', "backup-mode: '0777'"),
        ('backup-mode = "0440"', "backup-mode: '0440'"),
        ('backup-mode = "4600"', "backup-mode: '4600'"),
        ('backup-mode = "0641"', "backup-mode: '0641'"),
        ('backup-mode = "rw"', "backup-mode: 'rw'"),
        ("backup-mode = 600", "backup-mode: 600"),
        ('backup-owner = "no-such-user-here"', "backup-owner: there is no user 'no-such-user-here' on this machine"),
        ('backup-owner = ":no-such-group"', "backup-owner: there is no group 'no-such-group' on this machine"),
        ('backup-owner = "root:"', "backup-owner: 'root:'"),
        ('backup-owner = "a b"', "backup-owner: 'a b'"),
        ('backup-owner = ["root"]', "backup-owner: ['root']"),
        ('restore-roots = ["srv"]', "restore-roots: "),
        ('restore-roots = ["/no/such/directory"]', "restore-roots: '/no/such/directory' is not an existing directory"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(tmp_path, line, text):
    path = written(tmp_path, line)
    with pytest.raises(BadInput) as failed:
        load_host_config(path)
    assert str(failed.value).startswith(f"{path}: {text}")


@pytest.mark.parametrize(
    ("owner", "ids"),
    [("", (-1, -1)), ("root", (0, -1)), ("root:root", (0, 0)), (":root", (-1, 0)), ("65534:65533", (65534, 65533))],
)
def test_an_owner_is_a_user_a_group_or_both_by_name_or_number(tmp_path, owner, ids):
    config = load_host_config(written(tmp_path, f'backup-owner = "{owner}"\nbackup-mode = "0640"'))
    assert (config.backup_ids, config.backup_mode, config.directory_mode) == (ids, 0o640, 0o750)
    assert config.path == str(tmp_path / "host.toml")


def test_a_worker_that_cannot_give_files_away_says_so_when_it_starts(tmp_path):
    config = load_host_config(written(tmp_path, 'backup-owner = "65533:65533"'))

    def refusals() -> list[str]:
        found = []
        for owner in ("", str(os.geteuid()), config.backup_owner):
            try:
                expect_owner_can_be_given(owner, config.path)
            except BadInput as wrong:
                found.append(str(wrong))
        return found

    (refusal,) = unprivileged(refusals)
    assert refusal.startswith(f"{config.path}: backup-owner: user ")
    assert "cannot give files to '65533:65533'" in refusal


def about(path: Path) -> tuple[int, int, int]:
    st = path.stat()
    return st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)


def test_a_backup_and_the_directories_made_for_it_have_the_mode_of_the_host(machine):
    config = replace(machine.config, backup_mode=0o640)
    target = "backup/run/root.img"
    spec = machine.job("backup", "images/root.img", target, target_base=f"{machine.base}/backup")
    carry_out(Backup(), Roots(config), spec)
    image = machine.base / target
    for path in (image, Path(f"{image}.blake3"), Path(f"{image}.manifest.json")):
        assert about(path)[2] == 0o640, path
    assert about(image.parent)[2] == 0o750
    assert about(machine.base / "backup")[2] != 0o750, "a directory that was there stays as it was"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")
def test_a_backup_and_the_directories_made_for_it_have_the_owner_of_the_host(machine):
    config = replace(machine.config, backup_owner="65534:65533", backup_mode=0o660)
    target = "backup/run/root.img"
    spec = machine.job("backup", "images/root.img", target, target_base=f"{machine.base}/backup")
    carry_out(Backup(), Roots(config), spec)
    image = machine.base / target
    for path in (image, Path(f"{image}.blake3"), Path(f"{image}.manifest.json")):
        assert about(path) == (65534, 65533, 0o660), path
    assert about(image.parent) == (65534, 65533, 0o770)
    assert about(machine.base / "backup")[0] == 0
