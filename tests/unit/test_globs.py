"""What a pattern means on a host: plain files beneath its read roots, sorted, and never a guess."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from blockjobs.model.errors import JobFailed
from blockworker.questions import globs
from blockworker.questions.look import inspect_volumes

TREE = ["a.img", "b.img", "c.raw", ".hidden.img", "vm1/root.img", "vm2/root.img", "vm2/data.img", "vm3/deep/root.img"]


@pytest.fixture
def tree(site):
    """The files of TREE, and beside them what is no file: a directory, symlinks in and out, a FIFO."""
    for name in TREE:
        (site.images / name).parent.mkdir(parents=True, exist_ok=True)
        (site.images / name).write_bytes(b"x")
    (site.images / "dir.img").mkdir()
    (site.images / "link.img").symlink_to("a.img")
    (site.images / "linked").symlink_to("vm1")
    (site.base / "outside").mkdir()
    (site.base / "outside" / "root.img").write_bytes(b"x")
    (site.images / "vm4").symlink_to("../outside")
    os.mkfifo(site.images / "fifo.img")
    return site


def found(site, pattern):
    (answer,) = inspect_volumes(site.roots, [{"as": "glob", "pattern": pattern}])
    return [path.removeprefix(f"{site.images}/") for path in answer["paths"]] if "paths" in answer else answer


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("*.img", ["a.img", "b.img"]),
        ("?.*", ["a.img", "b.img", "c.raw"]),
        ("[ab].img", ["a.img", "b.img"]),
        ("[^a].img", ["b.img"]),
        ("[!a].img", ["b.img"]),
        ("*/root.img", ["vm1/root.img", "vm2/root.img"]),
        ("vm*/*.img", ["vm1/root.img", "vm2/data.img", "vm2/root.img"]),
        ("vm?/*/root.img", ["vm3/deep/root.img"]),
        (".*.img", [".hidden.img"]),
        ("nothing*", []),
        ("a.img/*", []),
        ("linked/*", []),
    ],
)
def test_what_a_pattern_matches(tree, pattern, files):
    answer = found(tree, f"{tree.images}/{pattern}")
    if pattern in ("a.img/*", "linked/*"):  # said out loud and no directory
        assert answer["errno"] in (errno.ENOTDIR, errno.ELOOP)
    else:
        assert answer == files


@pytest.mark.parametrize(
    ("pattern", "code", "text"),
    [
        ("/etc/*", errno.EACCES, "/etc is outside the read roots of host web1"),
        ("{images}/../*", errno.EINVAL, "has an empty part, '.' or '..'"),
        ("{images}/none/*.img", errno.ENOENT, "none does not exist on host web1"),
        ("{images}/vm4/*", errno.ELOOP, "is or lies behind a symlink"),
        ("*.img", errno.EINVAL, "is not absolute"),
    ],
)
def test_where_nothing_may_be_looked_at_it_says_so(tree, pattern, code, text):
    answer = found(tree, pattern.replace("{images}", str(tree.images)))
    assert answer["errno"] == code
    assert text in answer["text"]


def left_out(site, pattern):
    (answer,) = inspect_volumes(site.roots, [{"as": "glob", "pattern": f"{site.images}/{pattern}"}])
    return {path.removeprefix(f"{site.images}/"): why for path, why in answer["left-out"]}


def test_every_name_that_matches_and_is_not_taken_is_named(tree):
    assert left_out(tree, "*.img") == {
        "dir.img": "it is a directory: a regular file was expected",
        "fifo.img": "it is a FIFO: a regular file was expected",
        "link.img": "it is a symlink: a regular file was expected",
    }
    assert left_out(tree, "[ab].img") == {}


def test_a_directory_behind_a_symlink_is_named_and_a_file_on_the_way_is_not(tree):
    (tree.images / "vm-notes.txt").write_bytes(b"x")
    (tree.images / "vm2/data.img").unlink()
    (tree.images / "vm2/data.img").symlink_to("root.img")
    assert left_out(tree, "vm*/*.img") == {
        "vm2/data.img": "it is a symlink: a regular file was expected",
        "vm4": "it is a symlink, which is not followed",
    }
    assert left_out(tree, "vm?/data.img") == left_out(tree, "vm*/*.img")


@pytest.mark.parametrize("name", [b"new\nline.img", b"\xff.img", b"b\x7f.img"])
def test_a_file_that_no_job_could_name_costs_only_itself(site, name):
    (site.images / "a.img").write_bytes(b"x")
    with open(os.path.join(os.fsencode(site.images), name), "wb"):
        pass
    assert found(site, f"{site.images}/*.img") == ["a.img"]
    ((shown, why),) = left_out(site, "*.img").items()
    assert (shown.isprintable(), why) == (True, "no job can be given such a name")


@pytest.fixture
def open_site(site_at):
    """A host on a directory that every user comes through."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # noqa: S103
        site = site_at(Path(place) / "host")
        for directory in (site.base, site.images):
            directory.chmod(0o755)
        yield site


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read")
def test_what_cannot_be_opened_is_named(open_site):
    site = open_site
    for name in ("a.img", "b.img", "vm1/a.img", "vm2/a.img"):
        (site.images / name).parent.mkdir(exist_ok=True, mode=0o755)
        (site.images / name).write_bytes(b"x")
    (site.images / "b.img").chmod(0)
    (site.images / "vm2").chmod(0)
    os.seteuid(65534)
    try:
        files, directories = left_out(site, "*.img"), left_out(site, "vm*/*.img")
    finally:
        os.seteuid(0)
    assert files == {"b.img": "it cannot be opened: Permission denied"}
    assert list(directories) == ["vm2"]
    assert "Permission denied" in directories["vm2"]


def test_files_of_our_own_are_never_taken_and_need_no_word(site):
    ours = ["a.img.blake3", "a.img.manifest.json", ".a.img.0123abcd.part", ".a.img.0123abcd.cut",
            ".a.img.reserved", ".blockjobs/R.journal"]  # fmt: skip
    for name in ("a.img", "a.part", ".b.img", *ours):
        (site.images / name).parent.mkdir(exist_ok=True)
        (site.images / name).write_bytes(b"x")
    for pattern, taken in (("*", ["a.img", "a.part"]), (".*", [".b.img"]), ("*/*", []), (".block*/*", [])):
        assert (found(site, f"{site.images}/{pattern}"), left_out(site, pattern)) == (taken, {})


def test_too_much_is_refused(site, monkeypatch):
    for name in "abcd":
        (site.images / name).write_bytes(b"x")
    monkeypatch.setattr(globs, "MOST", 3)
    with pytest.raises(JobFailed, match="matches 4 files: at most 3 were expected"):
        globs.find_matches(site.roots, f"{site.images}/*")
    monkeypatch.setattr(globs, "LOOKED", 3)
    with pytest.raises(JobFailed, match="more than 3 names would have to be looked at"):
        globs.find_matches(site.roots, f"{site.images}/*")
