"""Which backups a rule keeps: a table to read, and what holds of any."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockjobs.model.keep import JUST_MADE, NEWEST, RULES, PublishedTarget, Version, judge_versions, plan_pruning

START = datetime(2026, 1, 1, 22, tzinfo=UTC)


def at(day: str) -> Version:
    """A run named by its day, at ten in the evening; ``!`` behind it: it never committed; ``~``: it is salvaged."""
    name = day.rstrip("!~")
    when = datetime.fromisoformat(name).replace(hour=22, tzinfo=UTC).timestamp()
    return Version(name, when, not day.endswith("!"), salvaged=day.endswith("~"))


NOVEMBER = [f"2026-11-{day:02}" for day in range(1, 31)]
# A Sunday ends an ISO week: 2026-11-01 was one.
TABLE = [
    ("the last two", {"last": 2}, NOVEMBER, ["2026-11-30", "2026-11-29"]),
    ("one a day", {"daily": 3}, NOVEMBER, ["2026-11-30", "2026-11-29", "2026-11-28"]),
    ("the last of each week", {"weekly": 3}, NOVEMBER, ["2026-11-30", "2026-11-29", "2026-11-22"]),
    ("the last of each month", {"monthly": 2}, ["2026-10-30", "2026-10-31", *NOVEMBER], ["2026-11-30", "2026-10-31"]),
    ("rules add up", {"last": 1, "weekly": 2}, NOVEMBER, ["2026-11-30", "2026-11-29"]),
    ("days without a run do not count", {"daily": 2}, ["2026-11-01", "2026-11-09", "2026-11-30"],
     ["2026-11-30", "2026-11-09"]),
    ("a run that failed has nothing and counts for nothing", {"last": 2}, ["2026-11-01", "2026-11-02", "2026-11-03!"],
     ["2026-11-02", "2026-11-01"]),
    ("an ISO week may belong to the year before", {"weekly": 1}, ["2026-12-28", "2027-01-03"], ["2027-01-03"]),
    ("no rule keeps all", {}, ["2026-11-01", "2026-11-02"], ["2026-11-02", "2026-11-01"]),
    ("a rule of none is no rule", {"last": 0, "daily": 0}, ["2026-11-01", "2026-11-02"], ["2026-11-02", "2026-11-01"]),
    ("a salvaged one takes no place of a whole one", {"last": 2}, ["2026-11-01", "2026-11-02", "2026-11-03~"],
     ["2026-11-03", "2026-11-02", "2026-11-01"]),
    ("nor of its day, week or month", {"daily": 1, "weekly": 1, "monthly": 1}, ["2026-11-26", "2026-11-30~"],
     ["2026-11-30", "2026-11-26"]),
    ("many salvaged ones do not fill the store", {"last": 2}, ["2026-11-01", *(f"{day}~" for day in NOVEMBER[1:8])],
     ["2026-11-08", "2026-11-07", "2026-11-01"]),
    ("with a later whole one it goes", {"last": 1}, ["2026-11-01", "2026-11-02~", "2026-11-03"], ["2026-11-03"]),
    ("none is whole", {"last": 1}, ["2026-11-01~", "2026-11-02~"], ["2026-11-02"]),
    ("no rule keeps all, salvaged ones too", {}, ["2026-11-01~", "2026-11-02"], ["2026-11-02", "2026-11-01"]),
    ("nothing committed", {"last": 1}, ["2026-11-01!", "2026-11-02!"], []),
]  # fmt: skip


@pytest.mark.parametrize(("keep", "runs", "stay"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_rules_keep(keep, runs, stay):
    kept = judge_versions(map(at, runs), keep)
    assert sorted(kept.reasons, reverse=True) == stay
    committed = {run.rstrip("~") for run in runs if not run.endswith("!")}
    assert set(kept.prune) == committed - set(stay)
    assert list(kept.prune) == sorted(kept.prune, reverse=True)


DOCUMENT = Path(__file__).parents[2] / "docs" / "history.md"
ROWS = re.findall(r"^\| `(\w+: \d+[^`]*)` \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("rules", "told"), ROWS)
def test_the_document_s_examples_are_true(rules, told):
    keep = {name: int(number) for name, number in (rule.split(": ") for rule in rules.split(", "))}
    nights = [f"2026-10-{day:02}" for day in range(1, 32)] + NOVEMBER
    days = re.findall(r"\d+(?: October)?", re.sub(r"\(.*?\)", "", told))
    stay = [f"2026-10-{day.split()[0]}" if "October" in day else f"2026-11-{day}" for day in days]
    assert sorted(judge_versions(map(at, nights), keep).reasons, reverse=True) == stay


def test_the_document_has_examples():
    assert len(ROWS) == 5


def test_each_reason_is_named():
    kept = judge_versions(map(at, NOVEMBER), {"last": 1, "daily": 2, "weekly": 2, "monthly": 1})
    assert kept.reasons == {
        "2026-11-30": ("last", "daily 2026-11-30", "weekly 2026-W49", "monthly 2026-11"),
        "2026-11-29": ("daily 2026-11-29", "weekly 2026-W48"),
    }


def test_two_runs_of_one_day_are_one_daily_backup_the_later():
    noon, night = (datetime(2026, 11, 22, hour, tzinfo=UTC).timestamp() for hour in (12, 23))
    kept = judge_versions([Version("noon", noon), Version("night", night)], {"daily": 5})
    assert (list(kept.reasons), kept.prune) == (["night"], ("noon",))


rules = st.dictionaries(st.sampled_from(RULES), st.integers(0, 5))
histories = st.lists(st.tuples(st.integers(0, 500 * 24), st.booleans()), max_size=40).map(
    lambda each: [
        Version(f"r{number}", (START + timedelta(hours=hours)).timestamp(), committed)
        for number, (hours, committed) in enumerate(each)
    ]
)


@given(histories, rules)
def test_the_newest_that_committed_is_never_pruned_and_what_never_did_is_in_neither_list(versions, keep):
    kept = judge_versions(versions, keep)
    committed = [each for each in versions if each.committed]
    if committed:
        assert max(committed, key=lambda each: (each.at, each.run)).run in kept.reasons
    assert set(kept.reasons) | set(kept.prune) == {each.run for each in committed}
    assert not set(kept.reasons) & set(kept.prune)
    assert all(kept.reasons.values())


@given(histories, rules)
def test_pruning_again_prunes_nothing_more(versions, keep):
    kept = judge_versions(versions, keep)
    again = judge_versions([each for each in versions if each.run in kept.reasons], keep)
    assert again.prune == ()
    assert again.reasons == kept.reasons


@given(histories, rules)
def test_a_run_that_fails_changes_nothing(versions, keep):
    late = Version("late", (START + timedelta(days=1000)).timestamp(), committed=False)
    assert judge_versions([*versions, late], keep) == judge_versions(versions, keep)


@given(histories, rules, st.sampled_from(RULES))
def test_a_further_rule_only_keeps_more(versions, keep, rule):
    if any(keep.values()):
        more = judge_versions(versions, {**keep, rule: keep.get(rule, 0) + 1})
        assert judge_versions(versions, keep).reasons.keys() - {NEWEST} <= more.reasons.keys() | {
            run for run, why in judge_versions(versions, keep).reasons.items() if why == (NEWEST,)
        }


# --- over the jobs of a name ----------------------------------------------------------------------------


def target(
    run: int, job: str = "a", *, path: str = "", source: str = "", layers: tuple[str, ...] = ()
) -> PublishedTarget:
    name = f"n-{run}"
    return PublishedTarget(
        run=name, at=float(run), job=f"{name}.{job}", transaction=name, group="", host="h",
        path=path or f"/backup/{name}/{job}", source=source or f"h:/srv/{job}", layers=layers,
    )  # fmt: skip


LAST1 = {"": {"last": 1}}


def test_each_job_has_a_history_of_its_own():
    """The last run had only b, as a retry has: a loses nothing by it."""
    old, mid, new = [target(1), target(1, "b")], [target(2)], [target(3, "b")]
    assert plan_pruning([*old, *mid, *new], LAST1).prune == (old[0], old[1])
    assert set(plan_pruning([*old, *mid, *new], {"": {"last": 2}}).kept) == {*old, *mid, *new}


def test_another_source_is_another_history_though_the_job_has_its_name():
    assert plan_pruning([target(1, source="h:/x"), target(2, source="h:/y")], LAST1).prune == ()


def test_a_target_that_a_later_run_wrote_is_replaced_and_nothing_is_removed():
    old, new = target(1, path="/backup/a"), target(2, path="/backup/a")
    fate = plan_pruning([old, new], LAST1)
    assert (fate.replaced, fate.prune, list(fate.kept)) == ({old: "n-2"}, (), [new])


def test_a_target_that_was_replaced_takes_no_place_of_a_rule():
    one, two, three = target(1), target(2, path="/backup/same"), target(3, path="/backup/same")
    fate = plan_pruning([one, two, three], {"": {"last": 2}})
    assert (set(fate.kept), fate.prune, set(fate.replaced)) == ({three, one}, (), {two})


def test_which_one_replaced_the_other_is_told_by_the_decision_whatever_the_clocks_said():
    first = replace(target(1, path="/backup/same"), number=1, at=2e9)
    second = replace(target(2, path="/backup/same"), number=2, at=1e9)
    fate = plan_pruning([first, second], LAST1)
    assert (set(fate.kept), set(fate.replaced)) == ({second}, {first})


def test_what_a_chain_needs_stays_though_each_image_names_the_next_one_alone():
    one, two = target(1), target(2, layers=(target(1).path,))
    three = target(3, layers=(two.path,))
    assert plan_pruning([one, two, three], LAST1).prune == ()


def test_what_a_chain_needs_stays_to_its_end():
    base, mid = target(1), target(2, layers=("/backup/n-1/a",))
    top, free = target(4, layers=("/backup/n-2/a", "/backup/n-1/a")), target(3)
    fate = plan_pruning([base, mid, free, top], LAST1)
    assert (fate.prune, set(fate.kept)) == ((free,), {base, mid, top})
    assert plan_pruning([base, free, target(5)], LAST1, layers=frozenset({("h", base.path)})).prune == (free,)


def test_of_a_chain_that_goes_the_upper_image_goes_first():
    base, top = target(1), target(2, layers=("/backup/n-1/a",))
    assert plan_pruning([base, top, target(3)], LAST1).prune == (top, base)


def test_only_what_the_run_has_committed_is_pruned_after_it():
    mine, others = [target(1), target(3)], [target(1, "b"), target(2, "b")]
    assert plan_pruning([*mine, *others], LAST1, after="n-3").prune == (mine[0],)
    assert plan_pruning([*mine, *others], LAST1, after="n-9").prune == ()


# --- clocks that are wrong -------------------------------------------------------------------------------


def night(number: int, hours: float) -> Version:
    """The backup of the decision ``number``, ``hours`` after the beginning by the clock that there was."""
    return Version(f"r{number}", (START + timedelta(hours=hours)).timestamp(), number=number)


def now(hours: float) -> float:
    return (START + timedelta(hours=hours)).timestamp()


CLOCKS = {  # hours by the clock of the nights, in the order of their decisions; the hour of now; the rule; what stays
    "an hour ahead, once":          ([0, 24, 48 + 1, 72, 96], 96, {"last": 2}, {4, 5}),
    "a year ahead, once":           ([0, 24, 8760, 72, 96], 96, {"daily": 2}, {3, 4, 5}),
    "a year ahead, and its day":    ([0, 24, 8760, 72, 96], 9000, {"daily": 2}, {2, 5}),
    "a year ahead, tonight":        ([0, 24, 48, 8760], 72, {"daily": 2}, {2, 3, 4}),
    "a month behind, tonight":      ([0, 24, 48, -720], 72, {"daily": 2}, {2, 4}),
    "a month behind, for monthly":  ([-1000, -720, 0, -721], 24, {"monthly": 3}, {1, 2, 4}),
    "behind ever after":            ([0, 24, -100, -76, -52], 48, {"last": 3}, {3, 4, 5}),
    "two at one time":              ([0, 0, 0], 0, {"last": 1}, {3}),
}  # fmt: skip


@pytest.mark.parametrize(("hours", "when", "keep", "stay"), CLOCKS.values(), ids=CLOCKS)
def test_the_order_is_that_of_the_decisions_whatever_the_clocks_said(hours, when, keep, stay):
    versions = [night(n, at) for n, at in enumerate(hours, 1)]
    assert {int(run[1:]) for run in judge_versions(versions, keep, now(when)).reasons} == stay


clocks = st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=12)


@given(clocks, st.floats(-1e5, 1e5), st.dictionaries(st.sampled_from(RULES), st.integers(1, 5), min_size=1))
def test_the_newest_decision_stays_whatever_any_clock_says(hours, when, keep):
    versions = [night(n, at) for n, at in enumerate(hours, 1)]
    assert f"r{len(hours)}" in judge_versions(versions, keep, now(when)).reasons


@given(clocks, st.floats(-1e5, 1e5), st.dictionaries(st.sampled_from(RULES), st.integers(1, 5), min_size=1))
def test_a_time_beyond_now_takes_no_place_of_a_backup_that_would_stay_without_it(hours, when, keep):
    versions = [night(n, at) for n, at in enumerate(hours, 1)]
    known = [each for each in versions if each.at <= now(when)]
    keep = {rule: most for rule, most in keep.items() if rule != "last"}
    with_them, without = judge_versions(versions, keep, now(when)), judge_versions(known, keep, now(when))
    if keep:
        assert set(without.reasons) - {f"r{len(known)}"} <= set(with_them.reasons) | {known[-1].run if known else ""}


def test_what_a_run_has_just_made_stays_though_a_later_one_committed_before_anybody_pruned():
    mine, later = replace(target(1), number=1), replace(target(2), number=2)
    fate = plan_pruning([mine, later], LAST1, after="n-1")
    assert (fate.prune, fate.kept[mine]) == ((), (JUST_MADE,))
    assert plan_pruning([mine, later], LAST1, after="n-2").prune == (mine,)


def test_backups_of_earlier_versions_bear_no_number_and_are_older_than_any_that_do():
    old, new = target(9), replace(target(1), number=1)
    assert plan_pruning([old, new], LAST1).prune == (old,)
