"""Many clients at once, clients that misbehave, and clients that come back."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from puppets import RUN, spec
from qemu.qmp import QMPClient
from talk import Monitor, Plain, story

from blockjobs.model.barriers import Step
from blockjobs.model.errors import Refused
from blockjobs.model.ids import RunId
from blockjobs.model.states import ACCEPTS, MOVES, Status, Verb
from blockjobs.qmp.server import open_listener
from blockjobs.registry import keys

CLIENTS = 200
COMMANDS = {False: 2000, True: 10_000}  # in all, without and with --long
JOBS = [f"j{n}" for n in range(12)]
VERBS = {
    "job-pause": Verb.PAUSE, "job-resume": Verb.RESUME, "job-cancel": Verb.CANCEL, "job-complete": Verb.COMPLETE,
    "job-finalize": Verb.FINALIZE, "job-dismiss": Verb.DISMISS, "block-job-set-speed": Verb.SET_SPEED,
}  # fmt: skip


def drawn(luck):
    """A command, valid or not."""
    job = luck.choice([*JOBS, "nobody", "0bad", ""])
    match luck.randrange(10):
        case 0:
            return "query-jobs", {}
        case 1:
            return "query-block-jobs", {}
        case 2:
            return luck.choice(["quit", "job-paus", "block-stream"]), {"id": job}
        case 3:
            return luck.choice(list(VERBS)), luck.choice([{}, {"id": 1}, {"id": job, "x": 1}, {"device": [job]}])
        case 4:
            return "block-job-set-speed", {"device": job, "speed": luck.choice([-1, 0, 7, 1 << 40, 1 << 64])}
        case 5:
            return "block-job-cancel", {"device": job, "force": luck.random() < 0.5}
        case _:
            command = luck.choice([name for name in VERBS if name.startswith("job-")])
            return command, {"id": job}


async def one(path, number, commands):
    """A client's whole life; what it was answered."""
    luck = random.Random(f"blockjobs {number}")  # noqa: S311 - the same commands every time
    client = QMPClient(f"client{number}")
    await client.connect(str(path))
    answers = Counter()
    for _ in range(commands):
        command, arguments = drawn(luck)
        message = {"execute": command, "arguments": arguments, "id": f"{number}-{luck.random()}"}
        reply = await client._raw(json.dumps(message).encode(), assign_id=False)
        assert reply["id"] == message["id"]
        if "return" in reply:
            answers["done"] += 1
        else:
            assert reply["error"]["class"] in {"GenericError", "CommandNotFound", "DeviceNotActive"}
            assert "nternal" not in reply["error"]["desc"]
            answers[reply["error"]["class"]] += 1
    await client.disconnect()
    return answers


