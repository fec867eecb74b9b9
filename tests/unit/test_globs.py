"""What a pattern means on a host: plain files beneath its read roots, sorted, and never a guess."""

from __future__ import annotations

import errno
import os

import pytest

from blockjobs.model.errors import JobFailed
from blockworker import globs
from blockworker.probe import look

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
    (answer,) = look(site.roots, [{"as": "glob", "pattern": pattern}])
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


@pytest.mark.parametrize("name", [b"new\nline.img", b"\xff.img"])
def test_a_file_that_no_job_could_name_is_not_passed_over(site, name):
    (site.images / "a.img").write_bytes(b"x")
    with open(os.path.join(os.fsencode(site.images), name), "wb"):
        pass
    answer = found(site, f"{site.images}/*.img")
    assert answer["errno"] == errno.EILSEQ
    assert answer["text"].isprintable()


def test_too_much_is_refused(site, monkeypatch):
    for name in "abcd":
        (site.images / name).write_bytes(b"x")
    monkeypatch.setattr(globs, "MOST", 3)
    with pytest.raises(JobFailed, match="matches 4 files: at most 3 were expected"):
        globs.matches(site.roots, f"{site.images}/*")
    monkeypatch.setattr(globs, "LOOKED", 3)
    with pytest.raises(JobFailed, match="more than 3 names would have to be looked at"):
        globs.matches(site.roots, f"{site.images}/*")
