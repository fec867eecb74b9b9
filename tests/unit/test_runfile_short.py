"""The short form: many sources on many hosts, several transactions a file, and what each of them asks for."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from blockjobs.cli import runfile
from blockjobs.cli.runfile.expansion import FleetFacts, Glob
from blockjobs.model.errors import BadInput, HostsAway, Refused
from blockjobs.model.jobs import OnError
from blockjobs.model.policies import Count, Policy, RunFields, Store, Verdict, run_verdict, transaction_name

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
RUN = "nightly-20261122T103000Z"
EXAMPLE = """\
version: 1
name: nightly
deadline: 6h
on-overlap: refuse
hosts:  {web: ["web[01-40]"], db: [db1, db2]}
stores: {nas1: {path: /mnt/nas1, jobs: 8, speed: 800MiB/s}}   # one budget for the whole fleet
defaults: {snapshot: auto, speed: 200MiB/s, on-target-error: enospc, hold-timeout: 30m, target: "{store}/{host}/{run}/{name}"}
transactions:
  - {name: db, completion-mode: grouped, hosts: db, store: nas1, keep: {last: 3, daily: 7}, sources: [/srv/images/data.img, /srv/images/log.img]}
  - {name: web, completion-mode: individual, hosts: web, store: nas1, offline: skip, retry: 2, succeed-if: 95%, sources: ["/srv/images/*.img"]}
  - name: special
    jobs: [{id: root, type: backup, sync: full, source: "web1:/dev/vg/root", target: "web1:/backup/{run}/root.img"}]
notify: {failure: ["mailto://ops@example.com"], success: ["https://hc.example.com/ping/x"]}
"""  # noqa: E501 - as the documents have it
WEB = [f"web{number:02}" for number in range(1, 41)]
IMAGES = ("/srv/images/a.img", "/srv/images/b.img")
FOUND = {Glob(host, "/srv/images/*.img"): IMAGES for host in WEB}
SHORT = """\
version: 1
name: nightly
transactions:
- name: t
  hosts: [h1, h2]
  target: /backup/{name}
  sources:
  - /srv/a.img
