"""The state directory: what a host remembers there, and what earlier versions and other orders of roots have left."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from killed import forked

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host
from blockworker.host import config as configs
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.records import devices, owed
from blockworker.records.devices import DeviceRecord, DeviceState
from blockworker.records.highest_decision import Highest
from blockworker.steps.work import SharedHighest
from blockworker.system.standstill import path_calls

RECORD = DeviceRecord(
    identity="dm/uuid:LVM-1", path="/dev/vg/a", state=DeviceState.UNDEFINED, job="R.a", transaction="R", uuid="u",
    size=1, device_size=2, left_by="R.a", left_at=1.0,
)  # fmt: skip


@pytest.fixture
def config(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    roots = (str(tmp_path / "one"), str(tmp_path / "two"))
    return HostConfig(name=Host("h"), read_roots=(), write_roots=roots, state=str(tmp_path / "var" / "h"))


def write_device(config):
    with devices.take_device_lock(Roots(config), RECORD.identity) as held:
        held.write(RECORD)


def carry_over(config):
    for root in config.write_roots:
        devices.carry_over(Roots(config), root)


def jobs_of(config):
    return [record.left_by for record in devices.undefined_devices(Roots(config))]


def test_the_highest_decision_of_a_host_without_write_roots_is_kept(config):
    reader = replace(config, write_roots=())
    Highest(reader).raise_to("here", 7)
    again = Highest(reader)
    assert (again.incarnation, again.number) == ("here", 7)
    with pytest.raises(JobFailed, match=f"until {config.state}/highest.json is removed"):
        again.raise_to("elsewhere", 8)
    nowhere = replace(reader, state="")
    Highest(nowhere).raise_to("here", 7)
    assert Highest(nowhere).number == 0


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"incarnation": null, "number": 7}', b"[" * 100_000, None],
    ids=["nothing", "a list", "no keys", "no text", "no incarnation", "deep", "a directory"],
)  # fmt: skip
def test_a_damaged_record_of_the_highest_decision_lets_nothing_be_decided_and_is_named_until_it_is_mended(
    config, content
):
    Highest(config).raise_to("here", 7)
    path = Path(config.state, "highest.json")
    good = path.read_bytes()
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    highest = Highest(config)
    highest.keep_room()
    for _ in range(2):
        with pytest.raises(JobFailed, match=f"record {path}.*: nothing is decided here until it is mended"):
            highest.raise_to("here", 8)
    path.rmdir() if content is None else path.unlink()
    path.write_bytes(good)
    highest.raise_to("here", 8)
    assert Highest(config).number == 8


@pytest.mark.parametrize("content", ["{", "{}", "[7]"])
def test_where_the_note_of_what_was_carried_over_is_damaged_it_is_looked_for_once_more(config, content):
    carry_over(config)
    Path(config.state, "carried.json").write_text(content)
    assert all(state.is_uncarried(config, root) for root in config.write_roots)
    carry_over(config)
    assert not any(state.is_uncarried(config, root) for root in config.write_roots)


def test_the_number_of_a_record_without_a_registry_is_never_lowered(config):
    state.write_record(state.state_directory_of(config), "highest.json", b'{"incarnation": "", "number": 7}')
    Highest(config).raise_to("here", 3)
    assert (Highest(config).incarnation, Highest(config).number) == ("here", 7)


def waits(pid, kind):
    """Whether a process waits for a lock of a file."""
    with open("/proc/locks", encoding="ascii") as locks:
        return any(f"-> {kind}" in line and f" {pid} " in line for line in locks)


@contextmanager
def waiting(act, kind):
    """A process that does this, and has come as far as the lock that somebody else has."""
    pid = forked(act)
    deadline = time.monotonic() + 20
    while not waits(pid, kind):
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it has not waited for the lock"
        assert time.monotonic() < deadline
    yield pid
    assert os.waitpid(pid, 0)[1] == 0


def test_two_processes_that_change_one_record_lose_nothing_of_each_other(config):
    place = state.state_directory_of(config)
    with ExitStack() as stack, state.locked_record(place, owed.NAME):
        stack.enter_context(waiting(lambda: owed.note_owed_abort(config, "/one", "R", 1), "FLOCK"))
        state.write_record(place, owed.NAME, b'{"version": 1, "owed": {"/two": {"Q": 2}}}')
    assert owed.read_owed_aborts(config) == {"/one": {"R": 1}, "/two": {"Q": 2}}


def test_two_processes_of_one_worker_never_forget_the_higher_decision_and_are_seen_to_wait_for_it(config):
    """On a path: whoever waits where nobody sees it keeps others from being served."""
    one, other = SharedHighest(config), SharedHighest(config)
    with ExitStack() as stack, state.locked_record(state.state_directory_of(config), "highest.json"):
        pid = stack.enter_context(waiting(lambda: one.raise_to("here", 3), "FLOCK"))
        assert [call.path for call in path_calls(pid)] == [f"{config.state}/highest.json.lock"]
        Highest(config).raise_to("here", 5)
    assert Highest(config).number == 5
    other.raise_to("here", 4)  # it knew of none when it began
    assert Highest(config).number == 5


@pytest.mark.parametrize(
    ("before", "gone", "after"),
    [(("old", 9), "old", ("new", 0)), (("new", 4), "old", ("new", 4)), (("", 0), "old", ("", 0))],
    ids=["it is gone", "it was replaced before", "none was known"],
)
def test_a_registry_that_is_gone_is_replaced_once(config, before, gone, after):
    if before[0]:
        Highest(config).raise_to(*before)
    for _ in range(2):
        SharedHighest(config).replace(gone, "new")
        assert (Highest(config).incarnation, Highest(config).number) == after
    SharedHighest(config).raise_to("new", 5)


def test_a_host_that_keeps_no_records_remembers_what_it_carried_out_while_it_runs(config):
    highest = SharedHighest(replace(config, state="", write_roots=()))
    highest.raise_to("old", 7)
    with pytest.raises(JobFailed, match="another one than before"):
        highest.raise_to("new", 1)
    highest.replace("old", "new")
    highest.raise_to("new", 1)
    assert (highest.incarnation, highest.number) == ("new", 1)


def test_a_registry_that_nobody_says_is_gone_is_not_replaced(config):
    Highest(config).raise_to("third", 9)
    with pytest.raises(JobFailed, match="of registry third"):
        SharedHighest(config).replace("old", "new")
    assert (Highest(config).incarnation, Highest(config).number) == ("third", 9)


CHANGES = {
    "in another order": lambda c: replace(c, write_roots=c.write_roots[::-1]),
    "the first removed": lambda c: replace(c, write_roots=c.write_roots[1:]),
    "all removed": lambda c: replace(c, write_roots=()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_becomes_of_the_write_roots_nothing_is_forgotten(config, change):
    Highest(config).raise_to("here", 7)
    write_device(config)
    later = change(config)
    assert Highest(later).number == 7
    assert jobs_of(later) == ["R.a"]


@pytest.mark.parametrize("which", [0, 1], ids=["first root", "second root"])
def test_what_an_earlier_version_wrote_beneath_a_root_is_carried_over(config, which):
    earlier = replace(config, state="", write_roots=(config.write_roots[which],))
    Highest(earlier).raise_to("here", 7)
    write_device(earlier)
    assert os.listdir(config.write_roots[which]) == [".blockjobs"]
    assert Highest(config).number == 7
    assert jobs_of(config) == ["R.a"]
    carry_over(config)
    gone = replace(config, write_roots=())
    assert Highest(gone).number == 7
    assert jobs_of(gone) == ["R.a"]
    left = [os.path.join(top, name) for top, _, names in os.walk(config.write_roots[which]) for name in names]
    assert not [path for path in left if path.endswith(".json")], left


def test_without_a_state_directory_records_are_found_whatever_the_order_of_the_roots(config):
    plain = replace(config, state="")
    Highest(plain).raise_to("here", 7)
    write_device(plain)
    turned = replace(plain, write_roots=plain.write_roots[::-1])
    assert Highest(turned).number == 7
    assert jobs_of(turned) == ["R.a"]
    devices.clear_device_record(Roots(turned), "/dev/vg/a")
    assert jobs_of(turned) == jobs_of(plain) == []


def test_a_record_that_another_process_has_is_not_carried_over_under_it(config):
    earlier = replace(config, state="")
    write_device(earlier)
    with devices.take_device_lock(Roots(earlier), RECORD.identity):
        carry_over(config)
        with pytest.raises(devices.LockBusy):
            devices.take_device_lock(Roots(config), RECORD.identity, patience=0)
        assert jobs_of(config) == ["R.a"]
    carry_over(config)
    assert jobs_of(replace(config, write_roots=())) == ["R.a"]


def test_a_host_that_is_killed_while_it_carries_over_forgets_nothing(config, tmp_path, killed_at_every_change):
    numbers = count()

    def set_up():
        top = tmp_path / str(next(numbers))
        (top / "one").mkdir(parents=True)
        here = replace(config, write_roots=(f"{top}/one",), state=f"{top}/state")
        write_device(replace(here, state=""))
        Highest(replace(here, state="")).raise_to("here", 7)
        return here

    def start(here):
        Highest(here)
        carry_over(here)

    def check(here, _):
        assert Highest(here).number == 7
        assert jobs_of(here) == ["R.a"]

    killed_at_every_change(set_up, start, check, at_least=8)


def test_the_directory_is_private_and_made_where_its_parent_allows_it(config, tmp_path, monkeypatch):
    state.make_directory(config)
    assert os.stat(config.state).st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(JobFailed, match=f"state directory {tmp_path}/file/h: File exists"):
        state.make_directory(replace(config, state=str(tmp_path / "file" / "h")))
    monkeypatch.setattr(configs, "STATE", str(tmp_path / "lib"))
    default = replace(config, state=configs.default_state(Host("h")))
    assert (
        state.state_directory_of(default).path == f"{config.write_roots[0]}/.blockjobs"
    )  # a service manager would make it
    (tmp_path / "lib").mkdir()
    state.make_directory(default)
    assert os.stat(tmp_path / "lib" / "h").st_mode & 0o777 == 0o700
    assert state.state_directory_of(default).path == default.state


def test_host_toml_names_it_or_leaves_it_to_the_default(tmp_path):
    path = tmp_path / "host.toml"
    keys = 'name = "web1"\nread-roots = []\nwrite-roots = []\n'
    path.write_text(keys)
    assert configs.load_host_config(path).state == "/var/lib/blockjobs/web1"
    path.write_text(keys + 'state = "/srv/state/"\nmust-be-mounted = true\n')
    assert (configs.load_host_config(path).state, configs.load_host_config(path).must_be_mounted) == (
        "/srv/state",
        True,
    )


def test_a_record_lies_behind_no_symlink(config, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", f"{config.write_roots[0]}/.blockjobs")
    with pytest.raises(JobFailed, match=r"Not a directory|Too many levels"):
        Highest(replace(config, state="")).raise_to("here", 7)
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("name", ["highest.json", ".highest.json.new"])
def test_a_record_is_no_symlink_and_neither_is_its_spare(config, tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("{}")
    place = state.state_directory_of(config)
    os.close(place.open(make=True))
    os.symlink(precious, f"{place.path}/{name}")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        state.read_record(place, name) if name == "highest.json" else state.write_record(place, "highest.json", b"[]")
    assert precious.read_text() == "{}"
