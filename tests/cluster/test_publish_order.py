"""What makes a publish survive a power cut is the order of its system calls; strace is the witness."""

from __future__ import annotations

import re
import shutil
import signal

import psutil
import pytest
from fleet import Fleet

TRACED = "fsync,fdatasync,renameat2,rename,renameat,linkat"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: `make tools` as root")
def test_a_publish_flushes_the_file_then_the_journal_then_renames_then_flushes_the_directory(fleet: Fleet) -> None:
    trace = fleet.place / "publish.strace"
    source = fleet.image("d", "traced.img", 4)
    fleet.kill("steps@d", signal.SIGTERM)
    fleet.until("HOST_DOWN", "d")
    fleet.start("steps@d", wrapper=["strace", "-f", "-y", "-s", "300", "-e", f"trace={TRACED}", "-o", str(trace)])
    fleet.until("HOST_UP", "d")
    run = fleet.submit(fleet.plan([{"id": "t", "source": f"d:{source}", "target": f"d:{fleet.root('d')}/{{run}}.img"}]))
    fleet.until("RUN_ENDED", run)
    traced = psutil.Process(fleet.processes["steps@d"].pid).children()[0]
    traced.terminate()  # strace ends with what it traces
    fleet.processes["steps@d"].wait(30)
    fleet.start("steps@d")
    calls = [line.split(None, 1)[1] for line in trace.read_text().splitlines() if f"{run}" in line or "/d>" in line]
    publish = next(n for n, call in enumerate(calls) if "rename" in call and f'"{run}.img"' in call)
    before, after = calls[:publish], calls[publish:]
    flushed = _last(before, rf"f(data)?sync\(\d+<[^>]*/\.{run}\.img\.\w+\.part>")
    decided = _last(before, rf"fsync\(\d+<[^>]*/\.blockjobs/[^>]*{run}\.journal[^>]*>")
    journal = _last(before, rf"rename\w*\(.*{run}\.journal")
    assert flushed < decided < journal, "\n".join(calls)
    assert any(re.search(rf"fsync\(\d+<{fleet.root('d')}>", call) for call in after), "\n".join(calls)
    assert "RENAME_NOREPLACE" in calls[publish]


def _last(calls: list[str], pattern: str) -> int:
    found = [n for n, call in enumerate(calls) if re.search(pattern, call)]
    assert found, f"{pattern} in\n" + "\n".join(calls)
    return found[-1]
