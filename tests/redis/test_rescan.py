"""What a rescan found is in the history once, and is not pruned before somebody has said that the rules hold for it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from puppets import ALPHA, BETA, RUN, Silent, dump, grouped, spec
from test_asking import Host
from test_history import ended

from blockjobs.ask.prune import PruneRequest
from blockjobs.ask.rescan import Rescan
from blockjobs.cli.restore import place_of_image
from blockjobs.cli.verify import Shelf
from blockjobs.client.fleet import Fleet as Client
from blockjobs.daemons.coordinator import Coordinator
from blockjobs.model import keep
from blockjobs.model.errors import Refused
from blockjobs.model.policies import Policy, RunFields
from blockjobs.model.rescan import FoundBackup, start_of
from blockjobs.registry import keys
from blockjobs.registry.retention import KEEP_RUNS

pytestmark = pytest.mark.durable

NIGHT = "nightly-202611{:02}T100000Z"


def row(day, name="a", host=ALPHA, **changes):
    run = NIGHT.format(day)
    return {
        "path": f"/backup/{run}/{name}.img", "run": run, "job": f"{run}.{name}", "transaction": run,
        "source": f"{host}:/srv/{name}.img", "target": f"{host}:/backup/{run}/{name}.img", "size": 4096,
        "seal": f"{day:02}" * 32, "ended": 1, "bytes": {"read": 4096, "written": 4000, "zero": 96}, **changes,
    }  # fmt: skip


def page(*rows, then=None, **more):
    return {"root": "/backup", "rows": list(rows), "odd": [], "more": 0, "restored": 0, "next": then, **more}


class Disks(Host):
    """Hosts that answer one page each, or one behind the other."""

    def __init__(self, fleet, *hosts):
        super().__init__(fleet)
        self.pages, self.pruned = {}, []
        for host in hosts:
            fleet.registry.hosts.judge(host, "up")
            self.pages[host] = [page()]

    def question(self, host, question):
        self.says = lambda what: self.answer(host, what)
        super().question(host, question)

    def answer(self, host, what):
        if what["ask"] == "prune":
            self.pruned += [each["path"] for each in what["targets"]["going"] if not what["targets"]["dry"]]
            return [{"state": "pruned"} for _ in what["targets"]["going"]]
        assert what["ask"] == "rescan"
        return self.pages[host][what["after"] or 0]


@pytest.fixture
def disks(fleet):
    return Disks(fleet, ALPHA, BETA)


@pytest.fixture
def rescan(fleet, disks):
    def run(*rows, hosts=(ALPHA,), host=ALPHA, dry=False, moved_from="", **more):
        if rows or more:
            disks.pages[host] = [page(*rows, **more)]
        return list(Rescan(fleet.registry, disks, dry=dry, moved_from=moved_from, patience=2.0)(hosts))

    return run


@pytest.fixture
def targets(fleet):
    return lambda: sorted(fleet.registry.history.targets(fleet.registry.views.runs()), key=lambda each: each.order)


def test_what_nobody_knew_is_in_the_history_can_be_verified_and_restored(fleet, rescan, server, command):
    (scan,) = rescan(row(1), row(1, "b"), row(2))
    assert (scan.counts["found"], scan.whole, len(scan.added)) == (3, True, 3)
    runs = json.loads(command("history", "nightly", "--json")[1])
    assert [(run["id"], run["outcome"], run["jobs"], run["targets"], run["kept"]) for run in runs] == [
        (NIGHT.format(2), "found", 1, 1, [keep.HELD]), (NIGHT.format(1), "found", 2, 2, [keep.HELD]),
    ]  # fmt: skip
    assert runs[1]["bytes"] == {"read": 8192, "written": 8000, "zero": 192, "skipped": 0}
    assert f"kept: {keep.HELD}" in command("history")[1]
    with Client(server.url) as here:
        images = Shelf(here).find(NIGHT.format(1))
        assert [(image.path, image.job) for image in images] == [
            (f"/backup/{NIGHT.format(1)}/{name}.img", f"{NIGHT.format(1)}.{name}") for name in "ab"
        ]  # fmt: skip
        assert place_of_image(here, f"{NIGHT.format(2)}.a") == f"{ALPHA}:/backup/{NIGHT.format(2)}/a.img"
    assert fleet.events("TARGET_FOUND") == [("TARGET_FOUND", f"{NIGHT.format(n)}.{name}") for n, name in
                                            ((1, "a"), (1, "b"), (2, "a"))]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [(("show",), 0), (("report",), 0), (("report", "--html"), 0), (("wait",), 0), (("status",), 0), (("retry",), 2),
     (("cancel",), 0), (("dismiss",), 0)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_every_command_takes_a_run_that_was_found_for_one_that_is_over(rescan, command, words, code):
    rescan(row(1))
    got, _, err = command(*words, NIGHT.format(1))
    assert (got, "Traceback" in err) == (code, False), err
    assert err.count("\n") == (code != 0), err


def test_scanning_twice_adds_nothing_and_a_dry_run_changes_nothing(fleet, rescan):
    before = dump(fleet.client)
    (would,) = rescan(row(1), row(2), dry=True)
    assert dump(fleet.client) == before
    (scan,) = rescan()
    assert scan.to_json() == would.to_json()
    before = dump(fleet.client)
    (again,) = rescan()
    assert dump(fleet.client) == before
    assert (again.counts, again.added, again.whole) == ({"known": 2}, [], True)


def test_what_is_known_is_left_as_it_is(fleet, rescan, targets):
    plan = ended(fleet, 1, "a", "b", keep={"last": 1})
    before, known = dump(fleet.client), targets()
    (scan,) = rescan(row(1), row(1, "b"))
    assert dump(fleet.client) == before
    assert scan.counts == {"known": 2}
    assert plan.run == known[0].run


def test_a_host_is_asked_page_by_page_to_its_end(rescan, disks, targets):
    disks.pages[ALPHA] = [page(row(1), then=["/backup", 1]), page(row(2), then=["/other", 2]), page(row(3))]
    (scan,) = rescan()
    assert [(what["root"], what["after"]) for what in disks.asked] == [("", None), ("/backup", 1), ("/other", 2)]
    assert len(targets()) == scan.counts["found"] == 3


def test_of_a_host_that_takes_long_a_line_says_how_far_it_is(disks, command, monkeypatch):
    monkeypatch.setattr("blockjobs.ask.doorbell.Doorbell", lambda _: disks)
    monkeypatch.setattr("blockjobs.cli.rescan.EVERY", 0.0)
    disks.pages[ALPHA] = [page(row(1), row(2), then=["/backup", 1]), page(row(3))]
    code, out, err = command("rescan", ALPHA)
    assert (code, err) == (0, "alpha: 2 manifests so far\n")
    assert out.startswith("alpha: 3 found\n")


def test_hosts_add_to_one_run_and_each_only_what_is_its_own(fleet, rescan, disks, targets):
    disks.pages[ALPHA], disks.pages[BETA] = [page(row(1))], [page(row(1, "b", BETA), row(1, "c", ALPHA), row(1))]
    scans = {scan.host: scan for scan in rescan(hosts=(ALPHA, BETA))}
    assert sorted((target.host, target.path) for target in targets()) == [
        (ALPHA, row(1)["path"]), (BETA, row(1, "b")["path"])
    ]  # fmt: skip
    assert (scans[BETA].counts, scans[BETA].whole) == ({"found": 1, "of another host": 2}, True)
    (run,) = fleet.registry.views.runs()
    assert (run.jobs, run.found, run.ended > 0) == (2, True, True)


def test_what_one_host_says_takes_no_name_from_what_another_one_has(rescan, targets):
    """Each has a job of that name of that run; a manifest of its own makes nobody else's disappear."""
    rescan(row(1, host=BETA), host=BETA, hosts=(BETA,))
    rescan(row(1, seal="77" * 32))
    assert sorted(target.host for target in targets()) == [ALPHA, BETA]


