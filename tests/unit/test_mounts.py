"""Write roots whose disk is not mounted: refused by name, owed until the disk is back, and then ended."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from disks import bound, disk

from blockjobs.cli.main import cli, run_command_guarded
from blockjobs.model import volumespec
from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockworker.drivers.backup import Backup
from blockworker.host import mounts
from blockworker.host.config import HostConfig, host_config_text
from blockworker.host.mounts import RootAway
from blockworker.host.roots import Root, Roots
from blockworker.host.seen import Seen
from blockworker.questions import checkup, look
from blockworker.records import journal, owed
from blockworker.targets import settle
from blockworker.watch import abandoned

KIB = 1 << 10


@pytest.fixture
def source(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "s.img").write_bytes(b"S" * 64 * KIB)
    return tmp_path / "src" / "s.img"


def config_of(tmp_path: Path, *roots: Path, **more: object) -> HostConfig:
    """A host with a state directory."""
    values = {
        "name": Host("h"), "read_roots": (str(tmp_path / "src"),), "write_roots": tuple(map(str, roots)),
        "state": str(tmp_path / "state"),
    }  # fmt: skip
    return HostConfig(**{**values, **more})  # type: ignore[arg-type]


def spec_of(source: Path, directory: Path, job: str = "R.a") -> JobSpec:
    run = job.partition(".")[0]
    return JobSpec(
        id=JobId(job), transaction=TxnId(run), run=RunId(run), source=volumespec.parse_volume(f"h:{source}"),
        target=volumespec.parse_volume(f"h:{directory}/{run}/out.img"), target_base=str(directory), snapshot="none",
    )  # fmt: skip


def opened(config: HostConfig, spec: JobSpec) -> None:
    Backup().open(Roots(config), spec, lambda: True)


def files_in(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if "lost+found" not in path.parts)


# --- a disk that is not mounted -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_root_that_is_not_mounted_is_refused_until_it_is_mounted_again(tmp_path, source, kind):
    with disk(tmp_path, kind) as place:
        config = config_of(tmp_path, place.top)
        here = Roots(config)  # that lives on, as a worker does
        opened(config, spec_of(source, place.top))
        os.close(here.open_dir(str(place.top)))
        place.umount()
        for roots in (here, Roots(config)):
            for act in (
                lambda roots=roots: Backup().open(roots, spec_of(source, place.top, "Q.a"), lambda: True),
                lambda roots=roots: roots.open_published(f"{place.top}/R/out.img"),
                lambda roots=roots: list(journal.scan_open_journals(roots, Root(str(place.top)))),
            ):
                with pytest.raises(RootAway, match=rf"write root {place.top} was on file system .*: is it mounted\?"):
                    act()
        assert files_in(place.top) == []
        place.mount()
        opened(config, spec_of(source, place.top, "Q.a"))
        here.root_of(str(place.top), write=True)
        os.close(here.open_dir(str(place.top)))


def test_plan_and_doctor_name_the_root_and_what_takes_the_change(tmp_path, source):
    with disk(tmp_path) as place:
        config = config_of(tmp_path, place.top)
        opened(config, spec_of(source, place.top))
        place.umount()
        spec = spec_of(source, place.top, "Q.a")
        looks = [
            {"as": "room", "spec": spec.to_dict()}, {"as": "new", "volume": f"h:{place.top}/x.img"},
            {"as": "forecast", "spec": spec.to_dict()},
        ]  # fmt: skip
        answers = [each["text"] for each in look.inspect_volumes(Roots(config), looks)]
        answers += [each["error"] for each in checkup.host_findings(config)["looks"] if each["kind"] == "write-root"]
        assert len(answers) == 4
        for text in answers:
            assert f"write root {place.top} was on" in text
            assert f"`blockjobs roots accept {place.top}` takes the change" in text


def test_a_bound_directory_that_is_missing_is_told_from_the_one_below_it(tmp_path, source):
    real, top = tmp_path / "real", tmp_path / "top"
    real.mkdir()
    top.mkdir()
    config = config_of(tmp_path, top)
    with bound(real, top):
        opened(config, spec_of(source, top))
    with pytest.raises(RootAway, match="is it mounted"):
        opened(config, spec_of(source, top, "Q.a"))
    with bound(real, top):
        opened(config, spec_of(source, top, "Q.a"))


def test_a_root_that_is_gone_altogether_is_said_to_be_away(tmp_path, source):
    top = tmp_path / "top"
    top.mkdir()
    config = config_of(tmp_path, top)
    opened(config, spec_of(source, top))
    top.rename(tmp_path / "elsewhere")
    with pytest.raises(RootAway, match=f"directory {top} does not exist on host h$"):
        opened(config, spec_of(source, top, "Q.a"))
    with pytest.raises(RootAway, match=r"does not exist on host h, which was on .*: is it mounted\?"):
        Roots(config).open_published(f"{top}/R/out.img")


def test_a_store_on_a_mount_of_its_own_below_a_root_is_remembered(tmp_path, source):
    (tmp_path / "backup").mkdir()
    with disk(tmp_path / "backup") as place:
        config = config_of(tmp_path, tmp_path / "backup")
        opened(config, spec_of(source, place.top))
        place.umount()
        with pytest.raises(RootAway, match=f"directory {place.top} was on file system"):
            opened(config, spec_of(source, place.top, "Q.a"))
        opened(config, spec_of(source, tmp_path / "backup", "P.a"))  # the root itself is there
        place.mount()
        opened(config, spec_of(source, place.top, "Q.a"))


def test_what_is_no_other_file_system_is_never_refused(tmp_path, source):
    """The control: a directory that is made anew, a second worker, and a root that came later."""
    top, more = tmp_path / "top", tmp_path / "more"
    top.mkdir()
    more.mkdir()
    config = config_of(tmp_path, top)
    opened(config, spec_of(source, top))
    top.rename(tmp_path / "old")
    top.mkdir()
    opened(config, spec_of(source, top, "Q.a"))
    opened(config_of(tmp_path, more, top), spec_of(source, more, "P.a"))


def test_must_be_mounted_refuses_a_plain_directory_before_its_first_use(tmp_path, source):
    with disk(tmp_path) as place:
        opened(config_of(tmp_path, place.top, must_be_mounted=True), spec_of(source, place.top))
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(RootAway, match=f"write root {plain} is no mount point of its own .* must-be-mounted = true"):
        opened(config_of(tmp_path, plain, must_be_mounted=True), spec_of(source, plain))
    if os.stat(plain).st_dev == os.stat("/").st_dev:
        with bound(tmp_path / "src", plain), pytest.raises(RootAway, match=f"write root {plain} is no mount point of"):
            opened(config_of(tmp_path, plain, must_be_mounted=True), spec_of(source, plain))
    opened(config_of(tmp_path, plain), spec_of(source, plain))


EXT4 = Seen(path="/b", file_system="uuid:1", kind="ext4", mount="/b", directory="1-a")
SAME = {
    "itself": (EXT4, EXT4, True),
    "mounted elsewhere": (EXT4, replace(EXT4, mount="/new"), True),
    "made anew": (EXT4, replace(EXT4, directory="1-b"), True),
    "another disk": (EXT4, replace(EXT4, file_system="uuid:2"), False),
    "another disk with the same inode and mount": (EXT4, replace(EXT4, file_system="uuid:2", directory="1-a"), False),
    "the directory below a bind mount": (EXT4, replace(EXT4, mount="/", directory="1-b"), False),
    "a tmpfs of the next boot": (
        replace(EXT4, kind="tmpfs"), replace(EXT4, kind="tmpfs", file_system="uuid:2", directory="1-b"), True,
    ),
    "no tmpfs any more": (replace(EXT4, kind="tmpfs"), replace(EXT4, file_system="uuid:2", mount="/"), False),
    "named by an older kernel": (EXT4, replace(EXT4, file_system="fsid:7"), True),
    "another disk, named in another way": (EXT4, replace(EXT4, file_system="boot:x:7", directory="1-b"), False),
    "two without a name": (replace(EXT4, file_system="boot:x:6"), replace(EXT4, file_system="boot:x:7"), True),
}  # fmt: skip


@pytest.mark.parametrize(("before", "now", "same"), SAME.values(), ids=SAME)
def test_one_file_system_is_told_from_another(before, now, same):
    assert before.is_same(now) is same


def test_the_record_keeps_what_a_later_version_wrote(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    config = config_of(tmp_path, top)
    Roots(config).remember_root(str(top))
    path = tmp_path / "state" / mounts.NAME
    keys = json.loads(path.read_text())
    keys["colour"] = "red"
    path.write_text(json.dumps(keys))
    mounts.Mounts(config).accept(str(top))
    assert json.loads(path.read_text())["colour"] == "red"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


# --- what is owed while it is away ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "commit"])
def test_what_was_decided_while_the_disk_is_away_is_owed_until_it_is_back(tmp_path, source, how):
    with disk(tmp_path) as place:
        config, spec = config_of(tmp_path, place.top), spec_of(source, place.top)
        opened(config, spec)
        place.umount()
        acts = {
            "abort": lambda: Backup().abort(Roots(config), spec, 1, opened=True),
            "commit": lambda: Backup().commit(Roots(config), spec, 1),
        }
        for _ in range(2):
            with pytest.raises(RootAway, match="is it mounted"):
                acts[how]()
        assert files_in(place.top) == []
        place.mount()
        if how == "abort":
            acts[how]()
            Backup().clean(Roots(config), spec)
            assert [name for name in files_in(place.top) if not name.startswith(".blockjobs")] == []
        else:
            with pytest.raises(JobFailed, match="was never prepared"):
                acts[how]()


def test_an_open_that_was_never_answered_is_ended_when_its_disk_is_back(tmp_path, source):
    """Its run does not wait: mostly nothing was made.  Here a worker died in the middle of it."""
    with disk(tmp_path) as place:
        config, spec = config_of(tmp_path, place.top), spec_of(source, place.top)
        opened(config, spec)
        place.umount()
        for _ in range(2):
            Backup().abort(Roots(config), spec, 7, opened=False)
        assert owed.read_owed_aborts(config) == {str(place.top): {"R": 7}}
        abandoned.visit_root(Roots(config), str(place.top))
        assert owed.read_owed_aborts(config) == {str(place.top): {"R": 7}}
        place.mount()
        abandoned.visit_root(Roots(config), str(place.top))
        assert owed.read_owed_aborts(config) == {}
        assert files_in(place.top) == [
            ".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal",
        ]  # fmt: skip


def test_a_job_that_was_refused_as_its_disk_is_away_owes_nothing(tmp_path, source):
    with disk(tmp_path) as place:
        config, spec = config_of(tmp_path, place.top), spec_of(source, place.top)
        Roots(config).remember_root(str(place.top))
        place.umount()
        with pytest.raises(RootAway):
            opened(config, spec)
        Backup().abort(Roots(config), spec, 7, opened=False)
        place.mount()
        abandoned.visit_root(Roots(config), str(place.top))
        assert (owed.read_owed_aborts(config), files_in(place.top)) == ({}, [])


def test_a_root_that_host_toml_has_no_longer_is_settled_all_the_same(tmp_path, source):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    spec = spec_of(source, old)
    opened(config_of(tmp_path, old), spec)
    later = Roots(config_of(tmp_path, new))
    with pytest.raises(JobFailed) as refused:
        later.open_dir(str(old))
    assert refused.value.errno == errno.EACCES
    settle.abort_job(later.with_former(), spec, 1, opened=True)
    Backup().clean(later.with_former(), spec)
    assert [name for name in files_in(old) if not name.startswith(".blockjobs")] == []
    assert later.with_former().config.write_roots == (str(new), str(old))


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def roots_command(tmp_path, capfd):
    def call(config, *words):
        (tmp_path / "host.toml").write_text(host_config_text(config))
        argv = ["roots", *words, "--config", str(tmp_path / "host.toml")]
        return run_command_guarded(lambda: cli.main(argv, standalone_mode=False)), *capfd.readouterr()

    return call


def test_a_user_accepts_that_a_root_is_on_another_disk(tmp_path, source, roots_command):
    with disk(tmp_path) as place:
        config = config_of(tmp_path, place.top)
        running = Roots(config)
        os.close(running.open_dir(str(place.top)))
        assert roots_command(config)[1].split()[:2] == [str(place.top), "ok"]
        place.umount()
        assert roots_command(config)[1].split()[:2] == [str(place.top), "CHANGED"]
        with pytest.raises(RootAway):
            running.open_dir(str(place.top))
        code, out, _ = roots_command(config, "accept", str(place.top))
        assert (code, "(before: " in out) == (0, True)
        os.close(running.open_dir(str(place.top)))  # a running worker reads it
        opened(config, spec_of(source, place.top))
        code, _, err = roots_command(config, "accept", "/no/root")
        assert (code, "is neither a write root of host h nor a mount on record" in err) == (2, True)


def test_a_root_that_went_is_forgotten_once_nothing_is_open_beneath_it(tmp_path, source, roots_command):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    spec = spec_of(source, old)
    opened(config_of(tmp_path, old), spec)
    config = config_of(tmp_path, new)
    code, _, err = roots_command(config, "forget", str(old))
    assert (code, "transaction 'R' is still open beneath this path" in err) == (2, True)
    there = Roots(config).with_former()
    settle.abort_job(there, spec, 1, opened=True)
    Backup().clean(there, spec)
    assert roots_command(config, "forget", str(old)) == (0, f"{old}: forgotten\n", "")
    assert Roots(config).with_former().config.write_roots == (str(new),)
    code, _, err = roots_command(config, "forget", str(new))
    assert (code, "is not on record" in err) == (2, True)
