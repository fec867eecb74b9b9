"""The size of a run file is what it expands to: counted before anything is made of it, and refused with one line.

Each file is read by a process of its own, as `blockjobs check` reads it, and that process is measured.
"""

# ruff: noqa: E501 - tables of exact texts

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commands import Commands, Ended

from blockjobs.cli import runfile
from blockjobs.cli.local import LocalHost, write_host
from blockjobs.cli.runfile import limits
from blockjobs.cli.runfile.expansion import FleetFacts
from blockjobs.cli.volumes import parse_typed_volume
from blockjobs.model.errors import BadInput
from blockjobs.model.ids import Host

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
MEMORY = 100 << 20  # bytes that a refusal may take, Python and all of its modules included
SECONDS = 1.5  # of processor time that a refusal may take, imports not included
# Bytes and seconds at which the kernel ends a process: the machine has other things to do.
CAGE = {"RLIMIT_AS": 600 << 20, "RLIMIT_CPU": 30}
HEAD = "version: 1\nname: nightly\n"
JOB = "{id: one, source: 'h:/srv/a', target: 'h:/backup/a'}"
SHORT = (
    HEAD + "hosts: {GROUPS}\ntransactions:\n- {name: t, hosts: HOSTS, target: '/b/{host}/{name}', sources: [SOURCES]}\n"
)


Check = Callable[..., Ended]


@pytest.fixture(scope="module")
def check() -> Iterator[Check]:
    """``blockjobs check PATH --set CHANGE ...``, in a process that has imported nothing else, measured."""
    with closing(Commands(["blockjobs.cli.check"])) as commands:

        def check(path: Path, changes: Iterable[str] = ()) -> Ended:
            return commands.run("check", path, *(word for change in changes for word in ("--set", change)), limits=CAGE)

        yield check


def levels(first: str, level: str, *, deep: int = 8, wide: int = 10) -> str:
    """Anchors a0, a1, ...: each stands for many of the one before it; ``level`` has ALIASES."""
    lines = [f"a0: &a0 {first}"]
    for at in range(1, deep):
        aliases = ", ".join([f"*a{at - 1}"] * wide)
        lines.append(f"a{at}: &a{at} {level.replace('ALIASES', aliases)}")
    return "\n".join(lines) + "\n"


def mappings(*, deep: int = 8, wide: int = 10) -> str:
    inner = [", ".join(f"k{each}: *a{at - 1}" for each in range(wide)) for at in range(1, deep)]
    lines = [f"a{at}: &a{at} {{{pairs}}}\n" for at, pairs in enumerate(inner, 1)]
    return "a0: &a0 {x: 1}\n" + "".join(lines)


def short(*, groups: str = "", hosts: str = "[h]", sources: str = "/srv/a") -> str:
    return SHORT.replace("GROUPS", groups).replace("HOSTS", hosts).replace("SOURCES", sources)


