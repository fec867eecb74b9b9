"""A target that replaces a file: only where job and host let it, and only the very file that OPEN saw."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import pytest
from trees import PUBLISHED

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import TxnId
from blockworker.records.sealed import seal_json
from blockworker.targets import manifest
from blockworker.targets.proof import NotPublished
from blockworker.targets.settle import commit_job, commit_member


@pytest.mark.parametrize(
    ("asked", "allowed", "why"),
    [
        (False, True, "'overwrite' was not asked"),
        (True, False, "does not allow overwriting"),
        (False, False, "'overwrite' was not asked"),
    ],
    ids=["allowed, not asked", "asked, not allowed", "neither"],
)
def test_a_target_that_exists_is_replaced_only_where_the_job_asks_for_it_and_the_host_allows_it(
    site_at, tmp_path, asked, allowed, why
):
    site = site_at(tmp_path / "host", allow_overwrite=allowed)
    site.image()
    (site.backup / "root.img").write_text("precious")
    with pytest.raises(JobFailed, match=why):
        site.opened(site.spec(name="root.img", overwrite=asked))
    assert site.tree() == ["root.img"]
    assert (site.backup / "root.img").read_text() == "precious"


def test_overwriting_needs_the_job_and_the_host(site):
    image = site.image()
    (site.backup / "R").mkdir()
    target = site.backup / "R/root.img"
    target.write_text("old")
    with pytest.raises(JobFailed, match="'overwrite' was not asked"):
        site.opened(site.spec())
    with pytest.raises(JobFailed, match="does not allow overwriting"):
        site.opened(site.spec(overwrite=True))
    allowing = replace(site, allow_overwrite=True)
    member = allowing.prepared(allowing.spec(overwrite=True))
    assert target.read_text() == "old"
    commit_member(allowing.roots, member, 1)
    assert target.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("digests", [True, False])
def test_what_an_image_that_is_gone_left_beside_it_is_replaced_where_overwriting_is_allowed(site, digests):
    site.image()
    (site.backup / "R").mkdir()
    for suffix in (".blake3", ".manifest.json"):
        (site.backup / f"R/root.img{suffix}").write_text("of another image")
    with pytest.raises(JobFailed, match="would belong to target"):
        site.opened(site.spec())
    allowing = replace(site, allow_overwrite=True)
    commit_member(allowing.roots, allowing.prepared(allowing.spec(overwrite=True, digests=digests)), 1)
    assert site.tree() == [name for name in PUBLISHED if digests or not name.endswith(".blake3")]
    target = site.backup / "R/root.img"
    assert manifest.load_manifest(f"{target}.manifest.json")["run"] == "R"


def test_only_the_file_that_was_seen_at_open_is_overwritten(site):
    site.image()
    (site.backup / "R").mkdir()
    target = site.backup / "R/root.img"
    target.write_text("old")
    allowing = replace(site, allow_overwrite=True)
    member = allowing.prepared(allowing.spec(overwrite=True))
    newer = site.backup / "R/newer"
    newer.write_text("newer")
    newer.rename(target)
    with pytest.raises(NotPublished):
        commit_member(allowing.roots, member, 1)
    assert target.read_text() == "newer"


def of_another_generation(which):
    """The name that another file has whose inode number is the same: their handles differ in the generation."""
    return which[:-1] + ("0" if which[-1] != "0" else "1")


SEEN = {  # what the journal says of the file that OPEN saw, and whether the one that is there is replaced
    "the file itself": (lambda dev, ino, which: [dev, ino, which], True),
    "its number is another file's now": (lambda dev, ino, which: [dev, ino, of_another_generation(which)], False),
    "its device has another number now": (lambda dev, ino, which: [dev + 1, ino, which], True),
    "noted by numbers only, before": (lambda dev, ino, _: [dev, ino], True),
    "another one, noted by numbers only": (lambda dev, ino, _: [dev, ino + 1], False),
}


@pytest.mark.parametrize(("noted", "same"), SEEN.values(), ids=SEEN)
def test_a_file_is_overwritten_only_where_it_is_the_very_one_of_the_journal(site_at, tmp_path, noted, same):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    image = site.image()
    (site.backup / "R").mkdir()
    target = site.backup / "R/root.img"
    target.write_text("precious")
    member = site.prepared(site.spec(overwrite=True))
    assert member.replaces.ino == target.stat().st_ino
    path = site.backup / ".blockjobs/R.journal"
    keys = json.loads(path.read_text())
    keys["members"]["R.root"]["replaces"] = noted(*keys["members"]["R.root"]["replaces"])
    path.write_bytes(seal_json(keys))
    if same:
        commit_job(site.roots, site.spec(), 1)
        assert target.read_bytes() == image.read_bytes()
    else:
        with pytest.raises(NotPublished, match=r"root\.img was taken by a file that is not ours"):
            commit_job(site.roots, site.spec(), 1)
        assert target.read_text() == "precious"


@pytest.mark.parametrize(("name", "flag"), [("R/root.img", "i"), ("R/root.img.manifest.json", "a"), ("R", "a")])
def test_what_nobody_may_rename_is_refused_at_open_and_not_first_at_the_commit(site_at, tmp_path, name, flag):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    site.image()
    commit_member(site.roots, site.prepared(site.spec()), 1)
    path, before = site.backup / name, site.tree()
    set_flag = subprocess.run(["chattr", f"+{flag}", path], capture_output=True, text=True, check=False)
    if set_flag.returncode:
        pytest.skip(f"no such flags here: {set_flag.stderr.strip()}")
    try:
        with pytest.raises(JobFailed, match=rf"{path} is immutable or append-only"):
            site.opened(site.spec(transaction=TxnId("Q"), overwrite=True))
        assert [each for each in site.tree() if "/Q." not in each] == before
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


WITHDRAWN = {
    "the image": (("root.img",), "root.img was taken by a file that is not ours"),
    "what an image that is gone left": (("root.img.blake3", "root.img.manifest.json"), "root.img.blake3 was taken"),
}


@pytest.mark.parametrize(("names", "text"), WITHDRAWN.values(), ids=WITHDRAWN)
def test_nothing_is_replaced_once_the_host_does_not_allow_it_any_more(site, names, text):
    site.image()
    (site.backup / "R").mkdir()
    for name in names:
        (site.backup / "R" / name).write_text("old")
    allowing = replace(site, allow_overwrite=True)
    member = allowing.prepared(allowing.spec(overwrite=True))
    with pytest.raises(NotPublished, match=text):
        commit_member(site.roots, member, 1)
    assert [(site.backup / "R" / name).read_text() for name in names] == ["old"] * len(names)
    commit_member(allowing.roots, member, 1)
    assert site.tree() == PUBLISHED


@pytest.mark.parametrize("when", ["before OPEN", "before COMMIT"])
def test_a_file_with_a_second_name_is_not_replaced(site, when):
    site.image()
    (site.backup / "R").mkdir()
    target, second = site.backup / "R/root.img", site.backup / "R/second"
    target.write_text("old")
    allowing = replace(site, allow_overwrite=True)
    spec = allowing.spec(overwrite=True)
    if when == "before OPEN":
        os.link(target, second)
        with pytest.raises(JobFailed, match="has 2 hard links: a file with one was expected"):
            allowing.opened(spec)
        second.unlink()
        member = allowing.prepared(spec)
    else:
        member = allowing.prepared(spec)
        os.link(target, second)
        with pytest.raises(NotPublished, match="was taken by a file that is not ours"):
            commit_member(allowing.roots, member, 1)
        second.unlink()
    assert target.read_text() == "old"
    commit_member(allowing.roots, member, 1)
    assert site.tree() == PUBLISHED


@pytest.mark.parametrize("suffix", [".blake3", ".manifest.json"])
@pytest.mark.parametrize("digests", [True, False])
def test_nothing_but_a_file_is_replaced_beside_an_image(site_at, tmp_path, suffix, digests):
    site = site_at(tmp_path / "host", allow_overwrite=True)
    site.image()
    (site.backup / "R").mkdir()
    (site.backup / "R/root.img").write_bytes(b"before")
    beside = site.backup / f"R/root.img{suffix}"
    spec = site.spec(overwrite=True, digests=digests)
    beside.symlink_to("elsewhere")
    with pytest.raises(JobFailed, match=f"root.img{suffix} exists already and is a symlink"):
        site.opened(spec)
    beside.unlink()
    member = site.prepared(spec)
    beside.mkdir()
    with pytest.raises(NotPublished, match=f"root.img{suffix} was taken by a file that is not ours"):
        commit_member(site.roots, member, 1)
    assert (site.backup / "R/root.img").read_bytes() == b"before", "nothing is visible yet"
    beside.rmdir()
    commit_member(site.roots, member, 1)
    assert (site.backup / "R/root.img").read_bytes() == (site.images / "root.img").read_bytes()
