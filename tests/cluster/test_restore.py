"""The day of the restore: what comes back is what was backed up, to the byte, or the restore says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from commands import Ended, run_command
from fleet import MIB, Fleet, files

TOOLS = ("mke2fs", "e2fsck")


def call(fleet: Fleet, *words: object) -> Ended:
    """The command line, as an operator has it."""
    return run_command(*words, url=fleet.server.url)


def ext4(fleet: Fleet, host: str, mib: int = 64) -> Path:
    """An image with a file system, and real files in it."""
    if not all(shutil.which(tool) for tool in TOOLS):
        pytest.skip("e2fsprogs is not installed: `make tools` as root")
    content, image = fleet.root(host) / "content", fleet.root(host) / "root.img"
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    for n in range(8):
        (content / f"file{n}").write_bytes(os.urandom(2 * MIB + n))
    image.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", content, image, f"{mib}M"], check=True)
    shutil.rmtree(content)
    return image


def backup(fleet: Fleet, host: str, source: Path, **more: object) -> tuple[str, Path]:
    """A committed backup: the job's id, and the image."""
    job = {"id": "j", "source": f"{host}:{source}", "target": f"{host}:{fleet.root(host)}/{{run}}.img", **more}
    run = fleet.submit(fleet.plan([job]))
    fleet.until("RUN_ENDED", run)
    return f"{run}.j", fleet.root(host) / f"{run}.img"


def flip(image: Path, at: int) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def sound(path: Path) -> bool:
    return subprocess.run(["e2fsck", "-fn", path], capture_output=True, check=False).returncode == 0


def test_a_file_system_comes_back_as_it_was(fleet: Fleet) -> None:
    source = ext4(fleet, "a")
    job, image = backup(fleet, "a", source)
    back = fleet.root("a") / "back.img"
    said = call(fleet, "restore", job, f"a:{back}", "--keep-digests")
    assert said.returncode == 0, said
    assert subprocess.run(["cmp", source, back], check=False).returncode == 0
    assert sound(back)
    assert back.stat().st_blocks <= source.stat().st_blocks + 8, "a hole stays one"
    assert call(fleet, "verify", back).returncode == 0
    told = json.loads(Path(f"{back}.manifest.json").read_text())
    assert (told["source"]["volume"], told["restored"]) == (f"a:{image}", {"offset": 0, "checked": True})
    again = call(fleet, "restore", f"a:{image}", f"a:{back}")
    assert (again.returncode, "'overwrite' was not asked" in again.stderr) == (1, True)


def test_a_flipped_bit_is_named_and_stops_a_restore_unless_it_is_forced(fleet: Fleet) -> None:
    source = fleet.image("b", "source.img", 8)
    job, image = backup(fleet, "b", source)
    flip(image, 5 * MIB + 4711)
    place = f"bytes {5 * MIB} to {6 * MIB} differ"
    assert place in call(fleet, "verify", image).stdout
    before = files(fleet.root("b"))
    said = call(fleet, "restore", job, f"b:{fleet.root('b')}/back.img")
    assert (said.returncode, place in said.stderr, said.stderr.count("\n")) == (1, True, 1), said
    assert files(fleet.root("b")) == before
    forced = call(fleet, "restore", job, f"b:{fleet.root('b')}/back.img", "--force", "--keep-digests")
    assert forced.returncode == 0, forced
    assert f"warning: bytes {5 * MIB} to {6 * MIB} differ" in forced.stderr
    assert (fleet.root("b") / "back.img").read_bytes() == image.read_bytes()
    told = json.loads((fleet.root("b") / "back.img.manifest.json").read_text())
    assert told["restored"]["differing"] == [[5 * MIB, 6 * MIB]]


