"""Flower under ``up --flower``: it shows workers and tasks to this machine, and obeys no page of any site."""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from blockjobs import settings
from blockjobs.registry.connection import connect_client
from blockjobs.server import RedisServer

DEADLINE = 60.0  # seconds, for a loaded machine
PASSWORD = "not-for-every-eye"  # noqa: S105
LOOKER = "looker:looks"  # the user and the password that FLOWER_BASIC_AUTH asks for
ELSEWHERE = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
COLUMN = "draw=1&start=0&length=100&order%5B0%5D%5Bcolumn%5D=0&order%5B0%5D%5Bdir%5D=asc&columns%5B0%5D%5Bdata%5D=name"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str
    seconds: float


@dataclass(frozen=True)
class Dashboard:
    up: subprocess.Popen[str]
    port: int
    directory: Path  # in which `up` was started
    url: str

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: str = "", user: str = LOOKER
    ) -> Answer:
        who = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            form = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
            connection.request(method, path, body or None, {**form, **who, **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
            return Answer(response.status, dict(response.getheaders()), text, time.monotonic() - began)
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/healthcheck").status == 200
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def await_that(happened) -> None:
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline, "the deadline passed"
        select.select([], [], [], 0.05)


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory) -> Iterator[Dashboard]:
    """``up --flower``, in a directory full of files that Python or Flower might take for theirs, with a password."""
    directory = tmp_path_factory.mktemp("dashboard")
    for name in ("flowerconfig.py", "celeryconfig.py", "flower.py", "tornado.py"):
        (directory / name).write_text(f"open({str(directory / 'executed')!r}, 'a').write({name!r})\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("BLOCKJOBS_", "FLOWER_"))}
    opened = {"FLOWER_UNAUTHENTICATED_API": "true", "FLOWER_ADDRESS": "0.0.0.0", "FLOWER_PERSISTENT": "true",  # noqa: S104
              "FLOWER_BASIC_AUTH": LOOKER}  # fmt: skip
    with RedisServer(directory / "redis") as server, connect_client(server.url) as client:
        client.acl_setuser("default", enabled=True, reset_passwords=True, passwords=[f"+{PASSWORD}"])
        url = server.url.replace("unix://", f"unix://:{PASSWORD}@")
        port = free_port()
        up = subprocess.Popen(
            [sys.executable, "-P", "-m", "blockjobs", "up", "--dir", str(directory / "state"), "--host", "a",
             "--flower", str(port)],
            env=env | opened | {settings.URL: url}, cwd=directory, text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert up.stdout is not None
            assert up.stdout.readline().startswith("ready: a;")
            found = Dashboard(up, port, directory, url)
            await_that(found.answers)
            yield found
        finally:
            with up:
                up.terminate()
            client.acl_setuser("default", nopass=True)


API = {
    "workers":      ("GET",  "/api/workers"),
    "refresh":      ("GET",  "/api/workers?refresh=1"),
    "tasks":        ("GET",  "/api/tasks"),
    "queues":       ("GET",  "/api/queues/length"),
    "apply":        ("POST", "/api/task/async-apply/blockjobs.step"),
    "send":         ("POST", "/api/task/send-task/blockjobs.step"),
    "revoke":       ("POST", "/api/task/revoke/some"),
    "shutdown":     ("POST", "/api/worker/shutdown/copy@a"),
    "encoded":      ("POST", "/%61pi/worker/shutdown/copy@a"),
    "above":        ("POST", "/static/../api/worker/shutdown/copy@a"),
    "slashes":      ("POST", "//api/worker/shutdown/copy@a"),
    "a page":       ("POST", "/workers"),
    "put":          ("PUT",  "/api/workers"),
    "options":      ("OPTIONS", "/api/workers"),
}  # fmt: skip


@pytest.mark.parametrize("headers", [{}, ELSEWHERE], ids=["here", "elsewhere"])
@pytest.mark.parametrize(("method", "path"), API.values(), ids=API)
def test_the_api_answers_nobody(dashboard, method, path, headers):
    answer = dashboard.ask(method, path, headers, "args=[]" if method == "POST" else "")
    assert answer.status in (401, 404, 405)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/workers?json=1", "/tasks", "/broker", "/api/workers", "/static/js/flower.js"])
def test_a_name_that_another_site_gave_this_machine_is_refused(dashboard, path):
    assert dashboard.ask("GET", path, {"Host": f"evil.example:{dashboard.port}"}).status == 403
    assert dashboard.ask("GET", path, {"Host": f"127.0.0.1.evil.example:{dashboard.port}"}).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_its_pages_answer_at_once_without_remote_control_and_hold_no_secret(dashboard, host):
    for path in ("/", "/workers", "/workers?json=1", "/tasks", "/broker", "/metrics", "/static/js/flower.js"):
        answer = dashboard.ask("GET", path, {"Host": f"{host}:{dashboard.port}", **ELSEWHERE})
        assert answer.status == 200, path
        assert answer.seconds < 5, path
        assert PASSWORD not in answer.text, path
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("user", ["", "looker:guesses"], ids=["nobody", "another password"])
@pytest.mark.parametrize("path", ["/workers", "/tasks", "/broker"])
def test_who_does_not_know_the_password_of_its_variables_sees_no_page(dashboard, path, user):
    assert dashboard.ask("GET", path, user=user).status == 401


def test_workers_and_tasks_are_shown(dashboard):
    def names() -> set[str]:
        return {each["hostname"] for each in json.loads(dashboard.ask("GET", "/workers?json=1").text)["data"]}

    await_that(lambda: len(names()) == 2)
    (dashboard.directory / "disk.img").write_bytes(b"x" * 4096)
    source, target = dashboard.directory / "disk.img", dashboard.directory / "copy.img"
    env = os.environ | {settings.URL: dashboard.url}
    backup = [sys.executable, "-P", "-m", "blockjobs", "backup", f"a:{source}", f"a:{target}"]
    subprocess.run(backup, env=env, check=True, capture_output=True, timeout=DEADLINE)

    def tasks() -> list[dict[str, str]]:
        return json.loads(dashboard.ask("POST", "/tasks/datatable", body=COLUMN).text)["data"]

    await_that(lambda: {"blockjobs.copy", "blockjobs.step"} <= {task["name"] for task in tasks()})
    page = dashboard.ask("GET", f"/task/{tasks()[0]['uuid']}")
    assert (page.status, page.seconds < 5) == (200, True)
    assert "blockjobs." in page.text
    for worker in names():
        shown = dashboard.ask("GET", f"/worker/{worker}")
        assert (shown.status, shown.seconds < 5) == (302, True)
        assert shown.headers["Location"].startswith("/tasks?worker=")


def test_it_executes_no_file_of_the_current_directory(dashboard):
    assert not (dashboard.directory / "executed").exists()
    assert not (dashboard.directory / "flower").exists()


def test_it_listens_on_this_machine_only_and_its_command_line_has_no_secret(dashboard):
    family = psutil.Process(dashboard.up.pid).children(recursive=True)
    (flower,) = [each for each in family if "blockjobs.cli.dashboard" in each.cmdline()]
    listening = [each.laddr.ip for each in flower.net_connections() if each.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    assert not [each for each in family if PASSWORD in " ".join(each.cmdline())]


HIDDEN = """
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "flower":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hiding())
from blockjobs.cli.main import main
main()
"""


def test_without_the_extra_it_is_refused_before_anything_starts(tmp_path):
    argv = [sys.executable, "-P", "-c", HIDDEN, "up", "--dir", str(tmp_path / "state"), "--flower", "5555"]
    said = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert said.returncode == 2
    assert said.stderr.splitlines() == [
        "blockjobs: --flower: Flower is not installed here: pip install 'blockjobs[flower]'"
    ]
    assert said.stdout == ""
    assert not (tmp_path / "state").exists()
