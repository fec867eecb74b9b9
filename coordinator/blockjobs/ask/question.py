"""Questions to a host: the content lies in the registry, and the message to the host only names the question.

A user with write access to a broker queue can ring, and nothing more: the content of a prune or a resize is writable
only by the control plane and the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blockjobs.ask.doorbell import Doorbell
from blockjobs.model.ids import Host
from blockjobs.registry.questions import Questions

SPARE: Final = 10.0  # seconds that a question stays in the registry beyond the asker's patience


def put_question(
    questions: Questions,
    doorbell: Doorbell,
    host: Host,
    what: Mapping[str, Any],
    *,
    patience: float,
    changes: bool = False,
) -> str:
    """Ask, and return the question's name, the key of the answer.

    ``what``: ``ask``, one of probe, resize, prune, resolve, sweep, rescan and replace, and the arguments.
    ``patience``: seconds of waiting for the answer.  ``changes``: the host needs a permit, given for twice the
    patience.
    """
    question = questions.new()
    if changes:
        questions.permit(host, question, 2 * patience)
    questions.put(host, question, what, patience + SPARE)
    doorbell.question(host, question)
    return question