def test_one_directory_that_two_hosts_see_is_found_once(rescan, disks, targets):
    """As the host that has made it is not known any more, it is of whoever tells first."""
    for host in (ALPHA, BETA):
        disks.pages[host] = [page(row(1, host="gone"))]
    rescan(hosts=(ALPHA, BETA))
    (target,) = targets()
    assert target.source == f"{target.host}:/srv/a.img"


def test_what_is_known_by_the_old_name_of_a_host_is_not_in_twice(fleet, rescan, targets):
    ended(fleet, 1, "a")
    known = targets()
    fleet.client.hdel(keys.hosts(), f"state:{ALPHA}")
    (scan,) = rescan(row(1), host=BETA, hosts=(BETA,))
    assert targets() == known
    assert list(scan.aside) == [
        f"known on host {ALPHA}: `blockjobs hosts rename {ALPHA} {BETA}`, or `--moved-from {ALPHA}`"
    ]


def test_a_backup_of_a_run_that_goes_on_is_left_alone(fleet, rescan):
    fleet.submit(spec(f"{RUN}.a"))
    plan = grouped(spec("x", run=NIGHT.format(2)))
    fleet.registry.submit.stage(plan, plan.jobs)
    before = dump(fleet.client)
    (scan,) = rescan(row(22, run=RUN, job=f"{RUN}.a", path="/backup/other.img"), row(2))
    assert dump(fleet.client) == before
    assert scan.counts == {"going": 2}


