"""Resize of an image by its host, with a short wait for the answer: beside no job, at most once, and never afterwards.

The volume is reserved meanwhile, and no job can begin with the volume.  The host needs the question's permit.  Either
the host takes the permit and resizes, or the asker takes the permit back and knows that no resize will happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.probe import PATIENCE
from blockjobs.ask.question import put_question
from blockjobs.model import volumespec
from blockjobs.model.errors import HostDown
from blockjobs.model.volumespec import HostedVolume
from blockjobs.registry.doors import Registry
from blockjobs.registry.hosts import check_host

WORD: Final = "resize"  # shown in the reservation in place of a job's type


class Resize:
    def __init__(self, registry: Registry, doorbell: Doorbell) -> None:
        self._registry, self._doorbell = registry, doorbell

    def __call__(self, volume: HostedVolume, size: int) -> Mapping[str, Any]:
        """Resize; return the host's answer: the new size, or an errno and a text.

        Raises:
            VolumeBusy: a job uses the volume.
            HostDown: the host is down, or did not answer in time.
        """
        host, nodes, questions = volume.host, self._registry.nodes, self._registry.questions
        check_host(host, self._registry.hosts.known().get(host))
        holder = nodes.reserve(volume, WORD)
        what = {"ask": "resize", "volume": volumespec.to_dict(volume), "size": size, "patience": PATIENCE}
        question = put_question(questions, self._doorbell, host, what, patience=PATIENCE, changes=True)
        answer: Mapping[str, Any] | None = questions.wait(host, question, PATIENCE)
        if answer is None and not questions.take_permit(host, question):
            # The host is at work: the reservation stays until it expires.
            raise HostDown(host, f"did not answer within {PATIENCE:.0f} s: whether the image was resized is unknown")
        if answer is not None and not answer.get("errno"):
            nodes.resized(volume, size)
        nodes.unreserve(volume, holder)
        if answer is None:
            raise HostDown(host, f"did not answer within {PATIENCE:.0f} s: the image was not resized")
        return answer
