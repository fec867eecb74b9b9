"""Backup, ``sync: full``: the whole source into a staged file, or into nothing (``null-co``)."""

from __future__ import annotations

from blockworker.drivers.base import Job
from blockworker.drivers.copying import Copying
from blockworker.drivers.staged import Staged, open_for_attempt
from blockworker.host.roots import Roots


class Backup(Staged):
    salvages = True

    def attached(self, roots: Roots, job: Job) -> Copying:
        return Copying.of(open_for_attempt(roots, job.claim, still=True), job)
