"""Every token, revision, decision, lease, clock and rights check of the control plane, one line each."""

from __future__ import annotations

from typing import Final

from lines import beneath

from control_plane.attempts import ATTEMPTS
from control_plane.budgets import BUDGETS
from control_plane.clocks import CLOCKS
from control_plane.decisions import DECISIONS
from control_plane.events import EVENTS
from control_plane.fleet import FLEET
from control_plane.full_redis import FULL_REDIS
from control_plane.jobs import JOBS
from control_plane.keeping import KEEPING
from control_plane.liveness import LIVENESS
from control_plane.memory import MEMORY
from control_plane.questions import QUESTIONS
from control_plane.rescans import RESCANS
from control_plane.rights import USERS
from control_plane.runs import RUNS
from control_plane.servers import SERVERS
from control_plane.steps import STEPS
from control_plane.verbs import VERBS

CONTROL_PLANE: Final = beneath(
    "coordinator/blockjobs",
    ATTEMPTS,
    FULL_REDIS,
    STEPS,
    DECISIONS,
    LIVENESS,
    EVENTS,
    CLOCKS,
    RUNS,
    KEEPING,
    QUESTIONS,
    VERBS,
    JOBS,
    MEMORY,
    BUDGETS,
    USERS,
    SERVERS,
    FLEET,
)  # fmt: skip
BOTH: Final = RESCANS  # what hosts and the control plane do together
