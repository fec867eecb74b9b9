"""Why a job does not move, the question of an operator at night.  Pure: every known fact is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from blockjobs.cli.phrases import counted_noun, hanging_path_text, since_text, speed_text, time_of_day
from blockjobs.model.attention import HOLDABLE, unsettled_text
from blockjobs.model.barriers import BY_HOSTS, FORWARD, Step
from blockjobs.model.hanging import hanging_under
from blockjobs.model.ids import Host
from blockjobs.model.liveness import lone_absence
from blockjobs.model.states import Status
from blockjobs.registry.hosts import HostView
from blockjobs.registry.limits import StoreView
from blockjobs.registry.verbs import HoldTerms
from blockjobs.registry.views import JobView, TxnView

QUEUED: Final = (Status.RUNNING, Status.READY)
HANGING: Final = 3  # hanging paths of a host reported for a job


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A job and the facts that decide when it goes on."""

    job: JobView
    txn: TxnView | None
    hosts: Mapping[Host, HostView]
    ahead: int | None  # jobs that get a slot of the host before this job; None: the job waits for no slot
    daemons: Mapping[str, bool]
    store: StoreView | None = None  # of the job's target
    before: int | None = None  # jobs that get a place in the store before this job; None: the job waits for no place
    behind: str = ""  # the earlier run of the same name that the job's run waits for
    held_since: Mapping[str, float] = field(default_factory=dict)
    terms: Mapping[str, HoldTerms] = field(default_factory=dict)  # of holds with an owner or an end

    @property
    def now(self) -> float:
        return self.job.now / 1000


def reasons_to_wait(scene: Scene) -> list[str]:
    """The reasons for the job's wait, most important first; empty if the job moves or is over."""
    job = scene.job
    if job.status is Status.CONCLUDED:
        return []
    reasons = _hold_reasons(scene) if job.status in HOLDABLE else []
    if job.unsettled:
        reasons.append(unsettled_text(job.unsettled, scene.txn.decision if scene.txn else ""))
    match job.status:
        case Status.CREATED:
            reasons += _barrier_reasons(scene)
        case Status.RUNNING | Status.READY if not job.claimed:
            reasons += _slot_reasons(scene)
        case Status.PAUSED | Status.STANDBY if not job.holds and not job.claimed:
            reasons += _slot_reasons(scene)
        case Status.READY:
            reasons.append(f"ready: waits for complete: blockjobs complete {job.id}")
        case Status.WAITING:
            reasons += _peer_reasons(scene)
        case Status.PENDING:
            reasons += _barrier_reasons(scene)
        case Status.ABORTING:
            reasons += ["waits for its attempt to end"] if job.claimed else _barrier_reasons(scene)
    reasons += _hang_of_attempt(scene)
    if any(job.diverging):
        changes, copied = map(speed_text, job.diverging)
        reasons.append(f"does not converge: its source changes by {changes}, {copied} are copied")
    if job.claimed and job.status in QUEUED and (down := _absence_of_host(scene, job.host)):
        reasons.append(down)
    return reasons


def _hang_of_attempt(scene: Scene) -> list[str]:
    """The hanging path that delays the job's attempt, or would delay its next attempt."""
    job = scene.job
    if job.claimed and job.hangs:
        at, path = job.hangs
        return [f"{path} on host {job.host} hangs {since_text(at / 1000, scene.now)}: its attempt waits for it"]
    return _hanging_paths(scene, job.host, every=False) if not job.claimed and job.status in QUEUED else []


def reason_of_slowness(scene: Scene) -> str:
    """Why the job may move less than the user's limit allows; "" without a lower limit."""
    job, host = scene.job, scene.hosts.get(scene.job.host)
    if not job.slowed:
        return ""
    by = [f"host {host.name} ({speed_text(host.speed)} for all its copies)"] if host is not None and host.speed else []
    if scene.store is not None and scene.store.speed:
        by.append(f"store {scene.store.name} ({speed_text(scene.store.speed)} for all hosts)")
    return f"slowed to {speed_text(job.limit)} by {' and '.join(by) or 'a limit that was lifted'}"


def absent_hosts_owing(txn: TxnView, hosts: Mapping[Host, HostView], now: float) -> list[str]:
    """The absent hosts that owe a step, with the step."""
    step = _first_owed_step(txn)
    told = []
    for name, owed in sorted(txn.owing.items()):
        host = hosts.get(name)
        if step and owed.get(step, 0) > 0 and host is not None and host.state != "up":
            missing = lone_absence(host.absent)
            why = f" ({missing})" if missing else ""
            at = since_text(host.since / 1000, now)
            told.append(f"host {name} is {host.state} {at}{why} and owes {str(step).upper()}")
    return told


