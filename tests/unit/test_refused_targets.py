"""Targets that OPEN refuses, of which nothing is made."""

from __future__ import annotations

import errno
import os

import pytest

from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.targets.opening import open_member
from blockworker.targets.room import Room


@pytest.mark.parametrize("what", ["part", "blake3"])
def test_nothing_is_made_through_a_name_that_somebody_else_puts_there_meanwhile(site, monkeypatch, what):
    precious, real = site.backup / "precious", os.open
    precious.write_text("precious")
    site.image()

    def open_behind_another(path, flags, *mode, **more):
        if str(path).endswith(f".{what}") and flags & os.O_CREAT:
            os.symlink(precious, path, dir_fd=more["dir_fd"])
        return real(path, flags, *mode, **more)

    with monkeypatch.context() as beside:
        beside.setattr(os, "open", open_behind_another)
        with pytest.raises(JobFailed, match="File exists"):
            site.opened(site.spec())
    assert precious.read_text() == "precious"


BAD = {
    "exists": ("root.img", "exists already"),
    "a directory": ("dir.img", "exists already and is a directory"),
    "a symlink": ("link.img", "exists already and is a symlink"),
    "no directory": ("nowhere/root.img", "target directory .*nowhere does not exist on host web1"),
    "a symlinked directory": ("linkdir/new.img", "symlink"),
    "our suffix": ("new.img.part", "are ours"),
    "our other suffix": ("new.img.manifest.json", "are ours"),
    "the journals' folder": (".blockjobs/new.img", "folder of the journals"),
    "a long name": ("x" * 240, "at most 230 bytes"),
    "beside stale digests": ("stale.img", "stale.img.blake3 exists already"),
}


@pytest.mark.parametrize(("name", "text"), BAD.values(), ids=BAD)
def test_a_bad_target_is_refused_and_nothing_is_made(site, name, text):
    site.image()
    (site.backup / "root.img").write_text("there")
    (site.backup / "stale.img.blake3").write_text("there")
    (site.backup / "dir.img").mkdir()
    (site.backup / "link.img").symlink_to("root.img")
    (site.backup / "linkdir").symlink_to("dir.img")
    before = site.tree()
    path = f"{site.backup}/{name}"
    base = os.path.dirname(path) if not name.startswith(".blockjobs") else str(site.backup)
    with pytest.raises(JobFailed, match=text):
        site.opened(site.spec(name=name, target_base=base))
    assert site.tree() == before


def test_a_layer_of_the_source_is_refused_as_a_target(site_at, tmp_path):
    site = site_at(tmp_path / "host", allow_overwrite=True, cuts=True)
    base, top = site.image(name="base.img"), site.images / "top.qcow2"
    top.write_bytes(b"QFI\xfb")
    below = {"driver": "file", "filename": str(base)}
    volume = {"host": "web1", "driver": "qcow2", "file": {"driver": "file", "filename": str(top)}, "backing": below}
    target = volumespec.parse_volume(f"web1:{base}")
    spec = site.spec(
        source=volumespec.parse_volume(volume), target=target, target_base=str(site.images), overwrite=True
    )  # fmt: skip
    with pytest.raises(JobFailed, match=r"base\.img is a layer of source web1:.*top\.qcow2, which lies on it"):
        site.opened(spec)


def test_a_hard_link_of_the_source_is_refused_as_a_target(site):
    image = site.image()
    os.link(image, site.backup / "root.img")
    with pytest.raises(JobFailed, match="is the source itself"):
        site.opened(site.spec(name="root.img"))


def test_a_target_outside_the_write_roots_is_refused(site):
    site.image()
    spec = site.spec(target=volumespec.parse_volume(f"web1:{site.images}/copy.img"), target_base=str(site.images))
    with pytest.raises(JobFailed, match="outside the write roots of host web1") as refused:
        site.opened(spec)
    assert refused.value.errno == errno.EACCES
    assert site.tree() == []


def test_space_is_added_up_by_file_system(site):
    place = os.statvfs(site.backup)
    half = place.f_bavail * place.f_frsize // 2 + (64 << 20)
    Room(site.roots).take(f"{site.backup}/R/x", half // 2)
    room = Room(site.roots)
    room.take(f"{site.backup}/R", half)
    with pytest.raises(JobFailed, match=r"needs \d+ bytes, \d+ are free") as refused:
        room.take(str(site.backup), half)
    assert refused.value.errno == errno.ENOSPC


def test_a_target_that_cannot_be_made_leaves_nothing(site, largest_file):
    site.image()
    with pytest.raises(JobFailed, match="File too large"):
        open_member(site.roots, site.spec(), size=largest_file + 1)
    assert site.tree() == []


def test_a_null_volume_is_not_staged(site):
    spec = site.spec(target=volumespec.parse_volume({"driver": "null-co", "host": "web1"}))
    with pytest.raises(JobFailed, match="is not staged"):
        open_member(Roots(HostConfig(name=spec.host, read_roots=(), write_roots=())), spec, size=1)
