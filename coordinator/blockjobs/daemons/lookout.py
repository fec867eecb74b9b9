"""Watch for conditions that need a person, and notify the ``notify.attention`` targets once for each condition.

Any number of lookouts may run, and may die at any point: the step that makes a notice also records the condition as
told.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from blockjobs.model.attention import Thresholds
from blockjobs.model.errors import NoSuchRun
from blockjobs.model.ids import RunId
from blockjobs.model.notices import ATTENTION, attention_body, public_url
from blockjobs.model.overdue import NameSeen, overdue_need
from blockjobs.notify import by_apprise
from blockjobs.process.clock import Every
from blockjobs.registry.doors import Registry
from blockjobs.registry.each import Each, call_unguarded

log = logging.getLogger(__name__)

LOOK: Final = 15.0  # seconds between two checks: a few small reads for each job of the watched runs


@dataclass
class Lookout:
    registry: Registry
    limits: Thresholds = field(default_factory=Thresholds)
    each: Each = call_unguarded
    _due: Every = field(default_factory=lambda: Every(LOOK))

    def once(self) -> None:
        """Check, if a check is due."""
        if self._due():
            self.look()

    def look(self) -> None:
        """Check the lines of the hosts, the watched runs and the names once."""
        self.registry.attention.publish_thresholds(self.limits)
        self.registry.notices.publish_means(apprise=by_apprise.is_apprise_installed())
        self.each("the lines of hosts", self.registry.attention.watch_lines)
        for run in self.registry.attention.watched():
            self.each(f"run {run}: what needs a person", partial(self._look_at, run))
        for seen in self.registry.names.all():
            self.each(f"name {seen.name}: whether it is overdue", partial(self._look_at_name, seen))

    def _look_at(self, run: RunId) -> None:
        attention = self.registry.attention
        over = attention.is_over(run)  # before the check: a later condition is told at the next check
        try:
            view = self.registry.views.run(run)
        except NoSuchRun:
            attention.unwatch(run)
            return
        urls = view.fields.notify.get(ATTENTION, ())
        needs = attention.fresh(run, attention.needs(run, self.limits))
        if needs and urls:
            said = attention_body(run, view.name, attention.to_json(needs), run=run)
            if attention.tell(run, needs, said, urls):
                log.warning(
                    "run %s: needs attention: %s; notification queued for %s",
                    run,
                    needs[0].text,
                    ", ".join(map(public_url, urls)),
                )
        if over:
            attention.unwatch(run)

    def _look_at_name(self, seen: NameSeen) -> None:
        if not seen.is_overdue or not seen.urls:
            return
        need, attention = overdue_need(seen), self.registry.attention
        if seen.told == need.mark:
            return
        unique = f"{seen.name}.{need.mark}"
        said = attention_body(unique, seen.name, attention.to_json([need]))
        if attention.tell_of_name(need, unique, said, seen.urls):
            log.warning("%s; notification queued for %s", need.text, ", ".join(map(public_url, seen.urls)))
