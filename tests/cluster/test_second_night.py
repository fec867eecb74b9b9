"""The second night: the same run file again and again, with history, pruning, a report, and a retry of what failed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pytest
from fleet import DEADLINE, MIB, Fleet, files

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.prune import PruneRequest
from blockjobs.cli.main import cli, run_command_guarded
from blockjobs.model.ids import Host, RunId
from blockjobs.model.volumespec import FileVolume, HostedVolume
from blockjobs.registry.events import Event
from blockjobs.settings import URL

_numbers = count(1)
RUN_FILE = """
version: 1
name: {name}
transactions:
  - name: all
    completion-mode: {mode}
    keep: {keep}
    offline: skip
    jobs:
      - {{id: one, source: "a:{a}/one.img", target: "a:{a}/{name}/{{run}}/one.img"}}
      - {{id: two, source: "b:{b}/two.img", target: "b:{b}/{name}/{{run}}/two.img"}}
"""


@dataclass
class Night:
    """One run file over hosts a and b, and the command line in this process."""

    fleet: Fleet
    name: str
    file: Path
    read: Callable[[], tuple[str, str]]

    def call(self, *words: str) -> tuple[int, str]:
        """Exit code and stdout of a command."""
        code = run_command_guarded(lambda: cli.main(list(words), standalone_mode=False))
        out, self.err = self.read()
        return code, out

    def write(self, keep: str = "{last: 2}", mode: str = "grouped") -> None:
        roots = {host: self.fleet.root(host) for host in "ab"}
        self.file.write_text(RUN_FILE.format(name=self.name, keep=keep, mode=mode, **roots))

    def run(self, code: int = 0) -> RunId:
        """Run it to its end; the run's id."""
        self.fleet.seq = self.fleet.registry.events.last()
        assert self.call("run", str(self.file))[0] == code, self.err
        (run,) = [event.run for event in self.events() if event.name == "RUN_PUBLISHED"]
        return RunId(run)

    def events(self) -> list[Event]:
        """Those of this name since the last run was started."""
        return [e for e in self.fleet.registry.events.all(self.fleet.seq) if e.run.startswith(f"{self.name}-")]

    def unpruned(self) -> tuple[list[RunId], RunId]:
        """Two runs that no rule keeps and that are still there, as something used them, and the run that does not."""
        self.write("{}")
        old = [self.run(), self.run()]
        nodes = self.fleet.registry.nodes
        targets = self.fleet.registry.history.targets(map(self.fleet.registry.views.run, old))
        volumes = [HostedVolume(Host(target.host), FileVolume(target.path)) for target in targets]
        held = [(volume, nodes.reserve(volume, "test")) for volume in volumes]
        self.write("{last: 1}")
        last = self.run()
        self.settled()
        for volume, holder in held:
            nodes.unreserve(volume, holder)
        assert self.there("a") == self.there("b") == {*old, last}
        return old, last

    def settled(self) -> None:
        """Wait until the coordinator has pruned whatever is due."""
        self.fleet.until_true(lambda: not self.fleet.registry.history.due())

    def history(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.call("history", self.name, "--json")[1])
        return found

    def there(self, host: str) -> set[str]:
        """The runs of which a host has an image with its manifest."""
        store = self.fleet.root(host) / self.name
        return {path.parent.name for path in store.glob("*/*.img") if Path(f"{path}.manifest.json").exists()}

    def store(self, host: str, run: str) -> Path:
        return self.fleet.root(host) / self.name / run


@pytest.fixture
def night(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Night]:
    monkeypatch.setenv(URL, fleet.server.url)
    name = f"night{next(_numbers)}"
    for host, image in (("a", "one"), ("b", "two")):
        fleet.image(host, f"{image}.img", 3)
        (fleet.root(host) / name).mkdir()
    night = Night(fleet, name, tmp_path / "night.yaml", capfd.readouterr)
    night.write()
    yield night
    fleet.mend()


def broken(night: Night) -> Callable[[], None]:
    """The source of ``two`` is not there; returns how to mend it."""
    path = night.fleet.root("b") / "two.img"
    aside = path.rename(path.with_suffix(".aside"))
    return lambda: os.rename(aside, path)