def test_two_hundred_clients_are_all_answered_and_the_state_is_one_that_the_tables_allow(face, long):
    puppets = face.puppets
    for n in range(4):
        run = f"r{n}-20261122T103000Z"
        puppets.submit(*(spec(job, run=run, auto_finalize=n % 2 == 0) for job in JOBS[3 * n : 3 * n + 3]))
        puppets.walk(run, Step.RUN)

    async def all_of_them():
        return await asyncio.gather(*(one(face.path, n, COMMANDS[long] // CLIENTS) for n in range(CLIENTS)))

    with ThreadPoolExecutor(1) as thread:  # the loop of this one belongs to the other client
        answers = sum(thread.submit(asyncio.run, all_of_them()).result(), Counter())
    assert sum(answers.values()) == COMMANDS[long]
    assert min(answers[kind] for kind in ("done", "GenericError", "CommandNotFound", "DeviceNotActive")) > 20
    now = {job.id: str(job.status) for n in range(4) for job in _jobs(puppets, n)}
    assert puppets.replayed() == now  # every move has its event, and no other has one
    for event in puppets.registry.events.all():
        if event.name == "JOB_STATUS_CHANGE":
            assert Status(event.fields["status"]) in MOVES[Status(event.fields["from"])]
    with Monitor(face.path) as talk:
        for job in talk.ok("query-jobs"):
            for command, verb in VERBS.items():
                if Status(job["status"]) not in ACCEPTS[verb] and verb not in (Verb.RESUME, Verb.SET_SPEED):
                    assert talk.no(command, id=job["id"]).endswith(f"cannot accept command verb '{verb}'")


def _jobs(puppets, n):
    views = puppets.registry.views
    return views.jobs(views.places(RunId(f"r{n}-20261122T103000Z")))


def test_every_client_hears_every_event_once_and_in_the_order_of_the_stream(face):
    with Monitor(face.path) as one_client, Monitor(face.path) as other:
        face.puppets.submit(spec("x"), spec("y"))
        face.puppets.walk(RUN, Step.RUN)
        face.puppets.copy(spec("x"), spec("y"))
        face.puppets.walk(RUN)
        heard = one_client.until_status("x", "concluded")
        assert story(heard) == story(other.until_status("x", "concluded"))
    stamps = [(each["timestamp"]["seconds"], each["timestamp"]["microseconds"]) for each in heard]
    assert stamps == sorted(set(stamps))
    assert story(heard) == [
        "x created", "y created", "x running", "y running", "x waiting", "y waiting", "x pending", "y pending",
        "y BLOCK_JOB_COMPLETED", "y concluded", "x BLOCK_JOB_COMPLETED", "x concluded",
    ]  # fmt: skip


def test_the_events_of_a_command_come_before_its_reply(face):
    face.puppets.submit(spec("x"))
    face.puppets.walk(RUN, Step.RUN)
    with Plain(face.path) as plain:
        said = [plain.say(b'{"execute": "job-pause", "arguments": {"id": "x"}}')]  # maybe what came before, first
        while "event" in said[-1]:
            said.append(plain.read())
        assert [said[-2]["data"], said[-1]] == [{"id": "x", "status": "paused"}, {"return": {}}]


def test_who_comes_back_asks_for_what_was_missed(face):
    with Monitor(face.path) as talk:
        face.puppets.submit(spec("x"))
        last = talk.until_status("x", "created")[-1]["timestamp"]
    face.puppets.walk(RUN, Step.RUN)
    face.puppets.registry.verbs.pause("x")
    with Monitor(face.path) as talk:
        missed = talk.ok("x-events-since", since=last)
        assert story(missed["events"]) == ["x running", "x paused"]
        assert (missed["more"], missed["gap"]) == (False, False)
        assert talk.ok("x-events-since", since=missed["events"][-1]["timestamp"])["events"] == []
        everything = talk.ok("x-events-since", since={"seconds": 0, "microseconds": 0})
        assert story(everything["events"]) == ["x created", "x running", "x paused"]
        face.puppets.client.xtrim(keys.events(), maxlen=1, approximate=False)
        assert talk.ok("x-events-since", since=last)["gap"]
        assert talk.ok("x-events-since", since={"seconds": 1 << 62, "microseconds": -(1 << 62)})["events"] == []
        assert talk.no("x-events-since", since={"seconds": 0}) == "Parameter 'since.microseconds' is missing"


def test_a_client_that_goes_in_the_middle_of_a_command_takes_nobody_along(face):
    with Monitor(face.path) as talk:
        for text in (b"", b'{"execute": "query', b'{"execute": "query-jobs"}\n' * 50):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.connect(str(face.path))
                rude.sendall(b'{"execute": "qmp_capabilities"}' + text)
        assert talk.ok("query-jobs") == []


def test_requests_may_be_sent_without_waiting_and_are_answered_in_order(face):
    with Plain(face.path) as plain:
        plain.socket.sendall(b"".join(b'{"execute": "query-jobs", "id": %d} ' % n for n in range(300)) + b"\n")
        assert [plain.read()["id"] for _ in range(300)] == list(range(300))


@pytest.mark.parametrize("path", ["taken", "x" * 120, "missing/qmp.sock"])
def test_a_socket_that_cannot_be_is_refused_in_one_line(face, tmp_path, path):
    where = face.path if path == "taken" else tmp_path / path
    with pytest.raises(Refused, match=r"another server answers|is too long|No such file or directory"):
        open_listener(where)


def test_the_socket_of_a_dead_server_is_taken_over(tmp_path):
    left = open_listener(tmp_path / "qmp.sock")
    left.close()
    open_listener(tmp_path / "qmp.sock").close()
