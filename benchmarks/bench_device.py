"""A loop device of 1 GiB, read by the copy loop into nothing: past the page cache, as we read devices, and through it.

The two take turns, each with a cold cache: that of the device, and that of the file below it.  Needs root.

    python benchmarks/bench_device.py [--size 1GiB] [--rounds 7] [--dir DIR]

Exit code 0 where the median of the reads past the cache is at most 1.1 times that of the reads through it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from blockjobs.cli.runfile import parse_size
from blockworker.copy.engine import Copy
from blockworker.copy.throttle import Throttle
from blockworker.volumes.device import DeviceSource
from blockworker.volumes.direct import drop_cache
from blockworker.volumes.extents import RangeSet
from blockworker.volumes.file import CacheTrail, read_full
from blockworker.volumes.null import NullTarget

LIMIT = 1.1


class Buffered(DeviceSource):
    """A device that is read through the page cache, which is dropped behind the reader."""

    def __init__(self, fd: int, label: str) -> None:
        super().__init__(fd, label)
        self._trail = CacheTrail(fd)

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._trail.before_read(offset)
        read_full(self._fd, view, offset, self._label)

    def close(self) -> None:
        self._trail.finish()
        super().close()


def seconds(kind: type[DeviceSource], device: str, file: Path) -> float:
    """One reading of all of the device, from a cold cache."""
    for path in (device, file):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        drop_cache(fd)
        os.close(fd)
    source, news = kind(os.open(device, os.O_RDONLY), device), threading.Event()
    began = time.perf_counter()
    copy = Copy(
        source, NullTarget(source.size), size=source.size, done=RangeSet(), throttle=Throttle(), wake=news.set,
        interval=2 * source.size,
    )  # fmt: skip
    copy.start()
    while not copy.finished:
        news.wait(1.0)
        news.clear()
    copy.stop()
    took = time.perf_counter() - began
    source.close()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))  # noqa: S108
    options = parser.parse_args()
    took: dict[type[DeviceSource], list[float]] = {Buffered: [], DeviceSource: []}
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        file = Path(place) / "disk"
        with file.open("wb") as disk:
            for _ in range(options.size >> 20):
                disk.write(os.urandom(1 << 20))
            os.fsync(disk.fileno())
        device = subprocess.check_output(["losetup", "-f", "--show", str(file)], text=True).strip()
        try:
            for _ in range(options.rounds):
                for kind, times in took.items():
                    times.append(seconds(kind, device, file))
        finally:
            subprocess.run(["losetup", "-d", device], check=True)
    through, past = median(took[Buffered]), median(took[DeviceSource])
    for name, kind in (("through the cache", Buffered), ("past the cache", DeviceSource)):
        print(f"{name:<18} {median(took[kind]):6.3f} s  ({', '.join(f'{each:.3f}' for each in took[kind])})")
    print(f"past / through: {past / through:.2f}, at most {LIMIT} was expected")
    return 0 if past <= LIMIT * through else 1


if __name__ == "__main__":
    sys.exit(main())
