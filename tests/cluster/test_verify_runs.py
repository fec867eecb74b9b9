"""Last night's backups from one terminal: every image on its host, each for itself, and what differs to its MiB."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet import MIB, Fleet, files

from blockjobs.cli.main import cli, run_command_guarded
from blockjobs.model.errors import VolumeBusy
from blockjobs.model.ids import Host, RunId
from blockjobs.model.volumespec import FileVolume, HostedVolume
from blockjobs.settings import URL


@dataclass
class Terminal:
    """The command line, in this process."""

    fleet: Fleet
    read: Callable[[], tuple[str, str]]

    def call(self, *words: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        self.fleet.seq = self.fleet.registry.events.last()
        code = run_command_guarded(lambda: cli.main([*map(str, words)], standalone_mode=False))
        return code, *self.read()

    def verify(self, *words: object) -> tuple[int, list[dict[str, object]], str]:
        """Exit code, jobs, stderr."""
        code, out, err = self.call("verify", "--json", *words)
        return code, json.loads(out)["jobs"] if out else [], err


@pytest.fixture
def terminal(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.setenv(URL, fleet.server.url)
    return Terminal(fleet, capfd.readouterr)


def backed_up(fleet: Fleet, *hosts: str, mib: int = 3, **more: object) -> tuple[RunId, dict[str, Path]]:
    """A run over hosts, and the image of each."""
    jobs = [
        {"id": host, "source": f"{host}:{fleet.image(host, 'night.img', mib)}",
         "target": f"{host}:{fleet.root(host)}/{{run}}.img", **more}
        for host in hosts
    ]  # fmt: skip
    run = fleet.submit(fleet.plan(jobs))
    assert fleet.until("RUN_ENDED", run).fields["failed"] == "0"
    return run, {host: fleet.root(host) / f"{run}.img" for host in hosts}


def flip(image: Path, *places: int) -> None:
    with image.open("r+b") as file:
        for at in places:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))


def test_a_flipped_byte_is_named_to_its_mebibyte_and_stops_no_other_image(fleet: Fleet, terminal: Terminal) -> None:
    run, images = backed_up(fleet, "a", "b", "c")
    before = {host: files(fleet.root(host)) for host in "abc"}
    code, out, err = terminal.call("verify", run)
    assert code == 0, err
    assert out.splitlines()[-1].partition(": ")[2].startswith("3 images are as they were written, 9.0 MiB in ")

    flip(images["b"], MIB + 4711)
    code, _, err = terminal.call("verify", run)
    first, second = err.splitlines()
    told = f"image {images['b']}: bytes {MIB} to {2 * MIB} differ from the digests of its manifest"
    assert (code, second.partition(": ")[2]) == (1, told)
    verification = first.split()[1].removesuffix(":")
    assert first.startswith(f"run {verification}: 2 of 3 images are as they were written, 1 failed, after ")
    assert second.startswith(f"  {verification}.b: ")
    assert {host: files(fleet.root(host)) for host in "abc"} == before, "nothing is written"
    assert fleet.job(f"{verification}.b").bytes["written"] == 0
    assert terminal.call("verify", f"{run}.a", f"c:{images['c']}")[0] == 0
    assert terminal.call("verify", images["b"])[0] == 1, "the path of an image is read here"

    past = json.loads(terminal.call("history", "verify", "--limit", 3, "--json")[1])
    assert [(each["targets"], each["pruned"], each["bytes"]["written"]) for each in past] == [(0, 0, 0)] * 3
    assert run not in {each["id"] for each in past}
    code, _, err = terminal.call("verify", verification)
    assert (code, "it is a verification itself" in err) == (2, True)


def test_every_range_that_differs_is_in_the_result_and_the_first_in_the_error(fleet: Fleet, terminal: Terminal) -> None:
    run, images = backed_up(fleet, "a", mib=30)
    flip(images["a"], 2 * MIB, 3 * MIB, *range(5 * MIB, 29 * MIB, 2 * MIB))
    ranges = [[2 * MIB, 4 * MIB], *([at, at + MIB] for at in range(5 * MIB, 29 * MIB, 2 * MIB))]
    code, (job,), _ = terminal.verify(f"{run}.*")
    named = ", ".join(f"{start} to {end}" for start, end in ranges[:5])
    assert (code, f"bytes {named} and 8 more differ" in str(job["error"])) == (1, True)
    assert fleet.job(str(job["id"])).result["differing"] == ranges
    os.truncate(images["a"], 29 * MIB + 5)
    _, (job,), err = terminal.verify(f"{run}.a")
    assert " failed after " in err.splitlines()[-1], "one image is one line"
    assert fleet.job(str(job["id"])).result["differing"][-1] == [29 * MIB, 30 * MIB], "what was cut off differs"


def test_a_verification_whose_writer_was_killed_goes_on_and_forgets_no_difference(
    fleet: Fleet, terminal: Terminal
) -> None:
    run, images = backed_up(fleet, "a", mib=24)
    flip(images["a"], MIB + 1, 20 * MIB + 1)
    code, out, err = terminal.call("verify", run, "--detach", "--json", "--speed", "4MiB")
    assert code == 0, err
    job = json.loads(out)["jobs"][0]["id"]
    fleet.until_offset(job, 6 * MIB)
    fleet.registry.verbs.pause(job)
    fleet.until_durable("a", job)  # what was read is on record, and would not be read again
    os.kill(fleet.writer("a", job), signal.SIGKILL)
    fleet.until("ATTEMPT_RELEASED", job)
    fleet.registry.verbs.set_speed(job, 0)
    fleet.registry.verbs.resume(job)
    fleet.until_status(job, "concluded")
    view = fleet.job(job)
    assert (view.attempts, view.result["differing"]) == (2, [[MIB, 2 * MIB], [20 * MIB, 21 * MIB]])
    assert view.bytes["read"] == 25 * MIB, "of what the attempt before had read only the MiB that differs is read again"


def test_what_is_verified_is_neither_overwritten_nor_pruned_meanwhile(fleet: Fleet, terminal: Terminal) -> None:
    run, images = backed_up(fleet, "b", mib=4)
    code, out, _ = terminal.call("verify", run, "--detach", "--json", "--speed", "1")
    job = json.loads(out)["jobs"][0]["id"]
    assert code == 0
    volume = HostedVolume(Host("b"), FileVolume(str(images["b"])))
    with pytest.raises(VolumeBusy):
        fleet.registry.nodes.reserve(volume, "prune")
    other = {"id": "j", "source": f"b:{fleet.root('b')}/night.img", "target": volume.text, "overwrite": True}
    with pytest.raises(VolumeBusy):
        fleet.submit(fleet.plan([other]))
    code, (again,), _ = terminal.verify(run)
    assert (code, again["source"]) == (0, volume.text), "readers do not mind each other"
    fleet.registry.verbs.cancel(job)
    fleet.until_status(job, "concluded")
    holder = fleet.registry.nodes.reserve(volume, "prune")
    fleet.registry.nodes.unreserve(volume, holder)


def test_what_cannot_be_compared_is_one_clear_line_and_stops_no_other(fleet: Fleet, terminal: Terminal) -> None:
    run, images = backed_up(fleet, "a", "b", "c", "d")
    images["b"].unlink()
    Path(f"{images['c']}.manifest.json").unlink()
    bare, more = backed_up(fleet, "a", digests=False)
    for suffix in ("", ".manifest.json", ".blake3"):
        Path(f"{images['d']}{suffix}").unlink()
    again = {"id": "d", "source": f"d:{fleet.root('d')}/night.img", "target": f"d:{images['d']}"}
    later = fleet.submit(fleet.plan([again]))
    fleet.until("RUN_ENDED", later)

    code, jobs, _ = terminal.verify(f"{run}.a", f"{run}.b", f"{run}.c", f"{bare}.a")
    said = {str(job["id"]).partition(".")[2]: job["error"] for job in jobs}
    assert code == 1
    assert said == {
        f"{run}.a": None,
        f"{run}.b": f"image {images['b']} does not exist on host b",
        f"{run}.c": f"image {images['c']} has no manifest beside it: nobody knows that a job has published it",
        f"{bare}.a": f"image {more['a']} was copied with 'digests: false': there is nothing to verify it with",
    }  # fmt: skip
    code, _, err = terminal.verify(f"{run}.d")
    assert (code, err) == (2, f"blockjobs: job '{run}.d' has nothing to verify: replaced: by {later}\n")


def test_an_image_of_a_format_is_read_as_what_is_in_it(fleet: Fleet, terminal: Terminal) -> None:
    if not shutil.which("qemu-nbd"):
        pytest.skip("qemu-utils is not installed: `make tools` as root")
    image = {"driver": "file", "filename": f"{fleet.root('a')}/{{run}}.img"}
    run, images = backed_up(fleet, "a", target={"host": "a", "driver": "qcow2", "file": image})
    assert terminal.verify(run)[0] == 0
    place = images["a"].read_bytes().index((fleet.root("a") / "night.img").read_bytes()[MIB : MIB + 4096])
    flip(images["a"], place + 7)
    code, (job,), _ = terminal.verify(run)
    assert (code, f"bytes {MIB} to {2 * MIB} differ" in str(job["error"])) == (1, True)
