"""Numbers of 64 bits through Lua, Redis and back: what people and disks give comes out as it went in, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from puppets import ALPHA, SIZE, grouped, spec

from blockjobs.cli import runfile
from blockjobs.daemons.budgets import BudgetDivider
from blockjobs.model.barriers import Step
from blockjobs.model.errors import BadInput, Refused
from blockjobs.model.policies import Policy, RunFields, Store
from blockjobs.qmp import jobs as verbs
from blockjobs.qmp import qapi, tables
from blockjobs.qmp.commands import COMMANDS
from blockjobs.qmp.errors import QmpError
from blockjobs.qmp.events import translate_event
from blockjobs.registry import codec, keys, scripts
from blockjobs.registry.answers import Answer
from blockjobs.registry.attempts import Progress

pytestmark = pytest.mark.durable

MOST = (1 << 63) - 1
WHOLE = [0, 1, 1 << 31, (1 << 32) + 1, (1 << 53) + 1, 10**17, MOST - 1, MOST]
NO_NUMBERS = [-1, 1 << 63, 1.5, 1e17, "1e3", True, None]
RANGE = "a whole number from 0 to 9223372036854775807 was expected"
JOB = spec("a", store="nas1")
STORES = RunFields(stores={"nas1": Store(path="/mnt/nas1")})

each_number = pytest.mark.parametrize("number", WHOLE)


@pytest.fixture
def submitted(here):
    here.submit(replace(grouped(JOB), fields=STORES))


@pytest.fixture
def running(submitted, here, fleet):
    """A claim of the job."""
    fleet.walk(JOB.transaction, Step.RUN)
    here.registry.hosts.ring(ALPHA, 8, lost_after_ms=10_000)
    return fleet.claim(JOB)


# --- given by people ----------------------------------------------------------------------------------


def other(**options):
    """A run of one more job."""
    return replace(grouped(spec("b", run="r-2", **options)), fields=STORES)


def speed_of_submit(here, number):
    here.submit(other(speed=number))
    return here.get("b").speed, here.get("b").spec.speed


def range_of_submit(here, number):
    here.submit(other(offset=number, length=number))
    return here.get("b").spec.offset, here.get("b").spec.length


def speed_of_job(here, number):
    here.set_speed("a", number)
    return here.get("a").speed, here.get("a").to_json()["speed"], here.glances.progress(
        [here.registry.views.place("a")]
    )["a"].speed  # fmt: skip


def speed_of_host(here, number):
    here.set_host(ALPHA, speed=number)
    (host,) = here.hosts()
    return host.speed, here.registry.limits.host_speeds().get(ALPHA, 0)


def speed_of_store(here, number):
    here.set_store("nas1", speed=number)
    return here.store("nas1").speed, here.stores()[0].speed


def jobs_of_store(here, number):
    here.set_store("nas1", jobs=number)
    return here.store("nas1").jobs, here.stores()[0].jobs


def speed_of_new_store(here, number):
    fields = RunFields(stores={"nas2": Store(path="/mnt/nas2", speed=number, jobs=number)})
    here.submit(replace(other(store="nas2"), fields=fields))
    return here.store("nas2").speed, here.store("nas2").jobs


BY_PYTHON = (
    speed_of_submit, range_of_submit, speed_of_job, speed_of_host, speed_of_store, jobs_of_store, speed_of_new_store,
)  # fmt: skip


@each_number
@pytest.mark.parametrize("give", BY_PYTHON, ids=lambda give: give.__name__)
def test_a_number_given_from_python_comes_back_as_it_was_given(submitted, here, give, number):
    assert set(give(here, number)) == {number}


NO_WHOLE = [
    (give, number) for give in BY_PYTHON for number in NO_NUMBERS
    if number is not None or give not in (speed_of_store, jobs_of_store)  # of these None says: as it is
]  # fmt: skip


@pytest.mark.parametrize(("give", "number"), NO_WHOLE, ids=lambda each: getattr(each, "__name__", repr(each)))
def test_what_is_no_whole_number_is_refused_where_it_is_given_and_changes_nothing(
    submitted, here, client, give, number
):
    with pytest.raises(Refused) as refused:
        give(here, number)
    assert "\n" not in str(refused.value)
    if not (give is speed_of_job and number == -1):  # for which QEMU has a text of its own
        assert RANGE in str(refused.value)
    assert (here.get("a").speed, here.registry.limits.host_speeds(), here.store("nas1").speed) == (0, {}, 0)
    assert not client.hexists(keys.ids(), "b")


BY_COMMAND = {  # command -> where its number is found again
    ("set-speed", "a", "{}"): lambda here: here.get("a").speed,
    ("hosts", "set", "alpha", "--speed", "{}"): lambda here: here.registry.limits.host_speeds().get(ALPHA, 0),
    ("stores", "set", "nas1", "--speed", "{}"): lambda here: here.store("nas1").speed,
}
each_command = pytest.mark.parametrize("words", BY_COMMAND, ids=" ".join)


@each_number
@each_command
def test_a_number_given_to_a_command_comes_back_as_it_was_given(submitted, here, command, words, number):
    code, _, err = command(*(word.format(number) for word in words))
    assert (code, err) == (0, "")
    assert BY_COMMAND[words](here) == number


@each_command
@pytest.mark.parametrize("number", ["-1", str(1 << 63), "1.5", "1e3", "1" * 5000, "²"], ids=lambda text: text[:20])
def test_a_command_refuses_what_is_no_whole_number_in_one_line(submitted, here, command, words, number):
    code, out, err = command(*(word.format(number) for word in words))
    assert (code, out, len(err.splitlines())) == (2, "", 1)


@each_number
def test_json_of_stores_hosts_and_jobs_shows_the_number_itself(submitted, here, command, number):
    speed_of_job(here, number)
    speed_of_host(here, number)
    speed_of_store(here, number)
    assert json.loads(command("stores", "--json")[1])[0]["speed"] == number
    assert json.loads(command("hosts", "--json")[1])[0]["speed"] == number
    assert json.loads(command("status", "--json")[1])["jobs"][0]["speed"] == number
    assert command("events")[0] == 0


RUN_FILE = """\
version: 1
name: nightly
stores: {{nas1: {{path: /backup, speed: {0}}}}}
defaults: {{speed: {0}}}
jobs:
  - {{id: b, source: "alpha:/srv/b.img", target: "alpha:/backup/b.img"}}
