"""Run files: what a good one becomes, and the one line that a bad one gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from blockjobs.cli import runfile
from blockjobs.model import runs, templates, volumespec
from blockjobs.model.errors import BadInput
from blockjobs.model.jobs import JobSpec, OnChange, OnDamage, OnError
from blockjobs.model.numbers import MOST
from blockjobs.model.volumespec import DebugVolume, FileVolume, InjectedError, NullVolume

NOW = datetime(2026, 11, 22, 11, 30, 0, tzinfo=timezone(timedelta(hours=1)))
RUN = "nightly-20261122T103000Z"
NIGHTLY = """\
version: 1
name: nightly
completion-mode: grouped
defaults: {speed: 200MiB, on-target-error: enospc}
jobs:
  - {id: web1-root, type: backup, sync: full, source: "web1:/srv/root.img", target: "web1:/backup/{run}/root.img"}
  - {id: db1-data,  type: backup, sync: full, source: "db1:/srv/data.img",  target: "db1:/backup/data-{date}.img"}
"""
ONE = """\
version: 1
name: nightly
jobs:
- id: one
  source: {source}
  target: {target}
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return runfile.load_run_file(path, now=NOW)

    return load


@pytest.fixture
def refusal(load, tmp_path):
    def refusal(text):
        """The message without the directory of the file; one line, always."""
        with pytest.raises(BadInput) as refused:
            load(text)
        message = str(refused.value)
        assert "\n" not in message
        assert message.startswith(f"{tmp_path}/run.yaml")
        return message.removeprefix(f"{tmp_path}/")

    return refusal


def one(source="h:/srv/a", target="h:/backup/a", more=""):
    return ONE.replace("{source}", source).replace("{target}", target) + more


def test_a_grouped_file_is_one_transaction(load):
    plan = load(NIGHTLY)
    assert (plan.run, plan.name, plan.grouped) == (RUN, "nightly", True)
    (members,) = plan.transactions
    assert [job.id for job in members] == [f"{RUN}.web1-root", f"{RUN}.db1-data"]
    assert {job.transaction for job in members} == {RUN}
    assert {job.run for job in plan.jobs} == {RUN}


def test_an_individual_file_is_a_transaction_a_job(load):
    plan = load(NIGHTLY.replace("grouped", "individual"))
    assert not plan.grouped
    assert [[job.transaction for job in members] for members in plan.transactions] == [
        [f"{RUN}.web1-root"],
        [f"{RUN}.db1-data"],
    ]


def test_words_are_expanded_and_the_base_is_what_must_exist(load):
    root, data = load(NIGHTLY).jobs
    assert root.target.text == f"web1:/backup/{RUN}/root.img"
    assert data.target.text == "db1:/backup/data-2026-11-22.img"
    assert root.target_base == data.target_base == "/backup"


def test_defaults_hold_for_every_job_that_does_not_say_otherwise(load):
    text = NIGHTLY.replace("{id: db1-data,", "{id: db1-data, speed: 1.5GiB/s, on-target-error: stop, digests: false,")
    root, data = load(text).jobs
    assert (root.speed, root.on_target_error, root.digests) == (200 << 20, OnError.ENOSPC, True)
    assert (data.speed, data.on_target_error, data.digests) == (3 << 29, OnError.STOP, False)
    assert type(data.on_target_error) is OnError
    assert type(data.on_source_change) is OnChange


def test_a_volume_may_be_a_mapping_of_qemu_s_keys(load):
    rule = "{event: none, iotype: read, errno: 5, sector: 88064, once: false}"
    image = "{driver: file, filename: '/srv/{name}.img'}"
    (job,) = load(one(f"{{driver: blkdebug, host: h, image: {image}, inject-error: [{rule}]}}")).jobs
    assert job.source.volume == DebugVolume(
        FileVolume("/srv/one.img"), (InjectedError("none", "read", 5, 88064, once=False),)
    )