def test_the_same_file_twice_commits_twice_and_the_third_prunes_the_first_after_its_own_commit(night: Night) -> None:
    first, second = night.run(), night.run()
    night.settled()
    assert night.there("a") == night.there("b") == {first, second}
    told = night.history()
    assert [each["id"] for each in told] == [second, first]
    for each in told:
        assert (each["outcome"], each["jobs"], each["committed"]) == ("committed", 2, 2)
        assert each["bytes"]["read"] == each["bytes"]["written"] == 6 * MIB  # type: ignore[index]
        assert each["kept"] == ["last"]
        assert each["rate"]
    _, text = night.call("history", night.name)
    assert "kept: last" in text
    assert "6.0 MiB" in text

    third = night.run()
    night.settled()
    assert night.there("a") == night.there("b") == {second, third}
    assert not night.store("a", first).exists(), "its directory went with it"
    order = [(event.name, event.run) for event in night.events()
             if event.name in ("TRANSACTION_DECIDED", "RUN_ENDED", "TARGET_PRUNED")]  # fmt: skip
    assert order == [("TRANSACTION_DECIDED", third), ("RUN_ENDED", third), *[("TARGET_PRUNED", first)] * 2]
    assert [(each["pruned"], each["targets"]) for each in night.history()] == [(0, 2), (0, 2), (2, 0)]


def test_a_run_that_fails_prunes_nothing_and_the_next_good_one_does(night: Night) -> None:
    first, second = night.run(), night.run()
    mend = broken(night)
    failed = night.run(code=1)
    night.settled()
    assert night.there("a") == night.there("b") == {first, second}
    assert not [event for event in night.events() if event.name == "TARGET_PRUNED"]
    newest = night.history()[0]
    assert (newest["id"], newest["outcome"], newest["targets"]) == (failed, "aborted", 0)
    assert "two.img does not exist" in str(newest["why"])
    mend()
    fourth = night.run()
    night.settled()
    assert night.there("a") == {second, fourth}, "the failed one does not count"


def test_of_a_run_that_commits_in_part_only_what_committed_is_pruned(night: Night) -> None:
    night.write("{last: 1}", "individual")
    first = night.run()
    mend = broken(night)
    second = night.run(code=1)
    mend()
    night.settled()
    assert (night.there("a"), night.there("b")) == ({second}, {first}), "b has no newer one"


def test_dry_run_says_what_is_then_done(night: Night) -> None:
    old, last = night.unpruned()
    before = {host: files(night.fleet.root(host)) for host in "ab"}
    code, dry = night.call("prune", night.name, "--dry-run", "--json")
    assert code == 0
    assert {host: files(night.fleet.root(host)) for host in "ab"} == before
    assert night.history()[-1]["pruned"] == 0
    _, wet = night.call("prune", night.name, "--json")
    assert json.loads(dry)["targets"] == json.loads(wet)["targets"]
    assert {each["run"] for each in json.loads(dry)["targets"] if each["state"] == "pruned"} == set(old)
    assert night.there("a") == night.there("b") == {last}
    code, again = night.call("prune", night.name)
    assert (code, f"{night.name}: 2 kept" in again) == (0, True)


def test_a_foreign_file_under_a_pruned_name_stays_and_history_says_so(night: Night) -> None:
    first, second = night.run(), night.run()
    image = night.store("a", first) / "one.img"
    image.unlink()
    image.write_bytes(b"somebody else's")
    third = night.run()
    night.settled()
    assert image.read_bytes() == b"somebody else's"
    assert night.there("b") == {second, third}
    oldest = night.history()[-1]
    assert (oldest["pruned"], oldest["targets"]) == (1, 1)
    assert "was changed or replaced" in str(oldest["left"])
    assert "one was not pruned" in night.call("history", night.name)[1]
    assert night.call("prune", night.name)[0] == 1, "it is tried again, and told again"
    image.unlink()
    assert night.call("prune", night.name)[0] == 0
    assert not night.store("a", first).exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("unlinked", [1, 2, 3])
