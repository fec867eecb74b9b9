"""The stories that both servers must tell alike."""

from __future__ import annotations

from typing import Final

from stories_of_arguments import ARGUMENTS
from stories_of_drives import DRIVES
from stories_of_groups import GROUPS
from stories_of_jobs import ERRORS, ONE_JOB, VERBS_AND_STATES
from stories_of_mirrors import MIRRORS
from stories_of_resizes import RESIZES

STORIES: Final = [*ARGUMENTS, *VERBS_AND_STATES, *ONE_JOB, *ERRORS, *GROUPS, *MIRRORS, *DRIVES, *RESIZES]
