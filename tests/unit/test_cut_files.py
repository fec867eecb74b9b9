"""Cuts on one host: written down before they are made, of one instant, and removed whatever dies in between."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from mounts import mounted

from blockjobs.model import cuts as words
from blockjobs.model import volumespec
from blockjobs.model.cuts import Cut, cut_skew
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.ids import TxnId
from blockworker.cuts import cut_files
from blockworker.drivers.backup import Backup
from blockworker.drivers.mirror import Mirror
from blockworker.records import journal as journals
from blockworker.records.folder import LockBusy
from blockworker.records.sealed import seal_json
from blockworker.targets import settle
from blockworker.targets.opening import find_member, open_member
from blockworker.targets.prepare import prepare_member
from blockworker.targets.proof import NotPublished

MIB = 1 << 20
TXN = TxnId("R")
NUMBERS = count(1)


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def disk(request, tmp_path_factory):
    with mounted(request.param, tmp_path_factory.mktemp(request.param)) as top:
        yield top


CUTTER = """#!/bin/sh
set -e
dir=${2%/*}
echo "$1 $3" >> "$0.calls"
[ ! -e "$0.fails" ] || { echo "no room" >&2; exit 5; }
case $1 in
create) cp "$2" "$dir/.snapshot.$3"; echo "$dir/.snapshot.$3" ;;
remove) rm -f "$dir/.snapshot.$3" ;;
esac
"""


@pytest.fixture
def host_at(site_at):
    """A host that may cut its image, in a place of the test's choice."""

    def make(base):
        host = site_at(base, cuts=True)
        (base / "cutter").write_text(CUTTER)
        (base / "cutter").chmod(0o700)
        host.image()
        return host

    return make


@pytest.fixture
def hosts(disk, host_at):
    """Fresh ones on the file system that shares blocks."""
    return lambda: host_at(disk / str(next(NUMBERS)))


@pytest.fixture
def host(hosts):
    return hosts()


@pytest.fixture
def plain(tmp_path, host_at):
    """One whose file system shares no blocks."""
    with mounted("ext4", tmp_path / "ext4", gib=1) as top:
        yield host_at(top / "host")


def beside(host):
    """What lies in the directory of the image."""
    return sorted(os.listdir(host.images))


def journal_root(host):
    return host.roots.root_of(str(host.backup), write=True)


def begun(host):
    with journals.locked_journal(host.roots, journal_root(host), TXN) as journal:
        cut_files.record_begun_cuts(journal, set(journal.record.members))


def settled(host, how, spec):
    if how == "commit":
        settle.commit_job(host.roots, spec, 1)
    else:
        settle.abort_job(host.roots, spec, 1, opened=True)
    settle.clean_transaction(host.roots, TXN, journal_root(host))


def opened(host, spec, driver=None):
    return (driver or Backup()).open(host.roots, spec, lambda: True)


@pytest.mark.parametrize("text", ["", "reflinks", "command:", "command:a/b", "command:a b", "NONE"])
def test_a_snapshot_is_one_of_four_words(text):
    with pytest.raises(BadInput):
        words.checked_snapshot(text)


def test_the_skew_is_from_the_first_begin_to_the_last_end():
    assert cut_skew([(3.0, 4.0), (1.5, 2.0), (2.0, 2.5)]) == 2.5
    assert cut_skew([]) is None


def test_a_cut_is_read_back_as_it_was_told():
    cut = Cut(how="reflink", path="/srv/.a.cut", identity=("file", 1, 2, 3, 4, 5), begin=1.5, end=2.0, frozen=0.25)
    assert Cut.from_dict({**cut.to_dict(), "of a later version": 1}) == cut
    assert cut
    assert not Cut(why="because")
    assert cut.told()["at"] == "1970-01-01T00:00:01.500000Z"


@pytest.mark.parametrize("snapshot", ["auto", "reflink"])
def test_a_reflink_is_written_down_at_open_and_made_at_cut(host, snapshot):
    spec = host.spec(snapshot=snapshot)
    found = opened(host, spec)
    (name,) = [name for name in beside(host) if name != "root.img"]
    member = find_member(host.roots, spec)
    assert (found.cut, member.cut.path) == ("reflink", f"{host.images}/{name}")
    st = os.stat(host.images / name)
    assert (name.startswith(".root.img."), name.endswith(".cut"), st.st_size) == (True, True, 0)
    assert stat.S_IMODE(st.st_mode) == 0o600
    before = (host.images / "root.img").read_bytes()
    cut = Backup().cut(host.roots, spec, {})
    (host.images / "root.img").write_bytes(b"x" * len(before))
    Backup().keep(host.roots, spec, cut)
    assert Path(cut.path).read_bytes() == before
    again = Backup().cut(host.roots, spec, {})
    assert Path(again.path).read_bytes() == b"x" * len(before), "nobody has read the first one"


@pytest.mark.parametrize("snapshot", ["reflink", "command:copy"])
@pytest.mark.parametrize("how", ["commit", "abort"])
def test_nothing_of_a_cut_is_left_when_its_job_is_settled(host, snapshot, how):
    spec = host.spec(snapshot=snapshot)
    member = opened(host, spec) and find_member(host.roots, spec)
    begun(host)
    cut = Backup().cut(host.roots, spec, {})
    assert Path(cut.path).read_bytes() == (host.images / "root.img").read_bytes()
    if how == "commit":
        prepare_member(host.roots, member, ((0, member.size),), host.manifest(spec, member.size))
    settled(host, how, spec)
    assert beside(host) == ["root.img"]
    assert journals.read_journal(host.roots, journal_root(host), TXN).state == "clean"
    settled(host, how, spec)


def test_a_cut_that_cannot_be_removed_is_not_forgotten(host):
    spec = host.spec(snapshot="command:copy")
    opened(host, spec)
    begun(host)
    Backup().cut(host.roots, spec, {})
    fails = host.base / "cutter.fails"
    fails.touch()
    with pytest.raises(
        JobFailed,
        match=r"the cut of .*/root.img is not removed: command 'copy' on remove: ended with exit code 5: .*no room",
    ):
        settled(host, "abort", spec)
    with pytest.raises(JobFailed):
        settled(host, "abort", spec)
    assert find_member(host.roots, spec).cut is not None
    fails.unlink()
    settled(host, "abort", spec)
    assert beside(host) == ["root.img"]


