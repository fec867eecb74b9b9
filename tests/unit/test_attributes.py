"""Owner, permissions, ACL and attributes of a source: in the manifest, given back by a restore, and never rights."""

from __future__ import annotations

import json
import os
import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from carried import Machine, carry_out, prepare_job, unprivileged

from blockjobs.model import volumespec
from blockworker.drivers.backup import Backup
from blockworker.drivers.restore import Restore
from blockworker.host.roots import Roots
from blockworker.targets import acl, manifest
from blockworker.targets.attributes import LARGEST, Attributes, give_attributes, parse_attributes, read_attributes

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root gives files to another user")
LABEL = "system_u:object_r:svirt_image_t:s0:c1,c2"
ACL = ["user::rw-", "user:1234:r--", "group::r--", "group:4321:rw-", "mask::rw-", "other::---"]


@pytest.fixture
def machine(tmp_path) -> Machine:
    for name in ("images", "backup"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/root.img").write_bytes(b"A" * 70_000)
    return Machine(tmp_path)


@pytest.fixture
def dressed(machine) -> Machine:
    """A machine whose source has everything that a file can have; skipped where its file system has none of it."""
    path = machine.base / "images/root.img"
    try:
        os.setxattr(path, "user.note", "a text with an ä".encode())
        os.setxattr(path, "user.bytes", b"\0\xff\n")
        os.setxattr(path, acl.NAME, acl.pack_acl(acl.parse_acl(ACL)))
    except OSError as error:
        pytest.skip(f"{path}: {error.strerror}: the file system has no ACLs or no extended attributes")
    if ROOT:
        os.chown(path, 65534, 65533)
        os.setxattr(path, "security.selinux", LABEL.encode() + b"\0")
        os.setxattr(path, "trusted.secret", b"x")
        os.chmod(path, 0o6660)
    return machine


def about(path: Path) -> Attributes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_attributes(fd)
    finally:
        os.close(fd)


def permissions(path: Path) -> tuple[int, int, int]:
    st = path.stat()
    return st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)


def back_up(machine: Machine, **more: object) -> dict[str, object]:
    carry_out(Backup(), Roots(machine.config), machine.job("backup", "images/root.img", "backup/root.img"))
    return json.loads((machine.base / "backup/root.img.manifest.json").read_text())


def restore(machine: Machine, config=None, **more: object) -> tuple[Path, list[str]]:
    """A restore of the backup; what it could not give back."""
    spec = machine.job("restore", "backup/root.img", "images/back.img", **more)
    roots, driver = Roots(config or machine.config), Restore()
    result = prepare_job(driver, roots, spec)
    driver.commit(roots, spec, 1)
    driver.clean(roots, spec)
    return machine.base / "images/back.img", result["warnings"]


def test_the_manifest_names_what_the_source_has(dressed):
    told = back_up(dressed)["attributes"]
    st = (dressed.base / "images/root.img").stat()
    assert (told["uid"], told["gid"], told["mode"]) == (st.st_uid, st.st_gid, "0660"), told
    assert told["acl"] == ACL
    assert told["user"] == {"user.bytes": {"base64": "AP8K"}, "user.note": "a text with an ä"}
    assert told.get("selinux") == (LABEL if ROOT else None)
    assert "secret" not in json.dumps(told)


def test_the_backup_itself_gets_nothing_of_it(dressed):
    back_up(dressed)
    image = dressed.base / "backup/root.img"
    assert permissions(image) == (os.geteuid(), os.getegid(), 0o600)
    seen = about(image)
    assert (seen.acl, seen.user) == ((), {})


@as_root
def test_a_restore_gives_back_all_of_it_but_rights(dressed):
    back_up(dressed)
    image, lost = restore(dressed)
    assert lost == []
    assert permissions(image) == (65534, 65533, 0o660)
    assert replace(about(image), refused=()) == replace(about(dressed.base / "images/root.img"), refused=())
    assert "trusted.secret" not in os.listxattr(image)


