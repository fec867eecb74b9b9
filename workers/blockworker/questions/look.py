"""A look at volumes, for a waiting asker: existence, size, and permission to write.

The look makes and changes nothing; facts may change a moment later, and OPEN looks again.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from blockjobs.model import volumespec
from blockjobs.model.cuts import Cut, snapshot_command
from blockjobs.model.errors import BadInput, JobFailed, unexpected_error_text
from blockjobs.model.jobs import JobSpec
from blockjobs.model.volumespec import FileVolume, NullVolume, OtherVolume, Volume
from blockworker.drivers import find_driver
from blockworker.drivers.staged import is_null
from blockworker.host.roots import Roots, file_kind
from blockworker.questions import checkup
from blockworker.questions.forecast import forecast_job, target_room
from blockworker.questions.globs import find_matches
from blockworker.records.files import stat_of
from blockworker.system.cage.limits import PATIENCE
from blockworker.targets.existing import existing_contents
from blockworker.targets.images import Contents
from blockworker.targets.opening import find_member
from blockworker.volumes import REPLACED, Identity, open_source

log = logging.getLogger(__name__)


def inspect_volumes(roots: Roots, looks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every ``{"as": "source" | "target" | "new" | "node", "volume": ...}`` its facts, or an errno and a text.

    A ``new`` target need not exist. ``{"as": "member", "spec": ..., "identity": ...}``: whether this host could take a
    job begun by another host. ``{"as": "glob", "pattern": ...}``: the files that match a pattern, and the names left
    out. ``{"as": "forecast" | "room", "spec": ...}``: the bytes that a job would read, and the room at its target.
    ``{"as": "doctor"}``: the host itself; ``{"as": "machine"}``: only the identity of the host.
    """
    return [_answer_or_error(roots, each) for each in looks]


def _answer_or_error(roots: Roots, each: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _answer_by_kind(roots, each)
    except JobFailed as failed:
        return {"errno": failed.errno, "text": failed.text}
    except BadInput as wrong:
        return {"errno": errno.EINVAL, "text": str(wrong)}
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "text": error.strerror or str(error)}
    except Exception as error:
        log.exception("a look: an error nobody expected")
        return {"errno": errno.EIO, "text": unexpected_error_text(error)}


def _answer_by_kind(roots: Roots, each: Mapping[str, Any]) -> dict[str, Any]:
    if each["as"] == "doctor":
        return checkup.inspect_host(roots.config)
    if each["as"] == "machine":
        return checkup.machine_and_clock(roots.config)
    if each["as"] == "member":
        cut = Cut.from_dict(each.get("cut") or {})
        return _inspect_member(roots, JobSpec.from_dict(each["spec"]), Identity.from_list(each["identity"]), cut)
    if each["as"] == "glob":
        found = find_matches(roots, each["pattern"])
        return {"paths": found.paths, "left-out": [[left.path, left.why] for left in found.left_out]}
    if each["as"] in ("forecast", "room"):
        seen = forecast_job if each["as"] == "forecast" else target_room
        return seen(roots, JobSpec.from_dict(each["spec"]))
    volume = volumespec.parse_volume(each["volume"]).volume
    match each["as"]:
        case "source":
            return _inspect_source(roots, volume)
        case "target":
            return _inspect_target(roots, volume)
        case "new":
            return _inspect_target(roots, volume, made=True)
        case _:
            return _inspect_node(roots, volume)


def _inspect_member(roots: Roots, spec: JobSpec, identity: Identity, cut: Cut) -> dict[str, Any]:
    """Repeat the job's own OPEN, which finds everything made: the same source or its cut, and the staging file."""
    host = roots.config.name
    if spec.in_place:
        raise JobFailed(errno.EBUSY, f"target {spec.target.text} is written in place: the job stays on its host")
    if not is_null(spec) and find_member(roots, spec) is None:
        raise JobFailed(errno.ENOENT, f"host {host} does not see the staging file of target {spec.target.text}")
    opened = find_driver(spec.type, host).open(roots, spec, lambda: True)
    if cut:
        return {"size": opened.size, "reads": opened.reads, "writes": opened.writes} | _inspect_cut(roots, cut)
    what = identity.changed(opened.identity)
    if what in REPLACED:  # the job's own policy judges a source that was written to
        raise JobFailed(errno.EBUSY, f"host {host} sees another source under {spec.source.text} ({what})")
    return {"size": opened.size, "reads": opened.reads, "writes": opened.writes}


def _inspect_cut(roots: Roots, cut: Cut) -> dict[str, Any]:
    """Check that this host sees the same cut as the job, and can remove the cut."""
    if snapshot_command(cut.how):
        raise JobFailed(errno.EXDEV, f"its source is cut by '{cut.how}' of the host that it comes from")
    roots.expect_target(cut.path)
    file = open_source(FileVolume(cut.path), roots)
    try:
        seen = replace(file.identity(), size=int(cut.identity[3]))  # for an image of a format: bytes of the content
    finally:
        file.close()
    if Identity.from_list(cut.identity).changed(seen):
        raise JobFailed(errno.EBUSY, f"host {roots.config.name} sees another file under {cut.path}")
    return {}


def _inspect_source(roots: Roots, volume: Volume) -> dict[str, Any]:
    source = open_source(volume, roots, answer=PATIENCE.glance)
    try:
        return {"size": source.size}
    finally:
        source.close()


def _inspect_target(roots: Roots, volume: Volume, *, made: bool = False) -> dict[str, Any]:
    """Facts of a file that may be replaced, or is to be made; a stand-in has only its own size."""
    bottom = volumespec.bottom_volume(volume)
    if isinstance(bottom, NullVolume):
        return {"size": bottom.size, "allocated": 0}
    if isinstance(bottom, OtherVolume):
        return {"size": 0, "allocated": 0}
    if not isinstance(bottom, FileVolume):
        raise JobFailed(errno.EINVAL, f"{bottom.filename} is a block device; a file was expected as target")
    path = bottom.filename
    roots.expect_target(path)
    directory = roots.open_dir(os.path.dirname(path), what="target directory")
    try:
        st = stat_of(directory, os.path.basename(path))
    finally:
        os.close(directory)
    if st is None and made:
        return {"size": 0, "allocated": 0}
    if st is None:
        raise JobFailed(errno.ENOENT, f"target {path} does not exist on host {roots.config.name}")
    if not stat.S_ISREG(st.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(st.st_mode) else errno.EINVAL
        raise JobFailed(code, f"target {path} is {file_kind(st)}: a regular file was expected")
    if not roots.config.allow_overwrite:
        raise JobFailed(
            errno.EACCES, f"target {path} exists already and host {roots.config.name} does not allow overwriting"
        )
    held = existing_contents(roots, volume) or Contents(st.st_size)
    layer = {"backing": held.backing, "backing_format": held.backing_format} if held.backing else {}
    return {"size": held.size, "allocated": st.st_blocks * 512, **layer}


def _inspect_node(roots: Roots, volume: Volume) -> dict[str, Any]:
    try:
        return _inspect_source(roots, volume)
    except JobFailed as failed:
        if failed.errno != errno.EACCES or not isinstance(volumespec.bottom_volume(volume), FileVolume):
            raise
        unread = failed
    try:
        return _inspect_target(roots, volume)  # outside of the read roots: the volume may be meant as a target
    except JobFailed as failed:
        raise unread if failed.errno == errno.EACCES else failed from None