def test_a_published_image_stays_published_while_its_cut_cannot_be_removed(host):
    spec = host.spec(snapshot="command:copy")
    opened(host, spec)
    member = find_member(host.roots, spec)
    begun(host)
    Backup().cut(host.roots, spec, {})
    prepare_member(host.roots, member, ((0, member.size),), host.manifest(spec, member.size))
    (host.base / "cutter.fails").touch()
    for _ in range(2):
        with pytest.raises(JobFailed, match="is not removed"):
            settled(host, "commit", spec)
        assert (host.backup / "R/root.img").exists()
    (host.base / "cutter.fails").unlink()
    settled(host, "commit", spec)
    assert beside(host) == ["root.img"]


def test_a_command_that_never_was_called_is_not_called_to_remove(host):
    spec = host.spec(snapshot="command:copy")
    opened(host, spec)
    settled(host, "abort", spec)
    assert not (host.base / "cutter.calls").exists()


@pytest.mark.parametrize("how", ["commit", "abort"])
def test_killed_anywhere_in_settling_the_next_one_leaves_nothing(hosts, killed_at_every_change, how):
    def set_up():
        host = hosts()
        spec = host.spec()
        opened(host, spec)
        member = find_member(host.roots, spec)
        begun(host)
        Backup().cut(host.roots, spec, {})
        if how == "commit":
            prepare_member(host.roots, member, ((0, member.size),), host.manifest(spec, member.size))
        return host

    def check(host, _):
        settled(host, how, host.spec())
        assert beside(host) == ["root.img"]

    killed_at_every_change(set_up, lambda host: settled(host, how, host.spec()), check, at_least=18)


def test_killed_anywhere_in_open_an_abort_leaves_nothing(hosts, killed_at_every_change):
    turns = count()

    def check(host, died):
        if died and next(turns) % 2:  # the OPEN of the next worker, which makes all of it anew
            assert opened(host, host.spec()).cut == "reflink"
        settle.abort_job(host.roots, host.spec(), 1, opened=False)
        assert beside(host) == ["root.img"]

    killed_at_every_change(hosts, lambda host: opened(host, host.spec()), check, at_least=15)


def test_a_source_that_changed_its_size_since_open_is_refused(host):
    spec = host.spec()
    opened(host, spec)
    os.truncate(host.images / "root.img", 5 * MIB)
    with pytest.raises(JobFailed, match="changed its size from"):
        Backup().cut(host.roots, spec, {})


def test_while_a_share_is_being_cut_nobody_settles_it(host, monkeypatch):
    spec = host.spec()
    opened(host, spec)
    monkeypatch.setattr(journals, "PATIENCE", 0.0)
    with journals.locked_journal(host.roots, journal_root(host), TXN), pytest.raises(LockBusy):
        settle.abort_job(host.roots, spec, 1, opened=True)
    assert len(beside(host)) == 2


def test_a_cut_that_others_may_read_is_not_the_file_that_was_made(host):
    spec = host.spec()
    opened(host, spec)
    (name,) = [name for name in beside(host) if name != "root.img"]
    (host.images / name).chmod(0o644)
    with pytest.raises(JobFailed, match="it was replaced"):
        Backup().cut(host.roots, spec, {})
    assert (host.images / name).stat().st_size == 0