def test_what_a_registry_that_came_back_older_has_forgotten_of_a_run_is_added_to_it(fleet, rescan, targets):
    plan = ended(fleet, 1, "a", "b")
    fleet.client.hdel(keys.targets(plan.run), f"{plan.run}.b")
    (known,) = targets()
    rescan(row(1), row(1, "b"))
    assert {(each.job[-1], each.held, each.number) for each in targets()} == {
        ("a", False, known.number), ("b", True, known.number)
    }  # fmt: skip
    (run,) = fleet.registry.views.runs()
    assert (run.jobs, run.outcome) == (2, "committed")


# --- what was moved ----------------------------------------------------------------------------------------------


def test_a_repository_that_was_moved_is_known_where_it_lies_now(fleet, rescan, targets):
    ended(fleet, 1, "a", keep={"last": 1})
    (known,) = targets()
    before = dump(fleet.client)
    moved = row(1, path="/mnt/new/a.img")
    (would,) = rescan(moved, dry=True)
    assert dump(fleet.client) == before
    (scan,) = rescan(moved)
    assert would.to_json() == scan.to_json()
    (target,) = targets()
    assert (target.path, target.held, target.number, target.source) == (
        "/mnt/new/a.img", True, known.number, known.source
    )  # fmt: skip
    assert scan.counts == {"moved": 1}
    assert rescan()[0].counts == {"known": 1}
    assert fleet.events("TARGET_MOVED") == [("TARGET_MOVED", known.job)]


@pytest.mark.parametrize(
    "answer",
    [
        page(row(1), row(1, path="/mnt/new/a.img")),
        page(row(1, path="/mnt/new/a.img"), row(1)),
        page(row(1, path="/mnt/new/a.img"), odd=[["/backup", "it hangs"]]),
        page(row(1, path="/mnt/new/a.img"), odd=[["/backup", "away"]], lost=True),
        page(row(1, path="/mnt/new/a.img"), more=1),
    ],
    ids=["it is there", "it is there, seen later", "its directory is odd", "its root is away", "odd ones are not told"],
)
def test_a_copy_is_no_move_nor_is_it_one_where_nobody_can_look(fleet, rescan, disks, targets, answer):
    ended(fleet, 1, "a")
    known = targets()
    disks.pages[ALPHA] = [answer]
    (scan,) = rescan()
    assert targets() == known
    assert scan.counts["moved"] == scan.counts["found"] == 0
    assert scan.counts["known"] >= 1
    assert scan.aside


