"""A published image of holes, and its digests, for tests of what large images cost."""

from __future__ import annotations

import json
import os
from pathlib import Path

from blockworker.copy.digests import CHUNK, LENGTH, chunk_digest, digest_size, root_of
from blockworker.copy.proven import ProvenDigests


def proven(values: bytes, label: str = "digests") -> ProvenDigests:
    """Digests that are given as bytes, as if they were read from beside an image."""
    fd = os.memfd_create("digests")
    os.write(fd, values)
    return ProvenDigests(fd, label)


def publish_sparse(image: Path, size: int, chunks: dict[int, bytes]) -> Path:
    """An image of ``size`` bytes with 1 MiB of data in each of some ``chunks``, with its digests and manifest."""
    beside = Path(f"{image}.blake3")
    with image.open("wb") as data, beside.open("w+b") as digests:
        data.truncate(size)
        digests.truncate(digest_size(size))
        for index, byte in chunks.items():
            content = byte * min(CHUNK, size - index * CHUNK)
            os.pwrite(data.fileno(), content, index * CHUNK)
            os.pwrite(digests.fileno(), chunk_digest(memoryview(content)), index * LENGTH)
        root = root_of(digests.fileno())
    named = {"algorithm": "blake3", "chunk": CHUNK, "file": beside.name, "root": root}
    record = {"version": 1, "run": "R", "job": "R.a", "size": size, "format": "raw", "digests": named}
    Path(f"{image}.manifest.json").write_text(json.dumps(record))
    return image
