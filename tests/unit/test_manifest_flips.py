"""What changes in a published image, its digests or its manifest is noticed, and ends in words, never in a crash."""

from __future__ import annotations

import json

import pytest

from blockjobs.model.errors import BadInput, BlockjobsError
from blockworker.targets import manifest
from blockworker.targets.settle import commit_member

MIB = 1 << 20
CONTENT = b"A" * MIB + bytes(MIB) + b"tail"
ODD = [None, True, 0, -1, 1 << 70, 1.5, "", "\ud800", "a/b", "x" * 100_000, [], [[]], [1, "a"], {}, {"": {}}]


@pytest.fixture
def target(site):
    site.image(CONTENT)
    commit_member(site.roots, site.prepared(site.spec()), 1)
    return site.backup / "R/root.img"


def beside(target):
    return target.with_name("root.img.manifest.json")


def is_whole(target):
    """Whether the image passes for what was copied; False: it was noticed that it is not."""
    try:
        return not manifest.verify_image(str(target), manifest.load_manifest(str(beside(target)))).bad
    except BlockjobsError:
        return False


def test_every_bit_that_flips_in_a_manifest_is_noticed(target):
    text = beside(target).read_bytes()
    assert manifest.parse_manifest(text, "it")["job"] == "R.root", "the control: nothing has flipped"
    unnoticed = []
    for bit in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            manifest.parse_manifest(bytes(flipped), "it")
        except BadInput:
            continue
        unnoticed.append((bit, text[max(0, bit // 8 - 20) : bit // 8 + 20]))
    assert unnoticed == []


@pytest.mark.parametrize("suffix", ["", ".blake3"])
def test_bits_that_flip_in_an_image_and_in_its_digests_are_noticed(target, suffix):
    path = target.with_name(target.name + suffix)
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), max(8, len(content) // 5) + 1):
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([content[bit // 8] ^ 1 << bit % 8]))
        assert not is_whole(target), bit
        path.write_bytes(content)
    assert is_whole(target)


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_manifest_that_is_cut_or_has_grown_is_noticed(target, cut):
    path = beside(target)
    text = path.read_bytes()
    for changed in (text[:-cut], text + b" " * cut, b" " * cut + text, text.replace(b"\n", b"\n" + b" " * cut)):
        path.write_bytes(changed)
        with pytest.raises(BadInput):
            manifest.load_manifest(str(path))


@pytest.mark.parametrize("whole", [True, False], ids=["version 2", "version 1"])
def test_odd_values_in_any_key_are_words_and_no_crash(target, whole):
    path = beside(target)
    keys = manifest.load_manifest(str(path))
    inner = [("digests", name) for name in keys["digests"]] + [("source", name) for name in keys["source"]]
    for names in [*((name,) for name in keys), *inner]:
        for value in ODD:
            changed = json.loads(json.dumps(keys))
            (changed if len(names) == 1 else changed[names[0]])[names[-1]] = value
            if not whole:
                changed |= {"version": 1} if names != ("version",) else {}
                changed.pop("digest", None)
            path.write_bytes(manifest.manifest_text(changed) if whole else json.dumps(changed).encode())
            is_whole(target)  # raises whatever is no BlockjobsError


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"version": 2, "size": ' + "9" * 5000 + "}", "nul", '{"version": 1e0}']
)
def test_odd_json_is_refused(target, text):
    beside(target).write_text(text)
    with pytest.raises(BadInput, match="manifest"):
        manifest.load_manifest(str(beside(target)))


def test_keys_of_a_later_release_are_kept_and_are_part_of_the_digest(target):
    path = beside(target)
    path.write_bytes(manifest.manifest_text({**manifest.load_manifest(str(path)), "generation": {"number": 7}}))
    assert manifest.load_manifest(str(path))["generation"] == {"number": 7}
    assert is_whole(target)
    path.write_bytes(path.read_bytes().replace(b'"number": 7', b'"number": 8'))
    with pytest.raises(BadInput, match="changed since it was written"):
        manifest.load_manifest(str(path))


def test_a_manifest_of_version_1_has_no_digest_and_is_read(target):
    path = beside(target)
    keys = {**manifest.load_manifest(str(path)), "version": 1}
    path.write_text(json.dumps({name: value for name, value in keys.items() if name != "digest"}, indent=2))
    assert is_whole(target)


def test_a_manifest_that_was_changed_is_read_by_whoever_looks_for_what_to_leave_alone(target):
    path = beside(target)
    path.write_bytes(path.read_bytes().replace(b'"parent": null', b'"parent": "it"'))
    with pytest.raises(BadInput, match="changed since it was written"):
        manifest.load_manifest(str(path))
    assert manifest.load_manifest(str(path), changed=True)["parent"] == "it"