def test_backups_of_a_host_that_lie_on_another_one_now_are_moved_by_a_persons_word(fleet, rescan, targets):
    ended(fleet, 1, "a")
    known = targets()
    (scan,) = rescan(row(1, path="/nas/a.img"), host=BETA, hosts=(BETA,))
    assert (targets(), scan.counts) == (known, {"of another host": 1})
    rescan(row(1, path="/nas/a.img"), row(2, path="/nas/b.img"), host=BETA, hosts=(BETA,), moved_from=ALPHA)
    assert [(target.place, target.source) for target in targets()] == [
        ((BETA, "/nas/b.img"), f"{BETA}:/srv/a.img"), ((BETA, "/nas/a.img"), f"{BETA}:/srv/a.img")
    ]  # fmt: skip


# --- hosts that cannot be believed, or asked -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "no page", 7, [], {}, {"odd": 1, "next": None}, {"odd": [["a"]], "next": None}, {"odd": [], "next": 5},
        {"odd": [], "rows": 9, "next": None}, {"odd": [], "more": "x", "next": None},
        {"errno": 38, "text": "was asked for 'rescan', which its version of blockjobs does not know"},
    ],
    ids=str,
)  # fmt: skip
def test_a_host_that_answers_nonsense_ends_no_rescan(fleet, rescan, disks, targets, answer):
    disks.pages[ALPHA], disks.pages[BETA] = [answer], [page(row(1, host=BETA))]
    scans = {scan.host: scan for scan in rescan(hosts=(ALPHA, BETA))}
    assert (scans[ALPHA].whole, scans[BETA].whole) == (False, True)
    assert [target.host for target in targets()] == [BETA]


@pytest.mark.parametrize(
    "changes",
    [{"path": "../x"}, {"path": 5}, {"run": "x"}, {"job": "a@b"}, {"seal": None}, {"size": "1"}, {"bytes": 3},
     {"target": "no host"}, {"ended": -1}],
    ids=str,
)  # fmt: skip
def test_rows_that_no_host_of_ours_writes_are_named_and_all_others_count(rescan, targets, changes):
    (scan,) = rescan(row(1, **changes), row(2), 7, None)
    assert [target.run for target in targets()] == [NIGHT.format(2)]
    assert len(scan.odd) == 3


def test_a_host_that_is_down_or_silent_is_named_and_the_others_are_scanned(fleet, disks, command, monkeypatch):
    monkeypatch.setattr("blockjobs.ask.doorbell.Doorbell", lambda _: disks)
    monkeypatch.setattr("blockjobs.ask.rescan.PATIENCE", 0.2)
    fleet.registry.hosts.judge(ALPHA, "down")
    disks.pages[BETA] = [page(row(1, host=BETA), odd=[["/backup/x.manifest.json", "is not JSON"]], more=30)]
    code, out, _ = command("rescan")
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("alpha: not read: ")
    assert " is down since " in lines[0]
    assert lines[1:] == [
        "beta: 1 found, 31 that cannot be read or do not count", "  /backup/x.manifest.json: is not JSON",
        "  ... and 30 more",
        "1 backup of 1 run added; they are not pruned until `blockjobs prune nightly` was confirmed",
    ]  # fmt: skip
    code, out, _ = command("rescan", BETA, "--json")
    assert (code, json.loads(out)[0]["known"]) == (1, 1)
    disks.pages[BETA] = [page(row(1, host=BETA))]
    assert command("rescan", BETA)[:2] == (0, "beta: 1 known\nnothing was found that is not known\n")
    assert command("rescan", "gamma")[0] == 2


def test_a_host_that_does_not_answer_is_named(rescan, disks, fleet):
    disks.answer = lambda *_: None
    (scan,) = Rescan(fleet.registry, disks, patience=0.2)([ALPHA])
    assert "did not answer" in scan.lost[""]


# --- until somebody confirms ---------------------------------------------------------------------------------------


def states(outcomes):
    return {outcome.target.run[-10:-8]: outcome.state for outcome in outcomes}


