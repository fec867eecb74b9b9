"""What a run would do: room, what stands in the way, how long; from what hosts said, without asking any."""

from __future__ import annotations

import pytest

from blockjobs.model import volumespec
from blockjobs.model.forecast import CopyRates, Owing, job_outlooks, run_duration
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec, RoomCheck

GIB = 1 << 30
NOTHING = CopyRates({})


def spec(name, host="h1", run="nightly-1", **more):
    return JobSpec(
        id=JobId(f"{run}.{name}"),
        transaction=TxnId(run),
        run=RunId(run),
        source=volumespec.parse_volume(f"{host}:/srv/{name}"),
        target=volumespec.parse_volume(f"{host}:/backup/{name}"),
        **more,
    )


def seen(amount=GIB, free=10 * GIB, device=1, total=100 * GIB, **more):
    return {
        "size": 2 * amount,
        "bytes": amount,
        "allocated": amount,
        "device": device,
        "total": total,
        "free": free,
        "exists": False,
        **more,
    }


def looked(jobs, answers, owing=(), rates=NOTHING, busy=None, *, last=None):
    seen_by_job = dict(zip([job.id for job in jobs], answers, strict=True))
    return job_outlooks(jobs, seen_by_job, owing, rates, busy or {}, last=last or {})


def owing(left, host="h1", store="", **more):
    return Owing(spec("other", host, "other-1", store=store), seen(**more), left)


def test_a_job_that_nothing_is_known_against():
    (job,) = looked([spec("a")], [seen()])
    assert (job.bytes, job.size, job.free, job.exists, job.seconds, job.wrong) == (
        GIB,
        2 * GIB,
        10 * GIB,
        False,
        None,
        (),
    )


ROOM = [  # free as the host sees it, what others owe, whether the two jobs of 1 GiB find room, free less what is owed
    ("enough",            10, [],                                             True, 10),
    ("just",              2, [],                                              True, 2),
    ("not-for-both",      1, [],                                              False, 1),
    ("owed-here",         3, [owing(2 * GIB)],                                False, 1),
    ("owed-on-another-disk", 3, [owing(2 * GIB, device=2)],                   True, 3),
    ("owed-on-another-host", 3, [owing(2 * GIB, host="h2")],                  True, 3),
    ("owed-to-a-store",   3, [owing(2 * GIB, store="nas1")],                  True, 3),
]  # fmt: skip


@pytest.mark.parametrize(("free", "others", "fits", "left"), [row[1:] for row in ROOM], ids=[row[0] for row in ROOM])
def test_room_is_what_is_free_less_what_running_jobs_owe_there(free, others, fits, left):
    found = looked([spec("a"), spec("b")], [seen(free=free * GIB)] * 2, others)
    assert [job.free for job in found] == [left * GIB] * 2
    assert all(not job.wrong for job in found) is fits
    if not fits:
        assert (
            f"not enough space at h1:/backup/a: the run needs {2 * GIB} bytes there of {left * GIB}" in found[0].wrong
        )


@pytest.mark.parametrize(("total", "fits"), [(100 * GIB, False), (50 * GIB, True)], ids=["one-store", "a-disk-each"])
def test_a_store_is_one_room_for_all_hosts_that_see_it_with_one_size(total, fits):
    jobs = [spec("a", store="nas1"), spec("b", "h2", store="nas1")]
    found = looked(jobs, [seen(free=3 * GIB), seen(free=3 * GIB, total=total)], [owing(2 * GIB, "h3", "nas1")])
    assert [not job.wrong for job in found] == [fits, fits]


def test_a_target_that_exists_stands_in_the_way_unless_it_may_be_replaced():
    found = looked([spec("a"), spec("b", overwrite=True)], [seen(exists=True)] * 2)
    assert [job.wrong for job in found] == [("target h1:/backup/a exists",), ()]
    assert all(job.exists for job in found)


def test_what_a_host_says_and_what_runs_stand_in_the_way():
    job = spec("a")
    (found,) = looked([job], [{"errno": 2, "text": "it is not there"}], busy={job.id: ["somebody writes it"]})
    assert found.wrong == ("somebody writes it", "it is not there")
    assert (found.bytes, found.free, found.seconds) == (0, None, None)


@pytest.mark.parametrize(
    ("rates", "speed", "seconds"),
    [
        (NOTHING, 0, None), (NOTHING, GIB, None),
        (CopyRates({"a": GIB / 4}, GIB), 0, 4), (CopyRates({"b": GIB}, GIB / 2), 0, 2),
        (CopyRates({"a": GIB}), GIB // 8, 8), (CopyRates({"a": GIB}), 2 * GIB, 1),
    ],
)  # fmt: skip
def test_time_is_by_earlier_runs_of_the_job_else_of_all_and_never_above_the_limit(rates, speed, seconds):
    assert looked([spec("a", speed=speed)], [seen()], rates=rates)[0].seconds == seconds


def test_the_run_takes_as_long_as_its_last_host():
    jobs = [spec("a"), spec("b"), spec("c"), spec("d", "h2")]
    found = looked(jobs, [seen()] * 4, rates=CopyRates({"a": GIB, "b": GIB, "c": GIB / 2, "d": GIB}))
    assert run_duration(found, {"h1": 1, "h2": 1}) == 4
    assert run_duration(found, {"h1": 2, "h2": 1}) == 2
    assert run_duration(found, {"h1": 9}) == 2
    assert run_duration(looked([spec("a")], [seen()]), {}) is None
    assert run_duration([], {}) is None


def test_the_need_is_that_of_the_last_backup_or_else_the_data_of_a_raw_file_and_says_so():
    jobs = [spec("a"), spec("b"), spec("c")]
    found = looked(jobs, [seen(), seen(), seen(allocated=None)], last={jobs[0].id: 5 * GIB})
    told = [(job.to_json()["needs"], job.to_json()["needs-by"]) for job in found]
    assert told == [(5 * GIB, "last backup"), (GIB, "data of the source"), (None, None)]
    assert found[2].warnings == ("nobody can tell how much room h1:/backup/c needs",)
    assert not any(job.wrong for job in found)


def test_too_little_room_is_a_warning_where_the_job_says_so():
    checked, warned = spec("a"), spec("b", room=RoomCheck.WARN)
    found = looked([checked, warned], [seen(free=GIB)] * 2)
    assert [len(job.wrong) for job in found] == [1, 0]
    assert "not enough space" in found[1].warnings[0]