def test_null_volumes_are_never_in_each_other_s_way(load):
    null = "{driver: null-co, host: h, size: 1048576}"
    more = f"- {{id: two, source: {null}, target: {null}}}\n"
    for job in load(one(null, null, more)).jobs:
        assert job.target.volume == NullVolume(size=1 << 20)
        assert job.target_base == ""


@pytest.mark.parametrize(
    ("written", "number"),
    [(0, 0), (4096, 4096), ("0", 0), ("512", 512), ("512B", 512), ("1kB", 1000), ("2MB", 2_000_000), ("1KiB", 1024),
     ("200MiB", 200 << 20), ("200 MiB/s", 200 << 20), ("1.5GiB/s", 3 << 29), ("1TiB", 1 << 40), ("0.1GB", 10**8),
     ((1 << 53) + 1, (1 << 53) + 1), (str((1 << 53) + 1), (1 << 53) + 1), (10**17, 10**17), (MOST - 1, MOST - 1),
     (str(MOST), MOST), (MOST, MOST), ("8388607TiB", ((1 << 23) - 1) << 40)],
)  # fmt: skip
def test_sizes(written, number):
    assert runfile.parse_size(written) == number
    assert type(runfile.parse_size(written)) is int


@pytest.mark.parametrize(
    "written",
    [-1, True, None, 1.5, "", "MiB", "-1MiB", "1Mb", "1 mib", "1e9", "0x10", 1 << 63, str(1 << 63), "1.5", "1.5B",
     1e17, "8388608TiB", "1" * 5000, "²"],
)  # fmt: skip
def test_what_is_not_a_size(written):
    with pytest.raises(ValueError, match="is not a size; a number of bytes, 0 or more, or a text such as 200MiB"):
        runfile.parse_size(written)


LINE_7 = [  # added to the second job of NIGHTLY, and what is said about it
    ("speed: -1",           "jobs[1].speed: -1 is not a size; a number of bytes, 0 or more"),
    ("speed: true",         "jobs[1].speed: true is not a size; a number of bytes, 0 or more"),
    ("digests: no",         "jobs[1].digests: 'no' is not accepted; true or false was expected"),
    ("overwrite: 1",        "jobs[1].overwrite: 1 is not accepted; true or false was expected"),
    ("auto-dismiss: null",  "jobs[1].auto-dismiss: null is not accepted; true or false was expected"),
    ("stall-limit: true",   "jobs[1].stall-limit: true is not accepted; a whole number was expected"),
    ("stall-limit: 0",      "jobs[1].stall-limit: 0 is not accepted; a number of at least 1 was expected"),
    ("on-source-error: x",  "jobs[1].on-source-error: 'x' is not accepted; 'report', 'ignore', 'enospc', 'stop',"),
    ("sped: 5",             "jobs[1].sped: unknown field; one of auto-dismiss, auto-finalize, buf-size,"),
    ("5: 5",                "jobs[1][5]: 5 is not accepted"),
    ("id: again",           'found duplicate key "id"'),
]  # fmt: skip


@pytest.mark.parametrize(("field", "said"), LINE_7, ids=[field for field, _ in LINE_7])
def test_a_bad_field_is_named_with_its_line(refusal, field, said):
    message = refusal(NIGHTLY.replace("db1-data.img", "x").removesuffix("}\n") + f", {field}}}\n")
    assert message.removeprefix("run.yaml:7:116:").removeprefix("run.yaml:7:").strip().startswith(said)