EXPANDED = "with all aliases expanded there are "
UNKNOWN = "{" + ", ".join(f"k{at}: 1" for at in range(400)) + "}"
FILES: dict[str, tuple[str | bytes, str]] = {
    # --- aliases
    "lists of lists":        (HEAD + levels("[x, x]", "[ALIASES]"), EXPANDED),
    "mappings of mappings":  (HEAD + mappings(), EXPANDED),
    "merges of merges":      (HEAD + levels("{x: 1}", "{<<: [ALIASES]}"), EXPANDED),
    "merges beside values":  (HEAD + levels("{x: 1}", "{<<: [ALIASES], y: [ALIASES]}"), EXPANDED),
    "texts of texts":        (HEAD + levels("x" * 8000, "[ALIASES]"), "characters so far; at most 16777216 were expected"),
    "jobs of one anchor":    (HEAD + f"jobs:\n- &a {{options: {{x: [{'1, ' * 100}]}}}}\n" + "- *a\n" * 3000, EXPANDED),
    "options":               (HEAD + levels("[x, x]", "[ALIASES]").replace("a0:", "defaults: {options: {a0:", 1), ":4:1: "),
    "a list in itself":      (HEAD + "jobs: &a [*a]\n", ":3:11: alias '*a' stands within what it names"),
    "a mapping in itself":   (HEAD + "defaults: &me {options: {x: [1, *me]}}\n", ":3:33: alias '*me' stands within"),
    "a merge of itself":     (HEAD + "defaults: &a {<<: *a}\n", ":3:19: alias '*a' stands within what it names"),
    "a key that is itself":  (HEAD + "defaults: &a {? *a : 1}\n", ":3:17: alias '*a' stands within what it names"),
    "deep by aliases":       (HEAD + levels("[x]", "[ALIASES]", deep=100, wide=1), "nested too deeply: 65 lists and"),
    # --- without aliases
    "deep":                  (HEAD + "jobs: " + "[" * 100_000, ":3:70: nested too deeply: 65 lists and mappings"),
    "deep mappings":         (HEAD + "jobs: " + "{a: " * 100_000, "nested too deeply: 65 lists and mappings"),
    "a long text":           (HEAD + "jobs: " + "x" * 1_000_000, ":3:7: a value of 1000000 characters; at most 8192"),
    "a long key":            (HEAD + f"? {'x' * 9000}\n: 1\n", ":3:3: a value of 9000 characters; at most 8192"),
    "a long number":         (HEAD + "deadline: 0x" + "f" * 8000, ":3:11: a number is too long: 8002 characters"),
    "a large file":          ("#" * (limits.FILE + 1), ": the file is larger than 2097152 bytes"),
    "half of a character":   (HEAD + 'jobs: "\\ud800"\n', ":3:7: half of a surrogate pair is not a character"),
    "NUL":                   (HEAD + "jobs: \0", ":3:7: unacceptable character #x0000"),
    "not UTF-8":             (HEAD.encode() + b"jobs: \xff", ": byte 31 is not UTF-8"),
    "code":                  (HEAD + "jobs: !!python/object/apply:os.system [id]", "tag '!!python/object/apply:os.system' is not"),
    "a tag that is none":    (HEAD + "deadline: !!bool maybe\n", ":3:11: tag '!!bool' is not accepted"),
    "two documents":         (HEAD + "---\n" + HEAD, ":3:1: but found another document"),
    "a key twice":           (HEAD + "name: other\n", ':3:1: found duplicate key "name"'),
    "a merge twice":         (HEAD + "defaults: {<<: {}, <<: {}}\n", ':3:20: found duplicate key "<<"'),
    "a merge of a text":     (HEAD + "defaults: {<<: text}\n", ":3:16: '<<' of what is no mapping"),
    "a list as a key":       (HEAD + "? [a, b]\n: 1\n", ":3:3: a list or a mapping is not accepted as a key"),
    "fields nobody knows":   (HEAD + f"x: &u {UNKNOWN}\njobs: [{'*u, ' * 200}]\n", ":3: jobs[0].id: missing; a value was expected"),
    # --- hosts, ranges, sources
    "a range":               (short(hosts="['web[1-9999999]']"), "'web[1-9999999]' is 9999999 hosts; at most 10000"),
    "ranges of ranges":      (short(hosts="['web[1-9999][1-9999]']"), "hosts; at most 10000 were expected"),
    "many in one bracket":   (short(hosts=f"['web[{'1-9999,' * 900}1]']"), "hosts; at most 10000 were expected"),
    "many brackets":         (short(hosts=f"['web{'[1-999999999]' * 500}']"), "hosts; at most 10000 were expected"),
    "many ranges":           (short(hosts="['web[1-9999]'" + ", 'web[1-9999]'" * 99 + "]"),
                              ":5: transactions[0].hosts: up to here the file is 999900 hosts; at most 100000"),
    "many groups":           (short(groups=", ".join(f"g{at}: ['web[1-9999]']" for at in range(100))),
                              ":3: hosts.g10: up to here the file is 109989 hosts; at most 100000 were expected"),
    "groups of one anchor":  (short(groups="a: &a ['web[1-9999]'], " + ", ".join(f"g{at}: *a" for at in range(100))),
                              ":3: hosts.g9: up to here the file is 109989 hosts; at most 100000 were expected"),
    "hosts by sources":      (short(hosts="['web[1-10000]']", sources=", ".join(f"/srv/{at}" for at in range(10))),
                              ":5: transactions[0].sources: up to here the file is 100000 jobs, each source on each host"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), FILES.values(), ids=FILES)
def test_a_file_that_expands_to_too_much_is_refused_with_one_line_and_costs_next_to_nothing(
    check, tmp_path, text, said
):
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(check(path), f"blockjobs: {path}", said)