def test_a_host_killed_half_way_has_pruned_all_of_it_after_the_next_try(night: Night, unlinked: int) -> None:
    """Killed in the moment of one of the three removals: image, digests, manifest."""
    old, last = night.unpruned()
    fleet = night.fleet
    fleet.kill("steps@a", signal.SIGTERM)
    fleet.until("HOST_DOWN", "a")
    trace = fleet.place / f"prune{unlinked}.strace"
    kill = ["-f", "-o", str(trace), "-P", str(night.store("a", old[1])), "-e", "trace=unlinkat"]
    fleet.start("steps@a", wrapper=["strace", *kill, "-e", f"inject=unlinkat:signal=KILL:when={unlinked}"])
    fleet.until("HOST_UP", "a")
    outcomes = PruneRequest(fleet.registry, Doorbell(fleet.server.url), patience=3.0)(night.name)
    assert {o.state for o in outcomes if o.target.host == "a" and o.target.run in old} == {"left"}
    assert night.there("b") == {last}, "the other host is not held up"
    assert trace.read_text().count("unlinkat(") == unlinked, "the process that pruned is dead"
    psutil.Process(fleet.processes["steps@a"].pid).children()[0].kill()  # strace ends with what it traces
    fleet.processes["steps@a"].wait(DEADLINE)
    fleet.mend()
    fleet.registry.nodes.expire(fleet.registry.hosts.now() + 60_000)  # the reservations: whoever had them is dead
    assert night.call("prune", night.name)[0] == 0, night.err
    assert night.there("a") == {last}
    assert not any(night.store("a", run).exists() for run in old)


def test_a_host_that_wakes_after_the_asker_gave_up_removes_nothing(night: Night) -> None:
    old, last = night.unpruned()
    fleet = night.fleet
    fleet.kill("steps@a", signal.SIGSTOP)
    outcomes = PruneRequest(fleet.registry, Doorbell(fleet.server.url), patience=1.0)(night.name)
    fleet.kill("steps@a", signal.SIGCONT)
    assert {o.why for o in outcomes if o.state == "left"} == {"host 'a' did not answer within 1 s"}
    assert fleet.registry.hosts.known()["a"][0] == "up"
    fleet.until_true(lambda: night.call("prune", night.name, "--dry-run")[0] == 0)  # it answers, and all is free again
    assert night.there("a") == {*old, last}
    assert night.there("b") == {last}


def test_a_backup_that_a_job_reads_stays_until_it_does_not(night: Night) -> None:
    old, last = night.unpruned()
    source = f"a:{night.store('a', old[0])}/one.img"
    reader = night.fleet.submit(
        night.fleet.plan([{"id": "r", "source": source, "target": f"a:{night.store('a', last)}/copy.img"}], speed=1)
    )
    night.fleet.until("ATTEMPT_CLAIMED", f"{reader}.r")
    code, told = night.call("prune", night.name)
    assert (code, "in use by block job" in told) == (1, True)
    assert night.there("a") == {old[0], last}
    night.fleet.registry.verbs.cancel(f"{reader}.r")
    night.fleet.until("RUN_ENDED", reader)
    assert night.call("prune", night.name)[0] == 0
    assert night.there("a") == {last}


def test_retry_starts_only_what_failed_and_costs_no_other_job_its_backup(night: Night) -> None:
    night.write("{last: 1}", "individual")
    first = night.run()
    mend = broken(night)
    second = night.run(code=1)
    mend()
    night.settled()
    code, out = night.call("retry", second, "--json")
    assert code == 0, night.err
    told = json.loads(out)
    (third,) = [run["id"] for run in told["runs"]]
    assert [job["id"] for job in told["jobs"]] == [f"{third}.two"]
    night.settled()
    assert (night.there("a"), night.there("b")) == ({second}, {third}), "one has no newer backup, two has"
    assert not night.store("b", first).exists()
    newest = night.history()[0]
    assert (newest["retries"], newest["jobs"], newest["outcome"]) == (second, 1, "committed")
    code, _ = night.call("retry", third)
    assert (code, "nothing to start again" in night.err) == (2, True)


