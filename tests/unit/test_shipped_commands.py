"""The commands that deploy/ ships: each makes a cut, prints where it is, and leaves nothing; Btrfs is real."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from mounts import PATH, mounted

COMMANDS = Path(__file__).parents[2] / "deploy" / "commands"
# Each notes its words, and has a state: a file for each snapshot, by its last word.
FAKES = {
    "lvs": """case "$*" in *pool_lv*) cat "$HERE/pool" 2>/dev/null || true ;; *) ls "$HERE/snapshots" ;; esac""",
    "lvcreate": """while [ "$1" != --name ]; do shift; done; touch "$HERE/snapshots/$2"; echo chatter""",
    "lvremove": """for last; do :; done; rm "$HERE/snapshots/${last#*/}"; echo chatter""",
    "zfs": """for last; do :; done
case "$1" in
get) echo "$HERE/tank" ;;
list) for name in $(ls "$HERE/snapshots"); do echo "$last@$name"; done ;;
snapshot) touch "$HERE/snapshots/${last#*@}"; mkdir -p "$HERE/tank/.zfs/snapshot/${last#*@}"
    cp "$HERE/tank/root.img" "$HERE/tank/.zfs/snapshot/${last#*@}" ;;
destroy) rm "$HERE/snapshots/${last#*@}"; rm -r "$HERE/tank/.zfs/snapshot/${last#*@}" ;;
esac""",
    "virsh": "true",
}


@pytest.fixture
def fakes(tmp_path):
    """A place with stand-ins for the tools."""
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "bin").mkdir()
    for name, body in FAKES.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/bin/sh\nHERE={tmp_path}\necho "{name} $*" >> "$HERE/calls"\n{body}\n')
        tool.chmod(0o700)
    return tmp_path


def call(place, name, *words):
    env = {**os.environ, "PATH": f"{place / 'bin'}:{PATH}"}
    argv = [str(COMMANDS / name), *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def calls(place):
    return (place / "calls").read_text().splitlines()


def snapshots(place):
    return sorted(path.name for path in (place / "snapshots").iterdir())


@pytest.mark.parametrize("pool", ["", "  thin0"], ids=["thick", "thin"])
def test_lvm_prints_its_snapshot_and_removes_it(fakes, pool):
    (fakes / "pool").write_text(f"{pool}\n")
    made = call(fakes, "lvm.sh", "20%ORIGIN", "create", "/dev/vg0/root", "1234")
    assert (made.returncode, made.stdout) == (0, "/dev/vg0/root-cut-1234\n"), made.stderr
    assert snapshots(fakes) == ["root-cut-1234"]
    assert any("--extents 20%ORIGIN" in line for line in calls(fakes)) == (not pool)
    for _ in range(2):
        gone = call(fakes, "lvm.sh", "20%ORIGIN", "remove", "/dev/vg0/root", "1234")
        assert (gone.returncode, gone.stdout) == (0, ""), gone.stderr
        assert snapshots(fakes) == []


def test_zfs_prints_the_image_in_the_snapshot_and_removes_it(fakes):
    (fakes / "tank").mkdir()
    source = fakes / "tank" / "root.img"
    source.write_bytes(b"image")
    made = call(fakes, "zfs.sh", "tank/images", "create", str(source), "1234")
    assert made.returncode == 0, made.stderr
    assert Path(made.stdout.strip()).read_bytes() == b"image"
    assert "zfs snapshot tank/images@cut-1234" in calls(fakes)
    for _ in range(2):
        assert call(fakes, "zfs.sh", "tank/images", "remove", str(source), "1234").returncode == 0
        assert snapshots(fakes) == []
    other = call(fakes, "zfs.sh", "tank/images", "create", "/elsewhere/root.img", "1234")
    assert (other.returncode, "is not beneath" in other.stderr) == (1, True)


@pytest.mark.parametrize("name", ["lvm.sh", "zfs.sh"])
def test_a_snapshot_that_an_interrupted_attempt_left_is_made_anew(fakes, name):
    (fakes / "tank").mkdir()
    (fakes / "tank" / "root.img").write_bytes(b"image")
    words = ["tank/images", "create", f"{fakes}/tank/root.img"] if name == "zfs.sh" else ["create", "/dev/vg0/root"]
    for _ in range(2):
        assert call(fakes, name, *words, "1234").returncode == 0
    assert len(snapshots(fakes)) == 1
    assert any(line.startswith(("lvremove", "zfs destroy")) for line in calls(fakes))


@pytest.mark.parametrize(("name", "tool"), [("lvm.sh", "lvs"), ("zfs.sh", "zfs")])
def test_where_it_cannot_be_known_what_is_there_nothing_is_said_to_be_removed(fakes, name, tool):
    (fakes / "bin" / tool).write_text("#!/bin/sh\necho 'it does not answer' >&2\nexit 5\n")
    source = "/dev/vg0/root" if name == "lvm.sh" else "/dev/zvol/tank/root"
    assert call(fakes, name, "remove", source, "1234").returncode == 5


def test_a_tool_that_fails_fails_the_command(fakes):
    (fakes / "bin" / "lvcreate").write_text("#!/bin/sh\necho 'insufficient free space' >&2\nexit 5\n")
    made = call(fakes, "lvm.sh", "create", "/dev/vg0/root", "1234")
    assert (made.returncode, made.stdout) == (5, "")
    assert made.stderr.endswith("insufficient free space\n")


def test_libvirt_freezes_and_thaws_its_guest(fakes):
    for word in ("freeze", "thaw"):
        assert call(fakes, "libvirt.sh", "db1", word, "/srv/a.img", "/srv/b.img").returncode == 0
    assert calls(fakes) == ["virsh --quiet domfsfreeze db1", "virsh --quiet domfsthaw db1"]


def test_btrfs_cuts_a_subvolume_and_leaves_none(tmp_path):
    with mounted("btrfs", tmp_path / "btrfs") as top:
        images = top / "images"
        assert shutil.which("btrfs", path=PATH)
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(images)], check=True)
        (images / "vm").mkdir()
        source = images / "vm" / "root.img"
        source.write_bytes(b"before")
        for _ in range(2):  # the second one finds what an interrupted attempt left
            made = call(tmp_path, "btrfs.sh", str(images), "create", str(source), "1234")
            assert made.returncode == 0, made.stderr
        cut = Path(made.stdout.strip())
        source.write_bytes(b"after")
        assert cut.read_bytes() == b"before"
        for _ in range(2):
            assert call(tmp_path, "btrfs.sh", str(images), "remove", str(source), "1234").returncode == 0
            assert sorted(os.listdir(images)) == ["vm"]
