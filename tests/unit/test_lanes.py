"""Errands of a file system that hangs wait among themselves: whoever touches another one is served meanwhile."""

from __future__ import annotations

import os
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from blockjobs.registry import codec
from blockworker.steps.board import Errand, ErrandBoard
from blockworker.steps.forker import ErrandProcess, Forker, ForkerGone
from blockworker.steps.lanes import Lanes
from blockworker.steps.path_mounts import MountTable, mount_points, point_of, resolve_to_mount
from blockworker.system.standstill import Watch, path_calls

DEADLINE = 20.0  # seconds; long, for machines that are busy
PATIENCE = 0.2  # seconds after which these tests call a path hanging


def errand(name: str, *points: str, **more: object) -> Errand:
    return Errand("touch", ("touch", name), frozenset(points), {"path": name}, name, **more)  # type: ignore[arg-type]


def await_true(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


# --- the board ------------------------------------------------------------------------------------------


def test_an_errand_that_waits_already_is_not_queued_again():
    board = ErrandBoard()
    assert board.put(errand("x", "/a"))
    assert not board.put(errand("x", "/a"))
    assert board.take({}) is not None
    assert board.take({}) is None


def test_an_errand_that_is_under_way_is_done_once_more_behind_itself():
    board = ErrandBoard()
    board.put(errand("x", "/a"))
    first = board.take({})
    assert first is not None
    assert board.put(errand("x", "/a"))
    assert not board.put(errand("x", "/a"))
    assert board.take({}) is None, "never twice at one time"
    board.end(first)
    assert board.take({}) is not None


def test_a_lane_has_as_many_errands_under_way_as_it_is_wide():
    board = ErrandBoard(width=2)
    for number in range(5):
        board.put(errand(f"x{number}", "/a"))
    assert [board.take({}) is not None for _ in range(3)] == [True, True, False]
    board.put(errand("y", "/b"))
    assert board.take({}) is not None, "another lane has its own"


def test_what_hangs_does_not_count_among_those_under_way():
    board = ErrandBoard(width=2, most=2)
    for name in "xy":
        board.put(errand(name, "/a"))
    hung = [board.take({}), board.take({})]
    board.put(errand("z", "/b"))
    assert board.take({}) is None, "two are under way, and nothing tells that they hang"
    hanging = {each.key: "/a" for each in hung if each is not None}
    assert board.take(hanging) is not None


def test_a_file_system_on_which_some_errands_hang_gets_no_more_by_way_of_any_lane():
    board = ErrandBoard(width=2)
    for name, lane in (("x", ("/a",)), ("y", ("/a", "/b"))):
        board.put(errand(name, *lane))
    hanging = {each.key: "/a" for each in (board.take({}), board.take({})) if each is not None}
    assert len(hanging) == 2
    for name, lane in (("p", ("/a",)), ("q", ("/a", "/c")), ("r", ("/b",))):
        board.put(errand(name, *lane))
    taken = board.take(hanging)
    assert taken is not None
    assert taken.lane == {"/b"}, "which hangs nowhere, although an errand that touches it does"
    assert board.take(hanging) is None


def test_lanes_take_turns():
    board = ErrandBoard(width=9)
    for name, lane in (("a1", "/a"), ("a2", "/a"), ("b1", "/b"), ("b2", "/b")):
        board.put(errand(name, lane))
    order = [each.key[1] for each in (board.take({}) for _ in range(4)) if each is not None]
    assert order == ["a1", "b1", "a2", "b2"]


def test_a_full_lane_takes_no_more_and_others_do():
    board = ErrandBoard(longest=1)
    assert board.put(errand("x", "/a"))
    assert not board.put(errand("y", "/a"))
    assert board.put(errand("y", "/b"))


def test_errands_that_nobody_waits_for_any_more_are_not_begun():
    board = ErrandBoard()
    board.put(errand("x", "/a", until=10.0))
    board.put(errand("y", "/a"))
    assert [each.key[1] for each in board.expire(10.0)] == ["x"]
    assert [each.key[1] for each in (board.take({}), board.take({})) if each is not None] == ["y"]


# --- processes ------------------------------------------------------------------------------------------


def touch(connection: Connection) -> None:
    """Serve errands: open the path for writing, which a FIFO without a reader lets nobody come back from."""
    while True:
        try:
            _, words = codec.unpack_value(connection.recv_bytes())
        except EOFError:
            return
        match words["path"]:
            case "die":
                os._exit(1)
            case "be killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "be told":
                os.kill(os.getpid(), signal.SIGUSR1)
        with open(words["path"], "w", encoding="ascii"):
            pass
        connection.send_bytes(codec.pack_value([words["path"], words["path"] != "/dev/zero"]))


@pytest.fixture
def forker() -> Iterator[Forker]:
    made = Forker(touch)
    yield made
    made.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A path that hangs whoever opens it for writing."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    os.close(drain(path))


def drain(path: Path) -> int:
    """Let whoever hangs in opening the FIFO go on."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


class Place:
    """Lanes in which a FIFO's directory is one file system, and all else is another."""

    def __init__(self, forker: Forker, fifo: Path, board: ErrandBoard | None = None) -> None:
        self.lanes = Lanes(forker.start, self.point_of, board=board, patience=PATIENCE)
        self._fifo, self._came, self._news = fifo, [], threading.Condition()  # type: ignore[var-annotated]

    def point_of(self, path: str) -> str:
        return "/hangs" if path == str(self._fifo) else "/sound"

    def hand(self, path: str, name: str, *points: str) -> None:
        self.lanes.hand(
            Errand("touch", (name,), frozenset(points or [self.point_of(path)]), {"path": path}, name, done=self._done)
        )

    def _done(self, value: object) -> None:
        with self._news:
            self._came.append(value)
            self._news.notify_all()

    def came(self, number: int, patience: float = DEADLINE) -> list[object]:
        with self._news:
            self._news.wait_for(lambda: len(self._came) >= number, patience)
            return list(self._came)

    def hangs(self) -> bool:
        self.lanes.look()
        return bool(self.lanes.hanging())


def test_whoever_touches_another_file_system_is_served_while_one_hangs(forker: Forker, fifo: Path):
    place = Place(forker, fifo)
    for number in range(10):
        place.hand(str(fifo), f"stuck{number}")
    for number in range(10):
        place.hand("/dev/null", f"fine{number}")
    assert place.came(10) == ["/dev/null"] * 10
    reader = drain(fifo)
    assert place.came(20)[10:] == [str(fifo)] * 10, "and when it answers again, all the others come to their end"
    os.close(reader)


def test_with_one_lane_for_all_nobody_would_be_served(forker: Forker, fifo: Path):
    """The control: what this module is for."""
    place = Place(forker, fifo)
    for number in range(4):
        place.hand(str(fifo), f"stuck{number}", "/one")
    place.hand("/dev/null", "fine", "/one")
    await_true(place.hangs)
    assert place.came(1, patience=0.3) == []
    reader = drain(fifo)
    assert "/dev/null" in place.came(5)
    os.close(reader)


def test_a_path_that_hangs_is_named_with_its_mount_and_since_when_and_forgotten_when_it_answers(
    forker: Forker, fifo: Path
):
    place = Place(forker, fifo)
    began = time.time()
    place.hand(str(fifo), "stuck")
    await_true(place.hangs)
    (hanging,) = place.lanes.hanging()
    assert (hanging.path, hanging.point, hanging.about) == (str(fifo), "/hangs", "stuck")
    assert began - 1 < hanging.since < time.time() - PATIENCE / 2
    assert place.lanes.blamed(["/hangs", "/else"]) == str(fifo)
    assert place.lanes.blamed(["/else"]) == ""
    reader = drain(fifo)
    place.came(1)
    assert not place.hangs()
    os.close(reader)


@pytest.mark.parametrize(("way", "said"), [("die", "ended with exit code 1"), ("be killed", "killed by SIGKILL"),
                                           ("be told", "killed by SIGUSR1")])  # fmt: skip
def test_an_errand_whose_process_dies_is_over_and_the_next_one_has_another_process(
    forker: Forker, fifo: Path, caplog: pytest.LogCaptureFixture, way: str, said: str
):
    place = Place(forker, fifo)
    place.hand(way, "dies")
    assert place.came(1) == [None]
    assert re.search(rf": process \d+: {said}; it is asked for again$", caplog.messages[-1])
    place.hand("/dev/null", "fine")
    assert place.came(2) == [None, "/dev/null"]


def test_a_process_that_takes_no_more_is_replaced(forker: Forker, fifo: Path):
    place = Place(forker, fifo)
    for number in range(3):
        place.hand("/dev/zero", f"last{number}")
    assert place.came(3) == ["/dev/zero"] * 3


def test_lanes_that_close_wait_for_no_path_that_hangs(forker: Forker, fifo: Path):
    place = Place(forker, fifo)
    place.hand(str(fifo), "stuck")
    await_true(place.hangs)
    began = time.monotonic()
    place.lanes.close(DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    assert not place.lanes.hand(errand("late", "/a"))


def test_every_process_is_gone_once_the_one_that_forked_them_is(fifo: Path):
    forker = Forker(touch)
    stuck, idle = forker.start(), forker.start()
    ended: list[ForkerGone] = []

    def hang() -> None:
        try:
            stuck.run("touch", {"path": str(fifo)})
        except ForkerGone as gone:
            ended.append(gone)

    threading.Thread(target=hang, daemon=True).start()
    assert idle.run("touch", {"path": "/dev/null"}) == ("/dev/null", True)
    forker.close()
    await_true(lambda: ended and not alive(stuck) and not alive(idle))
    with pytest.raises(ForkerGone):
        forker.start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_whoever_watches_a_forker_is_told_that_it_has_ended_or_forks_no_more(number: int):
    forker, told = Forker(touch, answer=1.0), threading.Event()
    forker.watch(told.set)
    assert forker.start().run("touch", {"path": "/dev/null"}) == ("/dev/null", True)
    assert not told.is_set()
    os.kill(forker.pid, number)
    with pytest.raises(ForkerGone):
        forker.start()
    assert told.wait(DEADLINE)
    forker.close()


def test_a_forker_that_is_closed_is_not_said_to_have_ended():
    forker, told = Forker(touch), threading.Event()
    forker.watch(told.set)
    forker.close()
    assert not told.wait(0.1)


def test_an_errand_that_nobody_can_even_be_told_of_is_over_and_the_lane_goes_on(forker: Forker):
    lanes, done = Lanes(forker.start, lambda _: "/"), queue.SimpleQueue[object]()
    lanes.hand(replace(errand("odd", "/"), words={"path": object()}, done=done.put))
    assert done.get(timeout=DEADLINE) is None
    lanes.hand(replace(errand("next", "/"), kind="touch", words={"path": "/dev/null"}, done=done.put))
    assert done.get(timeout=DEADLINE) == "/dev/null"
    lanes.close(0.0)


def alive(process: ErrandProcess) -> bool:
    try:
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- what the kernel tells --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["path", "below a directory", "descriptor", "of a process below"])
def test_the_call_that_hangs_is_told_with_its_path(fifo: Path, how: str):
    if not os.access("/proc/self/syscall", os.R_OK):
        pytest.skip("this kernel does not tell what a thread waits in")
    pid = os.fork()
    if pid == 0:
        if how == "of a process below" and os.fork():
            os.wait()
        elif how == "below a directory":
            os.open(fifo.name, os.O_WRONLY, dir_fd=os.open(fifo.parent, os.O_RDONLY | os.O_DIRECTORY))
        elif how == "descriptor":
            os.read(os.open(fifo, os.O_RDWR), 1)
        else:
            os.open(fifo, os.O_WRONLY)
        os._exit(0)
    expected = str(fifo.parent) if how == "below a directory" else str(fifo)
    watch = Watch(PATIENCE)
    try:
        await_true(lambda: [standing.path for standing in watch.look([pid])] == [expected])
    finally:
        for process in {pid, *(call.pid for call in path_calls(pid))}:
            os.kill(process, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("how", ["sleeps", "waits for a pipe", "waits for a lock"])
def test_who_waits_for_no_path_does_not_hang(how: str):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 1)  # what a sleep's first argument would mean as a descriptor
        {"sleeps": lambda: time.sleep(DEADLINE), "waits for a pipe": lambda: os.read(ours, 1),
         "waits for a lock": lambda: threading.Event().wait(DEADLINE)}[how]()  # fmt: skip
        os._exit(0)
    watch, deadline = Watch(PATIENCE), time.monotonic() + 4 * PATIENCE
    looks = 0
    while time.monotonic() < deadline:
        assert watch.look([pid]) == []
        looks += 1
    assert looks > 3
    os.write(theirs, b"x")
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_the_mount_of_a_path_is_told_by_its_text_alone():
    table = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 8:2 / /srv rw shared:1 - xfs /dev/sda2 rw\n"
        "31 30 8:3 / /srv/backup\\040disk rw - xfs /dev/sda3 rw\n"
    )
    points = mount_points(table)
    assert points == ("/srv/backup disk", "/srv", "/")
    for path, point in {
        "/srv/backup disk/a.img": "/srv/backup disk", "/srv/backup": "/srv", "/srv": "/srv", "/srvx/a": "/", "/x": "/",
    }.items():  # fmt: skip
        assert point_of(path, points) == point


@pytest.mark.parametrize(
    ("path", "found"),
    [("link/x", "real/x"), ("chain/x", "real/x"), ("up/x", "real/x"), ("real/x", "real/x"), ("none/x", "none/x")],
)
def test_symlinks_are_resolved_on_the_way_to_a_mount(tmp_path: Path, path: str, found: str):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "up").symlink_to("real/../link")
    assert resolve_to_mount(str(tmp_path / path), ["/"]) == str(tmp_path / found)


def test_a_link_beneath_a_mount_is_not_looked_at(tmp_path: Path):
    (tmp_path / "link").symlink_to("/elsewhere")
    assert resolve_to_mount(str(tmp_path / "link" / "x"), ["/", str(tmp_path)]) == str(tmp_path / "link" / "x")


def test_a_root_behind_a_symlink_lies_on_the_file_system_it_leads_to(tmp_path: Path):
    (tmp_path / "link").symlink_to("/proc/self")
    table = MountTable([str(tmp_path / "link")])
    assert table.point_of(str(tmp_path / "link" / "status")) == "/proc"
    assert table.point_of("/dev/sdx9") == "/dev/sdx9"