WHOLE = {
    "empty": ("", "run.yaml: nothing is in it; a run file was expected"),
    "a-list": ("[]", "run.yaml:1: [] is not accepted; a mapping was expected"),
    "malformed": ("version: 1\nname: [a\n", "run.yaml:3:1: expected ',' or ']'"),
    "tabs": ("version: 1\n\tname: a\n", "run.yaml:2:1: found character '\\t'"),
    "duplicate-key": ("version: 1\nversion: 1\n", 'run.yaml:2:1: found duplicate key "version"'),
    "two-documents": ("version: 1\n---\nversion: 1\n", "run.yaml:2:1: but found another document"),
    "code": ("!!python/object/apply:os.system [id]", "run.yaml:1:1: tag '!!python/object/apply:os.system' is"),
    "nul": ("version: \0", "run.yaml:1:10: unacceptable character #x0000"),
    "not-utf8": (b"name: \xff", "run.yaml: byte 6 is not UTF-8"),
    "too-deep": ("[" * 5000, "run.yaml:1:65: nested too deeply: 65 lists and mappings"),
    "bad-date": ("version: 2026-13-45", "run.yaml:1:10: month must be in 1..12"),
    "version-2": ("version: 2\nname: a\n", "run.yaml:1: version: 2 is not supported; 1 was expected"),
    "version-true": ("version: true\nname: a\n", "run.yaml:1: version: true is not supported; 1 was expected"),
    "no-jobs": ("version: 1\nname: a\njobs: []\n", "run.yaml:3: jobs: [] is not accepted; at least 1 of them was"),
    "jobs-missing": ("version: 1\nname: a\n", "run.yaml:1: jobs: missing; a list of jobs, or of transactions, was"),
    "bad-name": (NIGHTLY.replace("nightly", "a b"), "run.yaml:2: name: invalid run name 'a b': a letter, then letters"),
    "bad-mode": (NIGHTLY.replace("grouped", "both"), "run.yaml:3: completion-mode: 'both' is not accepted; 'grouped'"),
    "bad-default": (NIGHTLY.replace("200MiB", "fast"), "run.yaml:4: defaults.speed: 'fast' is not a size"),
    "default-id": (NIGHTLY.replace("speed:", "id:"), "run.yaml:4: defaults.id: unknown field; one of auto-dismiss"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WHOLE.values(), ids=WHOLE)
def test_a_bad_file_gets_one_line(refusal, text, said):
    assert refusal(text).startswith(said)


JOBS = {
    "bad-id": (one().replace("one", "0ne"), "run.yaml:4: jobs[0].id: Invalid job ID '0ne'"),
    "long-id": (one().replace("one", "o" * 180), "run.yaml:4: jobs[0].id: Invalid job ID"),
    "number-id": (one().replace("one", "1"), "run.yaml:4: jobs[0].id: 1 is not accepted; a text was expected"),
    "duplicate-id": (one(more="- {id: one, source: 'h:/c', target: 'h:/d'}\n"), "run.yaml:7: jobs[1].id: duplicate id"),
    "same-target": (
        one(more="- {id: two, source: 'h:/c', target: 'h:/backup/a'}\n"),
        "run.yaml:7: jobs[1].target: jobs[0] has the same target h:/backup/a",
    ),
    "target-is-a-source": (
        one(more="- {id: two, source: 'h:/backup/a', target: 'h:/d'}\n"),
        "run.yaml:6: jobs[0].target: h:/backup/a is the source of jobs[1]",
    ),
    "target-equals-source": (one("h:/a", "h:/a"), "run.yaml:6: jobs[0].target: target equals source (h:/a)"),
    "two-hosts": (
        one("a:/srv/a", "b:/backup/a"),
        "run.yaml:6: jobs[0].target: copying between hosts is not supported yet: source is on 'a', target on 'b'",
    ),
    "no-host": (one("/srv/a"), "run.yaml:5: jobs[0].source: volume '/srv/a': 'HOST:/PATH' was expected"),
    "relative": (one("h:srv/a"), "run.yaml:5: jobs[0].source: path 'srv/a' is not absolute"),
    "dot-dot": (one("h:/srv/../etc/shadow"), "run.yaml:5: jobs[0].source: path '/srv/../etc/shadow' has an empty part"),
    "nul": (one(target='"h:/b\\0"'), "run.yaml:6: jobs[0].target: path '/b\\x00' has a control character"),
    "number": (one("5"), "run.yaml:5: jobs[0].source: 5 is not a volume; 'HOST:/PATH' or a mapping"),
    "unknown-word": (one(target="h:/b/{day}"), "run.yaml:6: jobs[0].target: unknown word '{day}' in '/b/{day}'"),
    "single-brace": (one(target="h:/b/{x"), "run.yaml:6: jobs[0].target: path '/b/{x' has a single brace"),
    "device-target": (
        one(target="{driver: host_device, host: h, filename: /dev/sda}"),
        "run.yaml:6: jobs[0].target: h:/dev/sda is a block device; a file was expected",
    ),
    "unknown-driver": (one("{driver: qcow3, host: h}"), "run.yaml:5: jobs[0].source: Parameter 'driver' does not"),
    "contains-itself": (
        one("&a {driver: blkdebug, host: h, image: *a}"),
        "run.yaml:5:49: alias '*a' stands within what it names",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), JOBS.values(), ids=JOBS)
def test_a_bad_job_is_named_with_its_line(refusal, text, said):
    assert refusal(text).startswith(said)


def test_of_many_mistakes_the_first_in_the_file_is_told(refusal):
    assert refusal(NIGHTLY.replace("full", "some")).startswith("run.yaml:6: jobs[0].sync: 'some' is not accepted")


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "absent" if kind == "missing" else tmp_path
    with pytest.raises(BadInput, match=f"^{path}: .*; a run file was expected$"):
        runfile.load_run_file(path, now=NOW)


# --- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "base"),
    [("/backup/{run}/root.img", "/backup"), ("/backup/data-{date}.img", "/backup"), ("/backup/a/b.img", "/backup/a"),
     ("/{run}/a", "/"), ("/a.img", "/"), ("/b/{{x}}/y/{run}", "/b/{x}/y")],
)  # fmt: skip
def test_the_base_ends_before_the_first_word(path, base):
    assert templates.base_directory(path) == base


