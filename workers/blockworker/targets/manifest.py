"""The manifest beside an image: the origin of the image's bytes, and the proof that the bytes are unchanged."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from blockjobs.model import volumespec
from blockjobs.model.cuts import Cut
from blockjobs.model.errors import BadInput, JobFailed
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import FileVolume, FormatVolume
from blockworker.copy.checked_source import CheckedSource, Tolerate
from blockworker.copy.digests import CHUNK, digest_size
from blockworker.copy.proven import ProvenDigests
from blockworker.records.sealed import KEY, is_whole, seal_json
from blockworker.system.cage import Cage
from blockworker.system.cage.limits import PATIENCE
from blockworker.system.cage.tool import Idle
from blockworker.system.identity import which_file
from blockworker.volumes.base import Identity, MediumSource, Source
from blockworker.volumes.direct import MediumFile, drop_cache
from blockworker.volumes.formats import open_format
from blockworker.volumes.qemuimg import size_of_image
from blockworker.volumes.soundness import damage_of

VERSION: Final = 2  # since version 2 with its own digest; version 1 has no digest, and is read
_SHOULD: Final = f"a manifest of version 1 or {VERSION} was expected"
# JSON types of the keys that a manifest may have.  Keys of a later release are kept, and have no effect here.
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "run": (str,), "transaction": (str,), "job": (str,), "source": (dict,), "target": (str,), "cut": (dict,),
    "format": (str,), "digests": (dict, type(None)), "attempts": (list,), "bytes": (dict,), "source_change": (str,),
    "started": (str,), "finished": (str,), "digest": (str,), "salvaged": (list,),
}  # fmt: skip
_WORDS: Final = {str: "a string", dict: "an object", list: "a list", type(None): "null"}  # JSON's names of types
LARGEST: Final = 1 << 20  # bytes


def build_manifest(
    spec: JobSpec,
    *,
    size: int,
    identity: Identity,
    source_change: str,
    attempts: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    started: datetime,
    finished: datetime,
    cut: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a manifest; ``preparing_member`` adds the root of the digests, read from the disk.

    ``source_change`` is ``unchanged``, ``changed`` or ``unknown``; ``counts`` has ``read``, ``written``, ``zero``,
    ``skipped`` and ``recopied`` bytes.
    """
    name = os.path.basename(volumespec.volume_label(spec.target.volume))
    return {
        "version": VERSION,
        "run": spec.run,
        "transaction": spec.transaction,
        "job": spec.id,
        "source": {"volume": spec.source.text, "identity": identity.to_list()},
        "target": spec.target.text,
        "cut": _cut_entry(spec, cut or {}),
        "size": size,
        "format": image.driver if (image := volumespec.format_image(spec.target.volume)) else "raw",
        "digests": {"algorithm": "blake3", "chunk": CHUNK, "file": f"{name}.blake3", "root": ""}
        if spec.digests
        else None,
        "parent": None,
        "attempts": [dict(attempt) for attempt in attempts],
        "bytes": {key: counts.get(key, 0) for key in ("read", "written", "zero", "skipped", "recopied")},
        "source_change": source_change,
        "data_path": "read-write",
        "started": _iso_time(started),
        "finished": _iso_time(finished),
    }


def _cut_entry(spec: JobSpec, cut: Mapping[str, Any]) -> dict[str, Any]:
    """The cut's method, time and duration; ``skew``: of the cuts in the transaction."""
    made = Cut.from_dict(cut)
    told = made.told() | ({"skew": round(cut["skew"], 6)} if made and not made.consistency and "skew" in cut else {})
    return told | ({"live": True} if spec.live and not made else {})


def _iso_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def manifest_text(manifest: Mapping[str, Any]) -> bytes:
    """The text of a manifest, with a digest of the remaining bytes: a changed byte is always noticed."""
    return seal_json(manifest, indent=2)


def _is_whole(text: bytes, manifest: Mapping[str, Any]) -> bool:
    """Whether the text is unchanged since its digest was computed; version 1 has no digest."""
    return is_whole(text, manifest[KEY]) if KEY in manifest else bool(manifest["version"] == 1)


Opener = Callable[[str], int]  # returns a descriptor for reading, owned by the caller


