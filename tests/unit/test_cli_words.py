"""How events, times, ids and tables are put into words."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from blockjobs.cli import phrases
from blockjobs.cli.demo import clear_demo
from blockjobs.cli.demo_table import run_stories, story_rows
from blockjobs.cli.events import checked_sequence, event_as_json
from blockjobs.cli.output import aligned_lines
from blockjobs.cli.selection import is_event_about, is_glob_match
from blockjobs.cli.standing import run_heading
from blockjobs.cli.start import absolute_volume, only_host
from blockjobs.cli.verbs import verb_summary
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import RunId
from blockjobs.registry.events import Event
from blockjobs.registry.views import RunView

NOON = datetime(2026, 11, 22, 12).astimezone().timestamp()


def event(name, ms=0, id_="r.a", **fields):
    return Event(f"{int(NOON * 1000) + ms}-0", name, id_, "r", "r", "db1", {k: str(v) for k, v in fields.items()})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7300, "2 h 1 min"), (200000, "2 d 7 h")],
)
def test_spans_are_told_as_people_tell_them(seconds, text):
    assert phrases.duration_text(seconds) == text


def test_a_time_of_another_day_has_its_date():
    assert phrases.time_of_day(NOON, NOON + 60) == "12:00:00"
    assert phrases.time_of_day(NOON, NOON + 86400) == "2026-11-22 12:00:00"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (event("JOB_STATUS_CHANGE", **{"from": "running", "status": "paused"}), "running -> paused"),
        (event("JOB_HELD", reason="user", cause=""), "held by user"),
        (event("JOB_HELD", reason="user", cause="disk full"), "held by user: disk full"),
        (event("JOB_SPEED", speed=0), "speed: no limit"),
        (event("BLOCK_JOB_COMPLETED", len=1 << 20), "completed, 1.0 MiB"),
        (event("BLOCK_JOB_COMPLETED", len=1 << 20, error="EIO"), "failed: EIO"),
        (event("RUN_ENDED", jobs=1, failed=0, cancelled=1), "ended: 1 job, 0 failed, 1 cancelled"),
        (event("SOMETHING_NEW", colour="red"), "SOMETHING_NEW colour=red"),
    ],
)  # fmt: skip
def test_an_event_is_one_sentence(given, text):
    assert phrases.event_line(given, NOON) == f"12:00:00 r.a: {text}"


def test_an_event_as_json_says_where_to_read_on():
    assert event_as_json(event("JOB_HELD", reason="user"))["seq"] == event("").seq


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("r.a", "r.a", True), ("r.ab", "r.a", False), ("r.ab", "r.a*", True), ("rxa", "r.a", False),
        ("r.a", "r?a", True), ("r.a", "r.[ab]", True), ("r.c", "r.[ab]", False), ("r.c", "r.[^ab]", True),
        ("r.1", "r.[0-9]", True),
        ("n-x.web1-a", "n-*.web*", True), ("n-x.db1", "n-*.web*", False),
    ],
)  # fmt: skip
def test_a_glob_matches_as_redis_would(name, text, same):
    assert is_glob_match(name, text) is same


def test_an_event_concerns_its_job_its_run_and_its_host():
    for text in ("r", "r.a", "db1", "r.*"):
        assert is_event_about(event("JOB_HELD"), [text]), text
    assert not is_event_about(event("JOB_HELD"), ["r.b", "db2", "q*"])


@pytest.mark.parametrize("seq", ["", "x", "1-x", "-1", "1" * 30])
def test_a_place_in_the_stream_is_checked(seq):
    with pytest.raises(BadInput, match="--since"):
        checked_sequence(seq)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("web1:/a", "web1:/a"), ("/a/b", "/a/b"), ("b.img", "/here/{{x}}/b.img"), ("../b.img", "/here/b.img"),
        ("./a:b.img", "/here/{{x}}/a:b.img"), ("out-{date}.img", "/here/{{x}}/out-{date}.img"), ("/a/../b", "/a/../b"),
    ],
)  # fmt: skip
def test_a_path_without_a_host_becomes_absolute(text, meant):
    assert absolute_volume(text, "/here/{x}") == meant


@pytest.mark.parametrize(("hosts", "why"), [([], "no host is registered"), (["a", "b"], "there are 2 hosts")])
def test_a_path_without_a_host_needs_a_single_one(hosts, why):
    assert only_host(["a"], "x.img") == "a"
    with pytest.raises(BadInput, match=f"{why}: HOST:/PATH was expected"):
        only_host(hosts, "x.img")


def test_columns_are_as_wide_as_their_widest():
    assert list(aligned_lines([["a", "bbb", ""], ["aaa", "b", "c"]])) == ["a    bbb", "aaa  b    c"]


@pytest.mark.parametrize(
    ("ended", "failed", "cancelled", "text"),
    [
        (0, 0, 0, "r: 4 jobs, running since 12:00:00 (1 min 0 s), 3 of 4 over"),
        (30, 0, 0, "r: 4 jobs, committed at 12:00:30 after 30 s"),
        (30, 1, 3, "r: 4 jobs, aborted at 12:00:30 after 30 s, 1 failed, 3 cancelled"),
        (30, 1, 0, "r: 4 jobs, partly committed at 12:00:30 after 30 s, 1 failed"),
        (30, 0, 4, "r: 4 jobs, cancelled at 12:00:30 after 30 s, 4 cancelled"),
    ],
)
def test_a_run_is_one_line(ended, failed, cancelled, text):
    at = int(NOON * 1000)
    over = at + ended * 1000 if ended else 0
    run = RunView(
        RunId("r"), "r", grouped=True, published=at, ended=over, jobs=4, open=0 if ended else 1, failed=failed,
        cancelled=cancelled,
    )  # fmt: skip
    assert run_heading(run, NOON + 60) == text


def test_a_verb_says_what_became_of_how_many():
    assert verb_summary(Counter({"paused": 1}), 1, many=False) == "paused"
    assert verb_summary(Counter({"paused": 3}), 3, many=True) == "3 jobs paused"
    assert verb_summary(Counter({"paused": 2, "pausing": 1}), 8, many=True) == "2 jobs paused, 1 job pausing (of 8)"


def test_the_demo_computes_its_table_from_events_alone():
    told_ = run_stories(
        [
            event("RUN_PUBLISHED", id_="r", jobs=2),
            event("JOB_HELD", 1000, reason="user"),
            event("JOB_STATUS_CHANGE", 1021, **{"from": "running", "status": "paused"}),
            event("BLOCK_JOB_COMPLETED", 5000, len=1 << 30),
            event("BLOCK_JOB_COMPLETED", 5000, "r.b", len=1 << 30, error="EIO"),
            event("TRANSACTION_DECIDED", 6000, "r", decision="commit"),
            event("RUN_ENDED", 7500, "r", jobs=2, failed=1, cancelled=0),
        ]
    )
    assert list(story_rows(told_))[1:] == [["r", "2", "1.0 GiB", "7.5", "commit", "21 ms"]]


def test_the_demo_removes_only_what_a_demo_made(tmp_path: Path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(BadInput, match="not of an earlier demo"):
        clear_demo(tmp_path)
    assert (tmp_path / "precious").read_text() == "data"
    clear_demo(tmp_path / "new")
    (tmp_path / "new" / "left-over").write_text("data")
    clear_demo(tmp_path / "new")
    assert not (tmp_path / "new" / "left-over").exists()
