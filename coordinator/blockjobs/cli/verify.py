"""``verify`` for runs and jobs: on the hosts with the images, by a new run with a job per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import click

from blockjobs.cli.board import Board
from blockjobs.cli.follow import SHOWN
from blockjobs.cli.gather import unavailable_hosts
from blockjobs.cli.phrases import counted_noun, duration_text
from blockjobs.cli.selection import is_glob, is_glob_match
from blockjobs.cli.start import HOSTED, start_and_follow
from blockjobs.client.fleet import Fleet
from blockjobs.model import restores, verifications, volumespec
from blockjobs.model.errors import NoSuchJob, NoSuchRun, Refused, VolumeBusy
from blockjobs.model.ids import Host, JobId, RunId
from blockjobs.model.keep import PublishedTarget
from blockjobs.model.numbers import size_text
from blockjobs.model.policies import Skipped
from blockjobs.model.states import Status
from blockjobs.model.verifications import PublishedImage, image_of, store_of
from blockjobs.model.volumespec import FileVolume
from blockjobs.registry.views import JobView, RunView

ITSELF = "a verification itself"  # not reported where a glob matches a verification


@dataclass(frozen=True, slots=True)
class NoImage:
    """The lack of an image to verify: a reason in a few words, shared by many jobs, and more about this job."""

    reason: str
    more: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.more}" if self.more else self.reason


@dataclass(frozen=True, slots=True)
class ImageSelection:
    """The images of an ID, and the number of jobs without an image, by reason."""

    images: list[PublishedImage] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)

    @property
    def why(self) -> str:
        """``2 failed, 1 pruned``."""
        return ", ".join(f"{number} {reason}" for reason, number in self.left.items() if reason != ITSELF)

    def put(self, each: PublishedImage | NoImage) -> None:
        if isinstance(each, PublishedImage):
            self.images.append(each)
        else:
            self.left[each.reason] += 1


def verify_there(fleet: Fleet, texts: Sequence[str], *, speed: int, detach: bool, json: bool, patience: float) -> int:
    """Verify the images of some IDs, or of HOST:/PATH; return the exit code.

    Raises:
        Refused: an ID has no published image, or a run is still going.
    """
    images = chosen_images(fleet, texts)
    places = [(store.name, store.path) for store in fleet.stores()]
    going, without = readable_images(fleet, [replace(image, store=store_of(image.path, places)) for image in images])
    if not going:
        raise Refused(f"nothing can be verified now: {without[0][1]}")
    return start_and_follow(
        fleet,
        lambda now: verifications.plan_verification(going, now, speed=speed, without=without),
        detach=detach,
        json=json,
        patience=patience,
        ending=verification_lines,
    )


def chosen_images(fleet: Fleet, texts: Iterable[str]) -> list[PublishedImage]:
    """The selected images, without repetition."""
    shelf: Shelf | None = None
    found: dict[tuple[str, str], PublishedImage] = {}
    for text in texts:
        if HOSTED.match(text):
            images = [image_at_path(text)]
        else:
            shelf = shelf or Shelf(fleet)
            images = shelf.find(text)
        for image in images:
            found.setdefault((image.host, image.path), image)
    return list(found.values())


def image_at_path(text: str) -> PublishedImage:
    """The image at a place HOST:/PATH."""
    volume = volumespec.parse_volume(text)
    if not isinstance(volume.volume, FileVolume):
        raise Refused(f"{volume.text} is a device: the file of a published image was expected")
    return PublishedImage(host=volume.host, path=volume.volume.filename)


class Shelf:
    """The published images by the history, and for jobs on record the reasons for a missing image."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._runs = {run.id: run for run in fleet.runs()}
        self._targets: dict[str, list[PublishedTarget]] = {}  # by run
        self._holder: dict[tuple[str, str], str] = {}  # the run that wrote the file at a place last
        for target in sorted(fleet.registry.history.targets(self._runs.values()), key=lambda each: each.at):
            self._targets.setdefault(target.run, []).append(target)
            self._holder[target.place] = target.run

    def find(self, text: str) -> list[PublishedImage]:
        """The images of an ID.

        Raises:
            Refused: the ID has no image, or the run is still going.
        """
        if is_glob(text):
            found, what = self._like(text), f"'{text}'"
        elif (run := self._runs.get(RunId(text))) is not None:
            found, what = ImageSelection(), f"run '{text}'"
            if not run.ended and not self._itself(run):
                raise Refused(f"{what} is still going: {counted_noun(run.open, 'job')} of {run.jobs} are not over")
            self._whole(run, found)
        else:
            return self._one(text)
        if not found.images:
            none = f"it is {ITSELF}" if found.left[ITSELF] else "nothing is published"
            raise Refused(f"{what} has nothing to verify: {found.why or none}")
        if found.why:
            click.echo(f"left out of {what}: {found.why}", err=True)
        return found.images

    def _whole(self, run: RunView, found: ImageSelection) -> None:
        order = {place.job: at for at, place in enumerate(self._fleet.registry.views.places(run.id))}
        targets = sorted(self._targets.get(run.id, ()), key=lambda target: order.get(JobId(target.job), 0))
        for target in targets:
            found.put(self._there(target))
        listed = {target.job for target in targets}
        on_record = [job for job in self._fleet.list(run.id) if job.run == run.id and job.id not in listed]
        for job in on_record:
            found.put(image_outside_history(job))
        if not listed and not on_record and run.pruned:
            found.left["pruned"] += run.pruned

    def _itself(self, run: RunView) -> bool:
        """Whether a run is a verification, which never publishes anything, over or not."""
        return all(job.type == verifications.TYPE for job in self._fleet.list(run.id))

    def _like(self, text: str) -> ImageSelection:
        found = ImageSelection()
        runs = [run for run in self._runs.values() if is_glob_match(run.id, text)]
        for run in runs:
            if run.ended or self._itself(run):
                self._whole(run, found)
            else:
                found.left["still going"] += 1
        whole = {run.id for run in runs}
        others = [target for each, targets in self._targets.items() if each not in whole for target in targets]
        for target in others:
            if is_glob_match(target.job, text):
                found.put(self._there(target))
        listed = {target.job for target in others}
        for job in self._fleet.registry.views.jobs(self._fleet.glances.jobs_like(text)):
            if job.run not in whole and job.id not in listed:
                found.put(image_outside_history(job))
        return found

    def _one(self, text: str) -> list[PublishedImage]:
        """The image of a job; several if a rescan found the image on several hosts."""
        named = [target for targets in self._targets.values() for target in targets if target.job == text]
        if named:
            last = max(named, key=lambda target: target.at).run
            named.sort(key=lambda target: target.host)  # a hash has no order of its own
            found = [self._there(target) for target in named if target.run == last]
            if images := [each for each in found if isinstance(each, PublishedImage)]:
                return images
            got = found[0]
        else:
            if not text.isascii():
                raise NoSuchRun(text)
            try:
                got = image_outside_history(self._fleet.get(text))
            except NoSuchJob:
                raise NoSuchRun(text) from None
        if isinstance(got, PublishedImage):
            return [got]
        raise Refused(f"job '{text}' has nothing to verify: {got}")

    def _there(self, target: PublishedTarget) -> PublishedImage | NoImage:
        holder = self._holder[target.place]
        if holder != target.run:
            return NoImage("replaced", f"by {holder}")
        return PublishedImage(host=target.host, path=target.path, run=target.run, job=target.job)


