"""What QEMU's tools say when they give up, and what is said when they are not there."""

from __future__ import annotations

import errno

import pytest

from blockjobs.model.errors import JobFailed
from blockworker.volumes.export import Export
from blockworker.volumes.qemuimg import tool_verdict


@pytest.mark.parametrize(
    ("said", "verdict_"),
    [
        ("", ""),
        ("killed", "killed"),
        ("qemu-nbd: no\n", "no"),
        ('qemu-nbd: Failed to get "write" lock\nIs another process using the image?\n', 'Failed to get "write" lock'),
        ("qemu-nbd: warning: odd\nqemu-nbd: no\n", "no"),
    ],
    ids=["nothing", "nameless", "one line", "a hint behind it", "a warning before it"],
)
def test_a_tool_gave_up_because_of_the_last_line_that_it_signed(said, verdict_):
    assert tool_verdict(said.encode(), "qemu-nbd") == verdict_


def test_a_tool_that_is_not_there_is_named_with_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(JobFailed) as failed:
        Export({"driver": "null-co"}, {})
    assert failed.value.errno == errno.ENOTSUP
    assert str(failed.value) == "images of a format need qemu-nbd on this host (Debian's package qemu-utils)"
