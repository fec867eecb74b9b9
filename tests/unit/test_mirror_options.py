"""What a mirror may be asked for, with QEMU's refusals, and the quiesce command that its host has to allow."""

from __future__ import annotations

import errno
import stat

import pytest

from blockjobs.model import mirrors
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.ids import Host
from blockworker.cuts.quiesce import Quiesce
from blockworker.host.config import HostConfig, host_config_text, load_host_config

BLOCKING = "Parameter 'copy-mode' does not accept value 'write-blocking'"
POWER = "Parameter 'granularity' expects a power of 2"
RANGE = "Parameter 'granularity' expects a value in range [512B, 64MB]"
REFUSALS = {
    "granularity-small":  ({"granularity": 256},                 "full",        RANGE),
    "granularity-large":  ({"granularity": 128 << 20},           "full",        RANGE),
    "granularity-odd":    ({"granularity": 513},                 "full",        POWER),
    "buf-size-negative":  ({"buf-size": -1},                     "full",        "Invalid parameter 'buf-size'"),
    "write-blocking":     ({"copy-mode": "write-blocking"},      "full",        BLOCKING),
    "incremental":        ({},                        "incremental", "Sync mode 'incremental' not supported"),
    "sync-wins":          ({"granularity": 1},                   "bitmap",      "Sync mode 'bitmap' not supported"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_a_mirror_cannot_do_is_refused_with_qemus_text(case):
    given, sync, text = REFUSALS[case]
    with pytest.raises(BadInput) as refused:
        mirrors.mirror_options(given, sync=sync)
    assert str(refused.value) == text


@pytest.mark.parametrize("granularity", [512, 4096, 64 << 20])
def test_every_power_of_two_in_range_is_a_granularity(granularity):
    assert mirrors.mirror_options({"granularity": granularity}) == {"granularity": granularity}


def test_zero_is_the_default_as_in_qemu():
    assert mirrors.mirror_options({"granularity": 0, "buf-size": 0, "quiesce": ""}) == {}


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path):
    """A command that notes how it was called, and fails on the words in a file ``fails``."""
    script = tmp_path / "hook"
    script.write_text(f"""#!/bin/sh
echo "$1 $2 $3" >> {tmp_path}/calls
if grep -qx "$2" {tmp_path}/fails 2> /dev/null; then echo "cannot $2" >&2; exit 3; fi
""")
    script.chmod(stat.S_IRWXU)
    return script


@pytest.fixture
def config(tmp_path, command):
    root = str(tmp_path)
    return HostConfig(name=Host("web1"), read_roots=(root,), write_roots=(root,), commands={"db": (str(command), "-v")})


def quiesce(config, site, name="db"):
    return Quiesce.of(config, site.spec(options={"quiesce": name}))


def calls(command):
    path = command.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_a_command_freezes_once_and_thaws_once(config, site, command):
    hook = quiesce(config, site)
    assert hook.freeze()
    assert hook.frozen
    hook.thaw()
    hook.thaw()
    path = f"{site.images}/root.img"
    assert calls(command) == [f"-v freeze {path}", f"-v thaw {path}"]


def test_a_freeze_that_fails_half_way_is_thawed_and_says_why(config, site, command):
    (command.parent / "fails").write_text("freeze\n")
    with pytest.raises(JobFailed, match="command 'db' on freeze: ended with exit code 3: cannot freeze"):
        quiesce(config, site).freeze()
    assert [call.split()[1] for call in calls(command)] == ["freeze", "thaw"]


def test_a_thaw_that_fails_is_reported_and_fails_nothing(config, site, command, caplog):
    (command.parent / "fails").write_text("thaw\n")
    hook = quiesce(config, site)
    hook.freeze()
    hook.thaw()
    assert "the source may stand still" in caplog.text


def test_what_a_dead_attempt_may_have_frozen_is_thawed(config, site, command):
    quiesce(config, site).recover()
    assert [call.split()[1] for call in calls(command)] == ["thaw"]


def test_a_command_that_the_host_does_not_name_is_not_called(config, site, command):
    with pytest.raises(JobFailed, match="command 'rm' is not allowed by host") as refused:
        quiesce(config, site, "rm")
    assert refused.value.errno == errno.EPERM
    assert calls(command) == []


def test_without_a_command_nothing_is_ever_frozen(config, site):
    hook = Quiesce.of(config, site.spec())
    assert not hook.freeze()
    assert not hook.frozen
    hook.recover()


def test_commands_of_a_host_are_read_back_as_they_were_written(config, tmp_path):
    path = tmp_path / "host.toml"
    path.write_text(host_config_text(config))
    assert load_host_config(path) == config


@pytest.mark.parametrize("argv", ['"fsfreeze"', "[]", '["fsfreeze"]', '["/bin/sh", 1]'])
def test_a_malformed_command_is_named(config, tmp_path, argv):
    path = tmp_path / "host.toml"
    path.write_text(f"{host_config_text(config)}bad = {argv}\n")
    with pytest.raises(BadInput, match=r"commands\.bad"):
        load_host_config(path)
