"""A worker with a wrong configuration, or without one, does not start."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sites import Site

CONFIGS: dict[str, tuple[Callable[[str], str], str]] = {
    "empty":         (lambda _: "", "name: missing: a host name was expected"),
    "no TOML":       (lambda _: "name = ", "TOML was expected"),
    "another host":  (lambda text: text.replace('"a"', '"b"'), "name: it is of host 'b', not of 'a'"),
    "unknown key":   (lambda text: text + "x = 1\n", "x: unknown key: one of name, slots, read-roots"),
    "twice":         (lambda text: text + text, "TOML was expected"),
    "boolean slots": (lambda text: text.replace("slots = 2", "slots = true"), "slots: True: an integer from 1 to 1000"),
    "no slots":      (lambda text: text.replace("slots = 2", "slots = 0"), "slots: 0: an integer from 1 to 1000 was"),
    "relative root": (lambda text: text.replace('["/', '["'), "read-roots: path '"),
    "missing root":  (lambda text: text.replace('["/', '["/no/'), "is not an existing directory"),
    "dot dot":       (lambda text: text.replace('["/', '["/../'), "has an empty part, '.' or '..'"),
    "in place":      (lambda text: text.replace("in-place = false", "in-place = 1"), "allow-in-place: 1: true or"),
    "a number":      (lambda text: text.replace("overwrite = false", "overwrite = 1"), "allow-overwrite: 1: true or"),
    "no device":     (lambda text: text.replace("devices = []", 'devices = ["/etc/x"]'), "a list of paths under /dev"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CONFIGS.values(), ids=CONFIGS)
def test_a_worker_with_a_wrong_configuration_does_not_start(site: Site, tmp_path: Path, change, said):
    path = tmp_path / "host.toml"
    path.write_text(change((site.fleet.place / "a.toml").read_text()))
    site.say("worker", "--host", "a", "--queue", "copy", "--config", path).refused(f"{path}: ", said)


@pytest.mark.parametrize("queue", ["copy", "steps"])
def test_a_worker_whose_state_directory_cannot_be_made_does_not_start(site: Site, tmp_path: Path, queue: str):
    (tmp_path / "file").write_text("")
    text = (site.fleet.place / "a.toml").read_text()
    state = re.sub(r"^state = .*$", f'state = "{tmp_path}/file/a"', text, flags=re.MULTILINE)
    (tmp_path / "host.toml").write_text(state)
    words = ("worker", "--host", "a", "--queue", queue, "--config", tmp_path / "host.toml")
    site.say(*words).refused(f"state directory {tmp_path}/file/a: ", "a directory that this user can write was", code=1)


def test_a_worker_without_a_configuration_does_not_start(site: Site, tmp_path: Path):
    words = ["worker", "--queue", "steps", "--host"]
    site.say(*words, "a", "--config", tmp_path / "no").refused(
        "no: No such file or directory: a readable host.toml was"
    )
    site.say(*words, "a", "--config", tmp_path).refused(": Is a directory: a readable host.toml was expected")
    (tmp_path / "host.toml").write_bytes(b"\xff")
    site.say(*words, "a", "--config", tmp_path / "host.toml").refused("TOML was expected")
    site.say(*words, "a\nb", "--config", site.fleet.place / "a.toml").refused("invalid host name 'a\\nb'")
