"""The manifest says where an image came from, and verify finds every byte that is not the one copied."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from blockjobs.model.cuts import Cut
from blockjobs.model.errors import BadInput
from blockworker.targets import manifest
from blockworker.targets.settle import commit_member
from blockworker.volumes import Identity

MIB = 1 << 20
AT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
CONTENT = b"A" * MIB + bytes(2 * MIB) + b"B" * MIB + b"tail"


@pytest.fixture
def target(site):
    site.image(CONTENT)
    commit_member(site.roots, site.prepared(site.spec()), 1)
    return site.backup / "R/root.img"


def verify(target):
    found = manifest.verify_image(str(target), manifest.load_manifest(f"{target}.manifest.json"))
    assert found.unreadable == []
    return [tuple(pair) for pair in found.differing]


def damage(target, offset, content):
    with target.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_it_says_all_there_is_to_know(site, target):
    keys = manifest.load_manifest(f"{target}.manifest.json")
    assert keys["version"] == 2
    assert keys["source"]["volume"] == f"web1:{site.images}/root.img"
    assert keys["source"]["identity"][:1] + keys["source"]["identity"][3:4] == ["file", len(CONTENT)]
    assert keys["digests"]["algorithm"], keys["digests"]["chunk"] == ("blake3", MIB)
    assert keys["digests"]["file"] == "root.img.blake3"
    assert len(keys["digests"]["root"]) == 64
    assert (keys["run"], keys["transaction"], keys["job"]) == ("R", "R", "R.root")
    assert keys["cut"] == {"how": "none"}
    assert keys["parent"] is None
    assert keys["started"] == "2026-11-22T10:30:00.000Z"
    assert set(keys["bytes"]) == {"read", "written", "zero", "skipped", "recopied"}


def test_a_cut_of_no_instant_says_so_and_has_no_skew(site, target):
    keys = {"spec": site.spec(), "size": 1, "identity": Identity("none"), "source_change": "unchanged", "attempts": [],
            "counts": {}, "started": AT, "finished": AT}  # fmt: skip
    cut = Cut(how="reflink", path="/cut", begin=1000.0, end=1000.25)
    told = [manifest.build_manifest(**keys, cut={**each.to_dict(), "skew": 0.5})["cut"]
            for each in (cut, replace(cut, consistency="crash"))]  # fmt: skip
    assert (told[0]["skew"], told[0].get("consistency")) == (0.5, None)
    assert (told[1].get("skew"), told[1]["consistency"]) == (None, "crash")


def test_an_image_as_it_was_copied_verifies(target):
    assert verify(target) == []


CASES = {
    "first byte": (0, b"!", [(0, MIB)]),
    "across two": (MIB - 1, b"!!", [(0, 2 * MIB)]),
    "data in a hole": (2 * MIB, b"!", [(2 * MIB, 3 * MIB)]),
    "zeros over data": (3 * MIB, bytes(MIB), [(3 * MIB, 4 * MIB)]),
    "the tail": (4 * MIB + 3, b"!", [(4 * MIB, 4 * MIB + 4)]),
    "longer": (4 * MIB + 4, b"!", [(4 * MIB + 4, 4 * MIB + 5)]),
}


@pytest.mark.parametrize(("offset", "content", "bad"), CASES.values(), ids=CASES)
def test_damage_is_found_where_it_is(target, offset, content, bad):
    damage(target, offset, content)
    assert verify(target) == bad


def test_a_shorter_image_is_found(target):
    with target.open("r+b") as file:
        file.truncate(3 * MIB + 5)
    assert verify(target) == [(3 * MIB, 4 * MIB + 4)]


def test_digests_that_are_not_the_manifests_prove_nothing(target):
    damage(target.with_name("root.img.blake3"), 0, b"!")
    with pytest.raises(BadInput, match="not the ones that the manifest names"):
        verify(target)


@pytest.mark.parametrize("file", ["../root.img.blake3", "/etc/passwd"])
def test_a_manifest_cannot_point_elsewhere(target, file):
    path = target.with_name("root.img.manifest.json")
    keys = json.loads(path.read_text())
    keys["digests"]["file"] = file
    with pytest.raises(BadInput, match="unknown kind"):
        manifest.verify_image(str(target), keys)


def test_without_digests_there_is_nothing_to_verify_with(site):
    site.image(CONTENT)
    spec = site.spec(digests=False)
    commit_member(site.roots, site.prepared(spec), 1)
    assert not (site.backup / "R/root.img.blake3").exists()
    with pytest.raises(BadInput, match="there is nothing to verify it with"):
        verify(site.backup / "R/root.img")


@pytest.mark.parametrize("text", ["", "[]", '{"version": 3}'], ids=["empty", "list", "future"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="manifest"):
        manifest.load_manifest(str(path))
    with pytest.raises(BadInput, match="No such file"):
        manifest.load_manifest(str(tmp_path / "none"))