"""


@each_number
@pytest.mark.parametrize("written", ["{}", '"{}"', '"{} B/s"'])
def test_a_number_of_a_run_file_comes_back_as_it_was_written(here, tmp_path, number, written):
    (tmp_path / "run.yaml").write_text(RUN_FILE.format(written.format(number)))
    plan = runfile.load_run_file(tmp_path / "run.yaml", now=datetime.now(UTC))
    here.submit(plan)
    (job,) = here.list(plan.run)
    assert (job.speed, here.store("nas1").speed) == (number, number)


@pytest.mark.parametrize("written", ["-1", str(1 << 63), "1.5", "1e17", '"1e3"', "1.5B", "true", "null"])
def test_a_run_file_refuses_what_is_no_whole_number_in_one_line(here, tmp_path, written):
    (tmp_path / "run.yaml").write_text(RUN_FILE.format(written))
    with pytest.raises(BadInput, match=r"run\.yaml:[34]: .*speed: .*a whole number from 0 to 922337203685477580") as no:
        runfile.load_run_file(tmp_path / "run.yaml", now=datetime.now(UTC))
    assert "\n" not in str(no.value)


# --- over QMP -----------------------------------------------------------------------------------------


class Spoken:
    """What a command of QMP works on, as far as these need it."""

    def __init__(self, here):
        self.coordinator, self.registry = here, here.registry


@each_number
def test_a_speed_given_over_qmp_comes_back_in_its_queries_and_events(submitted, here, number):
    arguments = qapi.check_arguments(tables.SPEED, json.loads(json.dumps({"device": "a", "speed": number})))
    COMMANDS["block-job-set-speed"].run(Spoken(here), arguments)
    (found,) = verbs.query_block_jobs(Spoken(here), {})
    assert found["speed"] == number


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (-1, "Parameter 'speed' expects a non-negative value"),
        (1 << 63, "Invalid parameter type for 'speed', expected: integer"),
        (1.5, "Invalid parameter type for 'speed', expected: integer"),
        (1e17, "Invalid parameter type for 'speed', expected: integer"),
        ("1e3", "Invalid parameter type for 'speed', expected: integer"),
    ],
)
def test_qmp_refuses_a_speed_in_the_words_of_qemu(submitted, here, number, said):
    def give():
        arguments = qapi.check_arguments(tables.SPEED, {"device": "a", "speed": number})
        COMMANDS["block-job-set-speed"].run(Spoken(here), arguments)

    with pytest.raises((QmpError, Refused)) as refused:
        give()
    assert str(refused.value) == said


# --- given by disks, and by those who divide ----------------------------------------------------------


@each_number
def test_an_attempt_reports_and_is_told_whole_numbers(running, here, fleet, number):
    attempts = fleet.host(ALPHA).attempts
    here.set_speed("a", number)
    orders = attempts.checkpoint(running, Progress(number, number, {"read": number}))
    job = here.get("a")
    assert (orders.speed, job.offset, job.len, job.bytes) == (number, number, number, {"read": number})
    attempts.finish(running, Progress(number, number, {"read": number}), durable=None, result={})
    assert here.get("a").bytes == {"read": number}


@pytest.mark.parametrize(
    "limits",
    [
        (0, 0, 0), (0, MOST, MOST), (MOST, 0, MOST), (MOST, MOST - 1, MOST - 1), (MOST - 1, MOST, MOST - 1),
        ((1 << 53) + 1, 1 << 53, 1 << 53), (1 << 53, (1 << 53) + 1, 1 << 53), (9, 10, 9), (10, 9, 9),
        (10**17 + 1, 10**17, 10**17),
    ],
)  # fmt: skip
def test_the_lower_one_of_two_limits_is_felt_however_large_they_are(running, here, fleet, limits):
    own, limit, felt = limits
    here.set_speed("a", own)
    here.registry.limits.limit({(ALPHA, JOB.id): limit})
    assert fleet.host(ALPHA).attempts.checkpoint(running, Progress(0, SIZE)).speed == felt
    (found,) = here.registry.limits.running(["nas1"], [])
    assert (found.speed, found.limit, found.felt) == (own, limit, felt)


def concluded(here, fleet, *counts):
    """A run of as many jobs that copied so much; its sums."""
    jobs = [replace(spec(f"j{at}", run="r-3"), auto_dismiss=True) for at, _ in enumerate(counts)]
    here.submit(grouped(*jobs))
    fleet.walk(jobs[0].transaction, Step.RUN)
    for job, count in zip(jobs, counts, strict=True):
        progress = Progress(count, count, {"read": count, "written": 1})
        fleet.host(ALPHA).attempts.finish(fleet.claim(job), progress, durable=None, result={})
    fleet.walk(jobs[0].transaction)
    return here.run("r-3").sums


@each_number
def test_a_run_s_figures_are_those_of_its_jobs_to_the_byte(here, fleet, number):
    sums = concluded(here, fleet, number)
    assert (sums["read"], sums["len"], sums["written"]) == (number, number, 1)


def test_a_run_s_figures_are_added_to_the_byte(here, fleet):
    counts = [(1 << 53) + 1, (1 << 60) + 3, 5, (1 << 32) + 1, 255, 65_535, 1 << 16]
    sums = concluded(here, fleet, *counts)
    assert (sums["read"], sums["len"], sums["written"]) == (sum(counts), sum(counts), len(counts))


def test_sums_that_would_pass_the_largest_number_stay_at_it_and_the_run_ends(here, fleet):
    sums = concluded(here, fleet, MOST, MOST, 7)
    assert (sums["read"], sums["len"], sums["written"]) == (MOST, MOST, 3)
    assert here.run("r-3").ended


@each_number
def test_a_size_and_the_room_that_is_needed_are_those_of_the_disk(submitted, here, fleet, number):
    answers = fleet.host(ALPHA).answers
    answers.answer(JOB.transaction, Step.OPEN, [Answer(JOB.id, size=number, result={"need": [66, number]})])
    assert here.get("a").len == number
    assert answers.needs(JOB.transaction) == {66: number}


def test_room_that_is_needed_is_added_up_to_the_largest_number_and_no_further(here, fleet):
    jobs = [spec(name) for name in "abc"]
    txn = fleet.submit(*jobs)
    answers = fleet.host(ALPHA).answers
    for job, needed in zip(jobs, (1 << 62, (1 << 62) - 1, 5), strict=True):
        answers.answer(txn, Step.OPEN, [Answer(job.id, result={"need": [66, needed]})])
    assert answers.needs(txn) == {66: MOST}


@each_number
def test_the_size_of_a_series_is_that_of_its_last_backup(here, fleet, number):
    job = spec("a")
    txn = fleet.submit(job)
    fleet.walk(txn, Step.RUN)
    fleet.copy(job)
    fleet.walk(txn, Step.PREPARE)
    answers = fleet.host(ALPHA).answers
    answers.answer(txn, Step.PREPARE, [Answer(job.id, result={"series": "nightly a", "bytes": number})])
    fleet.walk(txn)
    assert fleet.client.hget(keys.sizes(ALPHA), "nightly a").split()[0] == str(number).encode()


def test_what_ends_a_job_tells_whole_numbers_over_qmp(here, fleet):
    concluded(here, fleet, MOST)
    (told,) = [
        translate_event(event)["data"] for event in here.registry.events.all() if event.name == "BLOCK_JOB_COMPLETED"
    ]
    assert (told["len"], told["offset"]) == (MOST, MOST)


@pytest.mark.parametrize("number", [1 << 53, (1 << 53) + 1, 10**17, MOST - 1, MOST])
def test_budgets_of_any_size_are_divided_and_handed_out_in_whole_numbers(running, here, fleet, number):
    speed_of_host(here, number)
    speed_of_store(here, number)
    shares = BudgetDivider(here.registry)
    shares.look()
    assert shares.at_first(ALPHA, "nas1") > 0
    assert int(fleet.record(JOB)["limit"]) == number
    assert fleet.host(ALPHA).attempts.checkpoint(running, Progress(0, SIZE)).speed == number


# --- durations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.001, 1, 600, 3_155_760_000])
def test_a_hold_ends_when_it_was_said(submitted, here, seconds):
    here.pause("a", seconds=seconds)
    terms = here.registry.verbs.terms()["a", "user"]
    assert terms.until - terms.since == max(1, round(1000 * seconds))


@pytest.mark.parametrize("seconds", [-1, 3_155_760_001, 1e17, 1e300, float("inf"), float("nan")])
def test_a_time_that_nobody_lives_to_see_is_refused(submitted, here, command, seconds):
    with pytest.raises(BadInput, match="seconds was expected"):
        here.pause("a", seconds=seconds)
    with pytest.raises(BadInput, match="seconds was expected"):
        here.pause_all("x", seconds=seconds)
    assert here.registry.verbs.terms() == {}


TIMES = {  # what holds a time, or a number of tries -> how it is made
    "stall limit of a job": lambda number: spec("b", stall_limit=number),
    "deadline of a run":    lambda number: RunFields(deadline=number),
    "hold timeout":         lambda number: RunFields(hold_timeout=number),
    "wait before a retry":  lambda number: Policy(retry_wait=number),
    "retries":              lambda number: Policy(retry=number),
}  # fmt: skip


@pytest.mark.parametrize("number", [-1, 1 << 63, 1e300, float("nan"), "1e3", None], ids=repr)
@pytest.mark.parametrize("make", TIMES.values(), ids=TIMES)
def test_a_time_or_a_number_of_tries_of_a_run_is_refused_where_it_is_given(make, number):
    with pytest.raises(BadInput, match=r"was expected$") as refused:
        make(number)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("seconds", [1, 366 * 86_400, 3_155_760_000])
def test_the_times_of_a_run_come_back_as_they_were_given(here, fleet, seconds):
    policies = {"": Policy(grouped=True, retry_wait=seconds)}
    fields = RunFields(policies=policies, deadline=seconds, hold_timeout=seconds)
    here.submit(replace(grouped(spec("b", run="r-2")), fields=fields))
    found = here.run("r-2").fields
    assert (found.deadline, found.hold_timeout, found.policies[""].retry_wait) == (seconds,) * 3
    due = fleet.client.zscore(keys.deadlines(), "r-2") - here.run("r-2").published
    assert due == 1000 * seconds


# --- the comparison -----------------------------------------------------------------------------------


@given(st.integers(0, MOST), st.integers(-3, 3), st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_lua_compares_whole_numbers_as_python_does(client, number, apart, unlike):
    other = abs(number + apart) if not unlike else number // 1000
    less = client.eval(scripts.assemble_script("return less(ARGV[1], ARGV[2]) and 1 or 0"), 0, number, other)
    assert bool(less) == (number < other)


@given(st.dictionaries(st.text(max_size=40), st.integers(0, (1 << 64) - 1), max_size=40))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lua_reads_whole_numbers_from_a_record_as_python_packed_them(client, figures):
    script = """
    local told = {}
    for name, figure in pairs(exact(ARGV[1])) do
      told[#told + 1] = name
      told[#told + 1] = digits(figure)
    end
    return told
    """
    told = client.eval(scripts.assemble_script(script), 0, codec.pack_value(figures))
    assert {name.decode(): int(figure) for name, figure in zip(told[::2], told[1::2], strict=True)} == figures