def test_every_word_has_a_meaning_and_times_are_utc():
    meaning = templates.template_words("r-1", "job", NOW)
    expanded = templates.expand_volume("web1:/b/{run}/{date}/{time}/{host}/{name}/{{x}}", meaning)
    assert expanded == "web1:/b/r-1/2026-11-22/103000Z/web1/job/{x}"


# --- backup SOURCE TARGET ------------------------------------------------------------------------------


def test_backup_is_a_run_of_one_job():
    plan = runs.plan_backup("h:/srv/my disk.img", "h:/backup/{date}/{name}", now=NOW, speed=5, digests=False)
    (job,) = plan.jobs
    assert (plan.run, plan.grouped, job.transaction) == ("backup-20261122T103000Z", True, plan.run)
    assert volumespec.volume_label(job.target.volume) == "/backup/2026-11-22/my-disk.img"
    assert (job.id, job.target_base) == (f"{plan.run}.my-disk.img", "/backup")
    assert (job.speed, job.digests) == (5, False)


def test_backup_takes_an_id_as_given_and_a_host_for_both():
    (job,) = runs.plan_backup("/srv/a", "/backup/{host}-{name}", now=NOW, job_id="drive0", default_host="h").jobs
    assert (job.id, job.source.text, job.target.text) == ("drive0", "h:/srv/a", "h:/backup/h-drive0")


@pytest.mark.parametrize(("source", "target"), [("h:/a", "h:/a"), ("h:/a", "g:/b"), ("a", "h:/b"), ("h:/a", "h:/b\0")])
def test_backup_refuses_what_a_run_file_may_not_say(source, target):
    with pytest.raises(BadInput):
        runs.plan_backup(source, target, now=datetime.now(UTC))


# --- kinds of jobs ------------------------------------------------------------------------------------


def test_a_mirror_has_options_of_its_own_and_defaults_give_all_but_quiesce_to_mirrors_only(load):
    text = one(more="  type: mirror\n  sync: none\n  granularity: 4KiB\n") + (
        "- {id: two, source: 'h:/srv/b', target: 'h:/backup/b'}\ndefaults: {buf-size: 1MiB, quiesce: db}\n"
    )
    mirror, backup = load(text).jobs
    assert (mirror.type, mirror.sync) == ("mirror", "none")
    assert mirror.options == {"granularity": 4096, "buf-size": 1 << 20, "quiesce": "db"}
    assert (backup.type, backup.options) == ("backup", {"quiesce": "db"})