def test_a_hole_where_there_was_data_is_no_less_a_difference(fleet: Fleet) -> None:
    source = fleet.image("c", "source.img", 4)
    job, image = backup(fleet, "c", source)
    subprocess.run(["fallocate", "-p", "-o", str(2 * MIB), "-l", str(MIB), image], check=True)
    said = call(fleet, "restore", job, f"c:{fleet.root('c')}/back.img")
    assert f"bytes {2 * MIB} to {3 * MIB} differ" in said.stderr
    os.truncate(image, 3 * MIB)
    said = call(fleet, "restore", f"c:{image}", f"c:{fleet.root('c')}/back.img")
    assert f"bytes {3 * MIB} to {4 * MIB} are missing: the image was cut" in said.stderr


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, MIB), (3 * MIB, 2 * MIB), (12_345, 3 * MIB + 17), (7 * MIB - 1, 2), (8 * MIB + 5, 0)],
    ids=["the first MiB", "whole chunks", "across chunks", "two bytes across a border", "the end"],
)
def test_a_range_is_restored_exactly(fleet: Fleet, offset: int, length: int) -> None:
    source = fleet.root("d") / "odd.img"
    if not source.exists():
        source.write_bytes(os.urandom(5 * MIB) + bytes(2 * MIB) + os.urandom(MIB + 777))
    job, _ = backup(fleet, "d", source)
    back = fleet.root("d") / f"range-{offset}.bin"
    said = call(fleet, "restore", job, f"d:{back}", "--offset", offset, "--length", length)
    assert said.returncode == 0, said
    assert back.read_bytes() == source.read_bytes()[offset : offset + length if length else None]


def test_a_qcow2_comes_back_as_a_raw_image(fleet: Fleet) -> None:
    if not shutil.which("qemu-nbd"):
        pytest.skip("qemu-utils is not installed: `make tools` as root")
    source = ext4(fleet, "a")
    target = {"host": "a", "driver": "qcow2",
              "file": {"driver": "file", "filename": f"{fleet.root('a')}/{{run}}.img"}}  # fmt: skip
    job, _ = backup(fleet, "a", source, target=target, compress=True)
    back = fleet.root("a") / "from-qcow2.img"
    said = call(fleet, "restore", job, f"a:{back}")
    assert said.returncode == 0, said
    assert subprocess.run(["cmp", source, back], check=False).returncode == 0
    assert sound(back)


def test_a_killed_restore_goes_on_and_a_forced_one_forgets_nothing(fleet: Fleet) -> None:
    source = fleet.image("a", "big.img", 96)
    _, image = backup(fleet, "a", source)
    flip(image, MIB + 1)
    flip(image, 90 * MIB + 1)
    back = fleet.root("a") / "killed.img"
    said = call(
        fleet, "restore", f"a:{image}", f"a:{back}", "--force", "--speed", "24MiB", "--detach", "--id", "killed"
    )
    assert said.returncode == 0, said
    fleet.until("ATTEMPT_CLAIMED", "killed")
    fleet.until_durable("a", "killed")
    os.kill(fleet.writer("a", "killed"), signal.SIGKILL)
    fleet.until("ATTEMPT_CLAIMED", "killed")
    fleet.registry.verbs.set_speed("killed", 0)
    fleet.until_status("killed", "concluded")
    view = fleet.job("killed")
    assert (view.ret, view.attempts) == (0, 2)
    assert view.result["differing"] == [[MIB, 2 * MIB], [90 * MIB, 91 * MIB]]
    assert subprocess.run(["cmp", image, back], check=False).returncode == 0
    fleet.registry.verbs.dismiss("killed")


def test_what_cannot_be_checked_is_refused(fleet: Fleet) -> None:
    source = fleet.image("b", "source.img", 2)
    job, image = backup(fleet, "b", source, digests=False)
    back = f"b:{fleet.root('b')}/unchecked.img"
    assert "only `--force` restores what cannot be checked" in call(fleet, "restore", job, back).stderr
    assert call(fleet, "restore", job, back, "--force").returncode == 0
    assert (fleet.root("b") / "unchecked.img").read_bytes() == source.read_bytes() == image.read_bytes()
