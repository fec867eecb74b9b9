"""The kinds of events: required fields by kind, and the kinds written by the workers of a host."""

from __future__ import annotations

from typing import Final

# Required fields of each kind of event; # marks a whole number.  An event without a required field cannot be read.
NEEDS: Final[dict[str, str]] = {
    "RUN_PUBLISHED":       "jobs#",
    "RUN_LATE":            "reason",
    "RUN_REPLACED":        "by",
    "RUN_ENDED":           "jobs# failed# cancelled#",
    "TRANSACTION_CUT":     "begin end",
    "TRANSACTION_DECIDED": "decision why",
    "NOTICE_SENT":         "outcome url",
    "NOTICE_FAILED":       "outcome url error",
    "JOB_STATUS_CHANGE":   "from status",
    "JOB_HELD":            "reason",
    "JOB_UNHELD":          "reason",
    "JOB_RETRIED":         "try of delay",
    "JOB_MOVED":           "from to",
    "JOB_CUT":             "how begin end frozen",
    "JOB_SPEED":           "speed#",
    "JOB_CALLED_OFF":      "reason",
    "JOB_UNSETTLED":       "error",
    "JOB_WARNING":         "text",
    "JOB_RESOLVED":        "how published-as",
    "TARGET_UNDEFINED":    "reason",
    "TARGET_PRUNED":       "target why",
    "TARGET_LEFT":         "target why",
    "TARGET_FOUND":        "target",
    "TARGET_MOVED":        "target",
    "TARGET_COUNTED":      "target",
    "ATTEMPT_CLAIMED":     "attempt",
    "ATTEMPT_RELEASED":    "reason",
    "ATTEMPT_DIED":        "how log",
    "BLOCK_JOB_PENDING":   "type",
    "BLOCK_JOB_READY":     "type len# offset# speed#",
    "BLOCK_JOB_COMPLETED": "type len# offset# speed#",
    "BLOCK_JOB_CANCELLED": "type len# offset# speed#",
    "BLOCK_JOB_ERROR":     "operation action reason",
    "STORE_SET":           "jobs# speed# by",
    "STORE_REMOVED":       "by",
    "HOST_LIMITED":        "speed# by",
    "HOST_RENAMED":        "to by",
    "HOST_REMOVED":        "by",
    "HOST_DOWN":           "state",
    "CLOCK_JUMPED":        "seconds",
}  # fmt: skip
# The kinds written by a host's workers.  The move of events refuses an entry of a host's stream with a kind outside
# this set, or without a required field.
BY_WORKERS: Final = frozenset({
    "HOST_REGISTERED", "HOST_LEFT",
    "ATTEMPT_CLAIMED", "ATTEMPT_RELEASED", "ATTEMPT_DIED",
    "JOB_STATUS_CHANGE", "JOB_HELD", "JOB_WARNING", "JOB_CUT", "JOB_RESOLVED", "JOB_UNSETTLED", "JOB_STALLED",
    "TARGET_UNDEFINED", "BLOCK_JOB_ERROR", "BLOCK_JOB_READY", "MIRROR_CONVERGING", "MIRROR_NOT_CONVERGING",
})  # fmt: skip


def list_needs(kind: str) -> dict[str, bool]:
    """The required fields of a kind of event; True: a whole number."""
    return {name.rstrip("#"): name.endswith("#") for name in NEEDS.get(kind, "").split()}
