"""Notices in the registry: none is lost, none is told twice by two coordinators at once, none outlives its run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from puppets import ALPHA, RUN, Fleet, dump, grouped, spec

from blockjobs.cli import gather
from blockjobs.daemons.lookout import Lookout
from blockjobs.daemons.notifier import Notifier
from blockjobs.model.barriers import Step
from blockjobs.model.ids import RunId
from blockjobs.model.policies import RunFields
from blockjobs.notify import by_apprise
from blockjobs.registry import keys
from blockjobs.registry.connection import connect_client
from blockjobs.registry.doors import Registry
from blockjobs.registry.notices import LATELY
from blockjobs.registry.retention import KEEP_RUNS

pytestmark = pytest.mark.durable

URLS = {
    "success": ("https://one.example.com/hidden", "https://two.example.com"),
    "failure": ("mailto://ops@example.com",),
}
JOBS = spec("a"), spec("b")


def ended(fleet: Fleet, *, notify=URLS, bad: bool = False) -> RunId:
    """A run that is over."""
    fleet.registry.submit.submit(replace(grouped(*JOBS), fields=RunFields(notify=notify)))
    fleet.walk(RUN, Step.RUN)
    if bad:
        fleet.finish(fleet.claim(JOBS[0]), errno=5, text="EIO")
    else:
        fleet.copy(*JOBS)
    fleet.walk(RUN)
    return RunId(RUN)


def notifier(registry: Registry) -> Notifier:
    return Notifier(registry, (0.0, 60.0), lambda: "")


def states(registry: Registry) -> list[tuple[str, str, int]]:
    return [(notice.url, notice.state, notice.tries) for notice in registry.notices.of(RunId(RUN))]


def test_the_end_of_a_run_is_noted_in_the_step_that_ends_it(fleet):
    fleet.registry.submit.submit(replace(grouped(*JOBS), fields=RunFields(notify=URLS)))
    assert fleet.registry.notices.untold() == []
    fleet.registry.verbs.cancel("a")
    fleet.walk(RUN)
    assert fleet.registry.notices.untold() == [RUN]


@pytest.mark.parametrize(("bad", "told"), [(False, list(URLS["success"])), (True, list(URLS["failure"]))])
def test_each_url_of_the_outcome_becomes_a_notice_once(fleet, bad, told):
    run = ended(fleet, bad=bad)
    here = notifier(fleet.registry)
    here.announce(run)
    before = dump(fleet.client)
    here.announce(run)
    assert dump(fleet.client) == before
    assert fleet.registry.notices.untold() == []
    assert [fleet.registry.notices.take(run, n, "me", lease=9).url for n in range(len(told))] == told
    assert fleet.registry.notices.take(run, 0, "me", lease=9) is None


def test_the_message_names_the_first_failures(fleet):
    run = ended(fleet, bad=True)
    notifier(fleet.registry).announce(run)
    said = fleet.registry.notices.take(run, 0, "me", lease=9).said
    assert (said["verdict"], said["failed"], said["jobs"]) == ("failure", 1, 2)
    assert said["failures"] == [{"job": "a", "host": "alpha", "error": "EIO"}]


@pytest.mark.parametrize("notify", [{}, {"failure": ("https://x.example.com",)}])
def test_a_run_that_nobody_is_told_of_leaves_nothing(fleet, notify):
    run = ended(fleet, notify=notify)
    assert fleet.registry.notices.untold() == [run] * bool(notify)
    notifier(fleet.registry).announce(run)
    assert not {keys.untold(), keys.notices(), keys.run_notices(run)} & dump(fleet.client).keys()


def test_of_many_coordinators_one_gets_a_notice(fleet, server):
    run = ended(fleet)
    notifier(fleet.registry).announce(run)
    clients = [connect_client(server.url) for _ in range(8)]

    def take(n):
        return [Registry(clients[n]).notices.take(run, each, str(n), lease=60) for each in (0, 1)]

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    for client in clients:
        client.close()
    assert [sum(pair[each] is not None for pair in taken) for each in (0, 1)] == [1, 1]


def test_a_notice_whose_taker_died_is_taken_again_and_the_dead_one_can_say_nothing_more(fleet):
    run = ended(fleet)
    registry = fleet.registry
    notifier(registry).announce(run)
    first = registry.notices.take(run, 0, "first", lease=0)
    second = registry.notices.take(run, 0, "second", lease=60)
    assert (first.tries, second.tries) == (1, 2)
    assert not registry.notices.sent(first)
    assert registry.notices.sent(second)
    assert not registry.notices.failed(second, "twice"), "it is over"
    assert registry.notices.take(run, 0, "third", lease=60) is None
    assert fleet.events("NOTICE_SENT", "NOTICE_FAILED") == [("NOTICE_SENT", RUN)]


def test_a_notice_is_tried_again_after_its_delay_and_given_up_in_the_end(fleet):
    run = ended(fleet)
    registry = fleet.registry
    notifier(registry).announce(run)
    registry.notices.again(registry.notices.take(run, 0, "me", lease=9), 0, "HTTP 503")
    registry.notices.again(registry.notices.take(run, 0, "me", lease=9), 60, "HTTP 503")
    assert registry.notices.take(run, 0, "me", lease=9) is None
    assert states(registry)[0] == ("https://one.example.com/***", "waiting", 2)
    fleet.client.zadd(keys.notices(), {f"0 {run}": 0})  # a minute later
    registry.notices.failed(registry.notices.take(run, 0, "me", lease=9), "HTTP 503")
    assert states(registry)[0] == ("https://one.example.com/***", "failed", 3)
    (event,) = [each for each in registry.events.all() if each.name == "NOTICE_FAILED"]
    assert event.fields == {
        "outcome": "success",
        "url": "https://one.example.com/***",
        "tries": "3",
        "error": "HTTP 503",
    }


def test_a_try_that_was_cut_off_by_a_stop_does_not_count(fleet):
    run = ended(fleet)
    registry = fleet.registry
    notifier(registry).announce(run)
    registry.notices.again(registry.notices.take(run, 0, "me", lease=9), 0, "stopped", counts=False)
    assert registry.notices.take(run, 0, "me", lease=9).tries == 1


def test_the_notices_of_a_forgotten_run_are_forgotten(fleet):
    run = ended(fleet)
    registry = fleet.registry
    notifier(registry).announce(run)
    registry.retention.forget(registry.hosts.now() + KEEP_RUNS + 1000)
    assert registry.notices.of(run) == []
    assert registry.notices.take(run, 0, "me", lease=9) is None
    assert registry.notices.take(run, 1, "me", lease=9) is None
    assert keys.notices() not in dump(fleet.client)


def test_show_says_how_far_it_came_and_nothing_secret(fleet, command):
    run = ended(fleet)
    registry = fleet.registry
    notifier(registry).announce(run)
    registry.notices.sent(registry.notices.take(run, 0, "me", lease=9))
    registry.notices.failed(registry.notices.take(run, 1, "me", lease=9), "HTTP 503")
    code, out, _ = command("show", run)
    assert code == 0
    assert "success to https://one.example.com/***: sent at" in out
    assert "success to https://two.example.com: not sent, given up after 1 try: HTTP 503" in out
    assert "hidden" not in out + command("show", run, "--json")[1] + command("events")[1]


# --- whether the coordinator can tell them ----------------------------------------------------------------

FILE = """\
version: 1
name: nightly
notify: {success: ["https://hc.example.com/x"], failure: ["https://hc.example.com/x", "mailto://ops:hidden@example.com"]}
jobs: [{id: one, source: "alpha:/srv/one.img", target: "alpha:/backup/{run}/one.img"}]
"""
WRONG = (
    "notify.failure[1]: mailto://example.com cannot be notified, as apprise is not installed where the coordinator runs"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nightly.yaml"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [
        ([True], 0, "in order\n  jobs: grouped, 1 job on 1 host\n"),
        ([False], 2, WRONG),
        ([True, False], 2, WRONG),
        ([], 0, "whether the coordinator has apprise is not known: none runs"),
    ],
    ids=["it has apprise", "it has not", "one of two has not", "there is none"],
)
def test_check_says_whether_the_coordinator_can_tell_through_apprise(fleet, command, file, says, *, code, told):
    for apprise in says:
        fleet.registry.notices.publish_means(apprise=apprise)
    found, out, err = command("check", str(file))
    assert (found, told in out + err) == (code, True)
    assert "hidden" not in out + err
    file.write_text(FILE.replace('"mailto://ops:hidden@example.com"', '"https://h.example.com"'))
    assert command("check", str(file))[0] == 0, "webhooks need no apprise"


def test_what_a_coordinator_said_that_runs_no_longer_is_not_believed(fleet, command, file):
    fleet.registry.notices.publish_means(apprise=False)
    fleet.client.hincrby(keys.daemons(), "apprise:no", -2 * LATELY)
    assert command("check", str(file))[0] == 0
    fleet.registry.notices.publish_means(apprise=True)
    assert fleet.registry.notices.has_apprise() is True


def test_check_goes_on_without_redis_and_says_what_it_does_not_know(command, monkeypatch, file):
    monkeypatch.setenv("BLOCKJOBS_REDIS_URL", "redis://127.0.0.1:1")
    code, out, _ = command("check", str(file))
    assert code == 0
    assert "in order" in out
    assert "mailto://example.com: whether the coordinator has apprise, which tells it, is not known: Redis" in out


def test_a_coordinator_says_what_it_has_and_plan_and_run_go_on_with_a_warning(fleet, command, file, monkeypatch):
    Lookout(fleet.registry).look()
    assert fleet.registry.notices.has_apprise() is by_apprise.is_apprise_installed()
    fleet.registry.notices.publish_means(apprise=False)
    fleet.registry.hosts.judge(ALPHA, "up")
    code, _, err = command("run", str(file), "--detach")
    assert (code, f"warning: {WRONG}" in err) == (0, True)
    monkeypatch.setattr(gather, "PATIENCE", 0.1)  # no worker looks at anything here
    assert f"warning: {WRONG}" in command("plan", str(file))[2]