def test_what_is_below_a_format_is_the_file_of_the_image(dressed):
    file = {"driver": "file", "filename": f"{dressed.base}/images/root.img"}
    source = volumespec.parse_volume({"driver": "qcow2", "host": "web1", "file": file})
    spec = replace(dressed.job("backup", "images/root.img", "backup/root.img"), source=source)
    assert Backup().attributes(Roots(dressed.config), spec).user == about(dressed.base / "images/root.img").user


@as_root
def test_a_part_of_an_image_gets_nothing_back(dressed):
    back_up(dressed)
    image, lost = restore(dressed, offset=5, length=100)
    assert (permissions(image), lost) == ((0, 0, 0o600), [])


def test_an_older_manifest_without_attributes_is_restored_as_ever(machine):
    told = back_up(machine)
    del told["attributes"]
    (machine.base / "backup/root.img.manifest.json").write_bytes(manifest.manifest_text(told))
    image, lost = restore(machine)
    assert (permissions(image), lost) == ((os.geteuid(), os.getegid(), 0o600), [])


BASE = {"uid": os.geteuid(), "gid": os.getegid(), "mode": "0640"}
PLAIN = (os.geteuid(), os.getegid(), 0o640)
HOSTILE = {  # what a manifest names, instead of or besides BASE -> permissions of what was restored, words of a warning
    "setuid":                 ({"mode": "4755"}, 0o755, "setuid, setgid and sticky"),
    "setuid and setgid":      ({"mode": "06755"}, 0o755, "setuid, setgid and sticky"),
    "sticky":                 ({"mode": "1600"}, 0o600, "setuid, setgid and sticky"),
    "file type in the mode":  ({"mode": "104755"}, 0o755, "setuid, setgid and sticky"),
    "mode as a number":       ({"mode": 0o6755}, 0o600, "permission bits"),
    "mode as words":          ({"mode": "u+s"}, 0o600, "permission bits"),
    "mode too long":          ({"mode": "0" * 99999 + "755"}, 0o600, "permission bits"),
    "owner as text":          ({"uid": "0"}, 0o640, "uid: the number"),
    "owner as a boolean":     ({"uid": True}, 0o640, "uid: the number"),
    "owner below zero":       ({"uid": -1}, 0o640, "uid: the number"),
    "owner that is no change": ({"uid": 0xFFFFFFFF}, 0o640, "uid: the number"),
    "owner beyond all":       ({"gid": 1 << 70}, 0o640, "gid: the number"),
    "capabilities":           ({"user": {"security.capability": {"base64": "AQAAAg=="}}}, 0o640, "security.capability"),
    "ima":                    ({"user": {"security.ima": "x"}}, 0o640, "security.ima"),
    "evm":                    ({"user": {"security.evm": "x"}}, 0o640, "security.evm"),
    "trusted":                ({"user": {"trusted.overlay.opaque": "y"}}, 0o640, "trusted.overlay.opaque"),
    "an ACL as bytes":        ({"user": {"system.posix_acl_access": "x"}}, 0o640, "system.posix_acl_access"),
    "overlay":                ({"user": {"user.overlay.redirect": "/etc/shadow"}}, 0o640, "user.overlay.redirect"),
    "a name with a zero":     ({"user": {"user.a\0security.ima": "x"}}, 0o640, "never given"),
    "another key":            ({"security.capability": "x"}, 0o640, "security.capability"),
    "a huge value":           ({"user": {"user.big": "x" * (LARGEST + 1)}}, 0o640, "user.big: 16385 bytes are"),
    "many values":            ({"user": {f"user.{n}": "x" * 500 for n in range(100)}}, 0o640, "bytes are too many"),
    "a value of no kind":     ({"user": {"user.a": 5}}, 0o640, "user.a: a text"),
    "bad base64":             ({"user": {"user.a": {"base64": "?"}}}, 0o640, "user.a: a text"),
    "user as a list":         ({"user": ["user.a"]}, 0o640, "user: an object"),
    "an ACL as text":         ({"acl": "user::rwx"}, 0o640, "acl: a list"),
    "an ACL without owner":   ({"acl": ["group::rw-", "other::rw-"]}, 0o640, "acl: entries of the owner"),
    "an ACL without mask":    ({"acl": ["user::rw-", "user:1:rw-", "group::r--", "other::---"]}, 0o640, "acl: a mask"),
    "an ACL with more bits":  ({"acl": ["user::rws", "group::r--", "other::---"]}, 0o640, "acl: user::rws"),
    "an ACL of nobody":       ({"acl": ["user::rw-", "user:4294967295:rwx", "group::r--", "mask::r--", "other::---"]},
                               0o640, "acl: user:4294967295"),
    "an endless ACL":         ({"acl": [f"user:{n}:rwx" for n in range(5000)]}, 0o640, "acl: at most 200"),
    "an entry twice":         ({"acl": ["user::rw-", "user::rwx", "group::r--", "other::---"]}, 0o640, "acl: an entry"),
    "a label with a newline": ({"selinux": "a:b\nc"}, 0o640, "selinux: an SELinux label"),
    "a label that is long":   ({"selinux": "a" * 9999}, 0o640, "selinux: an SELinux label"),
    "a label of no kind":     ({"selinux": ["a"]}, 0o640, "selinux: an SELinux label"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_that_a_manifest_names_gives_rights(machine, case):
    more, mode, warning = HOSTILE[case]
    told = back_up(machine)
    path = machine.base / "backup/root.img.manifest.json"
    path.write_bytes(manifest.manifest_text({**told, "attributes": {**BASE, **more}}))
    image, lost = restore(machine)
    assert permissions(image) == (*PLAIN[:2], mode)
    assert any(warning in each for each in lost), lost
    assert all(len(each) < 1000 for each in lost)
    names = set(os.listxattr(image)) - {"security.selinux"}
    assert all(name.startswith("user.") and not name.startswith("user.overlay.") for name in names), names
    assert about(image).acl == ()


@pytest.mark.parametrize("attributes", [[], "root", 5, True, {"mode": None, "uid": {}, "acl": {}, "user": 7}])
def test_attributes_of_no_kind_give_nothing_and_say_so(machine, attributes):
    told = back_up(machine)
    (machine.base / "backup/root.img.manifest.json").write_bytes(
        manifest.manifest_text({**told, "attributes": attributes})
    )
    image, lost = restore(machine)
    assert permissions(image) == (*PLAIN[:2], 0o600)
    assert lost


def test_a_root_owner_comes_back_without_any_bit_that_runs_as_root(machine):
    told = back_up(machine)
    (machine.base / "backup/root.img.manifest.json").write_bytes(
        manifest.manifest_text({**told, "attributes": {"uid": 0, "gid": 0, "mode": "06755"}})
    )
    image, lost = restore(machine)
    assert image.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX) == 0
    assert lost


def test_attributes_beyond_the_bound_are_named_and_left_out(machine):
    path = machine.base / "images/root.img"
    try:
        os.setxattr(path, "user.a", b"x" * 1000)
        os.setxattr(path, "user.b", b"y" * 1000)
    except OSError as error:
        pytest.skip(error.strerror or "no extended attributes")
    fd = os.open(path, os.O_RDONLY)
    try:
        seen = read_attributes(fd, largest=1500)
    finally:
        os.close(fd)
    assert list(seen.user or {}) == ["user.a"]
    assert seen.refused == ("attribute user.b: 1000 bytes are too many",)


def test_what_is_written_into_a_manifest_is_read_back(dressed):
    seen = about(dressed.base / "images/root.img")
    assert parse_attributes(json.loads(json.dumps(seen.to_json()))) == seen


@as_root
@pytest.mark.parametrize(
    ("wanted", "expected", "words"),
    [
        (Attributes(uid=0, mode=0o640), (65534, 65534, 0o640), ["owner 0: Operation not permitted"]),
        (Attributes(uid=0, gid=0, mode=0o660), (65534, 65534, 0o600), ["group 0: Op", "of the group", "owner 0: Op"]),
        (Attributes(mode=0o440), (65534, 65534, 0o640), ["mode 0440: the worker"]),
        (Attributes(uid=65534, gid=65534, mode=0o644), (65534, 65534, 0o644), []),
    ],
)
def test_an_ordinary_user_gives_what_he_may_and_says_what_he_may_not(tmp_path, wanted, expected, words):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.fchown(fd, 65534, 65534)
    said = unprivileged(lambda: give_attributes(fd, wanted))
    os.close(fd)
    assert permissions(tmp_path / "file") == expected
    assert len(said) == len(words), said
    assert all(any(word in each for each in said) for word in words), said


# --- what replaces another file ----------------------------------------------------------------------------


def replacing(machine: Machine, kind: str, source: str) -> list[str]:
    both = (*machine.config.write_roots, *machine.config.read_roots)
    roots = Roots(replace(machine.config, allow_overwrite=True, write_roots=both))
    spec = machine.job(kind, source, "images/live.img", overwrite=True)
    driver = Restore() if kind == "restore" else Backup()
    result = prepare_job(driver, roots, spec)
    driver.commit(roots, spec, 1)
    return result["warnings"]


@as_root
@pytest.mark.parametrize(("kind", "source"), [("backup", "images/root.img"), ("restore", "backup/root.img")])
def test_what_replaces_a_file_keeps_what_that_had(dressed, kind, source):
    back_up(dressed)
    live = dressed.base / "images/live.img"
    live.write_bytes(b"V" * 1000)
    os.chown(live, 65533, 65534)
    live.chmod(0o750)
    os.setxattr(live, "user.mine", b"x" * 1000)
    os.setxattr(live, "user.overlay.redirect", b"/etc/shadow")
    entries = acl.parse_acl(["user::rwx", "user:7:r--", "group::r--", "mask::r-x", "other::---"])
    os.setxattr(live, acl.NAME, acl.pack_acl(entries))
    before = about(live)
    assert replacing(dressed, kind, source) == []
    assert live.read_bytes() == b"A" * 70_000
    assert about(live) == before
    assert "user.overlay.redirect" not in os.listxattr(live)  # it would show the content of another file
    assert permissions(live) == (65533, 65534, 0o750)
    beside = [path for path in live.parent.iterdir() if path.name.startswith("live.img.")]
    assert len(beside) == (2 if kind == "backup" else 0)
    assert all(permissions(path) == (65533, 65534, 0o640) for path in beside)  # nobody executes them


@as_root
def test_what_replaces_a_file_does_not_keep_its_setuid_bit(machine):
    live = machine.base / "images/live.img"
    live.write_bytes(b"V")
    os.chown(live, 65534, 65534)
    os.chmod(live, 0o6640)
    replacing(machine, "backup", "images/root.img")
    assert permissions(live) == (65534, 65534, 0o640)


@as_root
def test_a_default_acl_of_the_directory_gives_nobody_what_the_source_did_not(machine):
    entries = acl.parse_acl(["user::rwx", "user:7:rwx", "group::rwx", "mask::rwx", "other::r--"])
    try:
        os.setxattr(machine.base / "images", "system.posix_acl_default", acl.pack_acl(entries))
    except OSError as error:
        pytest.skip(error.strerror or "no ACLs")
    path = machine.base / "images/root.img"
    os.chmod(path, 0o660)
    back_up(machine)
    image, _ = restore(machine)
    assert about(image).acl == ()
    assert permissions(image)[2] == 0o660


def test_an_acl_is_packed_as_the_kernel_has_it():
    value = acl.pack_acl(acl.parse_acl(ACL))
    assert value[:12] == struct.pack("<IHHI", 2, 1, 6, 0xFFFFFFFF)
    assert [str(entry) for entry in acl.unpack_acl(value)] == ACL
    assert acl.unpack_acl(b"") == ()
    assert acl.unpack_acl(b"\3\0\0\0") == ()
