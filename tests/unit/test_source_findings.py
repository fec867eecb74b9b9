"""What OPEN finds of a source: damage of an image of a format, and raw bytes that begin as one."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from contextlib import closing, contextmanager

import pytest
from alone import Alone
from damaged import counted_as_free, qcow2_with
from disks import Disk

from blockjobs.model import volumespec
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import JobFailed
from blockjobs.model.jobs import JobSpec, OnDamage
from blockworker.drivers.backup import Backup
from blockworker.drivers.examined import examine_copied
from blockworker.drivers.verify import Verify
from blockworker.questions import forecast as forecasts
from blockworker.questions.forecast import forecast_job
from blockworker.targets import manifest

MIB = 1 << 20
pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-img"), reason="qemu-utils is not installed: `make tools` as root"
)  # fmt: skip


def tool(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


def image(path, form="qcow2", *options):
    tool("qemu-img", "create", "-q", "-f", form, *options, path, "64M")
    tool("qemu-io", "-f", form, "-c", "write -P 65 0 3M", path)
    return path


def cut(path):
    os.truncate(path, path.stat().st_size - MIB)


DAMAGE = {
    "dirty": ("qcow2", qcow2_with(79, b"\1")),
    "corrupt": ("qcow2", qcow2_with(79, b"\2")),
    "a wrong count": ("qcow2", counted_as_free),
    "a qcow2 that was cut": ("qcow2", cut),
    "a vmdk that was cut": ("vmdk", cut),
}


def node(path, form="qcow2", **more):
    return {"driver": form, "file": {"driver": "file", "filename": str(path)}, **more}


def backup_of(site, keys, **more):
    return site.spec(source=volumespec.parse_volume({"host": "web1", **keys}), snapshot="none", **more)


def opened(site, spec):
    return Backup().open(site.roots, spec, lambda: True)


@pytest.mark.parametrize(
    ("form", "change", "where"),
    [(*each, "top") for each in DAMAGE.values()]
    + [(*DAMAGE[each], "below") for each in ("dirty", "a vmdk that was cut")],
    ids=[*DAMAGE, "dirty, below", "a vmdk that was cut, below"],
)
def test_a_damaged_source_fails_at_open_and_nothing_is_made(site, form, change, where):
    path = image(site.images / "disk", form)
    keys = node(path, form)
    if where == "below":
        top = site.images / "top"
        tool("qemu-img", "create", "-q", "-f", form, "-b", path, "-F", form, top)
        keys = node(top, form, backing=keys)
    assert opened(site, backup_of(site, keys)).damage == (), "the control: it is sound"
    assert opened(site, backup_of(site, keys, id="R.again", target=volumespec.parse_volume(
        f"web1:{site.backup}/R/again.img"))).size == 64 * MIB  # fmt: skip
    for part in site.backup.rglob("*"):
        if part.is_file() and ".blockjobs" not in part.parts:
            part.unlink()
    change(path)
    before = site.tree()
    spec = backup_of(site, keys, id="R.late", target=volumespec.parse_volume(f"web1:{site.backup}/R/late.img"))
    with pytest.raises(JobFailed) as failed:
        opened(site, spec)
    assert failed.value.errno == errno.EIO
    assert failed.value.text.startswith(f"source {spec.source.text} is damaged: {path}")
    assert site.tree() == before
    found = opened(site, JobSpec.from_dict({**spec.to_dict(), "on-source-damage": "report"}))
    assert found.damage
    assert all(str(path) in line for line in found.damage)
    assert not found.unchecked


def test_a_job_that_was_submitted_before_fails_for_damage(site):
    keys = backup_of(site, node(image(site.images / "disk"))).to_dict()
    assert keys.pop("on-source-damage") == "fail"
    assert JobSpec.from_dict(keys).on_source_damage is OnDamage.FAIL


def test_an_image_that_qemu_writes_to_is_left_to_the_attempt_which_checks_its_cut(site):
    path = image(site.images / "disk")
    spec = backup_of(site, node(path), on_source_damage=OnDamage.REPORT)
    with writing(path):
        found = Backup().findings(site.roots, spec)
    assert found.unchecked
    assert not found.damage
    copy = site.images / "disk.cut"
    shutil.copy(path, copy)
    ticks = []
    assert examine_copied(site.roots, spec, Cut(how="reflink", path=str(copy)), lambda: ticks.append(1)) == ()
    qcow2_with(79, b"\1")(copy)  # what its writer marks while it is open
    assert examine_copied(site.roots, spec, Cut(how="reflink", path=str(copy)), lambda: None) == ()
    qcow2_with(79, b"\0")(copy)
    counted_as_free(copy)
    (line,) = examine_copied(site.roots, spec, Cut(how="reflink", path=str(copy)), lambda: None)
    assert line.startswith(f"{copy}: qemu-img check: ERROR")


@contextmanager
def writing(path):
    """QEMU has an image open for writing."""
    argv = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"read 0 512\n")
        process.stdin.flush()
        process.stdout.readline()
        yield
        process.communicate(b"quit\n")


def test_a_cut_of_an_image_that_qemu_writes_to_is_checked_before_it_is_copied(tmp_path, site_at):
    """From OPEN to the manifest, on a file system that can cut."""
    with closing(Disk(tmp_path / "disk", "xfs")) as disk:
        disk.mount()
        site = site_at(disk.top / "host", cuts=True)
        path = image(site.images / "disk")
        spec = site.spec(
            source=volumespec.parse_volume({"host": "web1", **node(path)}), snapshot="reflink",
            on_source_damage=OnDamage.REPORT,
        )  # fmt: skip
        counted_as_free(path)
        with writing(path):
            alone = Alone(site.roots, spec)
            assert alone.opened["cut"]["how"] == "reflink"
            assert alone.opened["unchecked"]
            alone.publish()
        (line,) = manifest.load_manifest(f"{site.backup}/R/root.img.manifest.json")["source_damage"]
        assert "qemu-img check: ERROR" in line


# --- raw bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_a_raw_source_that_begins_as_an_image_is_said_and_louder_where_it_lies_on_another(site, form):
    path, top = image(site.images / "disk", form), site.images / "top"
    tool("qemu-img", "create", "-q", "-f", form, "-b", path, "-F", form, top)
    begins = "is copied as raw bytes, and begins as a"
    found = opened(site, backup_of(site, {"driver": "file", "filename": str(path)}))
    assert found.notes == (f"source {path} {begins} {form} image",)
    spec = backup_of(
        site, {"driver": "file", "filename": str(top)}, id="R.top",
        target=volumespec.parse_volume(f"web1:{site.backup}/R/top.img"),
    )  # fmt: skip
    loud = f"source {top} {begins} {form} image that lies on '{path}': WITHOUT THAT, A COPY OF ITS BYTES IS NO BACKUP"
    assert opened(site, spec).notes == (loud,)
    assert forecast_job(site.roots, spec)["warnings"] == [loud], "what plan says"
    wrong = node(top, form, backing={"driver": "file", "filename": str(path)})
    spec = backup_of(site, wrong, id="R.wrong", target=volumespec.parse_volume(f"web1:{site.backup}/R/wrong.img"))
    assert opened(site, spec).notes == (f"layer {path} is read as raw bytes, and begins as a {form} image",)
    plain = site.image()
    spec = backup_of(
        site, {"driver": "file", "filename": str(plain)}, id="R.plain",
        target=volumespec.parse_volume(f"web1:{site.backup}/R/plain.img"),
    )  # fmt: skip
    assert opened(site, spec).notes == ()


@pytest.mark.parametrize("when", ["open", "attempt"])
def test_damage_that_is_only_reported_is_in_the_manifest(site, when):
    path = image(site.images / "disk")
    spec = backup_of(site, node(path), on_source_damage=OnDamage.REPORT)
    if when == "attempt":
        with writing(path):
            unchecked = Backup().findings(site.roots, spec).unchecked
        assert unchecked, "what QEMU writes to is not looked at"
    counted_as_free(path)
    alone = Alone(site.roots, spec)
    if when == "attempt":
        alone.opened.pop("damage")
        alone.opened["unchecked"] = True
        alone.work.close()
        alone.work = alone.driver.attached(site.roots, alone)
    alone.publish()
    record = manifest.load_manifest(f"{site.backup}/R/root.img.manifest.json")
    (line,) = record["source_damage"]
    assert line.startswith(f"{path}: qemu-img check: ERROR")
    assert "source_notes" not in record


def test_an_attempt_that_finds_damage_fails_before_it_copies(site):
    path = image(site.images / "disk")
    alone = Alone(site.roots, backup_of(site, node(path)))
    alone.work.close()
    alone.opened["unchecked"] = True
    counted_as_free(path)
    with closing(Backup().source(site.roots, alone.spec)) as changed:
        alone.opened["identity"] = changed.identity().to_list()
    alone.work = alone.driver.attached(site.roots, alone)
    with pytest.raises(JobFailed) as failed:
        alone.run()
    assert "is damaged: " in failed.value.text
    assert alone.work.progress().offset == 0


def test_what_is_noted_of_a_raw_source_is_in_the_manifest(site):
    path = image(site.images / "disk")
    Alone(site.roots, backup_of(site, {"driver": "file", "filename": str(path)})).publish()
    record = manifest.load_manifest(f"{site.backup}/R/root.img.manifest.json")
    assert record["source_notes"] == [f"source {path} is copied as raw bytes, and begins as a qcow2 image"]
    assert "source_damage" not in record


# --- verify -----------------------------------------------------------------------------------------------


@pytest.fixture
def published(site):
    """A qcow2 of which each MiB is another letter."""
    site.image(b"".join(bytes([65 + at]) * MIB for at in range(8)))
    path = site.backup / "R/root.qcow2"
    target = {"host": "web1", "driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
    Alone(site.roots, site.spec(target=volumespec.parse_volume(target))).publish()
    return path


def table_of(path):
    """Where the table of data clusters lies."""
    header = path.read_bytes()[:104]
    first = struct.unpack_from(">Q", header, 40)[0]
    with path.open("rb") as file:
        file.seek(first)
        return struct.unpack(">Q", file.read(8))[0] & ~(1 << 63)


def lead_astray(path, entry, where):
    """Let one entry of the table of data clusters point somewhere else."""
    qcow2_with(table_of(path) + 8 * entry, struct.pack(">Q", (1 << 63) | where))(path)


def exchanged(path):
    """Two clusters of different MiB, so that nothing but their digests tells."""
    at = table_of(path)
    raw = path.read_bytes()
    one, other = raw[at : at + 8], raw[at + 8 * 48 : at + 8 * 49]
    qcow2_with(at, other)(path)
    qcow2_with(at + 8 * 48, one)(path)


BROKEN = {
    "a place that is no cluster's": (lambda path: lead_astray(path, 16, 1000), [], [[1 * MIB, 2 * MIB]], True),
    "a place behind the end": (lambda path: lead_astray(path, 80, 1 << 40), [[5 * MIB, 6 * MIB]], [], True),
    "two exchanged clusters": (exchanged, [[0, 1 * MIB], [3 * MIB, 4 * MIB]], [], False),
    "a wrong count": (counted_as_free, [], [], True),
}


def said_by(site, path):
    """What the driver says of an image."""
    spec = site.spec(
        "V.root", type="verify", source=volumespec.parse_volume(f"web1:{path}"),
        target=volumespec.parse_volume({"host": "web1", "driver": "null-co"}),
    )  # fmt: skip
    alone = Alone(site.roots, spec, Verify())
    try:
        alone.run()
    except JobFailed as failed:
        return failed.text, alone.work.result()
    return "", alone.work.result()


@pytest.mark.parametrize("how", BROKEN)
def test_verify_names_ranges_and_damage_of_an_image_whose_tables_are_broken(site, published, how):
    change, differing, unreadable, damaged = BROKEN[how]
    record = manifest.load_manifest(f"{published}.manifest.json")
    assert not manifest.verify_image(str(published), record).bad, "the control"
    assert said_by(site, published)[0] == ""
    change(published)
    found = manifest.verify_image(str(published), record)
    assert (found.differing, found.unreadable, bool(found.damage)) == (differing, unreadable, damaged)
    text, result = said_by(site, published)
    assert text.startswith(f"image {published}: ")
    assert (result.get("differing", []), result.get("unreadable", [])) == (differing, unreadable)
    assert ("its tables are damaged: " in text, bool(result.get("damage"))) == (damaged, damaged)


def test_verify_says_what_cannot_be_told_of_an_image_as_ranges(site, published):
    """The table of tables is broken: QEMU cannot even say what is allocated."""
    record = manifest.load_manifest(f"{published}.manifest.json")
    first = struct.unpack_from(">Q", published.read_bytes()[:104], 40)[0]
    qcow2_with(first, struct.pack(">Q", (1 << 63) | 1000))(published)
    found = manifest.verify_image(str(published), record)
    assert found.unreadable == [[0, 8 * MIB]]
    assert found.damage
    text, result = said_by(site, published)
    assert result["unreadable"] == [[0, 8 * MIB]]
    assert "bytes 0 to 8388608 cannot be read" in text


def test_a_map_that_takes_long_is_cut_off_and_its_rest_counts_as_data(site, monkeypatch):
    path = site.image(b"A" * MIB)
    os.truncate(path, 4 * MIB)
    whole = forecast_job(site.roots, site.spec())
    assert (whole["bytes"], whole["warnings"]) == (MIB, [])
    monkeypatch.setattr(forecasts, "LOOK", 0.0)
    part = forecast_job(site.roots, site.spec())
    assert part["bytes"] == 4 * MIB
    seen = f"only {MIB} of {4 * MIB} bytes could be looked at in time: all others are counted as data"
    assert part["warnings"] == [f"source {path}: {seen}"]
    assert part["allocated"] == whole["allocated"]
