"""Lay out what blockjobs 1.0 wrote: journals, manifests and device records of version 1, with the files they name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from blockjobs.process.clock import read_boot_id

RECORDS = Path(__file__).parent / "records_version_1"
# Each is a transaction "R" of two jobs, R.root and R.data, stopped at that point.
STATES = ("opened", "copied", "prepared", "commit-half-done", "abort-half-done", "tombstone")


def lay_out(state: str, base: Path, image: bytes) -> None:
    """Make the files beneath ``base/backup`` as they were in ``state``; ``image`` is the source of both jobs.

    Numbers of devices, inodes and boots cannot be recorded: the journal gets those of the files that are made here.
    """
    backup = base / "backup"
    made: dict[str, dict[str, Any]] = json.loads((RECORDS / state / "files.json").read_text())
    for name, content in made.items():
        path = backup / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.name == ".blockjobs":
            path.parent.chmod(0o700)
        path.write_bytes(_content(RECORDS / state, content, image, base))
        if "hole" in content:
            os.truncate(path, content["hole"])
        path.chmod(0o600)
    journal = backup / ".blockjobs/R.journal"
    if journal.exists():
        keys = json.loads(journal.read_text())
        for member in keys["members"].values():
            _patch(member, Path(member["target"]))
        journal.write_text(json.dumps(keys, indent=1) + "\n")


def _content(folder: Path, content: dict[str, Any], image: bytes, base: Path) -> bytes:
    if "text" in content:
        return (folder / content["text"]).read_text().replace("@BASE@", str(base)).encode()
    if "hex" in content:
        return bytes.fromhex(content["hex"])
    return image[: content.get("copy", 0)]


def _patch(member: dict[str, Any], target: Path) -> None:
    for path in (target.parent / member["staging"], target):
        if path.exists():
            st = path.stat()
            member |= {"dev": st.st_dev, "ino": st.st_ino, "boot": read_boot_id()}
            return
    member |= {"dev": 1, "ino": 1, "boot": read_boot_id()}  # removed already
