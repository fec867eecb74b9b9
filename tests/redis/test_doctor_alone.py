"""``doctor`` on a registry that is not well: each check stands alone, and what is wrong is a line and no traceback."""

from __future__ import annotations

import json
import socketserver
import threading
from contextlib import contextmanager

import pytest
import redis
from puppets import ALPHA, RUN, Fleet, spec
from test_shipped_redis import serving, url

from blockjobs.ask.checkup import Checkup, look_alone
from blockjobs.ask.doorbell import Doorbell
from blockjobs.model.checkup import Level
from blockjobs.model.errors import BadInput
from blockjobs.model.exits import Exit
from blockjobs.registry import keys
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.server import find_binary

pytestmark = pytest.mark.durable


@pytest.fixture
def ill(server, client, fleet):
    """A fleet of which something is to be made ill, and is well again afterwards."""
    fleet.registry.hosts.judge(ALPHA, "left")  # whose answer nobody waits for
    fleet.submit(spec("j"))
    yield client
    client.config_set("maxmemory", 0)
    client.config_set("replica-serve-stale-data", "yes")
    client.execute_command("REPLICAOF", "NO", "ONE")
    client.execute_command("ACL", "DELUSER", "restricted")


@pytest.fixture
def doctor(command):
    def doctor(*words):
        code, out, err = command("doctor", "--json", *words)
        assert "Traceback" not in err + out
        return code, [(each["level"], each["subject"], each["text"]) for each in json.loads(out)], err

    return doctor


def be_full(client):
    client.config_set("maxmemory", 1)


def be_a_replica(client):
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


def be_a_replica_without_its_primary(client):
    client.config_set("replica-serve-stale-data", "no")
    be_a_replica(client)


def hold_a_key_of_another_kind(client):
    client.delete(keys.hosts())
    client.lpush(keys.hosts(), "x")


def hold_a_run_of_a_newer_release(client):
    client.hset(keys.run(RUN), "fields", b"\x02\x03")


def hold_a_job_that_is_damaged(client):
    client.hdel(keys.job(ALPHA, "j"), "spec")


ILL = {
    be_full: "used memory",
    be_a_replica: "this is a replica, which takes no writes",
    be_a_replica_without_its_primary: "this is a replica, which takes no writes",
    hold_a_key_of_another_kind: "Operation against a key holding the wrong kind of value",
    hold_a_run_of_a_newer_release: "it cannot be read, and is left out everywhere",
    hold_a_job_that_is_damaged: "it cannot be read, and is left out everywhere",
}
ALWAYS = ("registry", "coordinator", "finalizer")  # of which a line is there however ill Redis is


@pytest.mark.parametrize("make", ILL, ids=lambda make: make.__name__)
def test_an_ill_redis_is_a_finding_and_hides_no_other(make, ill, doctor):
    make(ill)
    code, found, err = doctor()
    assert (code, err) == (Exit.FAILED, "")
    assert [each for each in found if each[0] == "error" and ILL[make] in each[2]], found
    assert {subject for _, subject, _ in found} >= {"redis", *ALWAYS}
    assert ("redis", "appendonly yes") in {each[1:] for each in found}


REFUSED = {
    "-info": "its memory and connections cannot be looked at",
    "-config": "its settings cannot be looked at",
    "-eval": "how long a script takes cannot be looked at",
    "-time": "its clock cannot be looked at",
    "-hgetall": "cannot be looked at",
}


@contextmanager
def restricted(server, client, *rules):
    client.execute_command("ACL", "SETUSER", "restricted", "on", ">x", "~*", "&*", *rules)
    with connect_client(server.url.replace("unix://", "unix://restricted:x@")) as other:
        yield other


@pytest.mark.parametrize("right", REFUSED)
def test_a_right_that_is_missing_is_a_finding_and_hides_no_other(right, ill, server, doctor):
    with restricted(server, ill, "+@all", right):
        _, found, err = doctor("--redis", server.url.replace("unix://", "unix://restricted:x@"))
    assert err == ""
    assert [each for each in found if REFUSED[right] in each[2] and each[0] in ("error", "warning")], found
    assert sum("cannot be looked at" in text for _, _, text in found) < len(found)


