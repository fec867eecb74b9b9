"""Commands that are wrong, or come at a time that is: one line, and nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fleet import DEADLINE
from sites import DISK, FREE, SECRET, Said, Site, job

from blockjobs.settings import URL

COMMANDS: dict[str, tuple[list[str], str]] = {
    "no command":         (["undelete"], "No such command 'undelete'"),
    "no file":            (["run"], "Missing argument 'FILE' (see: blockjobs run --help)"),
    "unknown option":     (["run", "--fast", "x"], "No such option"),
    "one volume":         (["backup", "a:/x"], "Missing argument 'TARGET'"),
    "no host in it":      (["backup", "/x", "/y"], "volume '/x' names no host, and there are 4 hosts: HOST:/PATH was"),
    "relative and lost":  (["backup", "", ""], "volume '' names no host, and there are 4 hosts: HOST:/PATH was"),
    "bad host":           (["backup", "a b:/x", "a:/y"], "names no host, and there are 4 hosts"),
    "NUL":                (["backup", "a:/x\0", "a:/y"], "path '/x\\x00' has a control character"),
    "not UTF-8":          (["backup", "a:/x\udcff", "a:/y"], "path '/x\\udcff' is not valid UTF-8: a path in UTF-8"),
    "negative speed":     (["backup", "a:/x", "a:/y", "--speed", "-5"], "'-5' is not a size; a number of bytes, 0 or"),
    "speed in words":     (["backup", "a:/x", "a:/y", "--speed", "fast"], "'fast' is not a size; a number of bytes, 0"),
    "bad id":             (["backup", "a:/x", "a:/y", "--id", "1x"], "Invalid job ID '1x'"),
    "empty id":           (["backup", "a:/x", "a:/y", "--id", ""], "Invalid job ID ''"),
    "unknown policy":     (["backup", "a:/x", "a:/y", "--on-source-error", "x"], "'x' is not one of 'report',"),
    "no queue":           (["worker", "--host", "a"], "Missing option '--queue'. Choose from: copy, steps (see:"),
    "endless wait":       (["wait", "x", "--timeout", "nan"], "Invalid value for '--timeout': nan is not a number"),
    "negative wait":      (["wait", "x", "--timeout", "-1"], "Invalid value for '--timeout': -1.0 is not in the range"),
    "since when":         (["events", "--since", "noon"], "--since 'noon': the 'seq' of an event, such as"),
    "speed of nobody":    (["set-speed", "nobody", "5"], "no run and no job is named 'nobody'"),
    "speed -5":           (["set-speed", "nobody", "-5"], "'-5' is not a size; a number of bytes, 0 or more"),
    "speed x":            (["set-speed", "nobody", "x"], "'x' is not a size; a number of bytes, 0 or more"),
    "no speed":           (["set-speed", "nobody"], "Missing argument 'SPEED'"),
    "JSON that watches":  (["status", "--json", "--watch"], "--watch and --json exclude each other"),
    "events of nobody":   (["events", "nobody"], "no event is of 'nobody': a run, a transaction, a job or a host was"),
    "following nobody":   (["events", "--follow", "nobody"], "no event is of 'nobody': a run, a transaction, a job or"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "said"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_is_wrong_is_refused(site: Site, words, said):
    before = site.registry()
    site.say(*words).refused(said)
    assert site.registry() == before


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "finalize", "dismiss", "status", "show", "wait"])
def test_every_verb_refuses_an_id_that_nobody_has(site: Site, verb: str):
    before = site.registry()
    texts = {"nobody": "nobody", "nob*": "nob*", "": "", "a\n\x1b[31mb": "a\\n\\x1b[31mb", "a\udcff": "a\\udcff"}
    for text, shown in texts.items():
        site.say(verb, text).refused(f"no run and no job is named '{shown}'")
    assert site.registry() == before


def test_verbs_out_of_place_are_refused_in_qemu_s_words_and_change_nothing(site: Site):
    site.fleet.seq = site.fleet.registry.events.last()
    said = site.say("run", "--detach", site.file(job(speed="64kB")))
    run = said.out.split()[1].removesuffix(":")
    name = f"{run}.j"

    def state(text: str, verb: str) -> str:
        return f"Job '{name}' in state '{text}' cannot accept command verb '{verb}'"

    def unchanged(*words: object, said: str) -> None:
        site.fleet.seq = site.fleet.registry.events.last()
        site.say(*words).refused(site.path(said))
        assert [event for event in site.fleet.registry.events.all(site.fleet.seq) if event.run] == []

    site.fleet.until("ATTEMPT_CLAIMED", name)
    unchanged("resume", name, said="Can't resume a job that was not paused")
    unchanged("dismiss", name, said=state("running", "dismiss"))
    unchanged("finalize", name, said=state("running", "finalize"))
    unchanged("set-speed", name, "-1", said="'-1' is not a size")
    assert site.say("pause", name).code == 0
    site.fleet.until_status(name, "paused")
    unchanged("pause", name, said="Job is already paused")
    unchanged("dismiss", name, said=state("paused", "dismiss"))
    busy = "is busy: block device is in use by block job: backup"
    unchanged("run", site.file(job()), said=f"Node 'a:ROOT/backup/new.img' {busy} (job '{name}')")
    unchanged("run", site.file(job(source=FREE, target="a:ROOT/x")), said=f"{busy} (job '{name}')")
    unchanged("run", site.file(job(source="a:ROOT/there.img", target=DISK)), said=f"{busy} (a job reads it)")
    unchanged("backup", site.path("a:ROOT/there.img"), site.path("a:ROOT/x"), "--id", name, said="already in use")
    site.say("wait", name, "--timeout", "0.01").refused(f"timed out; not concluded yet: {name}", code=5)
    assert site.say("cancel", name).code == 0
    assert site.say("wait", name).code == 1
    for verb in ("pause", "cancel", "finalize"):
        unchanged(verb, name, said=state("concluded", verb))
    unchanged("resume", name, said="Can't resume a job that was not paused")
    unchanged("set-speed", name, "5", said=state("concluded", "set-speed"))
    both = site.say("dismiss", "nobody", name)
    assert (both.code, both.out) == (2, f"{name}: dismissed\n")
    both.line(2, "no run and no job is named 'nobody'")
    unchanged("dismiss", name, said=f"no run and no job is named '{name}'")
    site.good(FREE)


def test_a_host_that_is_down_is_refused_by_name_and_the_others_go_on(site: Site):
    fleet = site.fleet
    fleet.seq = fleet.registry.events.last()
    fleet.kill("steps@d")
    fleet.kill("copy@d")
    fleet.until("HOST_DOWN", "d")
    before = site.disks(), site.registry()
    jobs = [job(), job(id="k", source=f"d:{fleet.root('d')}/x", target=f"d:{fleet.root('d')}/y")]
    site.say("run", site.file(*jobs)).refused("host 'd' is down")
    assert (site.disks(), site.registry()) == before
    site.good(FREE)


# --- the whole way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "url", "code", "said"),
    [
        ([job(speed=-1)], "", 2, "jobs[0].speed: -1 is not a size; a number of bytes, 0 or more"),
        ([job(source="a:ROOT/no.img")], "", 1, "aborted after 0 s: source ROOT/no.img does not exist on host a"),
        ([job()], f"redis://:{SECRET}@127.0.0.1:1", 3, "Redis is not reachable at redis://:***@127.0.0.1:1"),
    ],
    ids=["refused", "failed", "no Redis"],
)
def test_the_program_itself_says_the_same(site: Site, jobs, url, code, said):
    argv = [sys.executable, "-P", "-m", "blockjobs", "run", str(site.file(*jobs))]
    env = os.environ | {URL: url or site.fleet.server.url}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
    line = Said(ended.returncode, ended.stdout, ended.stderr).line(code, site.path(said).partition(" 0 s")[0])
    assert site.path(said).rpartition("0 s: ")[2] in line
