"""docs/qmp.md shows qmp-shell at work: what it shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from iotest import MIB, Bench
from stages import Stage
from terminal import Terminal, terminal

DOCUMENT = (Path(__file__).parents[2] / "docs" / "qmp.md").read_text()
PROMPTS = ("(QEMU) ", "TRANS> ")
RUN = "nightly-20261122T020000Z"
MOVING = re.compile(r'("current-progress": )\d+|(?<=Connected to QEMU )[0-9.]+')


@dataclass(frozen=True)
class Place:
    """Where the document's /srv is, and the run that its run file started."""

    folder: Path
    run: str
    bench: Bench  # looks on

    def here(self, text: str) -> str:
        """A text of the document as it is here."""
        return text.replace("/srv", str(self.folder)).replace("web1", "here").replace(RUN, self.run)


def block(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert match, f"no {language} in docs/qmp.md"
    return match[1]


@pytest.fixture
def nightly(our_stage: Stage, tmp_path: Path) -> Iterator[Place]:
    folder, bench = our_stage.images / "nightly", Bench(our_stage, "watch")
    folder.mkdir()
    (folder / "root.img").write_bytes(bytes(range(1, 256)) * (64 * MIB // 255) + b"A" * (64 * MIB % 255))
    for name in ("a.img", "b.img"):
        (folder / name).write_bytes(bytes(MIB))
    file = tmp_path / "nightly.yaml"
    file.write_text(Place(folder, RUN, bench).here(block("yaml")))
    argv = [sys.executable, "-m", "blockjobs", "run", str(file), "--detach"]
    env = os.environ | {"BLOCKJOBS_DIR": str(our_stage.socket.parent)}
    said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    match = re.search(r"nightly-\w+", said)
    assert match, said
    bench.await_status(f"{match[0]}.root", "running")
    yield Place(folder, match[0], bench)
    bench.close()


@pytest.fixture
def shell(our_stage: Stage, tmp_path: Path) -> Iterator[Terminal]:
    qmp_shell = str(Path(sys.executable).with_name("qmp-shell"))
    with terminal([qmp_shell, str(our_stage.socket)], PROMPTS, str(tmp_path)) as screen:
        yield screen


def test_the_transcript_of_the_document_is_what_is_typed_and_answered(nightly: Place, shell: Terminal) -> None:
    script = block("console").split("qmp.sock\n", 1)[1]
    shown = shell.until()
    for line in script.splitlines():
        if line.startswith(PROMPTS):
            shell.type(nightly.here(line.partition(" ")[2]) + "\n")
            shown += shell.until()
            if "job-resume" in line:  # its attempt takes it up in its own time, and a person types slowly
                nightly.bench.await_status(f"{nightly.run}.root", "running")
    assert MOVING.sub("N", shown).removesuffix(PROMPTS[0]) == MOVING.sub("N", nightly.here(script))


def test_tab_completes_commands(shell: Terminal) -> None:
    shell.until()
    shell.type("query-block-j\t")
    shell.until("query-block-jobs")
    shell.type("\n")
    assert shell.until().endswith('{"return": []}\n(QEMU) ')