def test_the_next_nights_keep_what_was_found_until_prune_was_confirmed_once(fleet, rescan, disks, command, monkeypatch):
    monkeypatch.setattr("blockjobs.ask.doorbell.Doorbell", lambda _: disks)
    rescan(row(1), row(2), row(3))
    for day in (4, 5, 6):
        ended(fleet, day, "a", keep={"last": 2})
    prune = PruneRequest(fleet.registry, disks)
    after = prune("nightly", after=NIGHT.format(6))
    assert states(after) == {"06": "kept", "05": "kept", "04": "pruned", "03": "kept", "02": "kept", "01": "kept"}
    assert disks.pruned == [f"/backup/{NIGHT.format(4)}/a.img"]
    shown = command("prune", "nightly", "--dry-run")[1]
    assert shown.count("would be pruned") == 3
    assert len(prune.held("nightly")) == 3, "a dry run confirms nothing"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, out, _ = command("prune", "nightly")
    assert (code, "found 3 backups" in out) == (130, True)
    assert len(prune.held("nightly")) == 3
    assert len(disks.pruned) == 1
    assert command("prune", "nightly", "--yes")[0] == 0
    assert prune.held("nightly") == []
    assert disks.pruned[1:] == [f"/backup/{NIGHT.format(day)}/a.img" for day in (3, 2, 1)]
    assert {job for _, job in fleet.events("TARGET_COUNTED")} == {f"{NIGHT.format(n)}.a" for n in (1, 2, 3)}
    rescan(row(2))
    ended(fleet, 7, "a", keep={"last": 2})
    assert states(prune("nightly", after=NIGHT.format(7)))["02"] == "kept", "what is found later is held again"


def test_once_they_count_they_are_older_than_the_first_night_of_a_new_registry(fleet, rescan, disks):
    rescan(*(row(day) for day in (1, 2, 28)))
    ended(fleet, 3, "a", keep={"last": 1})
    assert states(PruneRequest(fleet.registry, disks)("nightly", confirmed=True)) == {
        "03": "kept", "01": "pruned", "02": "pruned", "28": "pruned",
    }  # fmt: skip


def test_what_a_found_backup_of_another_name_lies_on_stays(fleet, rescan, disks):
    for day in (1, 2):
        ended(fleet, day, "a", keep={"last": 1})
    below = f"/backup/{NIGHT.format(1)}/a.img"
    rescan(row(3, run="weekly-20261103T100000Z", layers=[below]))
    assert states(PruneRequest(fleet.registry, disks)("nightly", dry=True)) == {"01": "kept", "02": "kept"}
    fleet.client.hdel(keys.run("weekly-20261103T100000Z"), "layered")
    assert states(PruneRequest(fleet.registry, disks)("nightly", dry=True)) == {"01": "pruned", "02": "kept"}, (
        "the control"
    )


def test_a_run_has_no_say_in_the_rules_because_of_what_a_host_says_that_it_published(fleet, rescan, disks):
    for day in (1, 2):
        ended(fleet, day, "a", keep={"last": 2})
    ended(fleet, 3, "a", keep={"last": 1}, fails="a")
    for day in (1, 2, 3):  # as if each had been started when its id says
        fleet.client.hset(
            keys.run(NIGHT.format(day)), "published", round(start_of(NIGHT.format(day)).timestamp() * 1000)
        )
    rescan(row(3))
    assert states(PruneRequest(fleet.registry, disks)("nightly")) == dict.fromkeys(("01", "02", "03"), "kept")


def test_a_job_that_two_hosts_have_is_verified_on_both_and_restored_from_neither_by_its_name(rescan, server):
    for host in (ALPHA, BETA):
        rescan(row(1, host=host, seal=host[:1] * 64 if host != BETA else "b" * 64), host=host, hosts=(host,))
    with Client(server.url) as here:
        assert [image.host for image in Shelf(here).find(f"{NIGHT.format(1)}.a")] == [ALPHA, BETA]
        with pytest.raises(Refused, match=f"one of {ALPHA}:/.*, {BETA}:/.* was expected"):
            place_of_image(here, f"{NIGHT.format(1)}.a")


