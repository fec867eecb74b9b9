"""What needs no fleet: ``init`` and ``check``; and every run file of the documents is one that ``check`` takes."""

from __future__ import annotations

import hashlib
import os
import re
import textwrap
from pathlib import Path

import pytest

from blockjobs.cli import main
from blockjobs.cli.init import example_text
from blockworker.host import config

ROOT = Path(__file__).parents[2]
BLOCKS = [
    (f"{path.relative_to(ROOT)}-{number}", block)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs a command where nobody says where Redis is: (exit code, stdout, stderr)."""
    monkeypatch.delenv("BLOCKJOBS_REDIS_URL", raising=False)

    def run(*words):
        code = main.run_command_guarded(lambda: main.cli.main([str(word) for word in words], standalone_mode=False))
        return code, *capfd.readouterr()

    return run


def test_the_example_of_a_run_file_is_in_order(command, tmp_path):
    path = tmp_path / "run.yaml"
    assert command("init", "run", path) == (0, f"{path} is made; change it, then: blockjobs check {path}\n", "")
    assert command("check", path) == (0, f"""\
{path}: in order
  transaction db: grouped, 4 jobs on 2 hosts
  transaction web: individual, 40 jobs on 40 hosts, offline: skip, succeed-if: 95%
  transaction special: grouped, 1 job on 1 host
  what /srv/images/*.img is, the hosts say when it is run; here it counts for one job on each
""", "")  # fmt: skip


def test_the_example_of_a_host_is_what_deploy_has_and_loads(command, tmp_path):
    code, out, _ = command("init", "host")
    assert (code, out) == (0, (ROOT / "deploy" / "host.toml").read_text())
    for name in ("images", "backup"):
        (tmp_path / name).mkdir()
    (tmp_path / "host.toml").write_text(
        out.replace('"/srv/images"', f'"{tmp_path}/images"').replace('"/backup"', f'"{tmp_path}/backup"')
    )
    assert config.load_host_config(tmp_path / "host.toml").name == "web1"


def test_nothing_that_is_there_is_written_over(command, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    code, _, err = command("init", "run", path)
    assert (code, err) == (2, f"blockjobs: {path}: File exists; the name of a file to be made was expected\n")
    assert path.read_text() == "mine"
    code, _, err = command("init", "host", tmp_path / "none" / "host.toml")
    assert (code, err.count("\n")) == (2, 1)


def test_check_knows_what_the_command_line_says(command, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(example_text("run"))
    code, out, _ = command("check", path, "--only", "web", "--set", "hosts.web=[a, b]")
    assert (code, out.splitlines()[1:2]) == (0, [
        "  transaction web: individual, 2 jobs on 2 hosts, offline: skip, succeed-if: 95%"
    ])  # fmt: skip
    code, out, err = command("check", path, "--set", "transactions.web.retry=many")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("blockjobs: --set transactions.web.retry=many: transactions[1].retry: 'many' is not accepted")


def test_a_volume_with_a_name_is_left_to_the_run(command, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("version: 1\nname: a\njobs: [{id: a, source: root, target: 'h:/b'}]\n")
    assert command("check", path)[:2] == (
        0, f"{path}: in order, as far as the file tells: volume 'root' is a name\n"
    )  # fmt: skip


@pytest.mark.parametrize("words", [("check", "none.yaml"), ("run", "none.yaml"), ("plan", "none.yaml")])
def test_a_file_that_is_not_there_is_named_whether_redis_is_there_or_not(command, words):
    assert command(*words) == (2, "", "blockjobs: none.yaml: No such file or directory; a run file was expected\n")


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_every_run_file_of_the_documents_is_in_order(command, tmp_path, block):
    path = tmp_path / "run.yaml"
    if block.startswith("source:"):
        block = "jobs:\n- id: a\n  target: web1:/backup/a\n" + textwrap.indent(block, "  ")
    path.write_text(block if block.startswith("version:") else f"version: 1\nname: a-part\n{block}")
    assert command("check", path)[::2] == (0, "")


DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize(
    ("words", "file"),
    [(("host",), "host.toml"), (("redis",), "redis.conf"), (("env", "control"), "control.env"),
     (("env", "worker"), "worker.env"), (("env", "operator"), "operator.env"),
     *((("command", path.stem), f"commands/{path.name}") for path in sorted((DEPLOY / "commands").iterdir()))],
)  # fmt: skip
def test_what_is_printed_is_what_deploy_has(command, words, file):
    assert command("init", *words) == (0, (DEPLOY / file).read_text(), "")


def test_every_file_of_deploy_is_printed_by_the_package_and_a_command_may_be_executed(command, tmp_path):
    elsewhere = {path.name for path in DEPLOY.iterdir() if path.resolve().parent.name != "examples"}
    assert elsewhere == {"README.md"}
    path = tmp_path / "lvm.sh"
    assert command("init", "command", "lvm", path)[0] == 0
    assert path.read_text() == (DEPLOY / "commands" / "lvm.sh").read_text()
    assert os.access(path, os.X_OK)


def test_the_units_are_those_of_deploy_with_the_program_that_is_asked_for(command, tmp_path):
    assert command("init", "units", tmp_path, "--program", "/opt/x/blockjobs")[0] == 0
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    there = {
        str(path.relative_to(DEPLOY / "systemd")): path.read_text()
        for path in (DEPLOY / "systemd").resolve().rglob("*") if path.is_file()
        for path in [DEPLOY / "systemd" / path.relative_to((DEPLOY / "systemd").resolve())]
    }  # fmt: skip
    assert len(there) > 6
    assert written == {name: text.replace("/opt/blockjobs/bin/", "/opt/x/") for name, text in there.items()}
    assert command("init", "units", tmp_path)[0] == 2, "none is written over"
    own = tmp_path / "blockjobs-worker@.service.d" / "own.conf"
    for path in (own, tmp_path / "blockjobs-finalizer.service"):
        path.write_text("mine")
    assert command("init", "units", tmp_path, "--replace", "--program", "/opt/x/blockjobs")[0] == 0
    assert (tmp_path / "blockjobs-finalizer.service").read_text() == written["blockjobs-finalizer.service"]
    assert own.read_text() == "mine"
    printed = command("init", "units", "--program", "/opt/blockjobs/bin/blockjobs")[1]
    assert all(f"# --- {name}\n{text}" in printed for name, text in there.items())


def test_the_users_are_those_of_deploy_with_hashes_and_the_passwords_are_in_files_of_the_owner_alone(command, tmp_path):
    place = tmp_path / "passwords"
    code, out, _ = command("init", "acl", "--passwords", place, "--host", "web1")
    assert code == 0
    passwords = {path.name.removesuffix(".password"): path.read_text().strip() for path in place.iterdir()}
    assert set(passwords) == {"admin", "control", "operator", "viewer", "worker-web1"}
    assert min(map(len, passwords.values())) > 30
    assert not any(password in out for password in passwords.values())
    assert {path.stat().st_mode & 0o777 for path in (place, *place.iterdir())} == {0o700, 0o600}
    shipped = (DEPLOY / "users.acl").read_text()
    for user, password in passwords.items():
        given = f">change-me-{user.removeprefix('worker-')}"
        shipped = shipped.replace(f"{given} ", f"#{hashlib.sha256(password.encode()).hexdigest()} ")
    assert out == shipped


def test_one_more_host_changes_no_other_user(command, tmp_path):
    place = tmp_path / "passwords"
    (before,) = command("init", "acl", "--passwords", place, "--host", "a")[1:2]
    (after,) = command("init", "acl", "--passwords", place, "--host", "a", "--host", "b-2.example")[1:2]
    assert after.startswith(before)
    (line,) = after.removeprefix(before).splitlines()
    assert line.startswith("user worker-b-2.example on #")
    assert "web1" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [(("acl",), "Missing option '--passwords'"),
     (("acl", "--passwords", "{place}/empty"), "worker-x.password is empty"),
     (("acl", "--passwords", "/dev/null"), "a directory of this user's own was expected"),
     (("acl", "--passwords", "{place}", "--host", "a b"), "invalid host name 'a b'"),
     (("nonsense",), "No such command 'nonsense'"), (("env", "king"), "'king' is not one of")],
)  # fmt: skip
def test_what_cannot_be_printed_is_refused_with_one_line(command, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "worker-x.password").touch()
    words = [word.format(place=tmp_path) for word in words] + (["--host", "x"] if "{place}/empty" in words else [])
    code, out, err = command("init", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