CHANGES: dict[str, tuple[list[str], str]] = {
    "aliases":       (["defaults.options={" + levels("[x, x]", "[ALIASES]").strip().replace("\n", ", ") + "}"], EXPANDED),
    "recursion":     (["defaults.options=&a [*a]"], "alias '*a' stands within what it names"),
    "many of them":  ([f"hosts.g{at}=[&a [{'1, ' * 100}], {'*a, ' * 99}]" for at in range(50)], "with it there are 20"),
    "a deep key":    (["defaults.options" + ".a" * 30_000 + "=1"], "KEY has 30002 parts; at most 64 were expected"),
    "a tag":         (["defaults.options=!!python/name:os.system"], "tag '!!python/name:os.system' is not accepted"),
    "a range":       (["hosts.web=['web[1-9999999]']"], "'web[1-9999999]' is 9999999 hosts; at most 10000"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), CHANGES.values(), ids=CHANGES)
def test_the_command_line_may_say_no_more_than_a_file(check, tmp_path, changes, said):
    path = tmp_path / "run.yaml"
    path.write_text(f"{HEAD}jobs: [{JOB}]\n")
    refused(check(path, changes), "blockjobs: --set ", said)


def refused(ended: Ended, begins: str, said: str) -> None:
    (line,) = ended.stderr.splitlines()
    assert line.startswith(begins)
    assert said in line
    assert len(line) < 1000
    assert (ended.returncode, ended.stdout) == (2, "")
    assert 0 < ended.memory < MEMORY
    assert ended.seconds < SECONDS


LARGE = {
    "2,000 jobs in long form": (
        HEAD + "jobs:\n" + "".join(
            f"- {{id: job{at}, type: backup, sync: full, speed: 200MiB, source: 'web{at}:/srv/images/root.img', "
            f"target: 'web{at}:/backup/{{run}}/root.img'}}\n" for at in range(2000)),
        "2000 jobs on 2000 hosts",
    ),
    "10,000 jobs in short form": (
        short(hosts="['web[1-1000]']", sources=", ".join(f"/srv/{at}.img" for at in range(10))),
        "10000 jobs on 1000 hosts",
    ),
    "1,000 jobs that share what an anchor says": (
        HEAD + "defaults: &all {speed: 5MiB, digests: false}\njobs:\n" + "".join(
            f"- {{<<: *all, id: job{at}, source: 'web{at}:/srv/root.img', target: 'web{at}:/backup/root.img'}}\n"
            for at in range(1000)),
        "1000 jobs on 1000 hosts",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), LARGE.values(), ids=LARGE)
def test_a_large_honest_file_is_read_in_a_few_seconds(check, tmp_path, text, said):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    ended = check(path)
    assert ended.returncode == 0
    assert said in ended.stdout.splitlines()[1]
    assert ended.seconds < 10
    assert 0 < ended.memory < 2 * MEMORY


# --- what stands behind an alias ----------------------------------------------------------------------


@pytest.fixture
def read(tmp_path):
    def read(text, *changes):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return runfile.read_run_file(path, changes)

    return read


def test_a_change_of_one_job_changes_no_other_job_that_shares_its_anchor(read):
    text = short(sources="/srv/a").replace("- {name: t,", "- &t {name: t,") + "- {<<: *t, name: u, hosts: [g]}\n"
    file = read(text, "transactions.t.hosts.0=changed").file
    assert [txn.hosts for txn in file.transactions] == [("changed",), ("g",)]
    shared = HEAD + "hosts: {a: &a [h1, h2], b: *a}\njobs: [" + JOB + "]\n"
    assert read(shared, "hosts.a.0=changed").file.hosts == {"a": ("changed", "h2"), "b": ("h1", "h2")}


def test_a_merge_gives_what_its_mapping_lacks_and_the_first_of_many_gives_it(read):
    text = HEAD + "stores: {a: &a {path: /a, jobs: 1}, b: &b {path: /b, speed: 5}, c: {<<: [*a, *b], jobs: 3}}\n"
    store = read(text + f"jobs: [{JOB}]\n").file.stores["c"]
    assert (store.path, store.jobs, store.speed) == ("/a", 3, 5)


def test_the_files_that_patterns_match_count_as_jobs(read):
    plan = read(short(sources="'/srv/*.img'"))
    (glob,) = plan.globs()
    found = {glob: tuple(f"/srv/{at}.img" for at in range(limits.JOBS + 1))}
    with pytest.raises(BadInput, match=f"there are {limits.JOBS + 1} jobs; at most {limits.JOBS} were expected"):
        plan.plan(NOW, FleetFacts(found=found))


# --- options ------------------------------------------------------------------------------------------