def test_rules_of_a_transaction_with_a_name_hold_for_what_was_found_of_it(fleet, rescan, targets):
    rescan(*(row(day, transaction=f"{NIGHT.format(day)}.db") for day in (1, 2)))
    assert {target.group for target in targets()} == {""}
    run = NIGHT.format(3)
    job = spec(f"{run}.a", run=run, txn=f"{run}.db")
    plan = replace(grouped(job), fields=RunFields(policies={"db": Policy(keep={"last": 1})}))
    fleet.registry.submit.submit(plan)
    assert {target.group for target in targets()} == {"db"}


def test_two_rescans_at_once_and_a_lost_reply_count_nothing_twice(fleet, rescan, targets):
    found = [(FoundBackup.of(row(1, name), ALPHA), 0) for name in "ab"]
    assert [fleet.registry.found.add(found) for _ in range(3)] == [2, 0, 0]
    (run,) = fleet.registry.views.runs()
    assert (run.jobs, run.sums["read"]) == (2, 8192)
    assert [fleet.registry.found.count(targets()) for _ in range(2)] == [2, 0]
    assert len(fleet.events("TARGET_FOUND", "TARGET_COUNTED")) == 4


def test_who_counts_what_another_one_has_counted_says_nothing(fleet, rescan, targets):
    rescan(row(1))
    held = targets()
    assert [fleet.registry.found.count(held) for _ in range(2)] == [1, 0]
    assert len(fleet.events("TARGET_COUNTED")) == 1


def test_a_run_that_was_found_ended_with_its_last_backup_and_not_in_times_to_come(fleet):
    began = round(start_of("nightly-20200102T100000Z").timestamp() * 1000)
    now = fleet.registry.hosts.now()
    run = "nightly-20200101T100000Z"
    rows = [row(1, "a", run=run, ended=2000, salvaged=True), row(1, "b", run=run, ended=1000),
            row(1, "c", run=run, ended=1 << 52)]  # fmt: skip
    ends = []
    for each in rows:
        moment = {2000: began, 1000: began - 5000}.get(each["ended"], now + 1_000_000_000)
        fleet.registry.found.add([(FoundBackup.of(each | {"ended": moment}, ALPHA), 0)])
        ends.append(fleet.registry.views.runs()[0].ended)
    assert ends == [began] * 3
    assert fleet.registry.views.runs()[0].salvaged == 1


def test_an_entry_that_somebody_has_changed_meanwhile_is_not_written_anew(fleet, rescan, targets):
    rescan(row(1))
    (target,) = targets()
    real = fleet.client.hget(keys.targets(target.run), target.entry)
    other = real.replace(b"/backup/", b"/BACKUP/")
    names = [keys.targets(target.run), keys.left(target.run), keys.events()]
    words = [target.run, target.entry, other, target.entry, b"new", "TARGET_COUNTED", target.job, "", ALPHA, ""]
    assert fleet.registry.found._scripts.call("recast", names, words)[0] == b"changed"
    fleet.client.hset(keys.targets(target.run), target.entry, other)
    assert fleet.registry.found.count([target]) == 0
    assert fleet.client.hget(keys.targets(target.run), target.entry) == other


def test_nothing_is_added_to_a_run_that_somebody_has_started_meanwhile(fleet):
    fleet.submit(spec("x", run=NIGHT.format(1)))
    with pytest.raises(Refused, match="is not over"):
        fleet.registry.found.add([(FoundBackup.of(row(1), ALPHA), 0)])


def test_the_record_of_what_was_found_stays_as_long_as_the_backups_do(fleet, rescan, disks, targets):
    rescan(row(1), row(2))
    old = Coordinator(fleet.registry, Silent(), keep_runs=1)
    old.once()
    now = fleet.registry.hosts.now() + KEEP_RUNS + 1000
    assert fleet.registry.retention.forget(now).runs == []
    first, _ = targets()
    fleet.registry.history.pruned(first)
    assert fleet.registry.retention.forget(now).runs == [first.run]
    assert [target.run for target in targets()] == [NIGHT.format(2)]
