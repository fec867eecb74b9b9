"""The doors of a host: what is not a plain path beneath a root is refused in one line, and nothing is opened."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.ids import Host
from blockworker.host import config as configs
from blockworker.host.config import HostConfig
from blockworker.host.roots import Root, Roots, directories_between
from blockworker.system import kernel


@pytest.fixture
def strange(site):
    """A read root with one of everything that is no image."""
    images = site.images
    site.image()
    (images / "dir").mkdir()
    os.mkfifo(images / "fifo")
    (images / "link").symlink_to("root.img")
    (images / "linkdir").symlink_to("dir")
    (images / "dir/inner.img").write_text("x")
    (images / "out").symlink_to("/etc")
    here = Path.cwd()
    os.chdir(images)  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    os.chdir(here)
    return site


REFUSED = {
    "missing": ("no.img", errno.ENOENT, r"source .*/no.img does not exist on host web1"),
    "missing directory": ("no/no.img", errno.ENOENT, "does not exist on host web1"),
    "directory": ("dir", errno.EISDIR, "is a directory: a regular file was expected"),
    "FIFO": ("fifo", errno.EINVAL, "is a FIFO: a regular file was expected"),
    "socket": ("socket", errno.EINVAL, "is a socket: a regular file was expected"),
    "symlink": ("link", errno.ELOOP, "a path without symlinks was expected"),
    "symlink in the middle": ("linkdir/inner.img", errno.ELOOP, "a path without symlinks was expected"),
    "symlink out": ("out/passwd", errno.ELOOP, "a path without symlinks was expected"),
    "a file as directory": ("root.img/x", errno.ENOTDIR, "a part of it is not a directory"),
    "dots": ("../etc/passwd", errno.EINVAL, r"'\.\.'"),
    "inner dots": ("dir/../root.img", errno.EINVAL, r"'\.\.'"),
    "NUL": ("root\0.img", errno.EINVAL, "control character"),
    "newline": ("root\n.img", errno.EINVAL, "control character"),
    "empty part": ("dir//inner.img", errno.EINVAL, "empty part"),
    "trailing slash": ("root.img/", errno.EINVAL, "empty part"),
    "not UTF-8": ("\udcff.img", errno.EINVAL, "not valid UTF-8"),
    "long": ("x" * 256, errno.EINVAL, "too long"),
}


@pytest.mark.parametrize(("name", "code", "text"), REFUSED.values(), ids=REFUSED)
def test_a_bad_source_is_refused_in_one_line(strange, name, code, text):
    with pytest.raises(JobFailed, match=text) as refused:
        strange.roots.open_source(f"{strange.images}/{name}")
    assert refused.value.errno == code
    assert "\n" not in refused.value.text


def test_a_path_outside_the_roots_is_refused_with_the_roots(site):
    with pytest.raises(JobFailed, match=rf"^/etc/passwd is outside the read roots of host web1 \({site.images}\)$"):
        site.roots.open_source("/etc/passwd")
    with pytest.raises(JobFailed, match="outside the write roots"):
        site.roots.open_dir(str(site.images))
    with pytest.raises(JobFailed, match="outside"):
        site.roots.open_dir(f"{site.backup}er")  # a prefix of the text is no root


def test_a_plain_source_is_opened_for_reading_only(site):
    image = site.image(b"bytes")
    fd = site.roots.open_source(str(image))
    try:
        assert os.pread(fd, 10, 0) == b"bytes"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"x", 0)
    finally:
        os.close(fd)


def test_kernels_without_openat2_are_walked_part_by_part(strange, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    (strange.images / "dir/inner.img").write_text("inner")
    monkeypatch.setattr(kernel, "openat2", unknown)
    fd = strange.roots.open_source(f"{strange.images}/dir/inner.img")
    assert os.pread(fd, 10, 0) == b"inner"
    os.close(fd)
    for name in ("link", "linkdir/inner.img", "out/passwd"):
        with pytest.raises(JobFailed):
            strange.roots.open_source(f"{strange.images}/{name}")


def test_the_longest_root_holds_a_path():
    config = HostConfig(name=Host("h"), read_roots=(), write_roots=("/a", "/a/b", "/a/bc"))
    roots = Roots(config)
    assert roots.root_of("/a/b/c", write=True) == Root("/a/b")
    assert roots.root_of("/a/bcd", write=True) == Root("/a")
    assert Root("/").relative("/a/b") == "a/b"


def test_directories_are_made_private_and_reported(site):
    inner = f"{site.backup}/x/y"
    assert site.roots.missing_dirs(str(site.backup), inner) == [f"{site.backup}/x", inner]
    assert site.roots.make_dirs(str(site.backup), inner) == [f"{site.backup}/x", inner]
    assert site.roots.make_dirs(str(site.backup), inner) == []
    assert (site.backup / "x").stat().st_mode & 0o777 == 0o700
    with pytest.raises(JobFailed, match="does not exist"):
        site.roots.make_dirs(f"{site.backup}/no", f"{site.backup}/no/x")
    with pytest.raises(JobFailed, match="is not below"):
        directories_between("/a", "/b/c")


def test_only_listed_devices_are_opened(tmp_path):
    roots = Roots(HostConfig(name=Host("h"), read_roots=("/",), write_roots=(), devices=("/dev/null",)))
    with pytest.raises(JobFailed, match="not in the devices of host h"):
        roots.open_device("/dev/zero")
    with pytest.raises(JobFailed, match="is a character device: a block device was expected"):
        roots.open_device("/dev/null")
    with pytest.raises(JobFailed, match="is a character device: a regular file was expected"):
        roots.open_source("/dev/null")
    (tmp_path / "disk").symlink_to("/etc/hostname")  # a link that is listed may lead elsewhere
    roots = Roots(HostConfig(name=Host("h"), read_roots=(), write_roots=(), devices=(f"{tmp_path}/disk",)))
    with pytest.raises(JobFailed, match="leads to /etc/hostname: a device under /dev was expected"):
        roots.open_device(f"{tmp_path}/disk")


# --- host.toml ----------------------------------------------------------------------------------------


def test_a_listed_device_is_opened_for_writing_only_where_the_host_allows_it():
    config = HostConfig(name=Host("h"), read_roots=(), write_roots=(), devices=("/dev/null",))
    with pytest.raises(JobFailed, match="host h does not allow devices to be written") as refused:
        Roots(config).open_device("/dev/null", write=True)
    assert refused.value.errno == errno.EACCES
    with pytest.raises(JobFailed, match="a block device was expected"):  # the control: it is this that refused
        Roots(replace(config, allow_in_place=True)).open_device("/dev/null", write=True)


def test_what_is_dumped_is_loaded_again(tmp_path):
    odd = tmp_path / 'with "quotes" and ü'
    odd.mkdir()
    config = HostConfig(
        name=Host("web1"), slots=3, read_roots=(str(odd),), write_roots=(), allow_overwrite=True, devices=("/dev/vg/a",)
    )
    path = tmp_path / "host.toml"
    path.write_text(configs.host_config_text(config), encoding="utf-8")
    assert configs.load_host_config(path) == config


GOOD = {"name": '"web1"', "read-roots": "[]", "write-roots": "[]"}
BAD = {
    "unknown key": ({"colour": '"red"'}, "colour: unknown key"),
    "bool for int": ({"slots": "true"}, "slots: True: an integer"),
    "no slots": ({"slots": "0"}, "slots: 0: an integer from 1"),
    "text for list": ({"read-roots": '"/a"'}, "read-roots: '/a': a list"),
    "number in list": ({"read-roots": "[1]"}, "read-roots: 1: a list"),
    "relative": ({"write-roots": '["backup"]'}, "write-roots: path 'backup' is not absolute"),
    "dots": ({"write-roots": '["/a/../b"]'}, "write-roots: path"),
    "not there": ({"write-roots": '["/no/such/place"]'}, "write-roots: '/no/such/place' is not an existing directory"),
    "no device": ({"devices": '["/etc/passwd"]'}, "devices: '/etc/passwd': a list of paths under /dev"),
    "bad name": ({"name": '"we b"'}, "invalid host name"),
    "no TOML": ({"name": "web1"}, "TOML was expected"),
    "too deep": ({"devices": "[" * 100_000 + "]" * 100_000}, "it is nested too deeply"),
    "too large": ({"name": f'"{"w" * (1 << 20)}"'}, "it is larger than 1 MiB"),
}


@pytest.mark.parametrize(("changes", "text"), BAD.values(), ids=BAD)
def test_a_wrong_host_toml_is_refused_with_file_and_key(tmp_path, changes, text):
    path = tmp_path / "host.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in {**GOOD, **changes}.items()))
    with pytest.raises(BadInput, match=text) as refused:
        configs.load_host_config(path)
    assert str(refused.value).startswith(str(path))


def test_a_missing_key_and_a_missing_file_are_refused(tmp_path):
    path = tmp_path / "host.toml"
    with pytest.raises(BadInput, match="No such file"):
        configs.load_host_config(path)
    path.write_text('name = "web1"\n')
    with pytest.raises(BadInput, match="read-roots: missing"):
        configs.load_host_config(path)


def test_a_machine_is_known_by_a_hash_of_its_id():
    assert configs.machine_id() == configs.machine_id()
    assert len(configs.machine_id()) == 16
    assert configs.machine_facts()["cpus"] >= 1
