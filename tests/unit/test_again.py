"""What a retry starts: the same jobs under new names, and targets whose words stand for the new run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from blockjobs.model import rerun, volumespec
from blockjobs.model.ids import JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import Policy, RunFields

OLD, NOW = RunId("nightly-20261122T103000Z"), datetime(2026, 11, 23, 7, 15, 1, tzinfo=UTC)
NEW = "nightly-20261123T071501Z"


def job(name="a", target="/backup/a.img", base="/backup", txn="", **more):
    volume = target if isinstance(target, dict) else f"h:{target}"
    return JobSpec(
        id=JobId(f"{OLD}.{name}"),
        transaction=TxnId(txn or OLD),
        run=OLD,
        source=volumespec.parse_volume("h:/srv/2026-11-22"),
        target=volumespec.parse_volume(volume),
        target_base=base,
        **more,
    )


def retried(*jobs, **fields):
    return rerun.plan_rerun(OLD, "nightly", jobs, RunFields(**fields), NOW, grouped=True)


@pytest.mark.parametrize(
    ("target", "base", "expected"),
    [
        (f"/backup/{OLD}/a.img", "/backup", f"/backup/{NEW}/a.img"),
        ("/backup/2026-11-22/103000Z/a.img", "/backup", "/backup/2026-11-23/071501Z/a.img"),
        ("/backup/a-2026-11-22.img", "/backup", "/backup/a-2026-11-23.img"),
        ("/backup/a.img", "/backup", "/backup/a.img"),
        # What lies before the first word was no word.
        (f"/old/2026-11-22/{OLD}/a.img", "/old/2026-11-22", f"/old/2026-11-22/{NEW}/a.img"),
        (f"/{OLD}/a.img", "/", f"/{NEW}/a.img"),
        ("/backup/2026-11-22.img", "", "/backup/2026-11-22.img"),
    ],
)
def test_words_of_a_target_stand_for_the_new_run(target, base, expected):
    (spec,) = retried(job(target=target, base=base)).jobs
    assert spec.target.text == f"h:{expected}"
    assert spec.source.text == "h:/srv/2026-11-22", "a source is read again as it was"


def test_an_image_of_a_format_is_found_below_its_filters():
    keys = {"driver": "qcow2", "host": "h", "file": {"driver": "file", "filename": f"/backup/{OLD}/a.qcow2"},
            "backing": {"driver": "file", "filename": f"/backup/{OLD}/base.img"}}  # fmt: skip
    (spec,) = retried(job(target=keys)).jobs
    assert spec.target.text == f"h:/backup/{NEW}/a.qcow2"
    assert volumespec.volume_label(spec.target.volume.backing) == f"/backup/{OLD}/base.img", (
        "what it lies on is where it was"
    )


def test_ids_and_transactions_are_those_of_the_new_run():
    alone, member = job("a", txn=f"{OLD}.a"), job("b", "/backup/b.img", txn=f"{OLD}.web.b")
    group = [job(name, f"/backup/{name}.img", txn=f"{OLD}.db") for name in "cd"]
    plan = retried(alone, member, *group, policies={"db": Policy(), "web": Policy(grouped=False), "old": Policy()})
    assert (plan.run, plan.retries) == (NEW, OLD)
    assert [[str(spec.id) for spec in members] for members in plan.transactions] == [
        [f"{NEW}.a"], [f"{NEW}.b"], [f"{NEW}.c", f"{NEW}.d"],
    ]  # fmt: skip
    assert [members[0].transaction for members in plan.transactions] == [f"{NEW}.a", f"{NEW}.web.b", f"{NEW}.db"]
    assert set(plan.fields.policies) == {"db", "web"}, "of the transactions that it has"


def test_a_job_that_was_tried_before_begins_with_its_first_try():
    tried, named = job("b", txn=f"{OLD}.web.b.try3"), job("b.try3", "/backup/c.img", txn=f"{OLD}.web.b.try3.try2")
    plan = retried(tried, named, policies={"web": Policy(grouped=False, retry=3)})
    assert [members[0].transaction for members in plan.transactions] == [f"{NEW}.web.b", f"{NEW}.web.b.try3"]


def test_everything_else_of_a_job_is_as_it_was():
    before = job(speed=7, overwrite=True, digests=False, options={"x": 1})
    (after,) = retried(before).jobs
    changed = {"id", "transaction", "run"}
    was, now = before.to_dict(), after.to_dict()
    assert {key for key in was if was[key] != now[key]} == changed


def test_a_run_that_was_named_by_hand_has_no_date():
    assert rerun.time_in_run_id("drive0") is None
    assert rerun.time_in_run_id("n-20261332T000000Z") is None
    assert rerun.time_in_run_id(OLD) == datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