OPTIONS = {
    "backup":         ("jobs: [{id: a, options: {x: 1}, AT}]", "jobs[0].options: option 'x' is not accepted by type 'backup'"),
    "mirror":         ("jobs: [{id: a, type: mirror, options: {granularity: 4096}, AT}]", "accepted by type 'mirror'; a type of"),
    "restore":        ("jobs: [{id: a, type: restore, options: {froce: true}, AT}]", "type 'restore'; one of force, keep-digests"),
    "restore-yes":    ("jobs: [{id: a, type: restore, options: {force: 'no'}, AT}]", "'no' is not accepted; true or false was"),
    "verify":         ("jobs: [{id: a, type: verify, options: {job: b}, AT}]", "is not accepted by type 'verify'"),
    "a-transaction":  ("transactions: [{name: t, options: {x: 1}, jobs: [{id: a, AT}]}]", "option 'x' is not accepted"),
    "a-short-form":   ("transactions: [{name: t, options: {x: 1}, hosts: h, sources: [/a], target: /b}]", "option 'x' is not"),
    "defaults":       ("defaults: {options: {x: 1}}\njobs: [{id: a, AT}]", ":3: defaults.options: option 'x' is not accepted"),
    "a-number":       (f"jobs: [{{id: a, type: scrub, options: {{x: {1 << 70}}}, AT}}]", "a number of at most 64 bits was expected"),
    "a-date":         ("jobs: [{id: a, type: scrub, options: {x: 2026-01-01}, AT}]", "a text, in quotation marks, was expected"),
    "a-key":          ("jobs: [{id: a, type: scrub, options: {x: [{1: 2}]}, AT}]", "1 is not accepted; a text was expected"),
    "a-list":         ("jobs: [{id: a, type: scrub, options: [1], AT}]", "jobs[0].options: [1] is not accepted; a mapping was"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_no_driver_understands_are_refused(read, text, said):
    with pytest.raises(BadInput) as refusal:
        read(f"{HEAD}{text.replace('AT', 'source: `h:/a`, target: `h:/b`'.replace('`', chr(39)))}\n").plan(NOW)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_options_of_a_restore_and_of_drivers_of_others_are_passed_on(read):
    text = (
        "defaults: {options: {rounds: 3, force: true}}\njobs:\n"
        "- {id: a, source: 'h:/a', target: 'h:/b'}\n"
        "- {id: b, type: restore, source: 'h:/c', target: 'h:/d'}\n"
        "- {id: c, type: scrub, source: 'h:/e', target: 'h:/f'}\n"
    )
    assert [job.options for job in read(HEAD + text).plan(NOW).jobs] == [
        {}, {"force": True}, {"rounds": 3, "force": True},
    ]  # fmt: skip


# --- what else users write ----------------------------------------------------------------------------

VOLUMES = {
    "deep":         '{"driver": ' + "[" * 30_000,
    "a key twice":  '{"host": "a", "host": "b"}',
    "a number":     '{"host": "a", "driver": "null-co", "size": 1' + "0" * 5000 + "}",
    "no number":    '{"host": "a", "driver": "null-co", "size": NaN}',
    "half":         '{"host": "\\ud800"}',
}  # fmt: skip


@pytest.mark.parametrize("text", VOLUMES.values(), ids=VOLUMES)
def test_a_volume_of_the_command_line_is_json_within_limits(text):
    with pytest.raises(BadInput, match=r"^volume '.{1,60}'.*; a JSON object .*was expected$") as refusal:
        parse_typed_volume(text)
    assert len(str(refusal.value)) < 400


HOSTS = {
    "deep":     "x = " + "[" * 30_000,
    "a date":   "x = 2026-01-01",
    "devices":  "devices = 5",
    "large":    "#" * (1 << 21),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTS.values(), ids=HOSTS)
def test_a_host_toml_that_up_cannot_keep_is_refused_by_name(tmp_path, text):
    path = tmp_path / "hosts" / "a.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BadInput, match=f"^{path}: .*(was|were) expected") as refusal:
        write_host(tmp_path, LocalHost(Host("a"), tmp_path), 2)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_up_keeps_the_commands_of_a_host_toml(tmp_path):
    path = tmp_path / "hosts" / "a.toml"
    path.parent.mkdir()
    path.write_text('[commands]\nlvm = ["/bin/lvm", "20%"]\n')
    for _ in range(2):
        write_host(tmp_path, LocalHost(Host("a"), tmp_path), 2)
    assert tomllib.loads(path.read_text())["commands"] == {"lvm": ["/bin/lvm", "20%"]}