def _hold_reasons(scene: Scene) -> list[str]:
    told = []
    for reason, cause in scene.job.holds.items():
        if reason == "created":
            continue
        at = scene.held_since.get(reason)
        text = f"held by {reason}" + (f" ({since_text(at, scene.now)})" if at else "") + (f": {cause}" if cause else "")
        if terms := scene.terms.get(reason):
            text += f"; by {terms.owner}" * bool(terms.owner)
            text += f"; until {time_of_day(terms.until / 1000, scene.now)}" if terms.until else ""
        told.append(text + ("; its attempt has not stopped yet" if scene.job.busy else ""))
    return told


def _slot_reasons(scene: Scene) -> list[str]:
    job, store = scene.job, scene.store
    if down := _absence_of_host(scene, job.host):
        return [down]
    host = scene.hosts[job.host]
    if store is not None and scene.before is not None:
        running = f"{store.running} of {store.jobs} copies run"
        text = f"waits for a place in store {store.name}: {running}, {scene.before} ahead"
    else:
        ahead = f", {scene.ahead} ahead" if scene.ahead is not None else ""
        text = f"waits for a slot on {job.host}: {host.running} running{ahead}"
    if scene.daemons["coordinator"]:
        return [text]
    return [text, "the coordinator is not running: waiting jobs are not started"]


def _peer_reasons(scene: Scene) -> list[str]:
    """The reasons for a wait after the job's own copy is done."""
    if scene.txn is None:
        return []
    owing = {host: owed["run"] for host, owed in sorted(scene.txn.owing.items()) if owed.get("run", 0) > 0}
    if not owing:
        return _barrier_reasons(scene)
    where = ", ".join(f"{n} on {host}" for host, n in owing.items())
    return [f"waits for {counted_noun(sum(owing.values()), 'member')} of its transaction to be copied: {where}"] + [
        text
        for host in owing
        for text in [*filter(None, [_absence_of_host(scene, host)]), *_hanging_paths(scene, host, every=True)]
    ]


def _barrier_reasons(scene: Scene) -> list[str]:
    """The reasons for a wait at a barrier of the transaction."""
    txn, told = scene.txn, []
    if txn is None:
        told.append("waits for its transaction to be closed")
    elif txn.doubt:
        told.append(f"not decided: {txn.doubt}")
    elif scene.behind and not txn.decision:
        told.append(f"queued: waits for run {scene.behind} to end")
    elif txn.begins and not txn.decision:
        tries = f"try {scene.job.tries} of {scene.job.tries + txn.retry}"
        begins = time_of_day(txn.begins / 1000, scene.now)
        told.append(f"{tries} begins at {begins}; the last try failed: {scene.job.failed_with}")
    elif txn.barrier == "finalize" and not txn.decision:
        told.append(f"waits for finalize {since_text(txn.since / 1000, scene.now)}: blockjobs finalize {txn.id}")
    else:
        step = _first_owed_step(txn)
        owing = [host for host, owed in sorted(txn.owing.items()) if step and owed.get(step, 0) > 0]
        if step in BY_HOSTS and owing:
            told += [down for host in owing if (down := _absence_of_host(scene, host))]
            verb = "owes" if len(owing) == 1 else "owe"
            when = since_text(txn.since / 1000, scene.now)
            told.append(f"waits for {', '.join(owing)}, which {verb} {str(step).upper()} {when}")
            told += [text for host in owing for text in _hanging_paths(scene, host, every=True)]
        else:
            told.append("waits for the finalizer")
    if not scene.daemons["finalizer"]:
        told.append("the finalizer is not running: transactions are not opened, decided or ended")
    return told


def _first_owed_step(txn: TxnView) -> Step | None:
    """The first step that a host or the finalizer owes."""
    steps = (Step.SETTLE, Step.CONCLUDE) if txn.decision else FORWARD
    return next((step for step in steps if any(owed.get(step, 0) > 0 for owed in txn.owing.values())), None)


def _hanging_paths(scene: Scene, name: Host, *, every: bool) -> list[str]:
    """The paths that hang beneath this job or in the job's transaction on a host; ``every``: else any hanging path."""
    host, job = scene.hosts.get(name), scene.job
    if host is None:
        return []
    mine = [each for each in host.hanging if each.transaction == job.transaction]
    if not mine and name == job.host and (under := hanging_under(host.hanging, job.spec)):
        mine = [under]
    if not mine and every:
        mine = [*host.hanging]
    return [f"on host {name} {hanging_path_text(each, scene.now)}" for each in mine[:HANGING]]


def _absence_of_host(scene: Scene, name: Host) -> str:
    host = scene.hosts.get(name)
    if host is None:
        return f"host {name} is not known"
    if host.state == "up":
        return ""
    missing = lone_absence(host.absent)
    return f"host {name} is {host.state} {since_text(host.since / 1000, scene.now)}" + (
        f": {missing}" if missing else ""
    )
