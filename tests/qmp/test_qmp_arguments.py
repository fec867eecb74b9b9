"""Arguments of the wrong shape, and what is refused before a job is made, in QEMU's words and QEMU's order."""

from __future__ import annotations

import pytest
from talk import action

BACKUP = {"job_id": "j", "device": "a", "target": "b", "sync": "full"}
SHAPES = [  # command, arguments, refusal
    ("job-pause", {}, "Parameter 'id' is missing"),
    ("job-pause", {"id": 1}, "Invalid parameter type for 'id', expected: string"),
    ("job-pause", {"id": None}, "Invalid parameter type for 'id', expected: string"),
    ("job-pause", {"id": "j", "force": True}, "Parameter 'force' is unexpected"),
    ("job-pause", {"device": "j"}, "Parameter 'id' is missing"),
    ("query-jobs", {"a": 1}, "Parameter 'a' is unexpected"),
    ("block-job-cancel", {"device": "j", "force": 1}, "Invalid parameter type for 'force', expected: boolean"),
    ("block-job-set-speed", {"device": "j"}, "Parameter 'speed' is missing"),
    ("block-job-set-speed", {"speed": 1}, "Parameter 'device' is missing"),
    ("block-job-set-speed", {"device": "j", "speed": "1"}, "Invalid parameter type for 'speed', expected: integer"),
    ("block-job-set-speed", {"device": "j", "speed": 1.0}, "Invalid parameter type for 'speed', expected: integer"),
    ("block-job-set-speed", {"device": "j", "speed": True}, "Invalid parameter type for 'speed', expected: integer"),
    ("block-job-set-speed", {"device": "j", "speed": 1 << 63}, "Invalid parameter type for 'speed', expected: integer"),
    ("block-job-set-speed", {"device": "j", "speed": 1 << 70}, "Invalid parameter type for 'speed', expected: integer"),
    ("blockdev-backup", {}, "Parameter 'device' is missing"),
    ("blockdev-backup", {"device": "a"}, "Parameter 'sync' is missing"),
    ("blockdev-backup", {"device": "a", "sync": "full"}, "Parameter 'target' is missing"),
    ("blockdev-backup", {**BACKUP, "sync": "bogus"}, "Parameter 'sync' does not accept value 'bogus'"),
    ("blockdev-backup", {**BACKUP, "sync": 1}, "Invalid parameter type for 'sync', expected: string"),
    ("blockdev-backup", {**BACKUP, "on_source_error": "x"}, "Parameter 'on-source-error' does not accept value 'x'"),
    ("blockdev-backup", {**BACKUP, "bitmap_mode": "bogus"}, "Parameter 'bitmap-mode' does not accept value 'bogus'"),
    ("blockdev-backup", {**BACKUP, "x_perf": {"bogus": 1}}, "Parameter 'x-perf.bogus' is unexpected"),
    ("blockdev-backup", {**BACKUP, "x_perf": 1}, "Invalid parameter type for 'x-perf', expected: object"),
    ("blockdev-backup", {**BACKUP, "format": "raw"}, "Parameter 'format' is unexpected"),
    ("blockdev-mirror", {**BACKUP, "granularity": -1}, "Parameter 'granularity' expects uint32_t"),
    ("blockdev-mirror", {**BACKUP, "granularity": 1 << 32}, "Parameter 'granularity' expects uint32_t"),
    ("drive-mirror", {**BACKUP, "unmap": 1}, "Invalid parameter type for 'unmap', expected: boolean"),
    ("drive-mirror", {**BACKUP, "mode": "bogus"}, "Parameter 'mode' does not accept value 'bogus'"),
    ("drive-mirror", {**BACKUP, "filter_node_name": "f"}, "Parameter 'filter-node-name' is unexpected"),
    ("block_resize", {"node_name": "a"}, "Parameter 'size' is missing"),
    ("block_resize", {"size": 1}, "Cannot find device='' nor node-name=''"),
    ("transaction", {}, "Parameter 'actions' is missing"),
    ("transaction", {"actions": 1}, "Invalid parameter type for 'actions', expected: array"),
    ("transaction", {"actions": [1]}, "Invalid parameter type for 'actions[0]', expected: object"),
    ("transaction", {"actions": [{"type": "Abort", "data": {}}]}, "Parameter 'type' does not accept value 'Abort'"),
    ("transaction", {"actions": [{"type": "abort"}]}, "Parameter 'actions[0].data' is missing"),
    ("transaction", {"actions": [{"type": "abort", "data": {"x": 1}}]}, "Parameter 'actions[0].data.x' is unexpected"),
    (
        "transaction",
        {"actions": [{"type": "abort", "data": {}}, {"type": "blockdev-backup", "data": {"device": "a"}}]},
        "Parameter 'actions[1].data.sync' is missing",
    ),
    (
        "transaction",
        {"actions": [], "properties": {"completion-mode": "x"}},
        "Parameter 'completion-mode' does not accept value 'x'",
    ),
    ("transaction", {"actions": [], "properties": {"x": 1}}, "Parameter 'properties.x' is unexpected"),
    ("blockdev-add", {"node_name": "x"}, "Parameter 'driver' is missing"),
    ("blockdev-add", {"driver": "bogus", "node_name": "x"}, "Parameter 'driver' does not accept value 'bogus'"),
    ("blockdev-add", {"driver": "file", "node_name": "x"}, "Parameter 'filename' is missing"),
    ("blockdev-add", {"driver": "file", "filename": "/x", "x": 1}, "Parameter 'x' is unexpected"),
    ("blockdev-add", {"driver": "blkdebug", "image": 1}, "Invalid parameter type for 'image', expected: BlockdevRef"),
    ("blockdev-add", {"driver": "blkdebug", "image": {"driver": "file"}}, "Parameter 'image.filename' is missing"),
    (
        "blockdev-add",
        {"driver": "blkdebug", "image": "a", "inject_error": [{"event": "none", "errno": "x"}]},
        "Invalid parameter type for 'inject-error[0].errno', expected: integer",
    ),
    ("blockdev-add", {"driver": "file", "filename": "/x"}, "'node-name' must be specified for the root node"),
    ("blockdev-add", {"driver": "file", "filename": "/x", "node_name": "0x"}, "Invalid node-name: '0x'"),
    ("blockdev-del", {"node_name": "nope"}, "Failed to find node with node-name='nope'"),
]