def image_outside_history(job: JobView) -> PublishedImage | NoImage:
    """The image of a job outside of the history, which only a restore has; else why the job has no image."""
    if job.type == verifications.TYPE:
        return NoImage(ITSELF)
    if job.status is not Status.CONCLUDED:
        return NoImage("not over", f"it is {job.status}")
    if job.ret:
        return NoImage("cancelled") if job.cancelled else NoImage("failed", job.error)
    image = image_of(job.spec)
    if image is None:
        return NoImage("without an image in a file", f"its target is {job.spec.target.text}")
    if job.type != restores.TYPE:
        return NoImage("pruned")
    kept = bool(job.spec.options.get(restores.KEEP_DIGESTS))
    return image if kept else NoImage("restored without --keep-digests", "there is nothing to compare it with")


def readable_images(
    fleet: Fleet, images: Sequence[PublishedImage]
) -> tuple[list[PublishedImage], list[tuple[PublishedImage, str]]]:
    """The images readable now, and the remaining images with the reasons."""
    away = unavailable_hosts(fleet, dict.fromkeys(Host(image.host) for image in images))
    going, without = [], []
    for image in images:
        if image.host in away:
            without.append((image, f"host '{image.host}' {away[Host(image.host)]}"))
        elif holder := fleet.registry.nodes.writer(image.volume):
            busy = VolumeBusy(image.volume.lock, holder, fleet.registry.nodes.type_of(holder))
            without.append((image, str(busy)))
        else:
            going.append(image)
    return going, without


def verification_lines(board: Board, run_id: RunId, skipped: Sequence[Skipped]) -> list[str]:
    """The outcome of a verification: a line, and further lines for images changed or not read."""
    tally = board.runs[run_id]
    took = duration_text(tally.ended - tally.began)
    bad, stopped, away = tally.words["failed"], tally.words["cancelled"], sum(len(each.jobs) for each in skipped)
    good, images = tally.jobs - bad - stopped, tally.jobs + away
    verb = "is as it was" if good == 1 else "are as they were"
    if good == images:
        return [f"run {run_id}: {counted_noun(images, 'image')} {verb} written, {size_text(tally.len)} in {took}"]
    failed = [row for row in board.rows.values() if row.run == run_id and row.outcome == "failed"]
    if images == len(failed) == 1:
        return [f"run {run_id} failed after {took}: {failed[0].error}"]
    counts = "".join(f", {n} {word}" for n, word in [(bad, "failed"), (stopped, "cancelled"), (away, "skipped")] if n)
    lines = [f"run {run_id}: {good} of {counted_noun(images, 'image')} {verb} written{counts}, after {took}"]
    lines += [f"  {row.place.job}: {row.error}" for row in failed[:SHOWN]]
    lines += [f"  {each.host} skipped: {', '.join(each.jobs)}: {each.why}" for each in skipped[:SHOWN]]
    if more := max(0, len(failed) - SHOWN) + max(0, len(skipped) - SHOWN):
        lines.append(f"  ... and {more} more: blockjobs status {run_id}; blockjobs show {run_id}")
    return lines
