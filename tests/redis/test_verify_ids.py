"""What an ID stands for to ``verify``: all that is published and still there, and a clear line for what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from puppets import ALPHA, BETA, SIZE, Fleet, spec

from blockjobs.cli.verify import chosen_images
from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import volumespec
from blockjobs.model.barriers import Step
from blockjobs.model.jobs import JobSpec
from blockjobs.model.policies import Verdict
from blockjobs.model.restores import KEEP_DIGESTS
from blockjobs.model.runs import RunPlan
from blockjobs.model.verifications import plan_verification
from blockjobs.registry.attempts import Progress
from blockjobs.registry.views import RunView

pytestmark = pytest.mark.durable

NIGHT = "nightly-20261122T103000Z"


@pytest.fixture
def up(fleet):
    for host in (ALPHA, BETA):
        fleet.registry.hosts.judge(host, "up")
    return fleet


def job(name: str, *, run: str = NIGHT, host: str = ALPHA, at: str = "", **options: object) -> JobSpec:
    target = options.pop("target", None) or volumespec.parse_volume(f"{host}:{at or f'/backup/{run}/{name}.img'}")
    return spec(f"{run}.{name}", run=run, txn=f"{run}.{name}", host=host, target=target, **options)


def begun(fleet: Fleet, *jobs: JobSpec) -> None:
    run, alone = jobs[0].run, tuple((each,) for each in jobs)
    fleet.registry.submit.submit(RunPlan(run, run.partition("-")[0], grouped=False, transactions=alone))
    for each in jobs:
        fleet.walk(each.transaction, Step.RUN)


def ended(fleet: Fleet, *jobs: JobSpec, bad: str = "") -> None:
    """A run of single jobs, walked to its end."""
    begun(fleet, *jobs)
    for each in jobs:
        claim, fails = fleet.claim(each), bool(bad) and each.id.endswith(f".{bad}")
        fleet.host(each.host).attempts.finish(
            claim, Progress(SIZE, SIZE), durable=None, result={}, errno=5 * fails, text="EIO" if fails else ""
        )
        fleet.walk(each.transaction)
        fleet.close(each.transaction)


@pytest.fixture
def meant(up, server, command, capfd):
    """What some IDs stand for: the path of each image, and what its job is called; and what is said besides."""

    def find(*texts: str) -> tuple[dict[str, str], str]:
        with Client(server.url) as here:
            images = chosen_images(here, texts)
        run = plan_verification(images, datetime.now(UTC))
        names = [each.id.removeprefix(f"{run.run}.") for each in run.jobs]
        return dict(zip((image.path for image in images), names, strict=True)), capfd.readouterr().err

    return find


@pytest.fixture
def refused(up, command):
    """Why nothing is started."""

    def call(*texts: str) -> str:
        before = {run.id for run in up.registry.views.runs()}
        code, out, err = command("verify", "--detach", *texts)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert {run.id for run in up.registry.views.runs()} == before
        return err

    return call


@pytest.fixture
def started(up, command):
    """The run that verifies some IDs, and what was said besides."""

    def call(*texts: str) -> tuple[RunView, str]:
        code, out, err = command("verify", "--detach", "--json", *texts)
        assert code == 0, err
        return up.registry.views.run(json.loads(out)["runs"][0]["id"]), err

    return call


def concluded(fleet: Fleet, run: RunView) -> None:
    for each in list(fleet.registry.views.jobs(fleet.registry.views.places(run.id))):
        fleet.walk(each.transaction, Step.RUN)
        fleet.copy(each.spec)
        fleet.walk(each.transaction)


def test_a_run_is_all_that_it_has_published_in_the_order_of_the_file(up, meant):
    ended(up, job("b"), job("a", host=BETA), job("c"), job("d"), bad="c")
    gone = next(each for each in up.registry.history.targets(up.registry.views.runs()) if each.job == f"{NIGHT}.d")
    up.registry.history.pruned(gone)
    names, err = meant(NIGHT)
    assert list(names.items()) == [(f"/backup/{NIGHT}/b.img", "b"), (f"/backup/{NIGHT}/a.img", "a")]
    assert f"left out of run '{NIGHT}': 1 failed, 1 pruned\n" in err


def test_a_job_is_its_image_whether_it_is_on_record_or_not(up, meant):
    ended(up, job("a"), job("b"))
    assert meant(f"{NIGHT}.a")[0] == {f"/backup/{NIGHT}/a.img": "a"}
    up.registry.verbs.dismiss(f"{NIGHT}.a")
    up.registry.verbs.dismiss(f"{NIGHT}.b")
    assert meant(f"{NIGHT}.a", f"{NIGHT}.a")[0] == {f"/backup/{NIGHT}/a.img": "a"}
    assert len(meant(NIGHT)[0]) == 2


def test_a_glob_is_of_runs_and_jobs_and_names_them_in_full_where_they_are_of_several(up, meant):
    ended(up, job("a"), job("b"))
    ended(up, job("a", run="weekly-1"), job("b", run="weekly-1"))
    assert meant("nightly-*")[0] == {f"/backup/{NIGHT}/a.img": "a", f"/backup/{NIGHT}/b.img": "b"}
    assert meant("*.a")[0] == {f"/backup/{NIGHT}/a.img": f"{NIGHT}.a", "/backup/weekly-1/a.img": "weekly-1.a"}
    assert len(meant("*")[0]) == 4


def test_a_place_is_an_image_too(up, meant, refused):
    assert meant("alpha:/mnt/x.img")[0] == {"/mnt/x.img": "alpha-x.img"}
    assert "is a device: the file of a published image was expected" in refused("alpha:/dev/sda")
    assert "has an empty part" in refused("alpha:/mnt/../x.img")
    assert "host 'gamma' is not known" in refused("gamma:/mnt/x.img")


def test_a_run_that_is_going_is_refused_and_a_glob_goes_without_it(up, meant, refused):
    begun(up, job("a"), job("b"))
    ended(up, job("a", run="nightly-1"))
    assert f"run '{NIGHT}' is still going: 2 jobs of 2 are not over" in refused(NIGHT)
    names, err = meant("nightly-*")
    assert (list(names), "left out of 'nightly-*': 1 still going\n" in err) == (["/backup/nightly-1/a.img"], True)
    assert f"job '{NIGHT}.a' has nothing to verify: not over: it is running" in refused(f"{NIGHT}.a")


def test_an_image_that_a_later_run_replaced_is_that_runs(up, meant, refused):
    ended(up, job("a", run="nightly-1", at="/backup/a.img"))
    ended(up, job("a", run="nightly-2", at="/backup/a.img"))
    assert meant("nightly-2")[0] == {"/backup/a.img": "a"}
    assert "job 'nightly-1.a' has nothing to verify: replaced: by nightly-2" in refused("nightly-1.a")
    assert "run 'nightly-1' has nothing to verify: 1 replaced" in refused("nightly-1")


def test_what_a_restore_has_left_can_be_verified_and_a_verification_cannot(up, meant, started, refused):
    ended(up, job("a", run="restore-1", type="restore", options={KEEP_DIGESTS: True}))
    assert meant("restore-1")[0] == {"/backup/restore-1/a.img": "a"}
    run, _ = started("restore-1")
    itself = "has nothing to verify: it is a verification itself"
    assert f"run '{run.id}' {itself}" in refused(run.id), "whether it is over or not"
    assert meant("*") == ({"/backup/restore-1/a.img": "a"}, ""), "a glob that meets one does not tell of it"
    concluded(up, run)
    assert up.registry.history.targets(up.registry.views.runs()) == []
    assert up.registry.history.due() == [], "nothing is pruned after it"
    assert f"run '{run.id}' {itself}" in refused(run.id)
    assert f"'verify-*' {itself}" in refused("verify-*")
    assert f"job '{run.id}.a' has nothing to verify: a verification itself" in refused(f"{run.id}.a")


def test_what_was_restored_without_its_digests_has_nothing_to_be_compared_with(up, meant, refused):
    ended(up, job("a", run="restore-1", type="restore"))
    assert "run 'restore-1' has nothing to verify: 1 restored without --keep-digests" in refused("restore-1")
    ended(up, job("b", run="restore-2", type="restore", options={KEEP_DIGESTS: True}))
    images, told = meant("restore-*")
    assert images == {"/backup/restore-2/b.img": "b"}
    assert "1 restored without --keep-digests" in told


NOTHING = {
    "unknown": ("nobody", "no run and no job is named 'nobody'"),
    "a glob of nothing": ("nobody-*", "'nobody-*' has nothing to verify: nothing is published"),
    "no text": ("näme", "no run and no job is named 'näme'"),
    "failed": (f"{NIGHT}.bad", f"job '{NIGHT}.bad' has nothing to verify: failed: EIO"),
    "no file": (
        f"{NIGHT}.null",
        f"job '{NIGHT}.null' has nothing to verify: without an image in a file: its target is",
    ),
}


@pytest.mark.parametrize(("text", "said"), NOTHING.values(), ids=NOTHING)
def test_what_has_nothing_to_verify_says_why_and_starts_nothing(up, refused, text, said):
    ended(
        up, job("bad"), job("null", target=volumespec.parse_volume({"host": "alpha", "driver": "null-co"})), bad="bad"
    )
    assert said in refused(text)


def test_an_image_that_is_written_or_whose_host_is_away_is_skipped_and_named(up, started, refused, command):
    ended(up, job("a"), job("b"), job("c", host=BETA))
    begun(up, job("a", run="again-1", at=f"/backup/{NIGHT}/a.img"))
    up.registry.hosts.judge(BETA, "down")
    run, err = started(NIGHT)
    assert f"run {run.id}: 1 job on 1 host, 2 skipped\n" in err
    assert [each.spec.source.text for each in up.registry.views.jobs(up.registry.views.places(run.id))] == [
        f"alpha:/backup/{NIGHT}/b.img"
    ]
    why = {each.jobs: each.why for each in run.fields.skipped}
    assert why["a",].endswith("is busy: block device is in use by block job: backup (job 'again-1.a')")
    assert why["c",].startswith("host 'beta' is down since ")
    concluded(up, run)
    assert up.registry.views.verdict(run.id) is Verdict.FAILED
    code, _, err = command("retry", run.id)
    assert (code, "has no run file, which names the skipped jobs: start the run as before" in err) == (2, True)
    up.registry.hosts.judge(ALPHA, "down")
    assert "nothing can be verified now: host 'alpha' is down since" in refused(f"{NIGHT}.b")


def test_reading_counts_in_the_store_that_an_image_lies_in(up, started):
    ended(up, job("a"), job("b", at="/elsewhere/b.img"))
    up.registry.limits.set_store("nas", path="/backup", jobs=1)
    run, _ = started(NIGHT)
    jobs = up.registry.views.jobs(up.registry.views.places(run.id))
    assert {each.spec.source.text: each.spec.store for each in jobs} == {
        f"alpha:/backup/{NIGHT}/a.img": "nas", "alpha:/elsewhere/b.img": ""
    }  # fmt: skip


MIXED = {
    "a path and an ID": (["/mnt/x.img", "nightly-1"], "paths on this machine and IDs exclude each other"),
    "a path and --json": (["/mnt/x.img", "--json"], "--speed, --detach and --json are for IDs"),
    "no speed": (["nightly-1", "--speed", "fast"], "--speed"),
}


@pytest.mark.parametrize(("words", "said"), MIXED.values(), ids=MIXED)
def test_what_does_not_go_together_is_refused(up, command, words, said):
    code, out, err = command("verify", *words)
    assert (code, out, said in err, err.count("\n")) == (2, "", True, 1)