def test_each_check_that_fails_is_a_finding_of_its_own(ill, server):
    """Nothing but a connection is allowed: no check can do its work."""
    with restricted(server, ill, "+@all") as other:
        checkup = Checkup(Registry(other), Doorbell(server.url))
        ill.execute_command("ACL", "SETUSER", "restricted", "-@all", "+@connection")
        checks = [(subject, what) for subject, what, _ in checkup._control()]
        found = [*checkup([ALPHA])]
    failed = [each for each in found if "cannot be looked at" in each.text]
    assert [each for each in found if each.level is Level.OK] == []
    for subject, what in checks:
        assert [each for each in failed if each.subject == subject and (what in each.text or subject == "redis")], what
    assert len(checks) == len(set(checks)) >= 12
    assert all(each.advice for each in failed)


WRONG = [KeyError("rev"), RecursionError(), redis.ResponseError("ERR odd\r\nthing"), BadInput("no such thing"),
         UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")]  # fmt: skip


@pytest.mark.parametrize("error", WRONG, ids=lambda error: type(error).__name__)
def test_whatever_a_check_raises_is_one_line_behind_what_it_has_found(error):
    def look():
        yield from look_alone("host a", "it", lambda: iter(()))
        raise error

    (finding,) = look_alone("host a", "its disks", look)
    assert (finding.level, finding.subject) == (Level.ERROR, "host a")
    assert finding.text.startswith("its disks cannot be looked at: ")
    assert "\n" not in finding.text
    assert finding.advice


class Same(socketserver.StreamRequestHandler):
    """Answers every line with the same."""

    def handle(self):
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                self.wfile.write(self.server.answer)


@pytest.fixture
def answering():
    """A server that gives one answer to everything: its URL."""
    servers = []

    def start(answer):
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Same)
        server.daemon_threads, server.answer = True, answer
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"redis://127.0.0.1:{server.server_address[1]}/0"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NO_REDIS = {
    "loading": (b"-LOADING Redis is loading the dataset in memory\r\n", "loading the dataset"),
    "no Redis at all": (b"HTTP/1.1 400 Bad Request\r\n", "Protocol error"),
    "wants a password": (b"-NOAUTH Authentication required.\r\n", "Authentication required"),
}
ODD_URLS = ["redis://[::1", "ftp://host", "redis://host/x", "redis://host:99999", "unix://", "sentinel://a", "x", "\0"]


@pytest.mark.parametrize("case", NO_REDIS)
def test_a_server_that_says_nothing_of_use_is_a_finding(case, answering, doctor):
    answer, says = NO_REDIS[case]
    code, found, err = doctor("--redis", answering(answer))
    assert (code in (Exit.FAILED, Exit.NO_REDIS), err) == (True, "")
    assert [text for level, _, text in found if level == "error" and says in text], found


@pytest.mark.parametrize("odd", ODD_URLS)
def test_a_url_that_cannot_be_used_is_a_finding(odd, doctor):
    code, found, err = doctor("--redis", odd)
    assert (code, err) == (Exit.NO_REDIS, "")
    ((level, subject, text),) = found
    assert (level, subject) == ("error", "redis: whether it answers")
    assert text


def test_cluster_mode_is_a_finding(doctor, tmp_path):
    with serving(find_binary(), tmp_path, setting="cluster-enabled yes"):
        code, found, err = doctor("--redis", url(tmp_path, "admin"))
    assert (code, err) == (Exit.FAILED, "")
    assert [text for _, _, text in found if text.startswith("it runs in cluster mode")]
    assert {subject for _, subject, _ in found} >= {"redis", *ALWAYS}


def test_a_redis_that_is_away_is_one_finding_and_exit_code_3(doctor, tmp_path):
    code, found, _ = doctor("--redis", f"unix://{tmp_path}/none.sock")
    assert (code, len(found)) == (Exit.NO_REDIS, 1)


def test_each_finding_is_a_line_with_its_level_and_what_to_do(ill, command):
    _, out, _ = command("doctor")
    *lines, counts = out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "note", "warning", "error"}
    assert [line for line in lines if line.startswith("error   coordinator: ") and "  ->  systemctl start" in line]
    assert counts.split(", ")[0] == f"{sum(line.startswith('error') for line in lines)} errors"
    told = json.loads(command("doctor", "--json")[1])
    assert {frozenset(finding) for finding in told} == {frozenset(("level", "subject", "text", "advice"))}


def test_the_control_is_a_registry_that_is_well(ill, doctor, fleet: Fleet):
    _, found, err = doctor()
    assert [text for _, _, text in found if "cannot be" in text] == []
    assert err == ""
