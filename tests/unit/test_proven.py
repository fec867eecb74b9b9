"""Digests of a published image: read piece by piece, and never others than those that the root was made of."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import pytest
from carried import carry_out
from click.testing import CliRunner
from sparse import proven, publish_sparse

from blockjobs.model import volumespec
from blockjobs.model.errors import VolumeError
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import NullVolume
from blockworker.commands.verify import verify
from blockworker.copy.digests import CHUNK, LENGTH, PIECE, ZERO, root_of
from blockworker.copy.proven import ProvenDigests
from blockworker.drivers.restore import Restore
from blockworker.host import HostConfig
from blockworker.roots import Roots
from blockworker.volumes.checked import CheckedSource
from blockworker.volumes.null import NullSource

T = TypeVar("T")

MIB, TIB = 1 << 20, 1 << 40
HUGE = 15 * TIB
LIMIT = 200 * MIB  # bytes of resident memory of a whole process that compares an image of 15 TiB
CHUNKS = {0: b"a", 1: b"b", 40_000: b"c", 9_000_000: b"d", HUGE // CHUNK - 1: b"e"}


def digest_file(path: Path, values: dict[int, bytes], count: int) -> int:
    with path.open("w+b") as file:
        file.truncate(count * LENGTH)
        for index, value in values.items():
            os.pwrite(file.fileno(), value, index * LENGTH)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("count", [0, 1, 32_767, 32_768, 32_769, 100_001])
def test_every_digest_is_the_one_that_the_file_holds(tmp_path, count):
    values = {index: bytes([1 + index % 250]) * LENGTH for index in (0, 7, 32_767, 32_768, 99_999) if index < count}
    fd = digest_file(tmp_path / "digests", values, count)
    whole = os.pread(fd, count * LENGTH + 1, 0)
    with closing(ProvenDigests(fd, "digests")) as digests:
        assert digests.root == root_of(fd)
        for first, last in ((0, count), (32_000, 34_000), (count - 1, count)):
            if 0 <= first < last <= count:
                assert digests.get(first, last - first) == whole[first * LENGTH : last * LENGTH]


@pytest.mark.parametrize(
    ("offset", "content"),
    [(40_000 * LENGTH, b"x"), (PIECE, b"x"), (2 * PIECE - 1, b"x"), (40_001 * LENGTH, ZERO + b"\1")],
    ids=["a digest itself", "the first byte of its piece", "the last byte of its piece", "a digest beside it"],
)
def test_digests_that_change_after_their_root_was_made_are_never_used(tmp_path, offset, content):
    path = tmp_path / "digests"
    with closing(ProvenDigests(digest_file(path, {40_000: b"d" * LENGTH}, 100_000), f"digests {path}")) as digests:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(content)
        with pytest.raises(VolumeError, match=f"digests {path}.* were changed") as failed:
            digests.get(40_000)
        assert failed.value.errno == errno.EBADMSG
        assert digests.get(0, 32_768) == bytes(PIECE), "another piece is as it was"


def test_digests_that_are_cut_after_their_root_was_made_are_never_used(tmp_path):
    path = tmp_path / "digests"
    with closing(ProvenDigests(digest_file(path, {40_000: b"d" * LENGTH}, 100_000), "digests")) as digests:
        os.truncate(path, 0)
        with pytest.raises(VolumeError, match="were changed"):
            digests.get(40_000)


def test_zeros_that_became_digests_are_still_zeros(tmp_path):
    path = tmp_path / "digests"
    with closing(ProvenDigests(digest_file(path, {}, 100_000), "digests")) as digests:
        path.write_bytes(b"d" * 100_000 * LENGTH)
        assert digests.get(99_000, 1000) == bytes(1000 * LENGTH)


def test_no_more_than_a_few_pieces_are_kept(tmp_path):
    content = b"d" * (12 * PIECE)
    with closing(proven(content)) as digests:
        for _ in range(2):
            for index in range(0, len(content) // LENGTH, 1024):
                assert digests.get(index, 1024) == content[: 1024 * LENGTH]
        assert len(digests._cache) == 4


@pytest.fixture
def huge() -> Iterator[Path]:
    """An image of 15 TiB, all holes but a few MiB."""
    with tempfile.TemporaryDirectory(prefix="blockjobs-", dir="/var/tmp") as folder:  # /tmp may be a tmpfs
        image = Path(folder) / "huge.img"
        try:
            yield publish_sparse(image, HUGE, CHUNKS)
        except OSError as error:
            if error.errno not in {errno.EFBIG, errno.EINVAL}:
                raise
            pytest.skip(f"{folder}: files of 15 TiB cannot be made here")


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) << 10


def run_verify(words: list[str]) -> tuple[int, str, int]:
    """The exit code and the output of the command ``verify``, and the peak memory of this process."""
    ran = CliRunner().invoke(verify, words, standalone_mode=False)
    return ran.return_value, ran.output, peak()


def run_restore(image: str, target: str) -> int:
    """Restore an image through all steps of its driver; the peak memory of this process."""
    folder = os.path.dirname(image)
    roots = Roots(HostConfig(name=Host("web1"), read_roots=(folder,), write_roots=(folder,)))
    spec = JobSpec(
        id=JobId("R.a"), transaction=TxnId("R"), run=RunId("R"), type="restore", snapshot="none", target_base=folder,
        source=volumespec.parse(f"web1:{image}"), target=volumespec.parse(f"web1:{target}"),
    )  # fmt: skip
    carry_out(Restore(), roots, spec)
    return peak()


def fresh_process(function: Callable[..., T], *words: object) -> T:
    """Call a function in a process that has not grown by other tests."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *words).result(timeout=120)


