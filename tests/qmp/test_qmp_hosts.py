"""Two hosts behind one socket: a node says on which it is, and a transaction goes over both."""

from __future__ import annotations

import pytest
from fleet import Fleet
from talk import Monitor, story


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("pair"), ["a", "b"], allow_overwrite=True, qmp=True)
    yield fleet
    fleet.close()


@pytest.fixture
def both(pair):
    """A monitor; on each host an image and a target, ``a-image``, ``a-target``, ``b-image``, ``b-target``."""
    with Monitor(pair.qmp) as monitor:
        for host in "ab":
            for name in ("image", "target"):
                path = pair.image(host, name, 2)
                monitor.ok("blockdev-add", driver="file", node_name=f"{host}-{name}", filename=str(path), host=host)
        yield monitor
        for host in "ab":
            for name in ("image", "target"):
                monitor.ok("blockdev-del", node_name=f"{host}-{name}")


def test_a_node_has_to_say_where_it_is(both):
    assert both.no("blockdev-add", driver="null-co", node_name="n") == "Parameter 'host' is missing"
    assert {node["node-name"]: node["host"] for node in both.ok("query-named-block-nodes")} == {
        "a-image": "a", "a-target": "a", "b-image": "b", "b-target": "b",
    }  # fmt: skip


def test_a_copy_between_hosts_is_refused(both):
    assert both.no("blockdev-backup", job_id="j", device="a-image", target="b-target", sync="full") == (
        "copying between hosts is not supported yet: 'a-image' is on 'a', 'b-target' is on 'b'"
    )


def test_a_grouped_transaction_commits_on_both_hosts_or_on_none(pair, both):
    before = [(pair.root(host) / "target").read_bytes() for host in "ab"]
    members = [("ja", "a-image", "a-target"), ("jb", "b-image", "b-target")]
    assert both.transaction(*members, auto_finalize=False) == {"return": {}}
    both.until("BLOCK_JOB_PENDING", "jb")
    both.ok("job-cancel", id="jb")
    told = story(both.until_status("ja", "null"))
    assert [each for each in told if "BLOCK" in each and "PENDING" not in each] == [
        "jb BLOCK_JOB_CANCELLED", "ja BLOCK_JOB_CANCELLED",
    ]  # fmt: skip
    assert [(pair.root(host) / "target").read_bytes() for host in "ab"] == before
    assert both.transaction(*members) == {"return": {}}
    both.until_status("ja", "null")
    for host in "ab":
        assert (pair.root(host) / "target").read_bytes() == (pair.root(host) / "image").read_bytes()