"""


@pytest.fixture
def read(tmp_path):
    def read(text, *changes, only=()):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return runfile.read_run_file(path, changes, only)

    return read


@pytest.fixture
def refusal(read, tmp_path):
    def refusal(text, *changes, only=()):
        with pytest.raises(BadInput) as refused:
            read(text, *changes, only=only).plan(NOW)
        message = str(refused.value)
        assert "\n" not in message
        return message.removeprefix(f"{tmp_path}/")

    return refusal


# --- the example --------------------------------------------------------------------------------------


def test_the_example_becomes_a_run_of_three_transactions_of_the_file(read):
    plan = read(EXAMPLE).plan(NOW, FleetFacts(found=FOUND))
    db, *web, special = plan.transactions
    assert [job.id for job in db] == [f"{RUN}.{name}" for name in ("db1-data", "db1-log", "db2-data", "db2-log")]
    assert {job.transaction for job in db} == {f"{RUN}.db"}
    assert len(web) == 80
    assert {len(members) for members in web} == {1}
    first = web[0][0]
    assert (first.id, first.transaction, first.store) == (f"{RUN}.web01-a", f"{RUN}.web.web01-a", "nas1")
    assert first.source.text == "web01:/srv/images/a.img"
    assert first.target.text == f"web01:/mnt/nas1/web01/{RUN}/web01-a"
    assert (first.target_base, first.speed, first.snapshot) == ("/mnt/nas1", 200 << 20, "auto")
    (root,) = special
    assert (root.id, root.transaction, root.store) == (f"{RUN}.root", f"{RUN}.special", "")
    assert not plan.grouped


def test_what_the_run_asks_for_beside_its_jobs_is_kept_as_the_other_parts_read_it(read, tmp_path):
    fields = read(EXAMPLE).plan(NOW, FleetFacts(found=FOUND)).fields
    assert fields.to_dict() == {
        "policies": {
            name: {"offline": "fail", "retry": 0, "retry-wait": 30, "succeed-if": None, "keep": {}} | more
            for name, more in {
                "db": {"grouped": True, "keep": {"last": 3, "daily": 7}},
                "web": {"grouped": False, "offline": "skip", "retry": 2, "succeed-if": 95.0},
                "special": {"grouped": True},
            }.items()
        },
        "stores": {"nas1": {"path": "/mnt/nas1", "jobs": 8, "speed": 800 << 20}},
        "deadline": 6 * 3600, "hold-timeout": 1800, "on-overlap": "refuse", "file": str(tmp_path / "run.yaml"),
        "notify": {"failure": ["mailto://ops@example.com"], "success": ["https://hc.example.com/ping/x"]},
        "skipped": [],
    }  # fmt: skip
    assert RunFields.from_dict(fields.to_dict()) == fields
    assert RunFields.from_dict({"name": "old", "grouped": True}) == RunFields()


def test_a_member_s_transaction_leads_back_to_its_name_in_the_file(read):
    plan = read(EXAMPLE).plan(NOW, FleetFacts(found=FOUND))
    names = [transaction_name(plan.run, job.transaction, plan.fields.policies) for job in plan.jobs]
    assert (names.count("db"), names.count("web"), names.count("special")) == (4, 80, 1)


def test_a_file_of_only_jobs_keeps_its_ids_and_has_one_nameless_transaction(read):
    text = "version: 1\nname: nightly\njobs: [{id: one, source: 'h:/a', target: 'h:/b/a'}]\n"
    for mode, txn in (("grouped", RUN), ("individual", f"{RUN}.one")):
        plan = read(f"{text}completion-mode: {mode}\n").plan(NOW)
        assert (plan.jobs[0].transaction, plan.fields.policies) == (txn, {"": Policy(grouped=mode == "grouped")})
        assert transaction_name(plan.run, plan.jobs[0].transaction, plan.fields.policies) == ""


# --- sources times hosts ------------------------------------------------------------------------------


def test_without_the_fleet_a_glob_stands_for_one_job_a_host(read):
    assert len(read(EXAMPLE).plan(NOW).jobs) == 4 + 40 + 1


def test_names_are_made_of_host_and_file_and_get_a_number_where_one_is_taken(read):
    sources = "[/srv/a.img, /srv/a.raw, '/srv/x/my disk.img', /srv/.img]"
    text = (
        SHORT.replace("\n  - /srv/a.img", f" {sources}")
        + "- {name: u, jobs: [{id: h1-a, source: 'z:/a', target: 'z:/b'}]}\n"
    )
    plan = read(text).plan(NOW)
    names = [job.id.removeprefix(f"{RUN}.") for job in plan.jobs if job.host == "h1"]
    assert names == ["h1-a-2", "h1-a-3", "h1-my-disk", "h1-img"]


def test_braces_in_the_name_of_a_file_are_no_words(read):
    fleet = FleetFacts(found={Glob("h1", "/srv/*"): ("/srv/{run}",), Glob("h2", "/srv/*"): ("/srv/b",)})
    plan = read(SHORT.replace("/srv/a.img", "'/srv/*'")).plan(NOW, fleet)
    assert [job.source.text for job in plan.jobs] == ["h1:/srv/{run}", "h2:/srv/b"]


def test_a_transaction_s_options_stand_between_the_defaults_and_the_job_s(read):
    text = """\
version: 1
name: nightly
defaults: {speed: 1, stall-limit: 5, target: "/backup/{host}-{name}"}
transactions:
- name: t
  speed: 2
  digests: false
  jobs: [{id: one, source: "h:/a", speed: 3}, {id: two, source: "h:/b"}]
