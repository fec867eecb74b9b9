"""What lies beside a restored image: nothing, unless it was asked for; and never what described another image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from carried import Machine, carry_out, prepare_job

from blockjobs.model.errors import JobFailed
from blockjobs.model.restores import KEEP_DIGESTS
from blockworker.drivers.backup import Backup
from blockworker.drivers.restore import Restore
from blockworker.host.roots import Roots
from blockworker.targets import manifest

OLD, NEW = b"V" * 3_000_000, b"A" * 2_500_000
BESIDE = (".blake3", ".manifest.json")


@pytest.fixture
def machines(tmp_path) -> Callable[[], Machine]:
    """A call makes a host with a published backup of NEW, and one of OLD, both with digests and manifest."""

    def make() -> Machine:
        machine = Machine(tmp_path / str(len(list(tmp_path.iterdir()))))
        for name in ("images", "backup"):
            (machine.base / name).mkdir(parents=True)
        for content, target in ((OLD, "backup/old.img"), (NEW, "backup/new.img")):
            (machine.base / "images/root.img").write_bytes(content)
            name = os.path.basename(target)[:3]
            spec = machine.job("backup", "images/root.img", target, id=f"{name}.a", transaction=name, run=name)
            carry_out(Backup(), Roots(machine.config), spec)
        return machine

    return make


def roots(machine: Machine) -> Roots:
    return Roots(replace(machine.config, allow_overwrite=True))


def names(machine: Machine, folder: str) -> list[str]:
    return sorted(path.name for path in (machine.base / folder).iterdir() if path.name != ".blockjobs")


@pytest.mark.parametrize("digests", [True, False])
def test_nothing_lies_beside_a_restored_image(machines, digests):
    machine = machines()
    carry_out(Restore(), roots(machine), machine.job("restore", "backup/new.img", "images/back.img", digests=digests))
    assert names(machine, "images") == ["back.img", "root.img"]
    assert (machine.base / "images/back.img").read_bytes() == NEW


def test_digests_and_manifest_stay_where_they_are_asked_for_and_describe_the_image(machines):
    machine = machines()
    spec = machine.job("restore", "backup/new.img", "images/back.img", options={KEEP_DIGESTS: True})
    carry_out(Restore(), roots(machine), spec)
    assert names(machine, "images") == ["back.img", *(f"back.img{suffix}" for suffix in BESIDE), "root.img"]
    image = str(machine.base / "images/back.img")
    told = manifest.load_manifest(f"{image}.manifest.json")
    assert not manifest.verify_image(image, told).bad
    assert told["restored"]["checked"]


def over_old(machine: Machine, **more: object):
    return machine.job("restore", "backup/new.img", "backup/old.img", overwrite=True, **more)


def test_what_described_the_replaced_image_goes_with_it(machines):
    machine = machines()
    carry_out(Restore(), roots(machine), over_old(machine))
    assert names(machine, "backup") == ["new.img", *(f"new.img{suffix}" for suffix in BESIDE), "old.img"]
    assert (machine.base / "backup/old.img").read_bytes() == NEW


def test_what_described_the_replaced_image_is_replaced_where_digests_are_kept(machines):
    machine = machines()
    carry_out(Restore(), roots(machine), over_old(machine, options={KEEP_DIGESTS: True}))
    image = str(machine.base / "backup/old.img")
    told = manifest.load_manifest(f"{image}.manifest.json")
    assert told["job"] == "restore.a"
    assert not manifest.verify_image(image, told).bad


def test_an_aborted_restore_leaves_the_image_and_all_that_describes_it(machines):
    machine = machines()
    before, spec = names(machine, "backup"), over_old(machine)
    prepare_job(Restore(), roots(machine), spec)
    Restore().abort(roots(machine), spec, 1, opened=True)
    assert names(machine, "backup") == before
    image = str(machine.base / "backup/old.img")
    assert not manifest.verify_image(image, manifest.load_manifest(f"{image}.manifest.json")).bad


def test_a_commit_that_was_killed_anywhere_leaves_no_foreign_description(machines, killed_at_every_change):
    def prepared() -> Machine:
        machine = machines()
        prepare_job(Restore(), roots(machine), over_old(machine))
        return machine

    def commit(machine: Machine) -> None:
        Restore().commit(roots(machine), over_old(machine), 1)
        Restore().clean(roots(machine), over_old(machine))

    def check(machine: Machine, _died: bool) -> None:
        image = machine.base / "backup/old.img"
        if image.read_bytes() == OLD:
            assert not manifest.verify_image(str(image), manifest.load_manifest(f"{image}.manifest.json")).bad
        commit(machine)
        commit(machine)
        assert names(machine, "backup") == ["new.img", *(f"new.img{suffix}" for suffix in BESIDE), "old.img"]
        assert image.read_bytes() == NEW

    killed_at_every_change(prepared, commit, check, at_least=8)


def test_a_foreign_description_that_appears_after_prepare_is_never_removed(machines):
    machine = machines()
    spec = machine.job("restore", "backup/new.img", "images/back.img")
    prepare_job(Restore(), roots(machine), spec)
    foreign = Path(f"{machine.base}/images/back.img.manifest.json")
    foreign.write_text("mine")
    with pytest.raises(JobFailed, match="was taken by a file that is not ours"):
        Restore().commit(roots(machine), spec, 1)
    assert foreign.read_text() == "mine"
    assert not (machine.base / "images/back.img").exists()
