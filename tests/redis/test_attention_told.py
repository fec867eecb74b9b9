"""What needs a person, in the registry: seen by its record, told once however many look, and gone with its run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from puppets import ALPHA, BETA, RUN, Fleet, dump, grouped, spec

from blockjobs.daemons.lookout import Lookout
from blockjobs.daemons.notifier import Notifier
from blockjobs.model.attention import Cause, Thresholds
from blockjobs.model.barriers import Decide, Decision, Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields
from blockjobs.registry import keys
from blockjobs.registry.attempts import Progress
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry

pytestmark = pytest.mark.durable

URL = "https://ops.example.com/hidden"
SOON = Thresholds(held=0.0, owes=0.0, idle=0.0)
JOBS = spec("a"), spec("b", host=BETA)


def submit(fleet: Fleet, *jobs, notify=None) -> None:
    fields = RunFields(notify={"attention": (URL,)} if notify is None else notify)
    fleet.registry.submit.submit(replace(grouped(*jobs or JOBS), fields=fields))
    for host in (ALPHA, BETA):
        fleet.host(host).hosts.beat(host, f"machine {host}", 2, {})
        fleet.registry.hosts.judge(host, "up")


@pytest.fixture
def going(fleet):
    """A run whose two jobs wait for slots."""
    submit(fleet)
    fleet.walk(RUN, Step.RUN)
    return fleet


def causes(fleet: Fleet, limits: Thresholds = SOON) -> list[Cause]:
    return [need.cause for need in fleet.registry.attention.needs(RunId(RUN), limits)]


def told(fleet: Fleet) -> list[str]:
    return [notice.about for notice in fleet.registry.notices.of(RunId(RUN)) if notice.outcome == "attention"]


def stop(fleet: Fleet, job, number=1):
    claim = fleet.claim(job)
    fleet.host(job.host).attempts.error(
        claim, number, operation="write", action="stop", io_status="nospace", text="No space left on device", errno=28
    )
    fleet.host(job.host).attempts.checkpoint(claim, Progress(), quiet=True)
    return claim


def later(fleet: Fleet, job, field: str, minutes: int) -> None:
    fleet.client.hincrby(keys.job(job.host, job.id), field, -60_000 * minutes)


# --- what is seen -----------------------------------------------------------------------------------------


def test_a_run_that_goes_well_needs_nobody_from_its_start_to_its_end(fleet):
    submit(fleet)
    lookout = Lookout(fleet.registry)
    lookout.look()
    fleet.walk(RUN, Step.RUN)
    lookout.look()
    fleet.copy(*JOBS)
    lookout.look()
    fleet.walk(RUN)
    Notifier(fleet.registry, (), lambda: "").announce(RunId(RUN))
    lookout.look()
    assert not fleet.registry.notices.of(RunId(RUN))
    assert not fleet.client.exists(keys.watched(), keys.notices())


def test_a_job_that_an_error_stopped_is_told_once_and_again_when_it_stops_again(going):
    claim = stop(going, JOBS[0])
    lookout = Lookout(going.registry)
    lookout.look()
    lookout.look()
    assert told(going) == ["an error stopped job a on host alpha: No space left on device; blockjobs resume a"]
    going.registry.verbs.resume("a")
    assert Cause.STOPPED not in causes(going)
    going.host(ALPHA).attempts.checkpoint(claim, Progress(), quiet=True)
    going.host(ALPHA).attempts.error(
        claim, 2, operation="write", action="stop", io_status="nospace", text="No space left on device", errno=28
    )
    lookout.look()
    assert len(told(going)) == 2


@pytest.mark.parametrize("how", ["user", "drain", "drained before it began", "after an error"])
def test_a_job_that_is_held_for_longer_than_the_threshold_is_told(fleet, how):
    submit(fleet)
    if how == "drained before it began":
        fleet.registry.holds.begin("drain:alpha")
    fleet.walk(RUN, Step.RUN)
    match how:
        case "user":
            fleet.registry.verbs.pause("a")
        case "drain":
            fleet.registry.holds.begin("drain:alpha")
            fleet.registry.holds.hold("drain:alpha")
        case "after an error":
            stop(fleet, JOBS[0])
            fleet.registry.holds.begin("drain:alpha")
            fleet.registry.holds.hold("drain:alpha")
            fleet.registry.verbs.resume("a")
    later(fleet, JOBS[0], "held-at", 29)
    assert causes(fleet, Thresholds()) == []
    later(fleet, JOBS[0], "held-at", 1)
    assert causes(fleet, Thresholds()) == [Cause.HELD]
    if how == "user":
        fleet.registry.verbs.resume("a")
        fleet.registry.verbs.pause("a")
        assert causes(fleet, Thresholds()) == [], "it is held anew"


@pytest.mark.parametrize("step", [Step.OPEN, Step.PREPARE, Step.SETTLE])
def test_a_host_that_owes_an_answer_is_told_and_not_the_one_that_gave_it(fleet, step):
    submit(fleet)
    fleet.silent = frozenset()
    if step is not Step.OPEN:
        fleet.walk(RUN, Step.RUN)
        fleet.copy(*JOBS)
    if step is Step.SETTLE:
        while not isinstance(fleet.advance(RUN), Decide):
            pass
    else:
        fleet.walk(RUN, step)
        fleet.registry.transactions.barrier(RUN, str(step))
    fleet.answer(BETA, RUN, step)
    (need,) = fleet.registry.attention.needs(RunId(RUN), SOON)
    assert (need.cause, need.host) == (Cause.OWES, ALPHA)
    assert f"host alpha owes {step.upper()} of transaction {RUN}" in need.text
    assert causes(fleet, Thresholds()) == []
    fleet.answer(ALPHA, RUN, step)
    assert causes(fleet) == []


def test_what_is_committed_and_not_published_is_told_until_somebody_resolves_it(going):
    going.copy(*JOBS)
    going.sick["settle", "a"] = (17, "File exists")
    while not isinstance(going.advance(RUN), Decide):
        pass
    assert going.view(RUN).decision is Decision.COMMIT
    going.answer(ALPHA, RUN, Step.SETTLE)
    going.answer(BETA, RUN, Step.SETTLE)
    Lookout(going.registry).look()
    assert told(going) == ["job a is committed, not published: File exists; blockjobs resolve a"]
    going.sick.clear()
    going.answer(ALPHA, RUN, Step.SETTLE)
    assert causes(going) == []


def test_a_line_stands_where_slots_are_free_and_nothing_begins(going):
    attention = going.registry.attention
    assert causes(going) == [], "nobody has watched it yet"
    attention.watch_lines()
    assert causes(going) == [Cause.IDLE, Cause.IDLE]
    assert causes(going, Thresholds()) == []
    going.registry.hosts.judge(ALPHA, "down")
    texts = [need.text for need in attention.needs(RunId(RUN), SOON)]
    assert (
        "1 job waits for a slot on host alpha, 2 of 2 slots are free, and none began for 0s: the host is down" in texts
    )
    going.copy(JOBS[1])
    attention.watch_lines()
    assert causes(going) == [Cause.IDLE], "nothing waits on beta"


@pytest.mark.parametrize("how", ["one began and ended", "the slots are taken"])
def test_a_line_that_moved_between_two_looks_stands_anew(fleet, how):
    jobs = tuple(spec(name) for name in "abc")
    submit(fleet, *jobs)
    fleet.walk(RUN, Step.RUN)
    attention = fleet.registry.attention
    attention.watch_lines()
    fleet.client.hset(keys.hosts(), "standing:alpha", "1 0")  # long ago
    assert causes(fleet, Thresholds()) == [Cause.IDLE]
    first = fleet.claim(jobs[0])
    if how == "one began and ended":
        fleet.finish(first)
    else:
        fleet.claim(jobs[1])
    attention.watch_lines()
    assert causes(fleet, Thresholds()) == []
    assert bool(causes(fleet)) == (how == "one began and ended")


@pytest.mark.parametrize("odd", ["x", "1", "1 x", "1 2 3"])
def test_what_nobody_wrote_about_a_line_is_written_anew(going, odd):
    going.client.hset(keys.hosts(), "standing:alpha", odd)
    going.registry.attention.watch_lines()
    assert causes(going).count(Cause.IDLE) == 2


def test_a_notice_of_the_end_that_was_given_up_is_told_to_the_others_and_theirs_to_nobody(fleet):
    submit(fleet, notify={"success": ("https://broken.example.com/x",), "attention": (URL,)})
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*JOBS)
    fleet.walk(RUN)
    notices, lookout = fleet.registry.notices, Lookout(fleet.registry)
    Notifier(fleet.registry, (), lambda: "").announce(RunId(RUN))
    lookout.look()
    assert fleet.registry.attention.watched() == [RUN], "its notice is not told yet"
    notices.failed(notices.take(RunId(RUN), 0, "me", lease=9), "HTTP 503")
    lookout.look()
    about = "the notification 'success' of run nightly-20261122T103000Z was not sent to https://broken.example.com/***"
    assert told(fleet) == [f"{about}, given up after 1 try: HTTP 503"]
    taken = notices.take(RunId(RUN), 1, "me", lease=9)
    assert (taken.url, taken.said["verdict"], taken.said["needs"][0]["cause"]) == (URL, "attention", "untold")
    notices.failed(taken, "HTTP 503")
    lookout.look()
    assert len(told(fleet)) == 1
    assert causes(fleet) == [Cause.UNTOLD], "the notice of the end, and not the one about it"
    assert not fleet.client.exists(keys.watched())


def test_an_end_that_nobody_has_announced_yet_keeps_its_run_watched(fleet):
    submit(fleet, notify={"success": ("https://x.example.com",), "attention": (URL,)})
    fleet.walk(RUN, Step.RUN)
    fleet.copy(*JOBS)
    fleet.walk(RUN)
    Lookout(fleet.registry).look()
    assert fleet.registry.attention.watched() == [RUN]


def test_the_end_of_a_run_is_told_beside_what_was_told_before(fleet):
    submit(fleet, notify={"failure": ("https://end.example.com",), "attention": (URL,)})
    fleet.walk(RUN, Step.RUN)
    claim = stop(fleet, JOBS[0])
    Lookout(fleet.registry).look()
    fleet.finish(claim, errno=28, text="No space left on device")
    fleet.registry.verbs.cancel("b")
    fleet.walk(RUN)
    notifier = Notifier(fleet.registry, (), lambda: "")
    notifier.announce(RunId(RUN))
    notifier.announce(RunId(RUN))
    taken = [fleet.registry.notices.take(RunId(RUN), n, "me", lease=9) for n in (0, 1)]
    assert [(each.url, each.said["verdict"]) for each in taken] == [
        (URL, "attention"),
        ("https://end.example.com", "failure"),
    ]
    assert [notice.outcome for notice in fleet.registry.notices.of(RunId(RUN))] == ["attention", "failure"]


# --- once -------------------------------------------------------------------------------------------------


def test_of_many_coordinators_that_look_at_the_same_moment_one_tells(going, server):
    stop(going, JOBS[0])
    clients = [connect_client(server.url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda client: Lookout(Registry(client)).look(), clients))
    for client in clients:
        client.close()
    assert len(told(going)) == 1
    assert going.client.zcard(keys.notices()) == 1
    attention = going.registry.attention
    seen = attention.needs(RunId(RUN), Thresholds())  # by one that looked before the first one told
    assert attention.tell(RunId(RUN), seen, {}, [URL]) == 0
    assert len(told(going)) == 1


def test_what_was_told_is_not_told_by_the_coordinator_after_it_nor_when_the_clock_jumps(going):
    stop(going, JOBS[0])
    Lookout(going.registry).look()
    before = dump(going.client)
    Lookout(Registry(going.client)).look()
    after = dump(going.client)
    assert after.pop(keys.daemons()) != before.pop(keys.daemons()), "it says that it looks"
    assert after == before
    going.client.set(keys.clock(), 3_600_000)  # Redis' clock was put ahead, and the steady one stays
    Lookout(going.registry, Thresholds(held=3000, owes=3000, idle=3000)).look()
    assert len(told(going)) == 1


def test_a_run_whose_file_names_nobody_costs_no_look_and_says_what_it_needs_all_the_same(fleet, command):
    submit(fleet, notify={"failure": ("https://x.example.com",)})
    fleet.walk(RUN, Step.RUN)
    stop(fleet, JOBS[0])
    assert fleet.registry.attention.watched() == []
    Lookout(fleet.registry).look()
    assert not fleet.registry.notices.of(RunId(RUN))
    assert "  needs attention: an error stopped job a on host alpha" in command("status")[1]


def test_a_look_reads_each_job_once_and_what_is_held_once_more(fleet):
    jobs = [spec(f"j{n}") for n in range(40)]
    submit(fleet, *jobs)
    fleet.walk(RUN, Step.RUN)
    fleet.registry.verbs.pause("j1")
    Lookout(fleet.registry).look()
    fleet.client.config_resetstat()
    Lookout(fleet.registry).look()
    stats = {name.removeprefix("cmdstat_"): each["calls"] for name, each in fleet.client.info("commandstats").items()}
    counted = sum(calls for name, calls in stats.items() if name not in ("info", "config|resetstat"))
    assert 40 < counted < 40 + 40


def test_a_forgotten_run_is_no_longer_watched(going):
    going.client.delete(keys.run(RunId(RUN)))
    Lookout(going.registry).look()
    assert not going.client.exists(keys.watched())


# --- what is said -----------------------------------------------------------------------------------------


def test_show_status_and_doctor_say_the_same_and_by_the_thresholds_of_the_coordinator(going, command):
    stop(going, JOBS[0])
    going.registry.verbs.pause("b")
    stopped = "an error stopped job a on host alpha: No space left on device; blockjobs resume a"
    held = "job b on host beta is held by user for 0s"
    for host in (ALPHA, BETA):
        going.registry.hosts.judge(host, "left")  # doctor waits for the answers of hosts that are up
    for words in (["show", RUN], ["status"], ["doctor"]):
        out = command(*words)[1]
        assert stopped in out, words
        assert held not in out, words
    Lookout(going.registry, SOON).look()
    for words in (["show", RUN], ["status"]):
        out = command(*words)[1]
        assert f"  needs attention: {stopped}\n" in out, words
        assert f"  needs attention: {held[:-2]}" in out, words
    shown = command("show", RUN)[1]
    assert f"notice: attention to https://ops.example.com/***: not sent yet, 0 tries ({stopped}; and " in shown
    assert '"cause": "stopped"' in command("show", RUN, "--json")[1]
