"""``block_resize`` on a real host: what it changes, what its owner forbids, and what happens while somebody hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic

import pytest
from fleet import MIB, Fleet
from talk import Monitor

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model import volumespec
from blockjobs.model.ids import Host
from blockjobs.registry import keys


def sizes(monitor: Monitor) -> dict[str, int]:
    return {node["node-name"]: node["image"]["virtual-size"] for node in monitor.ok("query-named-block-nodes")}


def test_every_node_of_the_file_has_the_new_size(monitor, images):
    monitor.ok("blockdev-add", driver="raw", node_name="top", file="a")
    monitor.ok("block_resize", node_name="top", size=3 * MIB)
    assert (images / "a.img").stat().st_size == 3 * MIB
    found = sizes(monitor)
    assert (found["a"], found["top"], found["b"]) == (3 * MIB, 3 * MIB, 4 * MIB)
    monitor.ok("block_resize", node_name="small", size=3 * MIB)
    monitor.backup("j", "top", "small")
    monitor.until_status("j", "null")
    assert (images / "small.img").read_bytes() == (images / "a.img").read_bytes()


def test_nothing_is_left_reserved(monitor, images, fleet):
    monitor.ok("block_resize", node_name="a", size=0)
    assert monitor.no("block_resize", node_name="a", size=1 << 62) == "Could not resize file: File too large"
    assert not fleet.client.exists(keys.texts(), keys.reserved())


def test_a_file_that_is_gone_or_replaced_by_a_link_is_not_resized(monitor, images):
    (images / "a.img").unlink()
    assert monitor.no("block_resize", node_name="a", size=1) == "Could not resize file: No such file or directory"
    (images / "a.img").symlink_to("b.img")
    assert "symbolic links" in monitor.no("block_resize", node_name="a", size=1)
    os.link(images / "c.img", images / "c2.img")
    assert monitor.no("block_resize", node_name="c", size=1) == (
        f"Could not resize file: {images}/c.img has 2 hard links: a file with one was expected"
    )
    assert [(images / f"{name}.img").stat().st_size for name in "bc"] == [4 * MIB, 4 * MIB]


def test_a_job_that_knows_the_file_by_another_name_is_not_disturbed(monitor, images, fleet):
    """The registry knows names; the host knows files."""
    os.rename(images / "a.img", images / "moved.img")  # as if the same directory were mounted twice
    monitor.ok("blockdev-add", driver="file", node_name="moved", filename=str(images / "moved.img"))
    monitor.backup("j", "moved", "b", speed=1)
    monitor.until_status("j", "running")
    os.rename(images / "moved.img", images / "a.img")
    assert monitor.no("block_resize", node_name="a", size=1) == (
        f"Could not resize file: {images}/a.img is in use by a job that knows it by another name"
    )
    assert (images / "a.img").stat().st_size == 4 * MIB


def test_a_host_that_hangs_does_not_do_it_later(fleet, monitor, images):
    """Nor is it in anybody's way: the volume is free as soon as it is sure that nothing will happen."""
    fleet.kill("steps@a", signal.SIGSTOP)
    began = monotonic()
    refusal = monitor.no("block_resize", node_name="a", size=1)
    assert refusal == "host 'a' did not answer within 3 s: the image was not resized"
    assert monotonic() - began < 5
    assert not fleet.client.exists(keys.texts(), keys.reserved())
    fleet.kill("steps@a", signal.SIGCONT)
    monitor.ok("block_resize", node_name="b", size=1)  # comes behind the other in the host's queue
    assert (images / "a.img").stat().st_size == 4 * MIB
    monitor.backup("j", "a", "c")
    monitor.until_status("j", "null")


def test_a_message_that_comes_twice_resizes_once(fleet, monitor, images):
    """What Celery repeats finds no permit."""
    path = images / "a.img"
    volume = volumespec.to_dict(volumespec.parse_volume(f"a:{path}"))
    bell, questions = Doorbell(fleet.server.url), fleet.registry.questions
    what = {"ask": "resize", "volume": volume, "size": 1, "patience": 10.0}
    once = put_question(questions, bell, Host("a"), what, patience=30.0, changes=True)
    assert questions.wait(Host("a"), once, 10) == {"size": 1}
    path.write_bytes(b"AB")
    bell.question(Host("a"), once)
    for name in "bcde":  # behind it in the queue
        monitor.ok("block_resize", node_name=name, size=1)
    assert path.read_bytes() == b"AB"


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A host whose images nobody may overwrite."""
    fleet = Fleet(tmp_path_factory.mktemp("strict"), ["a"], qmp=True)
    yield fleet
    fleet.close()


def test_a_host_that_forbids_to_overwrite_does_not_resize_either(strict):
    path: Path = strict.image("a", "a.img", 1)
    with Monitor(strict.qmp) as monitor:
        monitor.ok("blockdev-add", driver="file", node_name="a", filename=str(path))
        assert monitor.no("block_resize", node_name="a", size=1) == (
            f"Could not resize file: host a does not allow overwriting ({path})"
        )
        assert sizes(monitor) == {"a": MIB}
        refusal = monitor.no("drive-mirror", job_id="j", device="a", target=f"{path}", sync="full", mode="existing")
        assert "does not allow overwriting" in refusal
    assert path.stat().st_size == MIB