def test_verify_of_15_tib_takes_less_than_200_mib(huge):
    code, said, memory = fresh_process(run_verify, [str(huge)])
    assert (code, said) == (0, f"{huge}: {HUGE} bytes as in the manifest\n")
    assert memory < LIMIT, f"{memory >> 20} MiB"


def test_verify_of_15_tib_names_what_is_not_as_it_was(huge):
    with huge.open("r+b") as file:
        file.seek(40_000 * MIB + 5)
        file.write(b"?")
        file.seek(9_000_001 * MIB)
        file.write(b"?")
    code, said, memory = fresh_process(run_verify, [str(huge)])
    first, second = 40_000 * MIB, 9_000_001 * MIB
    assert code == 1
    assert [f"bytes {start} to {start + MIB} differ" in said for start in (first, second)] == [True, True], said
    assert memory < LIMIT, f"{memory >> 20} MiB"


def test_restore_of_15_tib_takes_less_than_200_mib(huge):
    target = huge.with_name("back.img")
    memory = fresh_process(run_restore, str(huge), str(target))
    with target.open("rb") as file:
        assert os.fstat(file.fileno()).st_size == HUGE
        for index, byte in CHUNKS.items():
            assert os.pread(file.fileno(), CHUNK, index * CHUNK) == byte * CHUNK
        assert os.lseek(file.fileno(), 2 * MIB, os.SEEK_DATA) == 40_000 * MIB, "what was a hole is one"
    assert memory < LIMIT, f"{memory >> 20} MiB"


def test_an_image_that_is_bad_all_over_takes_no_memory_for_its_ranges(tmp_path):
    ranges = 70_000
    source = CheckedSource(NullSource(NullVolume(4 * ranges)), "image", whole=4 * ranges, digests=None, size=1)
    for at in range(ranges):
        source.note(4 * at, 4 * at + 1)
    noted = source.differing
    assert len(noted) == 1 << 16
    assert noted[:2] == [[0, 1], [4, 5]]
    assert noted[-1] == [4 * ((1 << 16) - 1), 4 * (ranges - 1) + 1], "the last ones are told as one"
