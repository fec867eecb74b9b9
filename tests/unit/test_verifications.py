"""A run of verifications: a job for each image with a name of its own, each for itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from blockjobs.model import ids
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import Count as Counted
from blockjobs.model.policies import Verdict, run_verdict
from blockjobs.model.runs import check_together
from blockjobs.model.verifications import PublishedImage, in_words, plan_verification, store_of

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
RUN = "verify-20261122T103000Z"
NIGHT = "nightly-20261121T220000Z"


def image(job: str, *, run: str = NIGHT, host: str = "web1", path: str = "") -> PublishedImage:
    return PublishedImage(host=host, path=path or f"/backup/{job}.img", run=run, job=f"{run}.{job}" if run else "")


def test_every_image_is_a_transaction_of_its_own_that_writes_nothing():
    made = plan_verification([image("root"), image("data", host="db1")], NOW, speed=5)
    check_together(made.jobs)
    assert (made.run, made.name, made.grouped) == (RUN, "verify", False)
    assert [len(members) for members in made.transactions] == [1, 1]
    assert [(job.id, job.transaction, job.host) for job in made.jobs] == [
        (f"{RUN}.root", f"{RUN}.root", "web1"), (f"{RUN}.data", f"{RUN}.data", "db1")
    ]  # fmt: skip
    for job in made.jobs:
        assert (job.type, job.speed, job.target.volume.driver, job.snapshot) == ("verify", 5, "null-co", "none")
        assert JobSpec.from_dict(job.to_dict()) == job
    assert made.jobs[0].options == {"run": NIGHT, "job": f"{NIGHT}.root"}
    assert made.jobs[0].source.lock == "web1:/backup/root.img", "what overwriting and pruning look at"


NAMES = {
    "of one run": ([image("root"), image("data")], ["root", "data"]),
    "of several": ([image("root"), image("root", run="weekly-1")], [f"{NIGHT}.root", "weekly-1.root"]),
    "by place": ([image("", run="", path="/b/a b.img")], ["web1-a-b.img"]),
    "alike": ([image("", run="", path=f"/{at}/x.img") for at in "abc"], ["web1-x.img", "web1-x.img-2", "web1-x.img-3"]),
    "long": ([image("x" * 150), image("x" * 150 + "y")], ["x" * 100, "x" * 100 + "-2"]),
}


@pytest.mark.parametrize(("images", "names"), NAMES.values(), ids=NAMES)
def test_each_has_a_name_that_says_what_it_is_of(images, names):
    made = plan_verification(images, NOW)
    assert [job.id for job in made.jobs] == [f"{RUN}.{name}" for name in names]
    assert all(len(job.id) <= ids.LONGEST for job in made.jobs)


def test_what_cannot_be_read_is_left_out_by_name_and_keeps_the_run_from_success():
    made = plan_verification([image("root")], NOW, without=[(image("data", host="db1"), "host 'db1' is down")])
    (skipped,) = made.fields.skipped
    assert (skipped.host, skipped.jobs, skipped.why) == ("db1", ("data",), "host 'db1' is down")
    counts = {"": Counted(jobs=1, bad=0, skipped=1)}
    assert run_verdict(counts, made.fields.policies) is Verdict.FAILED
    assert plan_verification([image("root")], NOW).fields.policies == {}


@pytest.mark.parametrize(
    ("path", "store"),
    [("/mnt/nas1/a/b.img", "nas1"), ("/mnt/nas1/deep/b.img", "deep"), ("/mnt/nas12/b.img", ""), ("/mnt/b.img", "")],
)
def test_it_counts_in_the_store_that_it_reads(path, store):
    assert store_of(path, [("nas1", "/mnt/nas1"), ("deep", "/mnt/nas1/deep")]) == store


def test_of_many_ranges_the_first_are_named_and_the_rest_counted():
    ranges = [[at, at + 1] for at in range(0, 8, 2)]
    assert in_words(ranges[:2], most=2) == "0 to 1, 2 to 3"
    assert in_words(ranges, most=2) == "0 to 1, 2 to 3 and 2 more"
    assert in_words(ranges, 5, most=4) == "0 to 1, 2 to 3, 4 to 5, 6 to 7 and 5 more"
    assert in_words([], most=2) == ""
