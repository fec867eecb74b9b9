"""Put a question to a host: what is asked lies in the registry, and the bell that is rung for it names it only.

Whoever can write to a broker's queue can ring, and no more: what is to be pruned or resized stands where only the
control plane and the host itself may write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.model.ids import Host
from blockjobs.registry.questions import Questions

SPARE: Final = 10.0  # seconds that a question lies there beyond the patience of whoever asks


def ask(
    questions: Questions, doorbell: Doorbell, host: Host, what: Mapping[str, Any], *, patience: float,
    changes: bool = False,
) -> str:  # fmt: skip
    """Ask, and return the question's name, under which the answer comes.

    ``what``: ``ask``, one of probe, resize, prune, resolve, sweep, rescan and replace, and what that needs.
    ``patience``: seconds that the answer is waited for.  ``changes``: the host needs a permit for it, which is given
    for twice that time.
    """
    question = questions.new()
    if changes:
        questions.permit(host, question, 2 * patience)
    questions.put(host, question, what, patience + SPARE)
    doorbell.question(host, question)
    return question