def test_of_a_group_that_aborted_retry_starts_every_job(night: Night) -> None:
    mend = broken(night)
    failed = night.run(code=1)
    mend()
    code, out = night.call("retry", failed, "--json")
    assert code == 0, night.err
    run = json.loads(out)["runs"][0]["id"]
    assert night.there("a") == night.there("b") == {run}


def test_retry_is_refused_while_the_run_is_going_and_after_its_jobs_were_dismissed(night: Night) -> None:
    run = night.fleet.submit(night.fleet.plan(
        [{"id": "r", "source": f"a:{night.fleet.root('a')}/one.img",
          "target": f"a:{night.fleet.root('a')}/{night.name}/r.img"}], speed=1
    ))  # fmt: skip
    assert night.call("retry", run)[0] == 2
    assert "still going" in night.err
    night.fleet.registry.verbs.cancel(f"{run}.r")
    night.fleet.until("RUN_ENDED", run)
    night.fleet.registry.verbs.dismiss(f"{run}.r")
    assert night.call("retry", run)[0] == 2
    assert "dismissed" in night.err
    assert night.call("retry", "nobody-20261122T103000Z")[0] == 2


def test_retry_starts_what_was_skipped_by_the_file_once_its_host_is_back(night: Night) -> None:
    fleet = night.fleet
    night.write("{last: 1}", "individual")
    for queue in ("steps", "copy"):
        fleet.kill(f"{queue}@b")
    fleet.seq = fleet.registry.events.last()
    fleet.until("HOST_DOWN", "b")
    first = night.run(code=4)
    assert night.history()[0]["skipped"] == 1
    assert night.call("retry", first)[0] == 2
    assert "nothing that can be started now: host 'b' is down" in night.err
    fleet.mend()
    code, out = night.call("retry", first, "--json")
    assert code == 0, night.err
    run = json.loads(out)["runs"][0]["id"]
    assert (night.there("a"), night.there("b")) == ({first}, {run})


def test_the_report_of_a_failed_run_tells_failures_first_as_text_json_and_page(night: Night) -> None:
    mend = broken(night)
    run = night.run(code=1)
    mend()
    code, text = night.call("report", run)
    assert code == 0, night.err
    lines = text.splitlines()
    assert lines[0] == run
    assert lines[1].split()[:2] == ["outcome", "aborted:"]
    failed, cancelled = lines.index("failed"), lines.index("cancelled with them")
    assert failed < cancelled < lines.index("transactions") < lines.index("hosts") < lines.index("jobs")
    assert lines[failed + 1].startswith("  two on b: source ")
    assert "does not exist on host b" in lines[failed + 1]
    assert "one on a" in lines[cancelled + 1]
    assert any(line.startswith("what ") for line in lines)

    told = json.loads(night.call("report", run, "--json")[1])
    assert (told["run"]["outcome"], told["run"]["failed"], told["run"]["cancelled"]) == ("aborted", 1, 1)
    assert {job["id"] for job in told["jobs"]} == {f"{run}.one", f"{run}.two"}
    assert [(group["name"], group["jobs"]) for group in told["hosts"]] == [("a", 1), ("b", 1)]
    assert [group["name"] for group in told["transactions"]] == ["all"]
    assert [txn["decision"] for txn in told["decisions"]] == ["abort"]

    page = night.call("report", run, "--html")[1]
    assert page.startswith("<!doctype html>")
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import|https?:", page), "it needs no other file"
    shown = [page.index(word) for word in ("aborted: two: source", "<h2>Failed", "<h2>Transactions", "<h2>Jobs")]
    assert shown == sorted(shown)


def test_a_report_without_job_records_still_has_the_figures(night: Night) -> None:
    run = night.run()
    for job in ("one", "two"):
        night.fleet.registry.verbs.dismiss(f"{run}.{job}")
    code, text = night.call("report", run)
    assert code == 0
    assert "2 jobs: only what is above is known of them" in text
    assert "read 6.0 MiB" in text
    assert night.call("report", "nobody-20261122T103000Z")[0] == 2