"""
    one, two = read(text).plan(NOW).jobs
    assert [(job.speed, job.stall_limit, job.digests) for job in (one, two)] == [(3, 5, False), (2, 5, False)]
    assert one.target.text == "h:/backup/h-one"


def test_a_store_s_path_is_put_in_first_so_that_it_is_what_has_to_exist(read):
    text = SHORT.replace("  target: /backup/{name}", "  store: s\n  target: '{store}/{run}/{{x}}/{name}'")
    (job, _) = read(text + "stores: {s: {path: '/mnt/{odd}'}}\n").plan(NOW).jobs
    assert job.target.text == f"h1:/mnt/{{odd}}/{RUN}/{{x}}/h1-a"
    assert job.target_base == "/mnt/{odd}"


# --- hosts that are away ------------------------------------------------------------------------------


AWAY = {"h2": "is down since noon"}


def test_a_run_that_may_not_go_without_a_host_names_all_that_are_away(read):
    with pytest.raises(HostsAway, match=r"^host 'h1' has left; host 'h2' is down since noon$"):
        read(SHORT).plan(NOW, FleetFacts(absent={"h1": "has left", **AWAY, "other": "is not of it"}))


def test_a_run_that_may_goes_without_and_keeps_what_it_left_out(read):
    plan = read(SHORT, "transactions.t.offline=skip").plan(NOW, FleetFacts(absent=AWAY))
    assert [job.host for job in plan.jobs] == ["h1"]
    (left,) = plan.fields.skipped
    assert (left.transaction, left.host, left.jobs) == ("t", "h2", ("h2-a",))
    assert left.why == "host 'h2' is down since noon"


def test_of_a_host_that_is_away_nobody_knows_what_a_glob_means(read):
    text = SHORT.replace("/srv/a.img", "'/srv/*.img'")
    found = {Glob("h1", "/srv/*.img"): ("/srv/x.img",)}
    plan = read(text, "transactions.t.offline=skip").plan(NOW, FleetFacts(found=found, absent=AWAY))
    assert [(left.host, left.jobs) for left in plan.fields.skipped] == [("h2", ("/srv/*.img",))]


def test_a_run_without_any_host_is_refused(read):
    with pytest.raises(Refused, match="nothing left to do: host 'h1' is"):
        read(SHORT, "transactions.t.offline=skip").plan(NOW, FleetFacts(absent={"h1": "is down", "h2": "is down"}))


@pytest.mark.parametrize("answer", [(), "source directory /srv does not exist on host h2"])
def test_a_glob_that_means_nothing_is_refused_or_left_out_never_passed_over(read, tmp_path, answer):
    text = SHORT.replace("/srv/a.img", "'/srv/*.img'")
    fleet = FleetFacts(found={Glob("h1", "/srv/*.img"): ("/srv/x.img",), Glob("h2", "/srv/*.img"): answer})
    said = answer or "/srv/*.img matches no file on host h2; at least one was expected"
    with pytest.raises(BadInput) as refused:
        read(text).plan(NOW, fleet)
    assert str(refused.value) == f"{tmp_path}/run.yaml:8: transactions[0].sources[0]: {said}"
    (left,) = read(text, "transactions.t.offline=skip").plan(NOW, fleet).fields.skipped
    assert (left.host, left.jobs, left.why) == ("h2", ("/srv/*.img",), said)


def matched(pattern, *paths, left_out=()):
    """What both hosts find by a pattern."""
    globs = [Glob(host, pattern) for host in ("h1", "h2")]
    return FleetFacts(found=dict.fromkeys(globs, paths), left_out=dict.fromkeys(globs, left_out))


ODD = ("/srv/link.img", "it is a symlink: a regular file was expected")


def test_a_name_that_a_pattern_leaves_out_is_skipped_and_costs_only_itself(read):
    text = SHORT.replace("/srv/a.img", "'/srv/*.img'")
    fleet = matched("/srv/*.img", "/srv/a.img", left_out=[ODD])
    for changes in ((), ("transactions.t.offline=skip",)):
        plan = read(text, *changes).plan(NOW, fleet)
        assert [job.source.text for job in plan.jobs] == ["h1:/srv/a.img", "h2:/srv/a.img"]
        assert [(left.transaction, left.host, left.jobs, left.why) for left in plan.fields.skipped] == [
            ("t", host, ODD[:1], ODD[1]) for host in ("h1", "h2")
        ]


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        (("completion-mode=individual",), Verdict.FAILED),
        ((), Verdict.FAILED),
        (("completion-mode=individual", "succeed-if=50%"), Verdict.PARTIAL),
        (("completion-mode=individual", "succeed-if=90%"), Verdict.FAILED),
        (("completion-mode=individual", "offline=skip"), Verdict.PARTIAL),
        (("completion-mode=individual", "offline=skip", "succeed-if=90%"), Verdict.FAILED),
    ],
    ids=["each for itself", "a group", "enough", "too few", "may be skipped", "may be skipped, and too few"],
)
def test_a_name_that_a_pattern_leaves_out_counts_as_a_job_that_did_not_succeed(read, changes, ended):
    text = SHORT.replace("/srv/a.img", "'/srv/*.img'")
    for left_out, expected in (((), Verdict.ALL), ([ODD], ended)):
        fleet = matched("/srv/*.img", "/srv/a.img", left_out=left_out)
        fields = read(text, *(f"transactions.t.{change}" for change in changes)).plan(NOW, fleet).fields
        counts = {"t": Count(jobs=2, skipped=sum(len(left.jobs) for left in fields.skipped))}
        assert run_verdict(counts, fields.policies) is expected


def test_where_all_that_matches_is_left_out_the_refusal_names_it(read):
    text = SHORT.replace("/srv/a.img", "'/srv/*.img'")
    with pytest.raises(BadInput, match=r"matches no file on host h1; .*; /srv/link\.img is left out: it is a symlink"):
        read(text).plan(NOW, matched("/srv/*.img", left_out=[ODD]))


@pytest.mark.parametrize(
    ("sources", "paths", "names"),
    [
        (["/srv/*.img"], ["/srv/a.img", "/srv/b.c.img"], ["a", "b.c"]),
        (["/srv/*"], ["/srv/a.img", "/srv/a.raw"], ["a.img", "a.raw"]),
        (["/srv/vm*/root.img"], ["/srv/vm1/root.img", "/srv/vm2/root.img"], ["vm1--root", "vm2--root"]),
        (["/srv/*/*.img"], ["/srv/a-b/c.img", "/srv/a/b-c.img"], ["a-b--c", "a--b-c"]),
        (["/srv/*.img"], ["/srv/a b.img", "/srv/a-b.img"], ["a-b-{hash}", "a-b"]),
        (["/srv/*.img"], [f"/srv/{'x' * 61}.img", f"/srv/{'x' * 60}.img"], ["x" * 60 + "-{hash}", "x" * 60]),
        (["/srv/a.img", "/srv/*/a.img"], ["/srv/b/a.img"], ["a", "b--a"]),
        (["/srv/*.img", "/srv/a.raw"], ["/srv/a.img", "/srv/b.img"], ["a-{hash}", "b", "a"]),
    ],
    ids=["the usual one", "any ending", "many directories", "two parts", "odd letters", "long names", "written out",
         "as one that is written out"],
)  # fmt: skip
def test_the_id_of_a_source_is_made_of_its_own_path_alone(read, sources, paths, names):
    pattern = next(source for source in sources if "*" in source)
    text = SHORT.replace("\n  - /srv/a.img", f" {sources}".replace("'", '"')).replace("hosts: [h1, h2]", "hosts: h1")

    def ids_of(*there):
        jobs = read(text).plan(NOW, matched(pattern, *there)).jobs
        return {job.source.text.removeprefix("h1:"): job.id.removeprefix(f"{RUN}.h1-") for job in jobs}

    every = ids_of(*paths)
    for name, found in zip(names, every.values(), strict=True):
        assert re.fullmatch(re.escape(name).replace(r"\{hash\}", "[0-9a-f]{8}"), found), every
    for path in paths:
        alone = ids_of(path)
        assert alone.items() <= every.items(), "it stays when its neighbours go"
    assert ids_of(*reversed(paths)) == every


def test_the_id_of_a_source_does_not_depend_on_what_another_pattern_finds(read):
    text = SHORT.replace("\n  - /srv/a.img", ' ["/srv/*.img", "/var/*.img"]').replace("hosts: [h1, h2]", "hosts: h1")
    mine = Glob("h1", "/var/*.img"), ("/var/a.img",)

    def id_of(*others):
        fleet = FleetFacts(found={Glob("h1", "/srv/*.img"): others, mine[0]: mine[1]})
        return next(job.id for job in read(text).plan(NOW, fleet).jobs if job.source.text == "h1:/var/a.img")

    assert id_of("/srv/a.img") == id_of("/srv/b.img")


@pytest.mark.parametrize("mode", ["grouped", "individual"])
def test_a_salvaged_backup_is_asked_for_by_both_ends(read, mode):
    more = f"  completion-mode: {mode}\n  on-source-error: skip\n  succeed-if: salvaged\n  target"
    plan = read(SHORT.replace("  target", more)).plan(NOW)
    assert {job.on_source_error for job in plan.jobs} == {OnError.SKIP}
    policy = plan.fields.policies["t"]
    assert (policy.salvaged, policy.succeed_if, policy.grouped) == (True, None, mode == "grouped")
    assert RunFields.from_dict(plan.fields.to_dict()).policies["t"] == policy


@pytest.mark.parametrize(("line", "why"), [
    ("on-target-error: skip", "transactions[0].on-target-error: 'skip' is not accepted"),
    ("succeed-if: salvage", "'salvage' is not a share; a text from 1% to 100%, such as 95%, was expected, or salvaged"),
])  # fmt: skip
def test_skip_is_for_sources_and_salvaged_is_the_word(refusal, line, why):
    assert why in refusal(SHORT.replace("  target", f"  completion-mode: individual\n  {line}\n  target"))


# --- --only and --set -----------------------------------------------------------------------------------


def test_only_some_transactions_are_run_and_kept_in_the_record(read):
    plan = read(EXAMPLE, only=["special"]).plan(NOW)
    assert [job.id for job in plan.jobs] == [f"{RUN}.root"]
    assert list(plan.fields.policies) == ["special"]


def test_what_the_command_line_says_replaces_what_the_file_says(read):
    changes = ["name=other", "defaults.speed=1MiB", "transactions.web.hosts=web07", "transactions.2.jobs.root.speed=7",
               "stores.nas2={path: /mnt/nas2}", "transactions.db.store=nas2"]  # fmt: skip
    plan = read(EXAMPLE, *changes).plan(NOW)
    assert [(job.host, job.speed, job.store) for job in plan.jobs] == [
        *[("db1", 1 << 20, "nas2")] * 2, *[("db2", 1 << 20, "nas2")] * 2, ("web07", 1 << 20, "nas1"), ("web1", 7, ""),
    ]  # fmt: skip
    assert plan.fields.stores["nas2"] == Store(path="/mnt/nas2")
    assert plan.name == "other"


SETS = {
    "no-value":   ("speed", "--set speed: KEY=VALUE was expected, KEY such as defaults.speed"),
    "no-key":     ("=5", "--set =5: KEY=VALUE was expected"),
    "bad-value":  ("defaults.speed=fast", "--set defaults.speed=fast: defaults.speed: 'fast' is not a size"),
    "bad-yaml":   ("defaults.speed=[", "--set defaults.speed=[: expected the node content"),
    "unknown":    ("defaults.sped=5", "--set defaults.sped=5: defaults.sped: unknown field; one of auto-dismiss"),
    "nothing":    ("transactions.x.retry=5", "--set transactions.x.retry=5: nothing is at 'x'; one of db, web,"),
    "not-a-list": ("name.first=5", "--set name.first=5: nothing can be below 'first'; a mapping or a list was"),
    "no-mode":    ("transactions.web.completion-mode=grouped", "run.yaml:10: transactions[1].retry: not accepted by"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETS)
def test_the_command_line_is_checked_as_the_file_is(refusal, case):
    change, said = SETS[case]
    assert refusal(EXAMPLE, change).startswith(said)


def test_a_transaction_that_is_not_there_cannot_be_chosen(refusal):
    assert "has no such transaction; one of db, web, special was expected" in refusal(EXAMPLE, only=["dbs"])


# --- what is wrong ------------------------------------------------------------------------------------


def but(old, new, text=SHORT):
    assert old in text
    return text.replace(old, new)


WRONG = {
    "both": (SHORT + "jobs: [{id: a, source: 'h:/a', target: 'h:/b'}]\n", "9: jobs: not accepted beside trans"),
    "mode-of-all": (SHORT + "completion-mode: grouped\n", "9: completion-mode: not accepted beside"),
    "unknown": (but("  hosts:", "  host:"), "5: transactions[0].host: unknown field; one of allow-in-place, "),
    "no-name": (but("- name: t\n  h", "- h"), "4: transactions[0].name: missing; a value was expected"),
    "dotted-name": (but("name: t", "name: t.u"), "4: transactions[0].name: 't.u' is not a name; a letter"),
    "same-name": (
        SHORT + "- {name: t, jobs: [{id: a, source: 'h:/a', target: 'h:/b'}]}\n",
        "9: transactions[1].name: 't' is the name of another transaction",
    ),
    "no-hosts": (but("  hosts: [h1, h2]\n", ""), "4: transactions[0].hosts: missing; the hosts that the"),
    "empty-hosts": (but("[h1, h2]", "[]"), "5: transactions[0].hosts: [] is not accepted; at least 1"),
    "bad-host": (but("h1,", "h/1,"), "5: transactions[0].hosts: invalid host name 'h/1'"),
    "bad-range": (but("h1,", "'h[3-1]',"), "5: transactions[0].hosts: 'h[3-1]': '[3-1]' is not a range; one"),
    "no-target": (but("  target: /backup/{name}\n", ""), "4: transactions[0].target: missing; a path such as"),
    "no-sources": (but("  sources:\n  - /srv/a.img\n", ""), "4: transactions[0].name: either jobs, or sources"),
    "hosts-of-jobs": (
        but("  sources:\n  - /srv/a.img", "  jobs: [{id: a, source: 'h:/a', target: 'h:/b'}]"),
        "5: transactions[0].hosts: not accepted beside jobs",
    ),
    "relative": (but("/srv/a.img", "srv/a.img"), "8: transactions[0].sources[0]: 'srv/a.img' is not a source"),
    "hosted": (but("/srv/a.img", "h:/srv/a.img"), "8: transactions[0].sources[0]: 'h:/srv/a.img' is not a"),
    "dot-dot": (but("/srv/a.img", "/srv/../a"), "8: transactions[0].sources[0]: path '/srv/../a' has an"),
    "no-store": (but("  hosts", "  store: nas\n  hosts"), "5: transactions[0].store: 'nas' is no store; one of"),
    "store-word": (but("/backup/", "'{store}/").replace("{name}", "{name}'"), "6: transactions[0].target: '{st"),
    "bad-word": (but("{name}", "{day}"), "6: transactions[0].target: unknown word '{day}' in '/backup/{day}'"),
    "same-target": (
        but("/backup/{name}", "h1:/backup/x").replace("[h1, h2]", "h1").replace("- /srv/a.img", "- /srv/a\n  - /srv/b"),
        "6: transactions[0].target: transactions[0].sources[0] on h1 has the same target h1:/backup/x",
    ),
    "offline": (but("  hosts", "  offline: maybe\n  hosts"), "5: transactions[0].offline: 'maybe' is not acc"),
    "wait": (but("  hosts", "  offline: wait\n  hosts"), "5: transactions[0].offline: '' is not a time; a text"),
    "retry": (but("  hosts", "  retry: 2\n  hosts"), "5: transactions[0].retry: not accepted by completion-mode"),
    "retry-wait": (but("  hosts", "  retry-wait: 5\n  hosts"), "5: transactions[0].retry-wait: 5 is not a time; a"),
    "retry-group": (but("  hosts", "  retry-wait: 5s\n  hosts"), "5: transactions[0].retry-wait: not accepted by"),
    "succeed-if": (but("  hosts", "  succeed-if: 0.95\n  hosts"), "5: transactions[0].succeed-if: 0.95 is not"),
    "keep": (but("  hosts", "  keep: {yearly: 1}\n  hosts"), "5: transactions[0].keep.yearly: unknown field; on"),
    "keep-less": (but("  hosts", "  keep: {last: -1}\n  hosts"), "5: transactions[0].keep.last: -1 is not acc"),
    "deadline": (SHORT + "deadline: 6\n", "9: deadline: 6 is not a time; a text such as 90s, 30m, 6h or 1h30m"),
    "overlap": (SHORT + "on-overlap: maybe\n", "9: on-overlap: 'maybe' is not accepted; 'refuse', 'queue' or"),
    "hold": (SHORT + "hold-timeout: 1h\ndefaults: {hold-timeout: 1h}\n", "10: defaults.hold-timeout: said twice"),
    "store-field": (SHORT + "stores: {s: {path: /a, paths: /a}}\n", "9: stores.s.paths: unknown field; one"),
    "notify": (SHORT + "notify: {failure: [5]}\n", "9: notify.failure[0]: 5 is not accepted; a text was expected"),
    "group": (SHORT + "hosts: {'a b': [h1]}\n", "9: hosts: 'a b' is not a name; a letter, then letters"),
    "snapshot": (SHORT + "defaults: {snapshot: maybe}\n", "9: defaults.snapshot: 'maybe' is not a snapshot: auto,"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_line_and_what_was_expected(refusal, case):
    text, said = WRONG[case]
    assert refusal(text).startswith(f"run.yaml:{said}")


# --- stores and devices -------------------------------------------------------------------------------


def test_a_job_s_store_is_the_one_that_its_target_lies_in_whoever_says_so(read):
    text = """\
