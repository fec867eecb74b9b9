"""A command is handed three descriptors and, where it must stay fenced, one lock: none of other transactions."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from blockjobs.model.ids import TxnId
from blockworker.cuts import cut_files
from blockworker.drivers.backup import Backup
from blockworker.host.host_commands import call_host_command
from blockworker.records import journal as journals

LISTING = """import json, os, shutil, sys
links = {}
for name in os.listdir("/proc/self/fd"):
    try:
        links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        pass  # of the listing itself
verb, source, id = sys.argv[1:4] if len(sys.argv) > 3 else ("", "", "")
if verb == "create":
    cut = f"{os.path.dirname(source)}/.snapshot.{id}"
    shutil.copy(source, cut)
    with open(f"{cut}.files", "w") as file:
        json.dump(links, file)
    print(cut)
else:
    print(json.dumps(links))
"""


@pytest.fixture
def host(site_at, tmp_path):
    """A host whose command writes down which files it was handed."""
    made = site_at(tmp_path / "host", cuts=True)
    (made.base / "listing.py").write_text(LISTING)
    (made.base / "cutter").write_text(f'exec {sys.executable} {made.base}/listing.py "$@"\n')
    made.image()
    return made


@contextmanager
def begun(host, spec):
    root = host.roots.root_of(str(host.backup), write=True)
    with journals.locked_journal(host.roots, root, spec.transaction) as journal:
        cut_files.record_begun_cuts(journal, set(journal.record.members))
        yield journal


def test_while_many_transactions_are_cut_each_command_sees_its_own_lock_alone(host):
    specs = [host.spec(f"R{n}.a", f"R{n}/a.img", transaction=TxnId(f"R{n}"), snapshot="command:copy") for n in range(4)]
    for spec in specs:
        Backup().open(host.roots, spec, lambda: True)
    ready = threading.Barrier(len(specs))

    def cut(spec):
        with begun(host, spec):
            ready.wait(10)
            path = Backup().cut(host.roots, spec, {}).path
            ready.wait(10)
        with open(f"{path}.files") as file:
            return {int(number): link for number, link in json.load(file).items()}

    with ThreadPoolExecutor(len(specs)) as lanes:
        for spec, links in zip(specs, lanes.map(cut, specs), strict=True):
            more = {link for number, link in links.items() if number > 2}
            assert more == {f"{host.backup}/.blockjobs/{spec.transaction}.lock"}


def test_the_lock_that_a_command_was_handed_stays_held_when_we_let_go(host):
    spec = host.spec(snapshot="command:copy")
    Backup().open(host.roots, spec, lambda: True)
    with begun(host, spec) as journal:
        lock = os.open(f"/proc/self/fd/{journal.lock}", os.O_RDWR)  # another open file: a flock of its own
        try:
            argv = [sys.executable, "-c", f"import fcntl, os; fcntl.flock({journal.lock}, fcntl.LOCK_EX)"]
            call_host_command(
                "copy", argv, "create", fence=journal.lock
            )  # it is the same open file, so that it has the lock
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)


def test_a_lock_that_was_released_is_handed_to_nobody(host):
    spec = host.spec(snapshot="command:copy")
    Backup().open(host.roots, spec, lambda: True)
    with begun(host, spec) as journal:
        pass
    assert journal.lock == -1
    path = Backup().cut(host.roots, spec, {}).path
    with open(f"{path}.files") as file:
        assert {int(number) for number in json.load(file)} == {0, 1, 2}


@pytest.fixture
def inheritable(tmp_path):
    """Descriptors that would be handed on to whoever does not say what it wants."""
    with ExitStack() as files:
        made = [files.enter_context((tmp_path / f"other{n}").open("w")).fileno() for n in range(3)]
        for fd in made:
            os.set_inheritable(fd, True)  # noqa: FBT003
        yield made


def test_a_command_inherits_nothing_that_it_was_not_given(host, inheritable):
    said = call_host_command("copy", ["/bin/sh", f"{host.base}/cutter"], "list")
    assert {int(number) for number in json.loads(said)} == {0, 1, 2}
    assert not {int(number) for number in json.loads(said)} & set(inheritable)
