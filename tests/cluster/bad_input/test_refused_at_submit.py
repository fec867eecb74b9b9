"""What a run file may not say, and what is none: refused, and nothing was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sites import DISK, FREE, Site, job

DEBUG = {"driver": "blkdebug", "host": "a", "image": {"driver": "file", "filename": "/x"}}
REFUSED: dict[str, tuple[list[dict[str, object]], str]] = {
    "unknown host":        ([job(source="zz:/a", target="zz:/b")], "host 'zz' is not known: no worker has registered"),
    "two hosts":           ([job(target="b:/x")], "jobs[0].target: copying between hosts is not supported yet"),
    "target is source":    ([job(target=DISK)], "jobs[0].target: target equals source (a:ROOT/disk.img)"),
    "two with one target": ([job(), job(id="k", source="a:ROOT/twin.img")], "jobs[1].target: jobs[0] has the same"),
    "target read by one":  ([job(), job(id="k", target="a:ROOT/x", source=FREE)], "new.img is the source of jobs[1]"),
    "dot dot, target":     ([job(target="a:ROOT/../b/x")], "path 'ROOT/../b/x' has an empty part, '.' or '..': a"),
    "dot dot, source":     ([job(source="a:ROOT/../../etc/passwd")], "jobs[0].source: path 'ROOT/../../etc/passwd'"),
    "dot":                 ([job(source="a:ROOT/./x")], "has an empty part, '.' or '..': a plain absolute path was"),
    "slash at the end":    ([job(target="a:ROOT/backup/")], "has an empty part, '.' or '..': a plain absolute path"),
    "relative":            ([job(source="a:disk.img")], "path 'disk.img' is not absolute: a path that begins with '/'"),
    "no host":             ([job(source="/disk.img")], "volume '/disk.img': 'HOST:/PATH' was expected"),
    "NUL":                 ([job(target="a:ROOT/x\0y")], "path 'ROOT/x\\x00y' has a control character: a plain"),
    "new line":            ([job(source="a:ROOT/x\ny")], "path 'ROOT/x\\ny' has a control character: a plain absolute"),
    "long part":           ([job(target="a:/" + "n" * 256)], "is too long: at most 255 bytes a part and 4095 in all"),
    "long path":           ([job(target="a:" + "/n" * 2049)], "is too long: at most 255 bytes a part and 4095 in all"),
    "unknown word":        ([job(target="a:ROOT/{day}")], "unknown word '{day}' in 'ROOT/{day}'; one of {run} {date}"),
    "unknown field":       ([job(sped=5)], "jobs[0].sped: unknown field; one of auto-dismiss, auto-finalize"),
    "duplicate id":        ([job(), job(target="a:ROOT/x")], "jobs[1].id: duplicate id "),
    "bad id":              ([job(id="1/2")], "jobs[0].id: Invalid job ID '1/2'"),
    "colors in an id":     ([job(id="\x1b[31m\n")], "jobs[0].id: Invalid job ID "),
    "negative speed":      ([job(speed=-1)], "jobs[0].speed: -1 is not a size; a number of bytes, 0 or more"),
    "boolean speed":       ([job(speed=True)], "jobs[0].speed: true is not a size; a number of bytes, 0 or more"),
    "endless speed":       ([job(speed=10**30)], "is not a size; a number of bytes, 0 or more, or a text such as"),
    "number for boolean":  ([job(digests=1)], "jobs[0].digests: 1 is not accepted; true or false was expected"),
    "no jobs":             ([], "jobs: [] is not accepted; at least 1 of them was expected"),
    "unknown driver":      ([job(source={"driver": "qed", "host": "a"})], "Parameter 'driver' does not accept value"),
    "boolean size":        ([job(source={"driver": "null-co", "host": "a", "size": True})], "for 'size', expected:"),
    "size of 2**70":       ([job(source={"driver": "null-co", "host": "a", "size": 1 << 70})], "'size' expects a"),
    "no error's number":   ([job(source={**DEBUG, "inject-error": [{"errno": 1 << 40}]})], "'errno' expects the"),
    "device as target":    ([job(target={"driver": "host_device", "host": "a", "filename": "/dev/x"})],
                            "jobs[0].target: a:/dev/x is a block device; a file was expected as target"),
    "path of a device":    ([job(target="a:/dev/x")], "a:/dev/x is a block device; a file was expected as target, or"),
    "in place, a file":    ([job(**{"in-place": True})], "new.img is no block device; with 'in-place: true' a path"),
    "in place, a number":  ([job(**{"in-place": 1})], "jobs[0].in-place: 1 is not accepted; true or false was"),
    "in place, a format":  ([job(target="a:/dev/x", format="qcow2", **{"in-place": True})], "a raw block device was"),
    "in place, in a group": ([job(target="a:/dev/x", **{"in-place": True}), job(id="k")],
                            "jobs[0].in-place: an abort of the group would leave a:/dev/x undefined; 'allow-in-place"),
    "range of a backup":   ([job(offset=5)], "jobs[0].offset: not accepted by type 'backup'; type 'restore' was"),
    "negative offset":     ([job(type="restore", offset=-1)], "jobs[0].offset: -1 is not a size; a number of bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("jobs", "said"), REFUSED.values(), ids=REFUSED)
def test_what_a_run_file_may_not_say_is_refused_and_nothing_is_started(site: Site, jobs, said):
    before = site.disks(), site.registry()
    site.say("run", site.file(*jobs)).refused(site.path(said))
    assert (site.disks(), site.registry()) == before


BOMB = "x"
for _level in range(20):  # a list of lists of lists, four times longer at each level
    BOMB = f"&a{_level} [{BOMB}{f', *a{_level - 1}' * 3 if _level else ', x, x, x'}]"

TEXTS: dict[str, tuple[bytes | str, str]] = {
    "empty":          ("", ": nothing is in it; a run file was expected"),
    "binary":         (b"\x7fELF\xff\x00", ": byte 4 is not UTF-8; a run file in UTF-8 was expected"),
    "NUL":            ("version: \0", ":1:10: unacceptable character #x0000"),
    "malformed":      ("version: 1\njobs: [\n", ":3:1: expected the node content, but found '<stream end>'; YAML 1.2"),
    "tab":            ("version: 1\n\tname: x\n", ":2:1: found character '\\t' that cannot start any token; YAML 1.2"),
    "duplicate key":  ("version: 1\nname: a\nname: b\n", ':3:1: found duplicate key "name"'),
    "a text":         ("backup everything\n", ":1: 'backup everything' is not accepted; a mapping was expected"),
    "code":           ("!!python/object/apply:os.system [id]", ":1:1: tag '!!python/object/apply:os.system' is not"),
    "long number":    ("version: 1" + "0" * 5000, ":1:10: a number is too long: 5001 characters; at most 100"),
    "deep":           ("[" * 1000, ":1:65: nested too deeply: 65 lists and mappings"),
    "in itself":      ("&a [*a]", ":1:5: alias '*a' stands within what it names"),
    "bomb":           (f"version: 1\nname: {BOMB}\njobs: []\n", " with all aliases expanded there are"),
    "bad name":       ("version: 1\nname: \"a\\n\\e[31mb\"\njobs: []\n", ":2: name: invalid run name"),
    "version 2":      ("version: 2\nname: a\n", ":1: version: 2 is not supported; 1 was expected"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS)
def test_what_is_no_run_file_is_refused(site: Site, text, said):
    before = site.registry()
    path = site.file()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    site.say("run", path).refused(f"{path}{said}" if said.startswith(":") else said)
    assert site.registry() == before


def test_a_run_file_that_cannot_be_read_is_refused(site: Site, tmp_path: Path):
    site.say("run", tmp_path / "none").refused("none: No such file or directory; a run file was expected")
    site.say("run", tmp_path).refused(": Is a directory; a run file was expected")
    site.say("run", tmp_path / "a\n\x1b[31mb").refused("a\\n\\x1b[31mb: No such file")
    site.say("run", "/dev/zero").refused("/dev/zero: the file is larger than 2097152 bytes; a run file was expected")
    os.truncate(path := site.file(), 1 << 40)
    site.say("run", path).refused("the file is larger than 2097152 bytes; a run file was expected")