@pytest.mark.parametrize(("command", "words", "refusal"), SHAPES)
def test_arguments_of_the_wrong_shape_are_refused_as_qemu_does(talk, command, words, refusal):
    assert talk.no(command, **words) == refusal


def test_a_command_that_means_nothing_here_is_not_found(talk):
    for command in ("quit", "blockdev-snapshot", "block-stream", "nbd-server-start", "Job-pause", ""):
        assert talk.refused(command) == ("CommandNotFound", f"The command {command} has not been found")
    known = {each["name"] for each in talk.ok("query-commands")}
    assert {"qmp_capabilities", "transaction", "job-pause", "x-events-since"} <= known


def test_the_schema_describes_every_command_and_every_type_it_names(talk):
    entities = {each["name"]: each for each in talk.ok("query-qmp-schema")}
    assert len(entities) == len(talk.ok("query-qmp-schema"))
    commands = {name for name, each in entities.items() if each["meta-type"] == "command"}
    assert commands | {"qmp_capabilities"} == {each["name"] for each in talk.ok("query-commands")}
    assert entities["BLOCK_JOB_PENDING"]["meta-type"] == "event"

    def named(value):
        for key, each in value.items():
            if key in ("type", "arg-type", "ret-type", "element-type"):
                yield each
            elif key in ("members", "variants"):
                for member in each:
                    yield from named(member)

    for each in entities.values():
        assert set(named(each)) <= set(entities), each
    backup = entities[entities["blockdev-backup"]["arg-type"]]["members"]
    assert [member["name"] for member in backup if "default" not in member] == ["device", "sync", "target"]


REFUSED = [  # what of a backup from a to b is otherwise, and the refusal; each wins over those below it
    ({"device": "nope", "target": "nope2"}, "Cannot find device='nope' nor node-name='nope'"),
    ({"target": "nope", "sync": "bitmap"}, "Cannot find device='nope' nor node-name='nope'"),
    ({"sync": "incremental", "target": "a"}, "must provide a valid bitmap name for 'incremental' sync mode"),
    ({"sync": "bitmap", "target": "a"}, "must provide a valid bitmap name for 'bitmap' sync mode"),
    (
        {"sync": "incremental", "bitmap": "x", "bitmap_mode": "never", "target": "a"},
        "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'",
    ),
    ({"bitmap": "x", "target": "a"}, "Bitmap 'x' could not be found"),
    ({"bitmap_mode": "always", "target": "a"}, "Cannot specify bitmap sync mode without a bitmap"),
    ({"target": "a", "compress": True}, "Source and target cannot be the same"),
    ({"target": "small", "compress": True}, "Compression is not supported for this drive "),
    ({"target": "small", "x_perf": {"max-workers": 0}}, "max-workers must be between 1 and 2147483647"),
    ({"target": "small", "x_perf": {"max-chunk": -1}}, "max-chunk must be zero (which means no limit) or positive"),
    ({"target": "small", "job_id": "0j"}, "Source and target image have different sizes"),
    ({"job_id": "0j", "speed": -1}, "Invalid job ID '0j'"),
    ({"job_id": "", "speed": -1}, "Invalid job ID ''"),
    ({"job_id": "é"}, "Invalid job ID 'é'"),
    ({"speed": -1}, "Parameter 'speed' expects a non-negative value"),
]


