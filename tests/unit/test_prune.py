"""A host prunes what it has published, and nothing else: killed anywhere, and asked again, it gets there."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace

import pytest
from guests import qemu

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import JobId, RunId, TxnId
from blockworker.drivers.backup import Backup
from blockworker.host.roots import Root
from blockworker.questions.prune import Pruner, Question
from blockworker.targets import manifest
from blockworker.targets.settle import clean_transaction, commit_member

TARGET = "R/root.img"


def published(site, run="R"):
    """A committed backup in a directory of its run; what pruning it is asked with."""
    if not (site.images / "root.img").exists():
        site.image()
    spec = site.spec(f"{run}.root", f"{run}/root.img", run=RunId(run), transaction=TxnId(run), id=JobId(f"{run}.root"))
    commit_member(site.roots, site.prepared(spec), 7)
    clean_transaction(site.roots, run, Root(str(site.backup)))
    path = str(site.backup / f"{run}/root.img")
    return {"path": path, "job": f"{run}.root", "run": run, "transaction": run, "base": str(site.backup)}


def ask(site, *going, remaining=(), dry=False, in_use=False, permitted=True):
    pruner = Pruner(site.roots, in_use=lambda *_: in_use, permitted=lambda: permitted)
    return pruner.answer(Question(going, list(remaining), dry=dry))


def files(site):
    return [name for name in site.tree() if not name.startswith(".blockjobs")]


def test_a_backup_goes_with_its_digests_its_manifest_and_its_directory(site):
    old, new = published(site, "R"), published(site, "S")
    before = files(site)
    assert ask(site, old, remaining=[new["path"]], dry=True) == [{"state": "pruned"}]
    assert files(site) == before
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]
    assert files(site) == ["S", "S/root.img", "S/root.img.blake3", "S/root.img.manifest.json"]
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "gone"}]


def replaced(site):
    path = site.backup / TARGET
    path.unlink()
    path.write_bytes(b"foreign")
    os.utime(path, (0, 0))  # older than the manifest: the size tells


def changed(site):
    with (site.backup / TARGET).open("r+b") as file:
        file.write(b"mounted and written to")
    now = (site.backup / f"{TARGET}.manifest.json").stat().st_mtime + 1
    os.utime(site.backup / TARGET, (now, now))


def swapped(site):
    path = site.backup / TARGET
    path.unlink()
    path.symlink_to("/etc/hostname")


def directory(site):
    (site.backup / TARGET).unlink()
    (site.backup / TARGET).mkdir()


def another_job(site):
    path = site.backup / f"{TARGET}.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "job": "Q.root", "run": "Q"}))


def another_run(site):
    path = site.backup / f"{TARGET}.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "run": "Q"}))


def no_manifest(site):
    (site.backup / f"{TARGET}.manifest.json").unlink()


def no_json(site):
    (site.backup / f"{TARGET}.manifest.json").write_text("{")


def linked_manifest(site):
    path = site.backup / f"{TARGET}.manifest.json"
    path.rename(site.images / "elsewhere.json")
    path.symlink_to(site.images / "elsewhere.json")


def swapped_by_hand(site):
    """An operator has put another backup, of the same size and older, under its name."""
    (site.backup / TARGET).rename(site.backup / "aside")
    (site.backup / "S/root.img").rename(site.backup / TARGET)
    (site.backup / "aside").rename(site.backup / "S/root.img")


def copied_without_its_times(site):
    path = site.backup / TARGET
    shutil.copy(path, site.backup / "copy")
    (site.backup / "copy").rename(path)


def another_file_with_its_times(site):
    path = site.backup / TARGET
    st = path.stat()
    path.rename(site.backup / "aside")
    path.write_bytes(b"Z" * st.st_size)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (swapped_by_hand, "was changed or replaced"),
        (copied_without_its_times, "was changed or replaced"),
        (another_file_with_its_times, "was changed or replaced"),
        (replaced, "was changed or replaced"),
        (changed, "was changed or replaced"),
        (swapped, "is a symlink"),
        (directory, "is a directory"),
        (another_job, "manifest is of job 'Q.root'"),
        (another_run, "was replaced"),
        (no_manifest, "has no manifest"),
        (no_json, "is no manifest"),
        (linked_manifest, "symbolic links"),
    ],
)
def test_what_is_not_as_it_was_published_stays_and_is_told(site, spoil, told):
    old, new = published(site, "R"), published(site, "S")
    spoil(site)
    before = files(site)
    for dry in (True, False):
        (answer,) = ask(site, old, remaining=[new["path"]], dry=dry)
        assert answer["state"] == "left"
        assert told in answer["text"]
        assert files(site) == before


def clock_stepped_back(site):
    path = site.backup / f"{TARGET}.manifest.json"
    before = path.stat().st_mtime_ns - 2_000_000_000
    os.utime(path, ns=(before, before))


def moved_to_another_file_system(site):
    """With all times, as by ``cp -a``: the manifest says which file system the image was in."""
    path = site.backup / f"{TARGET}.manifest.json"
    keys = json.loads(path.read_text())
    keys["image"]["which"] = "uuid:0123456789abcdef/" + keys["image"]["which"].rpartition("/")[2] + "0"
    path.write_bytes(manifest.manifest_text(keys))


def of_an_older_version(site):
    path = site.backup / f"{TARGET}.manifest.json"
    keys = json.loads(path.read_text())
    path.write_bytes(manifest.manifest_text({name: value for name, value in keys.items() if name != "image"}))


def linked(site):
    os.link(site.backup / TARGET, site.backup / "kept-by-hand.img")


@pytest.mark.parametrize("happened", [clock_stepped_back, moved_to_another_file_system, of_an_older_version, linked])
def test_a_backup_that_is_as_it_was_goes_whatever_the_clock_did(site, happened):
    old, new = published(site, "R"), published(site, "S")
    happened(site)
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]
    assert not (site.backup / TARGET).exists()


needs_qemu = pytest.mark.skipif(not shutil.which("qemu-img"), reason="QEMU's tools are not installed: `make tools`")


@needs_qemu
def test_nothing_goes_under_a_guest_wherever_its_overlay_lies(site, tmp_path):
    old, new = published(site, "R"), published(site, "S")
    overlay = tmp_path / "overlay.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", old["path"], "-F", "raw", str(overlay)]
    subprocess.run(argv, check=True)
    before = files(site)
    with qemu(overlay, tmp_path, driver="qcow2"):
        for dry in (True, False):
            (answer,) = ask(site, old, remaining=[new["path"]], dry=dry)
            assert (answer["state"], "QEMU has it open" in answer["text"]) == ("left", True)
        assert files(site) == before
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
@pytest.mark.parametrize("key", ["which", "size", "mtime_ns"])
def test_a_flipped_bit_in_the_name_of_a_key_ends_no_prune(site, key):
    old, new = published(site, "R"), published(site, "S")
    path = site.backup / f"{TARGET}.manifest.json"
    before, _, after = path.read_text().rpartition(f'"{key}"')
    path.write_text(f'{before}"{key[:-1]}_"{after}')
    (answer,) = ask(site, old, remaining=[new["path"]])
    assert answer["state"] == ("pruned" if key == "which" else "left")


def test_a_backup_that_a_loop_device_lies_in_stays(site):
    old, new = published(site, "R"), published(site, "S")
    done = subprocess.run(["losetup", "-f", "--show", old["path"]], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        (answer,) = ask(site, old, remaining=[new["path"]])
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert (answer["state"], f"{device} lies in it" in answer["text"]) == ("left", True)
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]


QCOW2 = ("-f", "qcow2", "-F", "raw")


@needs_qemu
@pytest.mark.parametrize(
    "words",
    [
        (*QCOW2, "-b", "root.img"), (*QCOW2, "-b", "./root.img"), (*QCOW2, "-b", "{path}"),
        (*QCOW2, "-b", "file:{path}"), (*QCOW2, "-b", "../R/root.img"),
        (*QCOW2, "-b", 'json:{"driver": "file", "filename": "{path}"}'),
    ],
    ids=["name", "dot", "path", "protocol", "up and down", "json"],
)  # fmt: skip
def test_a_backup_that_an_image_beside_it_lies_on_stays(site, words):
    old, new = published(site, "R"), published(site, "S")
    above = site.backup / "R/by-hand.qcow2"
    named = [word.replace("{path}", old["path"]) for word in words]
    subprocess.run(["qemu-img", "create", "-q", "-u", *named, str(above), "1M"], check=True)
    (answer,) = ask(site, old, remaining=[new["path"]])
    assert (answer["state"], "by-hand.qcow2 lies on it" in answer["text"]) == ("left", True), answer
    with pytest.raises(JobFailed, match=r"by-hand\.qcow2 in the same directory lies on it"):
        Backup().open(*over(site))
    above.unlink()
    Backup().open(*over(site))


@needs_qemu
@pytest.mark.parametrize("words", [("-f", "qcow2", "-o", "data_file=Xoot.img"), ("-f", "qed", "-b", "Xoot.img")])
def test_a_backup_that_an_image_beside_it_names_in_another_way_stays(site, words):
    old, new = published(site, "R"), published(site, "S")
    above = site.backup / "R/by-hand"
    create = ["qemu-img", "create", "-q", *(["-u", "-F", "raw"] if "-b" in words else []), *words, "by-hand", "1M"]
    subprocess.run(create, check=True, cwd=above.parent)
    above.write_bytes(above.read_bytes().replace(b"Xoot.img", b"root.img"))
    (answer,) = ask(site, old, remaining=[new["path"]])
    assert (answer["state"], "by-hand lies on it" in answer["text"]) == ("left", True), answer
    with pytest.raises(JobFailed, match="by-hand in the same directory lies on it"):
        Backup().open(*over(site))


def over(site):
    """OPEN of a job that would replace the backup."""
    allowed = replace(site, allow_overwrite=True)
    return allowed.roots, allowed.spec(transaction=TxnId("T"), overwrite=True, snapshot="none"), lambda: True


@pytest.mark.parametrize(
    ("embedded", "named"),
    [(True, b'parentFileNameHint="root.img"'), (False, b'parentFileNameHint="root.img"'),
     (False, b'RW 4096 FLAT "root.img" 0')],
    ids=["parent of an image", "parent of a description", "extent"],
)  # fmt: skip
def test_a_vmdk_that_names_it_keeps_it(site, embedded, named):
    old, new = published(site, "R"), published(site, "S")
    text = b"# Disk DescriptorFile\nversion=1\n" + named + b"\n"
    header = b"KDMV" + struct.pack("<IIQQQQ", 1, 3, 2048, 128, 1, 20)
    (site.backup / "R/top.vmdk").write_bytes(header.ljust(512, b"\0") + text if embedded else text)
    (answer,) = ask(site, old, remaining=[new["path"]])
    assert (answer["state"], "top.vmdk lies on it" in answer["text"]) == ("left", True), answer


def test_a_directory_in_which_somebody_put_something_stays(site):
    old, new = published(site, "R"), published(site, "S")
    (site.backup / "R/notes.txt").write_text("mine")
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]
    assert files(site)[:2] == ["R", "R/notes.txt"]


@pytest.mark.parametrize("other", ["a symlink", "the digests of another image"])
def test_digests_that_are_not_the_jobs_stay(site, other):
    old, new = published(site, "R"), published(site, "S")
    beside = site.backup / f"{TARGET}.blake3"
    content = beside.read_bytes()
    beside.unlink()
    if other == "a symlink":
        beside.symlink_to("/etc/hostname")
    else:
        beside.write_bytes(content[::-1])
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]
    assert "R/root.img.blake3" in files(site)


def test_nothing_beneath_a_base_without_any_backup_counts_as_gone(site):
    """The store is not mounted: every name is missing."""
    old, new = published(site, "R"), published(site, "S")
    store = site.backup.rename(site.base / "unmounted")
    site.backup.mkdir()
    (answer,) = ask(site, old, remaining=[new["path"]])
    assert (answer["state"], "is it mounted?" in answer["text"]) == ("left", True)
    site.backup.rmdir()
    store.rename(site.backup)
    assert ask(site, old, remaining=[new["path"]]) == [{"state": "pruned"}]


def test_a_backup_in_use_or_outside_the_roots_stays(site):
    old, new = published(site, "R"), published(site, "S")
    assert "in use" in ask(site, old, remaining=[new["path"]], in_use=True)[0]["text"]
    outside = {**old, "path": str(site.images / "root.img"), "base": str(site.images)}
    assert "outside the write roots" in ask(site, outside)[0]["text"]
    assert (site.images / "root.img").exists()


def test_nothing_is_removed_after_the_asker_gave_up(site):
    old, new = published(site, "R"), published(site, "S")
    before = site.tree()
    (answer,) = ask(site, old, remaining=[new["path"]], permitted=False)
    assert answer["state"] == "left"
    assert site.tree() == before


@pytest.mark.parametrize("parent", ["R.root", "{path}", "web1:{path}", {"job": "R.root"}, {"target": "web1:{path}"}])
def test_a_backup_that_another_manifest_names_as_its_parent_stays(site, parent):
    old, new = published(site, "R"), published(site, "S")
    path = site.backup / "S/root.img.manifest.json"
    named = json.loads(json.dumps(parent).replace("{path}", old["path"]))
    path.write_text(json.dumps({**json.loads(path.read_text()), "parent": named}))
    assert "S/root.img lies on it" in ask(site, old, remaining=[new["path"]])[0]["text"]
    # Both go, the upper one first: nothing needs the lower one then.
    assert ask(site, new, old, remaining=[]) == [{"state": "pruned"}] * 2
    assert files(site) == []


def test_a_parent_stays_when_what_lies_on_it_could_not_go(site):
    old, new = published(site, "R"), published(site, "S")
    path = site.backup / "S/root.img.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "parent": "R.root"}))
    (site.backup / "S/root.img").write_bytes(b"foreign")
    assert [answer["state"] for answer in ask(site, new, old)] == ["left", "left"]


def test_an_image_that_a_qcow2_beside_it_lies_on_stays(site):
    old, new = published(site, "R"), published(site, "S")
    name = b"root.img"
    (site.backup / "R/top.qcow2").write_bytes(b"QFI\xfb" + struct.pack(">IQI", 3, 4096, len(name)) + bytes(4076) + name)
    other = json.loads((site.backup / "S/root.img.manifest.json").read_text())
    (site.backup / "R/top.qcow2.manifest.json").write_text(json.dumps({**other, "format": "qcow2"}))
    assert "R/top.qcow2 lies on it" in ask(site, old, remaining=[new["path"]])[0]["text"]


def test_killed_before_any_change_and_asked_again_it_is_pruned(sites, killed_at_every_change):
    def set_up():
        site = sites()
        return site, published(site, "R"), published(site, "S")

    def prune(place):
        site, old, new = place
        return ask(site, old, remaining=[new["path"]])

    def check(place, _):
        (answer,) = prune(place)
        assert answer["state"] in ("pruned", "gone"), answer
        assert files(place[0]) == ["S", "S/root.img", "S/root.img.blake3", "S/root.img.manifest.json"]

    killed_at_every_change(set_up, prune, check, at_least=7)
