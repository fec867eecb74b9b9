"""``stores`` and ``hosts set``: the limits of many jobs, by the command line and from Python."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from puppets import RUN, grouped, spec

from blockjobs.model import errors
from blockjobs.model.policies import RunFields, Store

pytestmark = pytest.mark.durable

NIGHTLY = RunFields(stores={"nas1": Store(path="/mnt/nas1", jobs=8, speed=800 << 20)})
MORE = RunFields(stores={"nas1": Store(path="/mnt/nas1", jobs=8, speed=900 << 20)})


@pytest.fixture
def nas(here):
    """A store as a run file defined it."""
    here.submit(replace(grouped(spec("a", store="nas1")), fields=NIGHTLY))


def lines(printed):
    return [line.split() for line in printed.splitlines()]


def test_nothing_is_there_before_a_run_file_defines_it(here, command):
    assert command("stores") == (0, "no run file has defined a store\n", "")


def test_a_store_is_listed_as_its_file_defined_it(nas, command):
    code, out, _ = command("stores")
    assert code == 0
    assert lines(out)[1] == ["nas1", "0", "of", "8", "0", "unknown", "800.0", "MiB/s", "/mnt/nas1", "run", RUN]
    (store,) = json.loads(command("stores", "--json")[1])
    assert (store["name"], store["jobs"], store["speed"], store["running"]) == ("nas1", 8, 800 << 20, 0)


def test_its_limits_are_changed_one_by_one(nas, command, here):
    assert command("stores", "set", "nas1", "--jobs", "4")[1] == "nas1: 4 copies at once (was 8 copies)\n"
    assert command("stores", "set", "nas1", "--speed", "0")[1] == "nas1: no limit (was 800.0 MiB/s)\n"
    code, out, _ = command("stores", "set", "nas1", "--jobs", "0", "--speed", "400MiB/s")
    assert (code, out) == (0, "nas1: any number of copies at once (was 4 copies), 400.0 MiB/s (was no limit)\n")
    assert (here.store("nas1").jobs, here.store("nas1").speed) == (0, 400 << 20)
    assert "@" in here.store("nas1").by, "whoever it was"


def test_the_newest_definition_wins(nas, here):
    here.set_store("nas1", jobs=1, speed=5)
    here.submit(replace(grouped(spec("b", store="nas1", run="nightly-20261123T103000Z")), fields=MORE))
    assert (here.store("nas1").jobs, here.store("nas1").speed) == (8, 900 << 20)
    assert here.store("nas1").by == "run nightly-20261123T103000Z"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("stores", "set", "nas2", "--jobs", "1"), "no store is named 'nas2'; a name of `blockjobs"),
        (("stores", "set", "nas1"), "--jobs, --speed or both were expected"),
        (("stores", "remove", "nas2"), "no store is named 'nas2'; a name of `blockjobs"),
        (("stores", "set", "nas1", "--jobs", "-1"), "-1 is not in the range"),
        (("stores", "set", "nas1", "--speed", "fast"), "'fast' is not a size"),
        (("hosts", "set", "beta", "--speed", "1"), "host 'beta' is not known"),
        (("hosts", "set", "alpha"), "Missing option '--speed'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)  # fmt: skip
def test_bad_input_is_one_line_and_changes_nothing(nas, command, here, words, told):
    before = here.stores(), here.registry.limits.host_speeds()
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert (here.stores(), here.registry.limits.host_speeds()) == before


def test_a_store_is_removed_once_no_job_uses_it_and_comes_back_with_a_file(nas, command, here, fleet):
    assert command("stores", "remove", "nas1") == (2, "", "blockjobs: store 'nas1' is in use: a is not over\n")
    here.submit(replace(grouped(spec("b", store="nas1", run="nightly-20261123T103000Z")), fields=NIGHTLY))
    said = "blockjobs: store 'nas1' is in use: 2 jobs that are not over use it, a among them\n"
    assert command("stores", "remove", "nas1") == (2, "", said)
    assert here.store("nas1").jobs == 8
    here.submit(grouped(spec("free", run="another")))  # it uses no store
    for job in ("a", "b"):
        here.cancel(job)
        fleet.walk(here.get(job).transaction)
    assert command("stores", "remove", "nas1") == (0, "nas1: forgotten; the files in the store were not touched\n", "")
    assert (here.stores(), fleet.events("STORE_REMOVED")) == ([], [("STORE_REMOVED", "nas1")])
    here.registry.limits.flow({"nas1": 5})  # as a coordinator that looked a moment before
    no_store = "blockjobs: no store is named 'nas1'; a name of `blockjobs stores` was expected\n"
    assert command("stores", "remove", "nas1") == (2, "", no_store)
    with pytest.raises(errors.NoSuchStore):
        here.store("nas1")
    here.submit(replace(grouped(spec("c", store="nas1", run="nightly-20261124T103000Z")), fields=NIGHTLY))
    assert (here.store("nas1").jobs, here.store("nas1").path) == (8, "/mnt/nas1")


def test_a_job_that_is_only_staged_keeps_its_store(nas, here, fleet):
    here.cancel("a")
    fleet.walk(here.get("a").transaction)
    plan = replace(grouped(spec("b", store="nas1", run="nightly-20261123T103000Z")), fields=NIGHTLY)
    here.registry.submit.stage(plan, plan.jobs)
    with pytest.raises(errors.StoreBusy):
        here.remove_store("nas1")
    assert here.store("nas1").jobs == 8


def test_a_host_is_limited_and_shown_so(here, command):
    assert command("hosts", "set", "alpha", "--speed", "100MiB") == (0, "alpha: 100.0 MiB/s (was no limit)\n", "")
    assert "100.0 MiB/s" in command("hosts")[1]
    assert json.loads(command("hosts", "--json")[1])[0]["speed"] == 100 << 20
    assert here.set_host("alpha", speed=0) == 100 << 20
    with pytest.raises(errors.BadInput):
        here.set_host("alpha", speed=-1)


def test_their_events_are_sentences(nas, command):
    command("hosts", "set", "alpha", "--speed", "1KiB")
    _, out, _ = command("events", "--since", "0")
    assert "nas1: store takes 8 at once, 800.0 MiB/s, set by run " in out
    assert "alpha: limited to 1.0 KiB/s by " in out