def as_we_are(path: str) -> int:
    """Open a file with the process's own rights; without O_NONBLOCK, opening a FIFO would wait for ever."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def load_manifest(path: str, opener: Opener = as_we_are, *, changed: bool = False) -> dict[str, Any]:
    """Read a manifest; ``changed``: accept a manifest changed since its writing, in a search for files to leave alone.

    Raises:
        BadInput: the manifest is missing, not JSON, of an unknown version, changed since its writing, or no manifest.
    """
    try:
        with open(opener(path), "rb") as file:
            text = file.read(LARGEST)  # a manifest has a few kB
    except OSError as error:
        raise BadInput(f"manifest {path}: {error.strerror}; an image that a job has committed was expected") from None
    return parse_manifest(text, path, changed=changed)


def parse_manifest(text: bytes, path: str, *, changed: bool = False) -> dict[str, Any]:
    """Parse the text of a manifest; messages name the manifest by ``path``.  Raises as ``load_manifest``."""
    try:
        manifest: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"manifest {path} is not JSON: {_SHOULD}") from None
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if type(version) is not int or not 1 <= version <= VERSION:
        raise BadInput(f"manifest {path}: {_SHOULD}")
    if not changed and not _is_whole(text, manifest):
        raise BadInput(f"manifest {path} was changed since it was written: it does not have its digest")
    _expect_kinds(path, manifest)
    return dict(manifest)


def _expect_kinds(path: str, manifest: Mapping[str, Any]) -> None:
    size = manifest.get("size")
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise BadInput(f"manifest {path}: size: {str(size)[:60]}: a number of bytes was expected")
    for name, kinds in _KINDS.items():
        if name in manifest and not isinstance(manifest[name], kinds):
            known = " or ".join(_WORDS[kind] for kind in kinds)
            raise BadInput(f"manifest {path}: {name}: {str(manifest[name])[:60]}: {known} was expected")


def image_file_identity(fd: int) -> dict[str, Any]:
    """Describe an image's file for the manifest, to recognize the file later: identity, size, time of the last write.

    The time is only ever compared for equality with itself: the clock may have been set between two times.
    """
    st = os.fstat(fd)
    return {"which": which_file(fd), "size": st.st_size, "mtime_ns": st.st_mtime_ns}


def is_image_of_manifest(manifest: Mapping[str, Any], fd: int) -> bool | None:
    """Whether an open file is the image of a manifest, unchanged since publishing; None: the manifest is too old.

    A copy of the image in another file system counts too, if copied with its times (``cp -a``, ``rsync -a``).
    """
    noted = manifest.get("image")
    if not isinstance(noted, dict):
        return None
    found = image_file_identity(fd)
    if (found["size"], found["mtime_ns"]) != (noted.get("size"), noted.get("mtime_ns")):
        return False
    system, _, handle = found["which"].rpartition("/")
    other, _, noted_handle = str(noted.get("which")).rpartition("/")
    return bool(handle == noted_handle or system != other)


def _is_plain_name(name: object) -> bool:
    """Whether ``name`` is the name of a file beside the image."""
    if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\0"} & set(name):
        return False
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:  # a lone surrogate, which JSON allows
        return False


@dataclass(frozen=True, slots=True)
class Findings:
    """Byte ranges of an image that differ from their digests, and unreadable ranges; adjacent ranges are merged.

    ``damage``: defects of the tables of a formatted image, a line each.
    """

    differing: list[list[int]]
    unreadable: list[list[int]]
    damage: tuple[str, ...] = ()
    from_medium: bool = True  # False: the compared bytes may have come from the page cache

    @property
    def bad(self) -> bool:
        return bool(self.differing or self.unreadable or self.damage)


def verify_image(image_path: str, manifest: Mapping[str, Any]) -> Findings:
    """Check the tables of a formatted image as PREPARE did, read the image and compare each chunk.

    Raises:
        BadInput: there are no digests to compare with, or the digests differ from the digests in the manifest.
    """
    source = open_checked(image_path, manifest)
    try:
        damage = image_damage(image_path, manifest)
        for extent in source.extents(0, source.size):
            if extent.data:
                source.check(extent.start, extent.start + extent.length)
        return Findings(source.differing, source.unreadable, damage, source.from_medium)
    finally:
        source.close()


def open_checked(
    path: str, manifest: Mapping[str, Any], opener: Opener = as_we_are, cage: Cage | None = None
) -> CheckedSource:
    """Open a published image to be read to its end; differing and unreadable ranges are recorded, and raise no error.

    Raises:
        BadInput: there are no digests to compare with, or the digests differ from the digests in the manifest.
    """
    size: int = manifest["size"]
    with ExitStack() as opened:  # on an error, closes the files opened before
        digests = opened.enter_context(closing(open_digests(path, manifest, opener)))
        image = opened.enter_context(closing(open_image(path, manifest, opener, cage)))
        source = CheckedSource(image, path, whole=size, digests=digests, size=size, on=Tolerate.ERRORS)
        for start, end in excess_or_missing_bytes(image, manifest):
            source.note(start, end)
        opened.pop_all()
        return source


def excess_or_missing_bytes(image: Source, manifest: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The bytes that an image has too many, or too few."""
    size: int = manifest["size"]
    expected = size if manifest.get("format", "raw") == "raw" else size_of_image(size)
    return [] if image.size == expected else [(min(image.size, size), max(image.size, size))]


