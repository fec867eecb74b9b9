"""Where bad input is given, and what is said to it: one line that names what was wrong and what was expected.

Refused at submit: exit 2, and the registry is as it was.  Refused by the host: the job fails, exit 1, and the disk is
as it was.  The commands are the real ones; most run in the test's process, for time.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from fleet import Fleet

SECRET = "S3CRET"  # noqa: S105 - what must never be shown
VOLATILE = (
    b":card", b"bj:clock", b"bj:daemons", b"bj:hosts", b":events", b":due", b":wake", b"bj:celery",
    b":reply:", b":permit:",  # they expire by themselves; those before are beats and bells
)  # fmt: skip
DISK, FREE = "a:ROOT/disk.img", "a:ROOT/backup/new.img"
_numbers = count(1)


def job(**keys: object) -> dict[str, object]:
    return {"id": "j", "source": DISK, "target": FREE, **keys}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def line(self, code: int, *words: str) -> str:
        """The one line on stderr, which has these words."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (code, 1), self
        for word in words:
            assert word in lines[0], self
        assert lines[0].isprintable()
        assert "Traceback" not in self.err
        assert SECRET not in self.out + self.err
        return lines[0]

    def refused(self, *words: str, code: int = 2) -> None:
        assert self.line(code, *words).startswith("blockjobs: ")
        assert not self.out, self


@dataclass(frozen=True)
class Site:
    """Host ``a`` with one of each kind of file."""

    fleet: Fleet
    root: Path
    say: Callable[..., Said]

    def path(self, text: str) -> str:
        return text.replace("ROOT", str(self.root))

    def file(self, *jobs: dict[str, object], **keys: object) -> Path:
        """A run file, beside the roots."""
        path = self.fleet.place / "run.yaml"
        run = {"version": 1, "name": f"bad{next(_numbers)}", "jobs": list(jobs), **keys}
        path.write_text(self.path(json.dumps(run)))
        return path

    def start(self, source: object, target: object, **keys: object) -> Said:
        return self.say("run", self.file({"id": "j", "source": source, "target": target, **keys}))

    def good(self, target: str = "a:ROOT/backup/good.img") -> None:
        """What was to be backed up can be, under a name that was refused before."""
        said = self.start("a:ROOT/disk.img", target)
        assert (said.code, said.err) == (0, ""), said
        path = Path(self.path(target.removeprefix("a:")))
        assert path.read_bytes() == (self.root / "disk.img").read_bytes()
        for published in path.parent.glob(f"{path.name}*"):
            published.unlink()

    def disks(self) -> dict[str, tuple[int, ...]]:
        """Everything on every disk, but for the journals' folder: kind, size, links, inode and times of each."""
        return {
            str(path): (st.st_mode, st.st_nlink, st.st_ino, 0 if stat.S_ISDIR(st.st_mode) else st.st_mtime_ns)
            for host in self.fleet.hosts
            for path in sorted(self.fleet.root(host).rglob("*"))
            if ".blockjobs" not in path.parts and (st := path.lstat())
        }

    def registry(self) -> dict[bytes, bytes]:
        """Every key but the volatile ones; of the events the newest one of a run."""
        self.fleet.until_closed()
        client = self.fleet.client
        names = [name for name in client.scan_iter("bj:*") if not any(part in name for part in VOLATILE)]
        newest = next((seq for seq, fields in client.xrevrange("bj:events", count=50) if fields.get(b"run")), b"")
        return {b"bj:events": newest, **{name: client.dump(name) for name in sorted(names)}}
