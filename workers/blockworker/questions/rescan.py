"""The manifests below a write root: reported page by page, for ``blockjobs rescan``.

Rule: a manifest is data. A manifest is opened by name in the listed directory, never through a symlink. For the image,
only the name beside the manifest is examined, and the header of an image of a format; files named in a manifest or an
image are never opened, and no bad manifest or image ends a scan. A page is limited by number, size and time, and the
next page goes on at the end of the last: directories in the order of names, and in a directory the manifests first.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from blake3 import blake3

from blockjobs.model import volumespec
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.rescan import KINDS, FoundBackup
from blockworker.host.roots import Root, Roots, file_kind
from blockworker.records.folder import FOLDER
from blockworker.targets import chains
from blockworker.targets import manifest as manifests
from blockworker.targets.proof import MANIFEST

MANIFESTS: Final = 1000  # manifests in one page
BYTES: Final = 1 << 20  # bytes of paths and texts in one page
SECONDS: Final = 15.0  # seconds for one page
ODD: Final = 20  # rejected manifests reported in one page with the reason; further ones are only counted
DEEPEST: Final = 100  # directories below a root
LAYERS: Final = 64  # paths that an image can mean by the files below the image
_BATCH: Final = 1001  # names of one directory held in memory at once
_ROW: Final = 400  # bytes of a row, beside its texts
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# a directory below the root (empty: the root itself), and a name in the directory (empty: before all)
Position = Sequence[bytes]


@dataclass(slots=True)
class Page:
    """The findings in a series of directories.

    ``odd``: the first rejected manifests and unreadable directories, with the reasons; ``more``: number of further
    ones. ``restored``: images made by a restore, which are no backups. ``after``: the position of the next page; None:
    this was the last page.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    odd: list[list[str]] = field(default_factory=list)
    more: int = 0
    restored: int = 0
    after: Position | None = None

    def note(self, path: str, why: str) -> None:
        if len(self.odd) < ODD:
            self.odd.append([volumespec.printable_text(path)[:500], why[:300]])
        else:
            self.more += 1

    def to_dict(self) -> dict[str, Any]:
        after = None if self.after is None else list(self.after)
        return {"rows": self.rows, "odd": self.odd, "more": self.more, "restored": self.restored, "after": after}


