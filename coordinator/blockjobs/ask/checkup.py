"""Collection of the facts of a fleet for ``doctor``, in parallel over the hosts; the model judges the facts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, Final

import redis

import blockjobs
from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.question import put_question
from blockjobs.model.attention import Thresholds
from blockjobs.model.checkup import Finding, Level, examine_fact
from blockjobs.model.errors import BlockjobsError, unexpected_error_text
from blockjobs.model.ids import Host, RunId
from blockjobs.model.liveness import WorkerName, lone_absence
from blockjobs.model.overdue import overdue_text
from blockjobs.registry.doors import Registry
from blockjobs.registry.fitness import Fact, read_kind, read_settings
from blockjobs.registry.glances import Glances
from blockjobs.registry.health import Health, distance_outside_range
from blockjobs.registry.hosts import HostView
from blockjobs.registry.odd import Unreadable
from blockjobs.registry.owned import unknown_transactions

HOST_PATIENCE: Final = 3.0  # seconds for a host to check its machine; the limit for the whole answer is longer
PATIENCE: Final = 15.0  # seconds to wait for a host's answer; a host takes at most ten
AT_ONCE: Final = 64  # hosts asked in parallel
TWICE: Final = 2  # further questions; a second machine under the same name would answer one of them
DOES: Final = {"coordinator": "no copy starts", "finalizer": "no run goes on or ends"}
BLOCK: Final = 1.0  # seconds of waiting in one read: less than a client's timeout


RUNS: Final = 200  # of the newest runs, the records are read
Look = Callable[[], Iterable[Finding]]
ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (  # advice about a failed check; the first match counts
    (redis.exceptions.NoPermissionError, "give this user that right in the ACL file; see docs/security.md"),
    (redis.exceptions.OutOfMemoryError, "raise maxmemory: writes are being refused"),
    (redis.exceptions.ReadOnlyError, "connect to its primary"),
    (redis.exceptions.BusyLoadingError, "wait until Redis has loaded its data"),
    (redis.exceptions.RedisError, "look at the log of Redis, and whether the URL is that of the right server"),
    (Unreadable, "install the same version everywhere"),
    (Exception, "this is a fault of blockjobs, or a record of another version: install the same version everywhere"),
)


def look_alone(subject: str, what: str, look: Look) -> Iterator[Finding]:
    """The findings of a check; a failed check is a finding too, and does not stop other checks."""
    try:
        yield from look()
    except Exception as error:
        ours = isinstance(error, redis.RedisError | BlockjobsError)
        why = (" ".join(str(error).split()) or type(error).__name__) if ours else unexpected_error_text(error)
        text = f"{what} cannot be looked at: {why}"
        yield Finding(Level.ERROR, subject, text, next(advice for kind, advice in ADVICE if isinstance(error, kind)))


class Checkup:
    def __init__(self, registry: Registry, doorbell: Doorbell) -> None:
        self._registry, self._doorbell = registry, doorbell
        self._health = Health(registry.client)
        self._views: list[HostView] = []

    def __call__(self, wanted: Sequence[Host] = ()) -> Iterator[Finding]:
        """Findings about the control side and about these hosts (none: every host), as they are found."""
        self._views = []
        for subject, what, look in self._control():
            yield from look_alone(subject, what, look)
        chosen = [view for view in self._views if not wanted or view.name in wanted]
        yield from look_alone("hosts", "events that were refused", lambda: self._refused(chosen))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(self._one, chosen):
                yield from found
        for name, why in self._registry.odd.found().items():
            yield from examine_fact("unreadable", name, {"why": why})

    def _control(self) -> Iterator[tuple[str, str, Look]]:
        """The checks of the control side: subject, description, and the check."""
        client, health = self._registry.client, self._health
        yield "redis", "its version, role and mode", lambda: _examine_redis_facts(read_kind(client))
        yield "redis", "its settings", lambda: _examine_redis_facts(read_settings(client))
        yield "hosts", "what hosts tell of themselves", self._read_hosts
        yield "redis", "its memory and connections", self._server
        yield "redis", "how long a script takes", lambda: examine_fact("script", "redis", {"ms": health.script_takes()})
        yield "redis", "how long a write takes", lambda: examine_fact("write", "redis", {"ms": health.write_takes()})
        yield "redis", "its clock", lambda: examine_fact("clock", "redis", {"ahead": health.clock_difference()})
        yield (
            "registry",
            "its incarnation",
            lambda: examine_fact("registry", "registry", {"incarnation": health.incarnation()}),
        )
        for name in DOES:
            yield name, "whether it runs", partial(self._daemon, name)
            yield name, "what it has put aside", partial(self._aside, name)
        yield "runs", "what needs attention", self._attention
        yield "names", "whether they are overdue", self._names
        yield "runs", "their records", self._read_runs

    def _read_hosts(self) -> Iterator[Finding]:
        self._views = list(self._registry.hosts.views())
        yield from ()

    def _server(self) -> Iterator[Finding]:
        here = [view for view in self._views if view.state != "left"]
        slots = sum(view.slots for view in here)
        yield from examine_fact("redis", "redis", self._health.server(hosts=len(here), slots=slots))

    def _daemon(self, name: str) -> Iterator[Finding]:
        alive = self._registry.hosts.daemons()[name]
        yield from examine_fact("daemon", name, {"name": name, "alive": alive, "does": DOES[name]})

    def _aside(self, name: str) -> Iterator[Finding]:
        for item, error in self._registry.hosts.daemon_aside(name).items():
            yield from examine_fact("aside", name, {"daemon": name, "item": item, "error": error})

    def _attention(self) -> Iterator[Finding]:
        limits = self._registry.attention.thresholds()
        for run in Glances(self._registry.client).unfinished_runs():
            yield from look_alone(f"run {run}", "whether it needs attention", partial(self._needs, run, limits))

    def _needs(self, run: RunId, limits: Thresholds) -> Iterator[Finding]:
        for need in self._registry.attention.needs(run, limits):
            yield from examine_fact("attention", f"run {run}", {"run": run, "text": need.text})

    def _names(self) -> Iterator[Finding]:
        for seen in self._registry.names.all():
            text = overdue_text(seen).removeprefix(f"{seen.name}: ")
            fact = {"name": seen.name, "late": seen.is_overdue, "text": text}
            yield from examine_fact("overdue", f"name {seen.name}", fact)

    def _read_runs(self) -> Iterator[Finding]:
        """Read the runs to record the unreadable ones; no findings."""
        views = self._registry.views
        views.runs(limit=RUNS)
        for run in Glances(self._registry.client).unfinished_runs():
            deque(views.jobs(views.places(run)), maxlen=0)
        yield from ()

    def _refused(self, chosen: Sequence[HostView]) -> Iterator[Finding]:
        now = self._registry.hosts.now()
        for host, (count, at) in self._registry.hosts.list_refused([view.name for view in chosen]).items():
            fact = {"host": host, "count": count, "at": _local_time(at), "hours": (now - at) / 3.6e6}
            yield from examine_fact("refused-events", f"host {host}", fact)

    def _one(self, view: HostView) -> list[Finding]:
        return list(look_alone(f"host {view.name}", "it", lambda: self._host(view)))

    def _host(self, view: HostView) -> Iterator[Finding]:
        fact: dict[str, Any] = {
            "name": view.name, "state": view.state, "slots": view.slots, "ours": blockjobs.__version__,
            "version": str(view.facts.get("version", "")), "patience": PATIENCE, "user": "?", "skew": 0.0,
            "lost": "" if view.unreadable else self._registry.memory.doubt_hosts([view.name]),
            "unreadable": view.unreadable,
            "since": f"since {_local_time(view.since)}",
            "missing": lone_absence(view.absent), "worker": view.absent[0].worker if view.absent else "",
        }  # fmt: skip
        lacks_steps = any(absence.worker is WorkerName.STEPS for absence in view.absent)
        told = self._ask(view) if view.state == "up" or (view.absent and not lacks_steps) else {}
        yield from examine_fact("host", f"host {view.name}", fact | told)
        for each in view.hanging:
            fact = {**each.to_dict(), "since": f"since {_local_time(each.since * 1000)}"}
            yield from examine_fact("hanging", f"host {view.name} path {each.path}", fact)
        for item, error in view.aside.items():
            yield from examine_fact("host-aside", f"host {view.name}", {"item": item, "error": error})
        for look in told.get("looks", ()):
            subject = f"host {view.name} {look.get('kind')} {look.get('name')}"
            yield from look_alone(subject, "it", partial(self._look_of, view.name, subject, look, told))

    def _look_of(self, host: Host, subject: str, look: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Finding]:
        """Findings about one subject of a host, from the host's answer."""
        names = look.get("transactions", ())
        unowned = {"unowned": len(unknown_transactions(self._registry.client, host, names))} if names else {}
        yield from examine_fact(look["kind"], subject, {**look, **unowned, "user": told["user"]})

    def _ask(self, view: HostView) -> dict[str, Any]:
        """The host's answer, the error of its clock, and any other machines that answered under the name."""
        whole = self._look(view.name, "doctor")
        machines, skew = set(), 0.0
        for _ in range(TWICE):
            asked = self._health.now()
            brief = self._look(view.name, "machine")
            said = self._answer(view.name, brief)
            if "clock" not in said:
                return {"silent": True}
            skew = distance_outside_range(float(said["clock"]), asked, self._health.now())
            machines.add(str(said["machine"]))
        told = self._answer(view.name, whole)
        if not told:
            return {"silent": True}
        machines.add(str(told["machine"]))
        return told | {"skew": skew, "strangers": ", ".join(sorted(machines - {view.machine}))}

    def _look(self, host: Host, at: str) -> str:
        """Have a host check itself; return the question's name."""
        what = {"ask": "probe", "looks": [{"as": at}], "patience": HOST_PATIENCE}
        return put_question(self._registry.questions, self._doorbell, host, what, patience=PATIENCE)

    def _answer(self, host: Host, question: str) -> dict[str, Any]:
        """The answer; {} if late, or from an older version."""
        for _ in range(round(PATIENCE / BLOCK)):
            if (found := self._registry.questions.wait(host, question, BLOCK)) is not None:
                answer: dict[str, Any] = found[0]
                return {} if "errno" in answer else answer
        return {}


def _local_time(milliseconds: float) -> str:
    """A time since the epoch, in the time zone of this machine."""
    return f"{datetime.fromtimestamp(milliseconds / 1000).astimezone():%Y-%m-%d %H:%M:%S}"


def _examine_redis_facts(facts: Iterable[Fact]) -> Iterator[Finding]:
    for kind, fact in facts:
        yield from examine_fact(kind, "redis", fact)