def test_a_backup_is_refused_by_the_first_check_that_fails_and_leaves_nothing(monitor, images):
    for words, refusal in REFUSED:
        assert monitor.no("blockdev-backup", **{**BACKUP, **words}) == refusal
        bad = {"job": "j", "device": "a", "target": "b", **words}
        job, device, target = (bad.pop(name) for name in ("job", "device", "target"))
        bad = {("job-id" if name == "job_id" else name): value for name, value in bad.items()}
        good = action("good", "c", "d")
        assert monitor.no("transaction", actions=[good, action(job, device, target, **bad)]) == refusal
    assert monitor.no("blockdev-backup", device="a", target="b", sync="full") == "Invalid job ID ''"
    assert monitor.ok("query-jobs") == []
    assert sorted(path.name for path in images.iterdir() if path.name != ".blockjobs") == [
        *(f"{name}.img" for name in "abcde"), "small.img",
    ]  # fmt: skip


def test_what_is_not_there_cannot_be_opened(monitor, fleet, images):
    def refusal(**words):
        return monitor.no("blockdev-add", node_name="x", **words)

    missing = f"{images}/nothing"
    assert refusal(driver="file", filename=missing) == f"Could not open '{missing}': No such file or directory"
    assert refusal(driver="file", filename=str(images)) == f"Could not open '{images}': Is a directory"
    assert refusal(driver="file", filename="/etc/passwd") == (
        f"Could not open '/etc/passwd': /etc/passwd is outside the read roots of host a ({images})"
    )
    assert refusal(driver="file", filename="x.img") == (
        "path 'x.img' is not absolute: a path that begins with '/' was expected"
    )
    assert refusal(driver="null-co", host="nowhere") == (
        "host 'nowhere' is not known: no worker has registered under this name"
    )
    assert refusal(driver="raw", file="nope") == "Cannot find device='nope' nor node-name='nope'"
    assert monitor.no("blockdev-add", node_name="a", driver="null-co") == "Duplicate nodes with node-name='a'"


def test_what_is_in_use_is_busy(monitor, images):
    busy = "Node '{}' is busy: block device is in use by block job: backup"
    monitor.backup("j", "a", "b", speed=1)
    assert monitor.no("blockdev-backup", job_id="k", device="c", target="b", sync="full") == busy.format("b")
    assert monitor.no("blockdev-backup", job_id="k", device="b", target="c", sync="full") == busy.format("b")
    assert monitor.no("blockdev-backup", job_id="k", device="c", target="a", sync="full") == busy.format("a")
    assert monitor.no("blockdev-backup", job_id="j", device="c", target="d", sync="full") == "Job ID 'j' already in use"
    assert monitor.no("blockdev-mirror", job_id="k", device="a", target="d", sync="full") == "Need a root block node"
    assert monitor.no("blockdev-del", node_name="b") == busy.format("b")
    assert monitor.no("blockdev-del", node_name="a") == "Block device a is in use"
    monitor.backup("k", "a", "d", speed=1)  # two may read one
    twice = [action("x", "a", "c"), action("y", "d", "c")]
    assert monitor.no("transaction", actions=twice) == busy.format("d")
    assert monitor.no("transaction", actions=[action("x", "a", "c"), action("x", "e", "c")]) == busy.format("c")
    assert monitor.no("transaction", actions=[action("x", "a", "c"), action("x", "a", "e")]) == (
        "Job ID 'x' already in use"
    )


def test_a_node_stays_while_others_are_built_on_it(monitor, images):
    monitor.ok("blockdev-add", driver="raw", node_name="top", file="a")
    assert monitor.no("blockdev-del", node_name="a") == "Block device a is in use"
    assert monitor.no("blockdev-mirror", job_id="k", device="a", target="d", sync="full") == "Need a root block node"
    monitor.ok("blockdev-del", node_name="top")
    monitor.ok("blockdev-del", node_name="a")


def test_a_node_is_described_as_qemu_does(monitor, images):
    found = {node["node-name"]: node for node in monitor.ok("query-named-block-nodes")}
    assert set(found) == {*"abcde", "small"}
    node = found["small"]
    assert (node["drv"], node["file"], node["ro"]) == ("file", f"{images}/small.img", False)
    assert node["image"]["virtual-size"] == 1 << 20
