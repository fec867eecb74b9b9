"""Two hosts that see one directory meet at OPEN, by the reserved name of a target."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace

import pytest

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import Host
from blockworker.host.roots import Roots
from blockworker.records import journal
from blockworker.records.reserved import release_name
from blockworker.targets import settle
from blockworker.targets.names import is_ours
from blockworker.targets.opening import open_member
from blockworker.targets.proof import NotPublished


def other(site):
    """Another host that sees the same directories, under a root of its own."""
    (site.backup / "R").mkdir(exist_ok=True)
    return Roots(replace(site.roots.config, name=Host("web2"), write_roots=(f"{site.backup}/R",)))


def their_spec(site, **changes):
    changes = {"transaction": "Q", "run": "Q", "target_base": f"{site.backup}/R"} | changes
    return site.spec(changes.pop("job", "Q.root"), **changes)


def reserved(site):
    return json.loads((site.backup / "R" / ".root.img.reserved").read_text())


def hidden(site):
    return [name for name in site.tree() if name.endswith("reserved")]


def test_the_second_open_of_a_name_is_refused_with_the_job_and_the_host_that_has_it(site):
    site.image()
    theirs = other(site)
    mine = site.opened(site.spec())
    assert reserved(site) | {"uuid": ""} == {
        "run": "R", "job": "R.root", "host": "web1", "transaction": "R", "uuid": "", "registry": "",
    }  # fmt: skip
    before = site.tree()
    text = r"is reserved by job 'R\.root' of host 'web1' \(transaction 'R'\), which is not over"
    with pytest.raises(JobFailed, match=text):
        open_member(theirs, their_spec(site), size=1)
    assert [name for name in site.tree() if name not in before] == []
    assert reserved(site)["uuid"] == mine.uuid
    assert not (site.backup / "R" / "root.img").exists()


@pytest.mark.parametrize("end", ["commit", "abort", "an OPEN that is refused"])
def test_the_name_is_free_again_once_its_job_is_settled(site, end):
    site.image()
    theirs, spec = other(site), site.spec()
    match end:
        case "commit":
            settle.commit_member(site.roots, site.prepared(spec), 1)
            (site.backup / "R" / "root.img").unlink()
            for name in ("root.img.blake3", "root.img.manifest.json"):
                (site.backup / "R" / name).unlink()
        case "abort":
            settle.abort_member(site.roots, site.prepared(spec), 1)
            other(site)
        case _:
            with pytest.raises(JobFailed, match="cannot be cut"):
                open_member(site.roots, replace(spec, snapshot="reflink"), size=1, cutting=True)
    assert hidden(site) == []
    member = open_member(theirs, their_spec(site), size=1)
    assert reserved(site)["host"] == "web2"
    settle.abort_member(theirs, member, 2)
    assert hidden(site) == []


def test_what_cannot_be_published_keeps_its_name_reserved(site):
    site.image()
    member = site.prepared(site.spec())
    (site.backup / "R" / "root.img").write_text("foreign")
    with pytest.raises(NotPublished):
        settle.commit_member(site.roots, member, 1)
    assert hidden(site) == ["R/.root.img.reserved"]


def test_a_reservation_that_nobody_can_read_is_respected_and_one_of_others_never_removed(site):
    site.image()
    (site.backup / "R").mkdir()
    path = site.backup / "R" / ".root.img.reserved"
    for content in (b"", b"{", b'{"job": 1}', b"[" * 60_000, b"[" * (1 << 20)):
        path.write_bytes(content)
        with pytest.raises(JobFailed, match="is reserved by"):
            site.opened(site.spec())
        assert path.read_bytes() == content
    path.unlink()
    member = site.opened(site.spec())
    path.write_text(json.dumps({"job": "X.x", "uuid": "another"}))
    settle.abort_member(site.roots, member, 1)
    assert json.loads(path.read_text())["job"] == "X.x"


def test_an_open_that_is_repeated_has_its_name_and_makes_it_again_after_a_power_cut(site):
    site.image()
    first = site.opened(site.spec())
    path = site.backup / "R" / ".root.img.reserved"
    path.unlink()
    assert site.opened(site.spec()) == first
    assert reserved(site)["uuid"] == first.uuid
    assert is_ours(str(path))


def test_journals_of_version_1_have_reserved_nothing(site):
    """What an earlier version has opened is committed, whoever reserves the name meanwhile."""
    site.image()
    member = site.prepared(site.spec())
    root = site.roots.root_of(str(site.backup), write=True)
    with journal.locked_journal(site.roots, root, "R") as here:
        earlier = replace(here.member("R.root"), reserved="", run="")
        here.put(earlier)
    settle.commit_member(site.roots, member, 1)
    assert (site.backup / "R" / "root.img").exists()


def test_an_open_that_was_killed_anywhere_leaves_no_reservation_behind_its_abort(sites, killed_at_every_change):
    def set_up():
        site = sites()
        site.image(b"x")
        return site

    def check(site, _):
        settle.abort_job(site.roots, site.spec(), 1, opened=False)
        assert [name for name in site.tree() if "reserved" in name] == []
        there = other(site)
        settle.abort_member(there, open_member(there, their_spec(site), size=1), 2)
        assert [name for name in site.tree() if "reserved" in name] == []

    killed_at_every_change(set_up, lambda site: site.opened(site.spec()), check, at_least=10)


def test_of_two_hosts_that_open_at_once_one_has_the_name_wherever_the_other_is_killed(sites, killed_at_every_change):
    def set_up():
        site = sites()
        site.image(b"x")
        (site.backup / "R").mkdir()
        return site

    def check(site, died):
        refused = ""
        try:
            open_member(other(site), their_spec(site), size=1)
        except JobFailed as failed:
            refused = failed.text
        assert died or refused
        assert reserved(site)["host"] == ("web1" if refused else "web2")
        if refused:
            assert "is reserved by job 'R.root' of host 'web1'" in refused
            return
        with pytest.raises(JobFailed, match="host 'web2'"):
            site.opened(site.spec())

    killed_at_every_change(set_up, lambda site: site.opened(site.spec()), check, at_least=10)


def test_a_reservation_that_cannot_be_read_this_once_is_not_left_behind(site):
    site.image()
    member = site.opened(site.spec())
    directory = os.open(site.backup / "R", os.O_RDONLY)
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (directory + 1, hard))  # the next open finds no descriptor
    try:
        with pytest.raises(OSError, match="Too many open files"):
            release_name(directory, member)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    release_name(directory, member)
    os.close(directory)
    assert hidden(site) == []
