"""Both matrices through QMP, each cell; lookups that miss; and the order of checks, which decides what is said."""

from __future__ import annotations

import pytest
from puppets import RUN, spec

from blockjobs.model.barriers import Step
from blockjobs.model.states import ACCEPTS, MOVES, Status, Verb
from blockjobs.registry import keys, scripts

JOB = spec("j", auto_finalize=False)
COMMANDS = {  # verb -> its commands, with the argument that names the job
    Verb.PAUSE:     {"job-pause": "id", "block-job-pause": "device"},
    Verb.RESUME:    {"job-resume": "id", "block-job-resume": "device"},
    Verb.CANCEL:    {"job-cancel": "id", "block-job-cancel": "device"},
    Verb.COMPLETE:  {"job-complete": "id", "block-job-complete": "device"},
    Verb.FINALIZE:  {"job-finalize": "id", "block-job-finalize": "id"},
    Verb.DISMISS:   {"job-dismiss": "id", "block-job-dismiss": "id"},
    Verb.SET_SPEED: {"block-job-set-speed": "device"},
    Verb.CHANGE:    {"block-job-change": "id"},
}  # fmt: skip
MORE = {"block-job-set-speed": {"speed": 5}, "block-job-change": {"type": "mirror", "copy-mode": "background"}}
EACH = [(verb, command, name) for verb, names in COMMANDS.items() for command, name in names.items()]
MOVE = "return move(KEYS[2], KEYS[1], ARGV[1], ARGV[2])"


def put(face, status):
    """The job in a status, held by the user where it is paused."""
    face.puppets.submit(JOB)
    face.puppets.client.hset(keys.job(JOB.host, JOB.id), "status", status)


def test_every_verb_has_its_commands():
    assert set(COMMANDS) == set(Verb)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("spelled", EACH, ids=[command for _, command, _ in EACH])
def test_a_verb_is_accepted_or_refused_in_every_status_as_the_table_says(face, talk, spelled, status):
    verb, command, name = spelled
    put(face, status)
    if verb is Verb.RESUME:
        face.puppets.client.hset(keys.holds(JOB.host, JOB.id), "user", "")
    reply = talk.raw(command, **{name: "j", **MORE.get(command, {})})
    if status is Status.UNDEFINED:  # staged and not published: nobody sees it
        text = "Job not found" if command.startswith("job-") else "Block job 'j' not found"
        assert reply["error"]["desc"] == text
    elif status not in ACCEPTS[verb]:
        assert reply["error"] == {
            "class": "GenericError",
            "desc": f"Job 'j' in state '{status}' cannot accept command verb '{verb}'",
        }
    elif verb is Verb.CHANGE:
        assert reply["error"]["desc"] == "Job type does not support change"
    else:
        assert reply == {"return": {}}


@pytest.mark.parametrize("to", Status)
@pytest.mark.parametrize("status", [status for status in Status if status is not Status.NULL])
def test_every_move_is_shown_as_an_event_and_by_the_query_and_no_other_is_made(face, talk, status, to):
    put(face, status)
    move = face.puppets.client.register_script(scripts.assemble_script(MOVE))
    names = [keys.job(JOB.host, JOB.id), keys.events()]
    if to in MOVES[status]:
        move(keys=names, args=["j", to])
        assert talk.until_status("j", to)[-1]["data"] == {"id": "j", "status": to}
        status = to
    else:
        with pytest.raises(Exception, match="illegal move"):
            move(keys=names, args=["j", to])
    seen = [job["status"] for job in talk.ok("query-jobs")]
    assert seen == ([] if status is Status.UNDEFINED else [status])


@pytest.mark.parametrize(("verb", "command", "name"), EACH, ids=[command for _, command, _ in EACH])
def test_a_job_that_is_not_there_is_missed_in_the_words_of_the_command(face, talk, verb, command, name):
    refusal = talk.refused(command, **{name: "nobody", **MORE.get(command, {})})
    if command.startswith("job-"):
        assert refusal == ("GenericError", "Job not found")
    else:
        assert refusal == ("DeviceNotActive", "Block job 'nobody' not found")


def test_a_second_pause_is_refused_and_the_verb_comes_before(face, talk):
    put(face, Status.RUNNING)
    talk.ok("job-pause", id="j")
    assert talk.no("job-pause", id="j") == "Job is already paused"
    face.puppets.client.hset(keys.job(JOB.host, JOB.id), "status", Status.WAITING)
    assert talk.no("job-pause", id="j") == "Job 'j' in state 'waiting' cannot accept command verb 'pause'"


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNDEFINED])
def test_a_resume_of_what_was_not_paused_says_so_before_the_verb_is_looked_at(face, talk, status):
    put(face, status)
    assert talk.no("job-resume", id="j") == "Can't resume a job that was not paused"


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNDEFINED])
def test_a_soft_cancel_of_a_paused_job_says_so_before_the_verb_is_looked_at(face, talk, status):
    put(face, status)
    face.puppets.client.hset(keys.holds(JOB.host, JOB.id), "user", "")
    assert talk.no("block-job-cancel", device="j") == "The block job for device 'j' is currently paused"


def test_another_speed_is_refused_by_lookup_then_verb_then_sign(face, talk):
    assert talk.refused("block-job-set-speed", device="j", speed=-1)[0] == "DeviceNotActive"
    put(face, Status.PENDING)
    refusal = "Job 'j' in state 'pending' cannot accept command verb 'set-speed'"
    assert talk.no("block-job-set-speed", device="j", speed=-1) == refusal
    face.puppets.client.hset(keys.job(JOB.host, JOB.id), "status", Status.RUNNING)
    assert talk.no("block-job-set-speed", device="j", speed=-1) == "Parameter 'speed' expects a non-negative value"
    assert talk.ok("query-block-jobs")[0]["speed"] == 0


def test_a_completed_job_that_was_cancelled_cannot_be_completed(face, talk):
    put(face, Status.READY)
    talk.ok("block-job-cancel", device="j")
    assert talk.no("job-complete", id="j") == "The active block job 'j' cannot be completed"


def test_the_queries_have_qemus_fields_newest_job_first(face, talk):
    names = ["one", "two", "three"]
    for n, name in enumerate(names):
        run = f"r{n}-20261122T103000Z"
        face.puppets.submit(spec(name, run=run, speed=7), spec(f"{name}-b", run=run, auto_dismiss=True))
        face.puppets.walk(run, Step.RUN)
    order = [job for name in reversed(names) for job in (f"{name}-b", name)]
    assert [job["id"] for job in talk.ok("query-jobs")] == order
    assert talk.ok("query-jobs")[-1] == {
        "id": "one", "type": "backup", "status": "running", "current-progress": 0, "total-progress": 1 << 20,
    }  # fmt: skip
    assert talk.ok("query-block-jobs")[-1] == {
        "type": "backup", "device": "one", "len": 1 << 20, "offset": 0, "busy": False, "paused": False, "speed": 7,
        "io-status": "ok", "ready": False, "status": "running", "auto-finalize": True, "auto-dismiss": False,
    }  # fmt: skip
    talk.ok("job-cancel", id="one")
    face.puppets.walk("r0-20261122T103000Z")
    assert talk.ok("query-jobs")[-1]["error"] == "Operation canceled"


def test_a_run_of_the_command_line_is_driven_by_the_same_verbs(face, talk):
    job = spec(f"{RUN}.root")
    face.puppets.submit(job)
    face.puppets.walk(RUN, Step.RUN)
    talk.ok("job-pause", id=job.id)
    assert talk.status(job.id) == "paused"