version: 1
name: nightly
stores: {nas: {path: /mnt/nas}, inner: {path: /mnt/nas/inner}}
transactions:
- name: t
  store: nas
  jobs:
  - {id: said, source: "h:/a", target: "h:{store}/a"}
  - {id: elsewhere, source: "h:/b", target: "h:/backup/b"}
  - {id: inner, source: "h:/c", target: "h:/mnt/nas/inner/c"}
- name: u
  jobs:
  - {id: unsaid, source: "h:/d", target: "h:/mnt/nas/d"}
  - {id: deeper, source: "h:/e", target: "h:/mnt/nas/inner/e"}
  - {id: beside, source: "h:/f", target: "h:/mnt/nasty/f"}
"""
    assert [job.store for job in read(text).plan(NOW).jobs] == ["nas", "", "nas", "nas", "inner", ""]


def test_a_target_for_many_has_to_lie_in_the_store_that_is_said(refusal):
    text = SHORT.replace("  hosts", "  store: s\n  hosts") + "stores: {s: {path: /mnt/s}}\n"
    said = (
        "run.yaml:7: transactions[0].target: /backup/h1-a is not in store 's' (/mnt/s); a path such as {store}/{host}"
    )
    assert refusal(text).startswith(said)


def test_a_path_below_dev_is_a_device(read):
    *_, root = read(EXAMPLE).plan(NOW).jobs
    assert root.source.volume.driver == "host_device"
    (job, _) = read(SHORT.replace("/srv/a.img", "/dev/vg0/data")).plan(NOW).jobs
    assert (job.id, job.source.volume.driver) == (f"{RUN}.h1-data", "host_device")
    (job, _) = read(SHORT.replace("/srv/a.img", "/dev/shm/a.img")).plan(NOW).jobs  # noqa: S108
    assert job.source.volume.driver == "file"


def test_a_pattern_has_no_words(refusal):
    assert refusal(SHORT.replace("/srv/a.img", "'/srv/{host}/*.img'")).startswith(
        "run.yaml:8: transactions[0].sources[0]: '/srv/{host}/*.img' is a pattern, in which no word is replaced"
    )


def test_ten_thousand_jobs_are_a_plan(read):
    sources = "\n  - ".join(f"/srv/{name}" for name in "abcde")
    plan = read(SHORT.replace("[h1, h2]", "'h[0001-2000]'").replace("/srv/a.img", sources)).plan(NOW)
    assert len(plan.jobs) == 10_000
    assert len({job.id for job in plan.jobs}) == 10_000