def test_nothing_is_made_through_a_name_that_somebody_else_puts_there_meanwhile(host, monkeypatch):
    precious, real = host.base / "precious", os.open
    precious.write_text("precious")

    def open_behind_another(path, flags, *mode, **more):
        if str(path).endswith(".cut") and flags & os.O_CREAT:
            os.symlink(precious, path, dir_fd=more["dir_fd"])
        return real(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", open_behind_another)
    with pytest.raises(JobFailed, match="File exists"):
        open_member(host.roots, host.spec(snapshot="reflink"), size=1, cutting=True)
    assert precious.read_text() == "precious"


def test_a_cut_that_somebody_put_another_file_in_place_of_is_not_written_to(host):
    spec = host.spec()
    opened(host, spec)
    (name,) = [name for name in beside(host) if name != "root.img"]
    precious = host.images / "precious"
    precious.write_bytes(b"not to be lost")
    precious.chmod(0o600)
    os.unlink(host.images / name)
    os.link(precious, host.images / name)
    with pytest.raises(JobFailed, match="it was replaced"):
        Backup().cut(host.roots, spec, {})
    assert precious.read_bytes() == b"not to be lost"


def test_an_image_that_cannot_be_published_needs_its_cut_no_more(host):
    spec = host.spec()
    opened(host, spec)
    member = find_member(host.roots, spec)
    begun(host)
    Backup().cut(host.roots, spec, {})
    prepare_member(host.roots, member, ((0, member.size),), host.manifest(spec, member.size))
    foreign = host.backup / "R/root.img"
    foreign.write_bytes(b"of somebody else")
    with pytest.raises(NotPublished):
        settled(host, "commit", spec)
    assert beside(host) == ["root.img"]
    foreign.unlink()
    settled(host, "commit", spec)
    assert foreign.exists()


# --- what cannot be cut -------------------------------------------------------------------------------


def test_where_no_blocks_are_shared_auto_comes_to_none_and_says_why(plain):
    found = opened(plain, plain.spec())
    assert (found.cut, found.uncut) == ("", "no reflink: its file system does not share blocks between files")
    assert beside(plain) == ["root.img"]


def test_where_no_blocks_are_shared_a_reflink_is_refused_and_nothing_is_left(plain):
    with pytest.raises(JobFailed, match="cannot be cut by reflink: its file system does not share") as refused:
        opened(plain, plain.spec(snapshot="reflink"))
    assert refused.value.errno == errno.ENOTSUP
    assert beside(plain) == ["root.img"]
    assert plain.tree() == []


def test_a_reflink_needs_a_write_root_that_its_source_lies_beneath(site):
    site.image()
    assert "outside the write roots of host web1" in opened(site, site.spec()).uncut
    with pytest.raises(JobFailed, match="outside the write roots"):
        opened(site, site.spec("R.b", "R/b.img", snapshot="reflink"))


def test_a_command_that_the_host_does_not_name_is_refused(site):
    site.image()
    with pytest.raises(JobFailed, match="command 'lvm' is not allowed by"):
        opened(site, site.spec(snapshot="command:lvm"))
    assert site.tree() == []


def test_without_a_target_of_ours_there_is_no_cut(host):
    nothing = volumespec.parse_volume({"driver": "null-co", "host": "web1"})
    assert opened(host, host.spec(target=nothing)).uncut == "no reflink: its target is written in place"
    with pytest.raises(JobFailed, match="its target is written in place"):
        opened(host, host.spec(target=nothing, snapshot="reflink"))
    assert beside(host) == ["root.img"]


def test_a_mirror_is_never_cut(host):
    assert opened(host, host.spec(type="mirror"), Mirror()).cut == ""
    assert beside(host) == ["root.img"]


def test_a_path_that_a_command_prints_has_to_be_one_that_may_be_read(host):
    for said, why in (("/etc/passwd", "outside the read roots"), ("two\nlines", "printed no path"), ("", "printed no")):
        (host.base / "cutter").write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
        spec = host.spec(snapshot="command:copy")
        opened(host, spec)
        with pytest.raises(JobFailed, match=why):
            Backup().cut(host.roots, spec, {})


@pytest.fixture
def memory():
    """A directory in shared memory, which lies under /dev."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108
        pytest.skip("no shared memory is mounted here")
    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield place
    shutil.rmtree(place)


def test_a_file_in_shared_memory_that_a_command_prints_is_a_file_and_no_device(host_at, memory):
    host = host_at(memory / "host")
    spec = host.spec(snapshot="command:copy")
    opened(host, spec)
    cut = Backup().cut(host.roots, spec, {})
    assert cut.path.startswith("/dev/shm/")  # noqa: S108
    assert Path(cut.path).read_bytes() == (host.images / "root.img").read_bytes()


def test_an_entry_of_before_there_were_cuts_is_read(site):
    site.image()
    member = open_member(site.roots, site.spec(), size=2 * MIB + 4)
    assert member.cut is None
    keys = json.loads(journals.JournalRecord(TXN).having(replace(member, published=True)).dump())
    for name in ("cut", "uncut"):
        del keys["members"]["R.root"][name]
    assert journals.JournalRecord.parse(seal_json(keys), "its path").members["R.root"].settled
