"""Collects the facts of a fleet for ``doctor``, each host asked by itself and all at once; judging is the model's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

import blockjobs
from blockjobs.daemons.ask import ask
from blockjobs.daemons.doorbell import Doorbell
from blockjobs.model.checkup import Finding, examine
from blockjobs.model.ids import Host
from blockjobs.model.liveness import WorkerName, lone_absence
from blockjobs.store.fitness import examine_server
from blockjobs.store.glances import Glances
from blockjobs.store.health import Health, beyond
from blockjobs.store.hosts import HostView
from blockjobs.store.owned import unknown
from blockjobs.store.registry import Registry

HOST_PATIENCE: Final = 3.0  # seconds that a host has for its machine; for all of itself it takes longer by itself
PATIENCE: Final = 15.0  # seconds for a host's answer; it looks for at most ten
AT_ONCE: Final = 64  # hosts asked side by side
TWICE: Final = 2  # more questions, that another machine under the same name would answer one of
DOES: Final = {"coordinator": "no copy starts", "finalizer": "no run goes on or ends"}
BLOCK: Final = 1.0  # seconds one read waits: less than a client's timeout


class Checkup:
    def __init__(self, registry: Registry, doorbell: Doorbell) -> None:
        self._registry, self._doorbell = registry, doorbell
        self._health = Health(registry.client)

    def __call__(self, wanted: Sequence[Host] = ()) -> Iterator[Finding]:
        """What there is to say of the control side, and of these hosts (none: all), as it is found."""
        views = self._registry.hosts.views()
        yield from self._control(views)
        chosen = [view for view in views if not wanted or view.name in wanted]
        now = self._registry.hosts.now()
        for host, (count, at) in self._registry.hosts.list_refused([view.name for view in chosen]).items():
            fact = {"host": host, "count": count, "at": _local(at), "hours": (now - at) / 3.6e6}
            yield from examine("refused-events", f"host {host}", fact)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(lambda view: list(self._host(view)), chosen):
                yield from found

    def _control(self, views: Sequence[HostView]) -> Iterator[Finding]:
        yield from examine_server(self._registry.client)
        here = [view for view in views if view.state != "left"]
        yield from examine(
            "redis", "redis", self._health.server(hosts=len(here), slots=sum(view.slots for view in here))
        )  # fmt: skip
        yield from examine("registry", "registry", {"incarnation": self._health.incarnation()})
        for name, alive in self._registry.hosts.daemons().items():
            yield from examine("daemon", name, {"name": name, "alive": alive, "does": DOES[name]})
            for item, error in self._registry.hosts.daemon_aside(name).items():
                yield from examine("aside", name, {"daemon": name, "item": item, "error": error})
        attention = self._registry.attention
        limits = attention.thresholds()
        for run in Glances(self._registry.client).unfinished_runs():
            for need in attention.needs(run, limits):
                yield from examine("attention", f"run {run}", {"run": run, "text": need.text})

    def _host(self, view: HostView) -> Iterator[Finding]:
        fact: dict[str, Any] = {
            "name": view.name, "state": view.state, "slots": view.slots, "ours": blockjobs.__version__,
            "version": str(view.facts.get("version", "")), "patience": PATIENCE, "user": "?", "skew": 0.0,
            "lost": "" if view.unreadable else self._registry.memory.doubt_hosts([view.name]),
            "unreadable": view.unreadable,
            "since": f"since {_local(view.since)}",
            "missing": lone_absence(view.absent), "worker": view.absent[0].worker if view.absent else "",
        }  # fmt: skip
        lacks_steps = any(absence.worker is WorkerName.STEPS for absence in view.absent)
        told = self._ask(view) if view.state == "up" or (view.absent and not lacks_steps) else {}
        yield from examine("host", f"host {view.name}", fact | told)
        for each in view.hanging:
            fact = {**each.to_dict(), "since": f"since {_local(each.since * 1000)}"}
            yield from examine("hanging", f"host {view.name} path {each.path}", fact)
        for item, error in view.aside.items():
            yield from examine("host-aside", f"host {view.name}", {"item": item, "error": error})
        for look in told.get("looks", ()):
            if names := look.pop("transactions", ()):
                look["unowned"] = len(unknown(self._registry.client, view.name, names))
            subject = f"host {view.name} {look['kind']} {look['name']}"
            yield from examine(look["kind"], subject, {**look, "user": told["user"]})

    def _ask(self, view: HostView) -> dict[str, Any]:
        """The host's own answer, how far its clock is off, and which other machines answered in its name."""
        whole = self._look(view.name, "doctor")
        machines, skew = set(), 0.0
        for _ in range(TWICE):
            asked = self._health.now()
            brief = self._look(view.name, "machine")
            said = self._answer(view.name, brief)
            if "clock" not in said:
                return {"silent": True}
            skew = beyond(float(said["clock"]), asked, self._health.now())
            machines.add(str(said["machine"]))
        told = self._answer(view.name, whole)
        if not told:
            return {"silent": True}
        machines.add(str(told["machine"]))
        return told | {"skew": skew, "strangers": ", ".join(sorted(machines - {view.machine}))}

    def _look(self, host: Host, at: str) -> str:
        """Have a host look at itself; the question's name."""
        what = {"ask": "probe", "looks": [{"as": at}], "patience": HOST_PATIENCE}
        return ask(self._registry.questions, self._doorbell, host, what, patience=PATIENCE)

    def _answer(self, host: Host, question: str) -> dict[str, Any]:
        """{}: it did not come in time, or is an older version's."""
        for _ in range(round(PATIENCE / BLOCK)):
            if (found := self._registry.questions.wait(host, question, BLOCK)) is not None:
                answer: dict[str, Any] = found[0]
                return {} if "errno" in answer else answer
        return {}


def _local(milliseconds: float) -> str:
    """A time since the epoch, as the clocks of this machine's zone say it."""
    return f"{datetime.fromtimestamp(milliseconds / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
