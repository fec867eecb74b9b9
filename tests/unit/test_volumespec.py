"""What users write for a volume: read, stored, read back; or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from errno import errorcode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockjobs.model.errors import BadInput
from blockjobs.model.volumespec import (
    FORMATS,
    IOTYPES,
    DebugVolume,
    DeviceVolume,
    FileVolume,
    FormatVolume,
    HostedVolume,
    InjectedError,
    NullVolume,
    bottom_volume,
    parse_volume,
    to_dict,
    volume_path,
)

FILE = {"driver": "file", "filename": "/srv/a.img"}


def test_the_short_form_is_a_file_on_a_host():
    assert (
        parse_volume("web1:/srv/a.img")
        == HostedVolume("web1", FileVolume("/srv/a.img"))
        == parse_volume({"host": "web1", **FILE})
    )
    assert parse_volume("/srv/a.img", default_host="web1") == parse_volume("web1:/srv/a.img")
    assert parse_volume("web2:/srv/a.img", default_host="web1").host == "web2"
    assert parse_volume("web1:/srv/a:b.img").text == "web1:/srv/a:b.img"


def test_the_issues_own_example_is_understood():
    rule = {"event": "none", "iotype": "read", "errno": 5, "sector": 88064, "once": False}
    volume = parse_volume({"driver": "blkdebug", "host": "db1", "image": FILE, "inject-error": [rule]}).volume
    assert volume == DebugVolume(FileVolume("/srv/a.img"), (InjectedError("none", "read", 5, 88064, once=False),))
    assert (bottom_volume(volume), volume_path(volume)) == (FileVolume("/srv/a.img"), "/srv/a.img")


def test_what_is_left_out_is_qemus_default():
    assert parse_volume({"driver": "null-co"}, default_host="h").volume == NullVolume(
        1 << 30, read_zeroes=False, latency_ns=0
    )
    assert volume_path(NullVolume()) is None
    debug = parse_volume(
        {"driver": "blkdebug", "image": {"driver": "null-co"}, "inject-error": [{}]}, default_host="h"
    ).volume
    assert debug.inject_error == (InjectedError("none", None, 5, None, once=False),)


paths = st.lists(st.text("abc-_.é ", min_size=1).filter(lambda p: p not in (".", "..")), min_size=1).map(
    lambda parts: "/" + "/".join(parts)
)
leaves = (
    paths.map(FileVolume)
    | paths.map(DeviceVolume)
    | st.builds(NullVolume, st.integers(0, 1 << 40), st.booleans(), st.integers(0, 1000))
)
rules = st.builds(
    InjectedError, st.just("none"), st.none() | st.sampled_from(IOTYPES), st.sampled_from(sorted(errorcode)),
    st.none() | st.integers(0, 1 << 40), st.booleans(),
)  # fmt: skip


def images(inner):
    """Of a format, with what can lie below one."""
    below = st.sampled_from([(None, True), (None, False)]) | st.tuples(inner, st.just(False))  # noqa: FBT003 - a value
    make = st.builds(FormatVolume, st.sampled_from(FORMATS), paths.map(FileVolume))
    return st.tuples(make, below).map(lambda both: replace(both[0], backing=both[1][0], alone=both[1][1]))


volumes = st.recursive(
    leaves,
    lambda inner: st.builds(DebugVolume, inner, st.lists(rules, max_size=3).map(tuple)) | images(inner),
    max_leaves=3,
)


@given(volumes.map(lambda volume: HostedVolume("web1", volume)))
def test_what_is_stored_is_read_back(hosted):
    assert parse_volume(to_dict(hosted)) == hosted


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("", "volume '': 'HOST:/PATH' was expected"),
        ("/srv/a.img", "volume '/srv/a.img': 'HOST:/PATH' was expected"),
        ("web1", "volume 'web1': 'HOST:/PATH' was expected"),
        (":/a", "volume ':/a': 'HOST:/PATH' was expected"),
        ("we b1:/a", "invalid host name 'we b1': letters, digits, '.', '-' and '_' were expected"),
        ("web1:a", "path 'a' is not absolute: a path that begins with '/' was expected"),
        ("web1:", "path '' is not absolute: a path that begins with '/' was expected"),
        ("web1:/", "path '/' has an empty part, '.' or '..': a plain absolute path was expected"),
        ("web1:/a/", "path '/a/' has an empty part, '.' or '..': a plain absolute path was expected"),
        ("web1:/a//b", "path '/a//b' has an empty part, '.' or '..': a plain absolute path was expected"),
        ("web1:/a/../b", "path '/a/../b' has an empty part, '.' or '..': a plain absolute path was expected"),
        ("web1:/a/./b", "path '/a/./b' has an empty part, '.' or '..': a plain absolute path was expected"),
        ("web1:/a\0b", "path '/a\\x00b' has a control character: a plain absolute path was expected"),
        ("web1:/a\nb", "path '/a\\nb' has a control character: a plain absolute path was expected"),
        ("web1:/a\udcffb", "path '/a\\udcffb' is not valid UTF-8: a path in UTF-8 was expected"),
        (5, "volume 5: 'HOST:/PATH' or a mapping with 'driver' and 'host' was expected"),
        (None, "volume None: 'HOST:/PATH' or a mapping with 'driver' and 'host' was expected"),
        (FILE, "volume: 'host' is missing: the name of the host that sees it was expected"),
        ({"host": 1, **FILE}, "volume: 'host' is missing: the name of the host that sees it was expected"),
        ({"host": "h"}, "Parameter 'driver' is missing"),
        ({"host": "h", "driver": "qed"}, "Parameter 'driver' does not accept value 'qed'"),
        ({"host": "h", "driver": "qcow2"}, "Parameter 'file' is missing"),
        ({"host": "h", "driver": "qcow2", "file": "/a"}, "Invalid parameter type for 'file', expected: object"),
        ({"host": "h", "driver": "qcow2", "file": {"driver": "null-co"}},
         "Parameter 'file' of driver 'qcow2' expects a file or a host_device"),
        ({"host": "h", "driver": "qcow2", "file": {"driver": "qcow2", "file": FILE}},
         "Parameter 'file' of driver 'qcow2' expects a file or a host_device"),
        ({"host": "h", "driver": "qcow2", "file": FILE, "backing": "/a"},
         "Invalid parameter type for 'backing', expected: object"),
        ({"host": "h", "driver": "vmdk", "file": FILE, "size": 1}, "Parameter 'size' is unexpected"),
        ({"host": "h", "driver": "file"}, "Parameter 'filename' is missing"),
        ({"host": "h", "driver": "file", "filename": 5}, "Invalid parameter type for 'filename', expected: string"),
        ({"host": "h", **FILE, "size": 1}, "Parameter 'size' is unexpected"),
        ({"host": "h", "driver": "null-co", "size": True}, "Invalid parameter type for 'size', expected: integer"),
        ({"host": "h", "driver": "null-co", "size": 1.5}, "Invalid parameter type for 'size', expected: integer"),
        ({"host": "h", "driver": "null-co", "size": -1},
         "null-co: 'size' and 'latency-ns' expect a non-negative value"),
        ({"host": "h", "driver": "null-co", "read-zeroes": 1},
         "Invalid parameter type for 'read-zeroes', expected: boolean"),
        ({"host": "h", "driver": "blkdebug"}, "Parameter 'image' is missing"),
        ({"host": "h", "driver": "blkdebug", "image": "x"}, "Invalid parameter type for 'image', expected: object"),
        ({"host": "h", "driver": "blkdebug", "image": {"driver": "file", "filename": "x"}},
         "path 'x' is not absolute: a path that begins with '/' was expected"),
    ],
    ids=repr,
)  # fmt: skip
def test_these_are_refused_and_the_line_says_why(value, wrong):
    with pytest.raises(BadInput) as refused:
        parse_volume(value)
    assert str(refused.value) == wrong


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (5, "Invalid parameter type for 'inject-error', expected: array of objects"),
        ({"event": "read_aio"}, "Parameter 'event' does not accept value 'read_aio'"),
        ({"iotype": "discard"}, "Parameter 'iotype' does not accept value 'discard'"),
        ({"iotype": ""}, "Parameter 'iotype' does not accept value ''"),
        ({"errno": 0}, "Parameter 'errno' expects the number of an error, such as 5 (EIO) or 28 (ENOSPC)"),
        ({"errno": True}, "Invalid parameter type for 'errno', expected: integer"),
        ({"sector": "1"}, "Invalid parameter type for 'sector', expected: integer"),
        ({"once": 1}, "Invalid parameter type for 'once', expected: boolean"),
        ({"state": 2}, "Parameter 'state' is unexpected"),
    ],
    ids=repr,
)
def test_a_rule_of_blkdebug_is_refused_in_qemus_words(rule, wrong):
    with pytest.raises(BadInput) as refused:
        parse_volume({"host": "h", "driver": "blkdebug", "image": FILE, "inject-error": [rule]})
    assert str(refused.value) == wrong


@pytest.mark.parametrize("text", ["/" + "a" * 256, "/" + "é" * 128, "/" + "/".join(["a" * 200] * 21)], ids=len)
def test_a_path_that_no_file_system_takes_is_refused(text):
    with pytest.raises(BadInput, match="is too long: at most 255 bytes a part and 4095 in all were expected"):
        parse_volume(f"web1:{text}")


@given(st.text() | st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.integers())))
def test_whatever_is_written_is_understood_or_refused(value):
    try:
        parsed = parse_volume(value, default_host="h")
    except BadInput:
        return
    assert parse_volume(to_dict(parsed)) == parsed