def image_damage(
    path: str,
    manifest: Mapping[str, Any],
    opener: Opener = as_we_are,
    cage: Cage | None = None,
    idle: Idle = lambda: None,
) -> tuple[str, ...]:
    """Damage of the tables of a published image of a format, a line each; a raw image has no tables.

    ``idle`` is called five times a second meanwhile.
    """
    form = str(manifest.get("format", "raw"))
    if form not in volumespec.FORMATS:
        return ()
    fd = opener(path)
    try:
        image = FormatVolume(form, FileVolume(path))
        return tuple(damage_of(fd, image, cage, seconds=PATIENCE.copy_check, locks=False, idle=idle))
    except JobFailed as failed:
        if failed.errno != errno.ETIMEDOUT:
            raise
        return (failed.text,)
    finally:
        os.close(fd)


def open_image(
    path: str, manifest: Mapping[str, Any], opener: Opener = as_we_are, cage: Cage | None = None
) -> MediumSource:
    """Open a published image in the format of its manifest, read from its medium if possible.

    An image with digests is whole, whatever layer it names; an image without digests may be a layer, and is refused.
    """
    known, form = ("raw", *volumespec.FORMATS), manifest.get("format", "raw")
    if form not in known:
        raise BadInput(f"image {path}: its manifest names an unknown format: one of {', '.join(known)} was expected")
    try:
        fd = opener(path)
    except OSError as error:
        raise BadInput(f"image {path}: {error.strerror}") from None
    if form == "raw":
        return MediumFile(fd, path)
    whole = bool(manifest.get("digests"))
    return open_format(FormatVolume(str(form), FileVolume(path), alone=whole), lambda _: fd, direct=True, cage=cage)


def open_digests(image_path: str, manifest: Mapping[str, Any], opener: Opener = as_we_are) -> ProvenDigests:
    """Open the digests of an image's chunks; the caller closes the digests.

    Raises:
        BadInput: there are no digests, or digests of an unknown kind, or the digests differ from the manifest's.
    """
    size: int = manifest["size"]
    named = manifest.get("digests")
    if not named:
        raise BadInput(f"image {image_path} was copied with 'digests: false': there is nothing to verify it with")
    if named.get("algorithm") != "blake3" or named.get("chunk") != CHUNK or not _is_plain_name(named.get("file")):
        raise BadInput(f"image {image_path}: its manifest has digests of an unknown kind: blake3 by 1 MiB was expected")
    path = os.path.join(os.path.dirname(image_path), named["file"])
    foreign = f"digests {path} are not the ones that the manifest names"
    try:
        fd = opener(path)
        try:
            drop_cache(fd)
            if os.fstat(fd).st_size != digest_size(size):
                raise BadInput(foreign)
            digests = ProvenDigests(fd, f"digests {path}")
            if digests.root != named.get("root"):
                raise BadInput(foreign)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise BadInput(f"digests {path}: {error.strerror}") from None
    return digests
