"""The examples of deploy/ are fit to be used: a server takes its settings and users, systemd its units."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
import redis

from blockjobs.cli import main
from blockjobs.model.exits import Exit
from blockjobs.registry.address import has_user_alone, parse_address
from blockjobs.server import RedisServer
from blockworker.host.config import STATE

DEPLOY = Path(__file__).parents[2] / "deploy"
README = (DEPLOY / "README.md").read_text()
UNATTENDED = " ".join((DEPLOY.parent / "docs" / "unattended.md").read_text().split())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("deploy")) as server, closing(redis.Redis.from_url(server.url)) as client:
        for line in (DEPLOY / "users.acl").read_text().splitlines():
            _, name, *rules = line.split()
            if name != "default":
                client.execute_command("ACL", "SETUSER", name, *rules)
        yield client


def test_a_server_takes_every_setting(client):
    lines = [line.split(maxsplit=1) for line in (DEPLOY / "redis.conf").read_text().splitlines() if line]
    for name, value in (line for line in lines if line[0] not in ("#", "aclfile")):
        assert client.config_set(name, value.strip('"'))


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("bj:h:web1:job:x", True), ("bj:events", False), ("bj:due", False), ("bj:due:wake", False),
     ("bj:h:web2:job:x", False), ("bj:txn:x", False), ("bj:run:x", False), ("other", False)],
)  # fmt: skip
def test_a_worker_writes_what_belongs_to_its_host_and_nothing_else(client, key, allowed):
    answer = client.execute_command("ACL", "DRYRUN", "worker-web1", "SET", key, "value")
    assert (answer in (True, b"OK")) is allowed


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (("BRPOP", "bj:celery:steps.web1", "1"), True),
        (("BRPOP", "bj:celery:copy.web1", "1"), True),
        (("PUBLISH", "bj:celery:/0.celeryev/worker.online", "x"), True),
        (("LPUSH", "bj:celery:steps.web2", "x"), False),
        (("LRANGE", "bj:celery:copy.web2", "0", "-1"), False),
        (("HGETALL", "bj:celery:unacked"), False),
        (("SADD", "bj:celery:_kombu.binding.steps.web1", "x"), False),
        (("SADD", "_kombu.binding.steps.web1", "x"), False),
        (("PUBLISH", "/0.celery.pidbox", "x"), False),
        (("SUBSCRIBE", "other"), False),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_worker_takes_from_its_own_queues_and_reaches_no_other_host_by_the_broker(client, command, allowed):
    answer = client.execute_command("ACL", "DRYRUN", "worker-web1", *command)
    assert (answer in (True, b"OK")) is allowed


@pytest.mark.parametrize("command", [("LPUSH", "bj:celery:copy.web1", "x"), ("LRANGE", "other", "0", "1"),
                                     ("PUBLISH", "/0.celeryev/x", "x"), ("ACL", "GETUSER", "control")])  # fmt: skip
def test_an_operator_takes_no_place_of_a_daemon(client, command):
    assert client.execute_command("ACL", "DRYRUN", "operator", *command) not in (True, b"OK")


@pytest.mark.parametrize("command", [("FLUSHALL",), ("CONFIG", "SET", "save", ""), ("SHUTDOWN",), ("KEYS", "*")])
@pytest.mark.parametrize("user", ["worker-web1", "control", "operator", "viewer"])
def test_nobody_but_the_admin_can_do_harm(client, user, command):
    assert client.execute_command("ACL", "DRYRUN", user, *command) not in (True, b"OK")


SERVICES = sorted(path.name for path in (DEPLOY / "systemd").glob("*.service"))
UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir() if path.is_file())


def unit(name):
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign]
    parser.read(DEPLOY / "systemd" / name)
    return parser


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_starts_one_of_our_commands_with_words_that_it_takes(name):
    program, *words = unit(name)["Service"]["ExecStart"].replace("%i", "copy").split()
    assert program.endswith("/bin/blockjobs")
    context = main.cli.make_context("blockjobs", words)
    command = main.cli.get_command(context, words[0])
    assert command is not None
    assert command.make_context(words[0], words[1:], parent=context).params


def test_there_is_a_service_for_every_daemon_and_for_runs():
    started = [unit(name)["Service"]["ExecStart"].split()[1] for name in SERVICES]
    assert started == ["coordinator", "finalizer", "run", "worker"]


def test_a_run_of_a_timer_is_that_of_its_instance_and_a_partial_one_is_no_failure():
    service, timer = unit("blockjobs-run@.service")["Service"], unit("blockjobs-run@.timer")["Timer"]
    assert service["ExecStart"].endswith(" run /etc/blockjobs/runs/%i.yaml")
    assert service["SuccessExitStatus"].split() == [str(int(Exit.PARTIAL)), str(int(Exit.TERMINATED))]
    assert service["TimeoutStartSec"] == "infinity"
    assert (service["User"], service["EnvironmentFile"]) == ("blockjobs", "/etc/blockjobs/operator.env")
    assert timer["Persistent"] == "true"
    at, delay = re.fullmatch(r"\*-\*-\* (..:..):00", timer["OnCalendar"])[1], timer["RandomizedDelaySec"]
    assert (delay, f"at {at} and up to ten minutes later (`RandomizedDelaySec`)" in UNATTENDED) == ("10min", True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_every_unit(name, tmp_path):
    assert verified(name, tmp_path) == []
    (section,) = {"Service", "Timer"} & set(unit(name))
    assert verified(name, tmp_path, f"[{section}]\nNonsense=yes\n"), "the control: it is looked at"


DROP_INS = {  # what an administrator may put beside a unit -> the unit
    **{path.name: ("blockjobs-worker@.service", path.read_text()) for path in DEPLOY.glob("systemd/*.d/*.conf*")},
    "another time": ("blockjobs-run@.timer", "[Timer]\nOnCalendar=\nOnCalendar=Mon..Fri 22:00\n"),
}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", DROP_INS)
def test_systemd_takes_every_drop_in(name, tmp_path):
    changed, text = DROP_INS[name]
    assert verified(changed, tmp_path, text) == []


def test_the_drop_ins_are_those_that_the_documents_name():
    assert {*DROP_INS} == {"devices.conf.example", "sudo.conf.example", "thaw.conf", "another time"}
    assert "`blockjobs-worker@.service.d/devices.conf.example`" in README
    assert "need `sudo.conf.example` beside it" in README
    assert "[Timer] OnCalendar= OnCalendar=Mon..Fri 22:00" in UNATTENDED


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name, tmp_path):
    """What systemd calls exposure: 10 is a service without any setting, which is the control."""
    assert exposure((DEPLOY / "systemd" / name).read_text(), tmp_path) <= 2.0
    assert unit(name)["Service"]["CapabilityBoundingSet"] == ""
    assert exposure("[Service]\nExecStart=/bin/true\n", tmp_path) > 9.0


def exposure(text, tmp_path):
    (tmp_path / "probe.service").write_text(text.replace("%i", "copy"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(tmp_path / "probe.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"exposure level for probe.service: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


DAEMONS = ("blockjobs-coordinator.service", "blockjobs-finalizer.service", "blockjobs-worker@.service")


@pytest.mark.parametrize("name", DAEMONS)
def test_every_daemon_says_that_it_serves_and_lives_and_is_started_again_for_ever(name):
    service = unit(name)["Service"]
    assert (service["Type"], service["Restart"], service["User"]) == ("notify", "always", "blockjobs")
    assert int(service["WatchdogSec"]) >= 60
    assert unit(name)["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_a_password_in_its_environment(name):
    service = unit(name)["Service"]
    assert service["Environment"] == "BLOCKJOBS_REDIS_PASSWORD_FILE=%d/redis-password"
    credential, _, source = service["LoadCredential"].partition(":")
    environment = DEPLOY / Path(service["EnvironmentFile"]).name
    assert (credential, source) == ("redis-password", service["EnvironmentFile"].replace(".env", ".password"))
    urls = [line.partition("=")[2] for line in environment.read_text().splitlines() if line[0] != "#"]
    assert [has_user_alone(url) for url in urls] == [True]
    assert parse_address(urls[0]).user in ("control", "operator", "worker-web1"), "and never admin"


def test_the_files_of_a_machine_are_those_that_its_units_read():
    rows = [row.split(" | ") for row in README.splitlines() if row.startswith("| ")]
    named = {what.split(",")[0]: set(re.findall(r"`([^`]+)`", files)) for _, what, files in rows}
    read: dict[bool, set[str]] = {True: set(), False: set()}
    for name in SERVICES:
        service = unit(name)["Service"]
        said = " ".join(service[key] for key in ("ExecStart", "EnvironmentFile", "LoadCredential"))
        read["worker" in name] |= set(re.findall(r"/etc/blockjobs/([a-z.]+)(?= |$)", said))
    assert named["Redis"] == read[False]
    assert named["`blockjobs-worker@copy`"] == read[True]
    assert named["the command line"] == {"BLOCKJOBS_REDIS_URL", "BLOCKJOBS_REDIS_PASSWORD_FILE"}


def test_the_unit_of_workers_makes_the_directory_in_which_hosts_remember():
    worker = unit("blockjobs-worker@.service")["Service"]
    assert f"/var/lib/{worker['StateDirectory']}" == STATE
    assert f"beyond its roots lies in `{STATE}/NAME`" in README
    assert worker["ExecStart"].endswith(" --host ${BLOCKJOBS_HOST} --config /etc/blockjobs/host.toml --queue %i")


def test_the_coordinator_serves_qmp_where_the_document_says_and_to_its_own_user():
    service = unit("blockjobs-coordinator.service")["Service"]
    (path,) = re.findall(r"serves QMP on `([^`]+)`, for its own user alone", README)
    assert service["ExecStart"].endswith(f" --qmp {path}")
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == (Path(path).parent.name, "0700")


def verified(name, tmp_path, more=""):
    """What systemd says of our units."""
    for each in UNITS:  # a service is looked up beside its timer; programs have to exist
        text = (DEPLOY / "systemd" / each).read_text().replace("/opt/blockjobs/bin/blockjobs", "/bin/true")
        (tmp_path / each.replace("@", "@copy")).write_text(text + (more if each == name else ""))
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name.replace("@", "@copy"))],
        capture_output=True, text=True, env=env, timeout=60, check=False,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if "blockjobs-" in line]


def test_the_host_file_is_toml_with_the_documented_keys():
    keys = tomllib.loads((DEPLOY / "host.toml").read_text())
    roots = {"read-roots", "write-roots", "restore-roots", "allow-overwrite", "allow-in-place", "devices"}
    more = {"thaw-after", "state", "must-be-mounted", "uncaged-formats", "commands", "backup-owner", "backup-mode"}
    assert set(keys) == {"name", "slots"} | more | roots