def scan_page(
    roots: Roots,
    root: str,
    after: Position | None,
    *,
    most: int = MANIFESTS,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Page:
    """The manifests below a write root after a position (None: from the start), as many as one page holds.

    Raises:
        JobFailed: the root cannot be read.
    """
    os.close(roots.open_dir(root, what="write root"))
    page, end, size = Page(), clock() + seconds, 0
    for directory, path, name in _walk_manifests(roots, root, page, after):
        if name:
            size += _add_manifest_row(page, directory, path, name, roots)
        if len(page.rows) >= most or size >= BYTES or clock() >= end:
            page.after = (b"" if path == root else os.fsencode(Root(root).relative(path)), os.fsencode(name))
            break
    return page


def _walk_manifests(roots: Roots, root: str, page: Page, after: Position | None) -> Iterator[tuple[int, str, str]]:
    """Every directory once, with an empty name, and every manifest in it, after a position."""
    others = {other for other in roots.config.write_roots if other != root}

    def descend(path: str, behind: list[bytes] | None, name: bytes, depth: int) -> Iterator[tuple[int, str, str]]:
        try:
            directory = roots.open_dir(path)
        except JobFailed as failed:
            if failed.errno != errno.ENOENT:  # a directory removed meanwhile
                page.note(path, failed.text)
            return
        try:
            if not behind:
                if behind is None:
                    yield directory, path, ""
                for each in _sorted_names_after(directory, name, lambda entry: entry.name.endswith(MANIFEST)):
                    yield directory, path, each
            first, *rest = behind or [b""]
            if first:
                yield from below(path, os.fsdecode(first), rest, name, depth)
            for each in _sorted_names_after(directory, first, _is_directory):
                yield from below(path, each, None, b"", depth)
        except OSError as error:
            page.note(path, error.strerror or str(error))
        finally:
            os.close(directory)

    def below(path: str, name: str, rest: list[bytes] | None, at: bytes, depth: int) -> Iterator[tuple[int, str, str]]:
        inner = f"{path.rstrip('/')}/{name}"
        if name == FOLDER or inner in others:
            return
        if depth >= DEEPEST:
            page.note(inner, f"more than {DEEPEST} directories lie above it, up to the root: it was not looked into")
            return
        yield from descend(inner, rest, at, depth + 1)

    if after is None:
        yield from descend(root, None, b"", 0)
    else:
        yield from descend(root, [part for part in after[0].split(b"/") if part], after[1], 0)


def _sorted_names_after(directory: int, after: bytes, wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[str]:
    """The names in a directory after ``after``, in order; only few names are held in memory at once."""
    while True:
        with os.scandir(directory) as entries:
            names = (entry.name for entry in entries if wanted(entry) and os.fsencode(entry.name) > after)
            batch = heapq.nsmallest(_BATCH, names, key=os.fsencode)
        yield from batch
        if len(batch) < _BATCH:
            return
        after = os.fsencode(batch[-1])


def _is_directory(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def _add_manifest_row(page: Page, directory: int, path: str, name: str, roots: Roots) -> int:
    """Add a manifest to a page; return its bytes in the page."""
    place = f"{path.rstrip('/')}/{name}"
    try:
        row = _manifest_row(directory, place, name)
        if row is None:
            page.restored += 1
            return 0
        FoundBackup.of(row, roots.config.name)  # a rejected manifest is reported with its path
    except (BadInput, JobFailed, OSError) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) else str(wrong)
        page.note(place, (why or "it cannot be read").removeprefix(f"manifest {place}").strip(": "))
        return 0
    page.rows.append(row)
    return _ROW + sum(len(value) for value in (*row.values(), *row["layers"]) if isinstance(value, str))


def _manifest_row(directory: int, place: str, name: str) -> dict[str, Any] | None:
    """The registry's facts from a manifest about the image beside it; None: not of a backup.

    Raises:
        BadInput: the file is no manifest, was changed, or does not fit the image.
        OSError: the file cannot be read.
    """
    text = _manifest_text(directory, name)
    manifest = manifests.parse_manifest(text, place)
    if "restored" in manifest:
        return None
    image = name.removesuffix(MANIFEST)
    source = manifest.get("source", {})
    row = {
        "layers": _layer_paths(directory, place, image) if manifest.get("format", "raw") != "raw" else [],
        "path": place.removesuffix(MANIFEST), "size": manifest["size"], "seal": blake3(text).hexdigest(),
        "source": source.get("volume"), "ended": _time_in_milliseconds(manifest.get("finished")),
        "salvaged": bool(manifest.get("salvaged")),
        "bytes": {kind: manifest.get("bytes", {}).get(kind, 0) for kind in KINDS},
        **{key: manifest.get(key) for key in ("run", "job", "transaction", "target")},
    }  # fmt: skip
    try:
        st = os.stat(image, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise BadInput("there is no image beside it") from None
    if not stat.S_ISREG(st.st_mode):
        raise BadInput(f"its image is {file_kind(st)}: a regular file was expected")
    expected = _size_of(manifest)
    if expected is not None and st.st_size != expected:
        raise BadInput(f"its image has {st.st_size} bytes, {expected} were expected")
    return row


def _layer_paths(directory: int, place: str, image: str) -> list[str]:
    """The paths that an image can mean by the names of the files below the image."""
    found = []
    for path in chains.layers_named(directory, os.path.dirname(place), image):
        with suppress(BadInput):
            found.append(volumespec.checked_path(path))
    return found[:LAYERS]


def _manifest_text(directory: int, name: str) -> bytes:
    st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(st.st_mode):  # looked at first: opening a device or a FIFO can have effects
        raise BadInput(f"it is {file_kind(st)}: a regular file was expected")
    fd = os.open(name, _OPEN, dir_fd=directory)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.ESTALE, "it was replaced meanwhile")
        text = file.read(manifests.LARGEST + 1)
    if len(text) > manifests.LARGEST:
        raise BadInput(f"it is larger than {manifests.LARGEST >> 20} MiB: a manifest was expected")
    return text


def _size_of(manifest: Mapping[str, Any]) -> int | None:
    """The size in bytes of the image's file; None: not in the manifest."""
    if manifest.get("format", "raw") == "raw":
        return int(manifest["size"])
    noted = manifest.get("image")
    size = noted.get("size") if isinstance(noted, dict) else None
    return size if type(size) is int else None


def _time_in_milliseconds(text: object) -> int:
    """A time of a manifest, in milliseconds; 0 for an invalid time."""
    try:
        return max(0, round(datetime.fromisoformat(str(text)).timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        return 0