def test_a_backup_says_how_its_source_is_cut(load):
    text = one(more="  snapshot: command:lvm\n  live: true\n  quiesce: db\n")
    (job,) = load(text).jobs
    assert (job.snapshot, job.live, job.options) == ("command:lvm", True, {"quiesce": "db"})
    assert JobSpec.from_dict(job.to_dict()) == job
    (plain,) = load(one()).jobs
    assert (plain.snapshot, plain.live, plain.options) == ("auto", False, {})
    old = {key: value for key, value in plain.to_dict().items() if key not in ("snapshot", "live")}
    assert JobSpec.from_dict(old) == plain


def test_a_type_that_only_hosts_know_takes_any_options(load):
    (job,) = load(one(more="  type: scrub\n  sync: twice\n  options: {rounds: 3}\n")).jobs
    assert (job.type, job.sync, job.options) == ("scrub", "twice", {"rounds": 3})
    assert JobSpec.from_dict(job.to_dict()) == job


KINDS = {
    "granularity":      ("type: mirror\n  granularity: 3000", "granularity: Parameter 'granularity' expects a power"),
    "mirror-sync":      ("type: mirror\n  sync: incremental", "sync: Sync mode 'incremental' not supported"),
    "backup-sync":      ("sync: top",                         "sync: 'top' is not accepted; 'full' was expected"),
    "not-of-a-backup":  ("granularity: 4096",                 "granularity: not accepted by type 'backup'; type"),
    "no-snapshot":      ("snapshot: lvm",                     "snapshot: 'lvm' is not a snapshot: auto, reflink"),
    "no-command":       ("snapshot: 'command:'",              "snapshot: "),
    "frozen-for-what":  ("snapshot: none\n  quiesce: db",     "quiesce: a source is frozen for its cut"),
    "mirrors-follow":   ("type: mirror\n  snapshot: reflink", "snapshot: not accepted by type 'mirror'"),
    "live-or-not":      ("live: maybe",                       "live: 'maybe' is not accepted; true or false"),
    "no-name":          ("type: 5",                           "type: 5 is not accepted; a text was expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_what_a_kind_of_job_does_not_have_is_refused(refusal, case):
    more, said = KINDS[case]
    assert f"jobs[0].{said}" in refusal(one(more=f"  {more}\n"))


@pytest.mark.parametrize("source", ["h:/srv/disk.qcow2", "h:/dev/vg0/disk"])
def test_a_source_is_read_in_the_format_that_is_given(source):
    (job,) = runs.plan_backup(source, "h:/backup/disk.img", now=NOW, source_form="qcow2").jobs
    image = volumespec.format_image(job.source.volume)
    assert (image.driver, image.backing, image.alone) == ("qcow2", None, False)
    assert job.source.text == source
    assert volumespec.format_image(job.target.volume) is None
    (job,) = runs.plan_backup(source, "h:/backup/disk.img", now=NOW, source_form="raw").jobs
    assert volumespec.format_image(job.source.volume) is None


def test_a_format_is_not_put_on_a_source_that_says_its_own():
    source = {"host": "h", "driver": "qcow2", "file": {"driver": "file", "filename": "/srv/a"}}
    with pytest.raises(BadInput, match="cannot be read as 'vmdk': a file or a block device was expected"):
        runs.plan_backup(source, "h:/backup/disk.img", now=NOW, source_form="vmdk")


def test_damage_of_a_source_fails_a_job_or_is_reported(load):
    text = NIGHTLY.replace("{id: db1-data,", "{id: db1-data, on-source-damage: report,")
    root, data = load(text).jobs
    assert (root.on_source_damage, data.on_source_damage) == (OnDamage.FAIL, OnDamage.REPORT)
