"""The Celery app of one host: a host runs two workers, ``copy`` (one process per slot) and ``steps`` (threads).

A Celery task only names a job or a step; the worker reads the work from the registry.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import Any, Final

from celery import Celery, Task
from celery.signals import setup_logging, worker_ready, worker_shutdown, worker_shutting_down
from kombu.exceptions import OperationalError

from blockjobs.broker.tasks import (
    COPY_TASK,
    PULSE_TASK,
    QUESTION_TASK,
    STEP_TASK,
    configure_celery,
    copy_queue,
    send_pulse,
    steps_queue,
)
from blockjobs.model.ids import JobId, TxnId
from blockjobs.model.liveness import WorkerName
from blockjobs.process.watchdog import report_alive, report_interval, report_ready
from blockjobs.registry.connection import connect_client, connect_control_line
from blockjobs.registry.doors import HostRegistry
from blockworker import drivers
from blockworker.attempt import attempt, control, deaths, farewell, spares
from blockworker.host import state
from blockworker.host.config import HostConfig
from blockworker.host.roots import Roots
from blockworker.records.highest_decision import Highest
from blockworker.steps.desk import Desk
from blockworker.steps.forker import Forker
from blockworker.steps.lanes import Lanes
from blockworker.steps.path_mounts import MountTable
from blockworker.steps.questions import redis_may_be_away
from blockworker.steps.work import serve_connection as serve_errands
from blockworker.system.threads import vital_thread
from blockworker.watch.heartbeat import Heartbeat
from blockworker.watch.pulse import LastTaken, Pulse
from blockworker.watch.watcher import Watcher

log = logging.getLogger(__name__)

STEP_THREADS: Final = 4
CONNECTIONS: Final = 1  # to the registry, in a steps worker's main process: threads talk for moments, in turn
NAME_PATIENCE: Final = 10.0  # seconds that a copy waits for a heartbeat before it is claimed
SHOWN: Final = 30.0  # seconds between two signs of life for Flower, the only reader
LAST_ERRANDS: Final = 5.0  # seconds for errands under way to end, when the worker is stopped

# Set in the worker's main process, seen by its children: shared memory made before the fork.
_DRAIN: Final = mmap.mmap(-1, 1)


def build_copy_app(url: str, config: HostConfig, heartbeat: Heartbeat, taken: LastTaken) -> Celery:
    """Build the app of the copy worker. Every attempt is a process with a separate line to Redis."""
    app, roots = _configured_app(url, config, taken), Roots(config)

    @app.task(name=COPY_TASK, bind=True)
    def copy(task: Task[Any, Any], job: str) -> str:
        taken.note()
        if not heartbeat.await_current(NAME_PATIENCE):
            return f"{job} on {config.name}: not claimed: nobody knows whether this host still has its name"

        def tell(text: str) -> None:
            """Show progress in Flower, in a field known to Flower."""
            with suppress(Exception):  # a dashboard is no reason to fail a copy
                task.send_event("task-progress", retry=False, result=f"{job} on {config.name}: {text}")

        client, waiting = connect_control_line(url), connect_control_line(url, waits=control.INTERVAL)
        try:
            registry = HostRegistry(client, config.name, waiting=waiting)
            asked = f"job {job}: whether it has to wait for a path that hangs"
            if path := attempt.ask_surely(asked, lambda: registry.attempts.held_back(JobId(job)), attempt.PATIENCE):
                return f"{job} on {config.name}: not claimed: {path} hangs"
            how = attempt.run_attempt(registry.attempts, roots, JobId(job), draining=lambda: _DRAIN[0] == 1, tell=tell)
            return f"{job} on {config.name}: {how}"
        finally:
            client.close()
            waiting.close()

    return app


def build_steps_app(url: str, config: HostConfig, desk: Desk, heartbeat: Heartbeat, taken: LastTaken) -> Celery:
    """Build the app of the steps worker. Threads of the worker hand over work on paths, and never wait for a path."""
    app = _configured_app(url, config, taken)

    @app.task(name=STEP_TASK)
    def step(name: str, txn: str) -> None:
        taken.note()
        with redis_may_be_away(f"transaction {txn}: {name} is rung for again"):
            heartbeat.renew()
            desk.step(name, TxnId(txn))

    @app.task(name=QUESTION_TASK)
    def question(name: str) -> None:
        taken.note()
        with redis_may_be_away("a question was not answered, or nobody heard of it"):
            heartbeat.renew()
            desk.question(name)

    return app


def _configured_app(url: str, config: HostConfig, taken: LastTaken) -> Celery:
    app = Celery(f"blockjobs-{config.name}", set_as_current=False)
    configure_celery(app, url)
    app.task(name=PULSE_TASK)(taken.note)
    return app


def serve_copies(url: str, config: HostConfig) -> int:
    """Run the copy worker until SIGTERM: running jobs park at a checkpoint, and go on at the next start."""

    def drain(**_: object) -> None:
        _DRAIN[0] = 1  # runs inside a signal handler: does nothing else

    def is_free(consumer: Any) -> bool:
        return not _DRAIN[0] and spares.has_free_slot(consumer, config.slots)

    state.make_directory(config)
    client = connect_client(url, at_most=1)
    registry = HostRegistry(client, config.name)
    heartbeat, taken = Heartbeat(registry.hosts, config, worker=WorkerName.COPY), LastTaken()
    heartbeat.register()
    client.connection_pool.disconnect()  # a child of the pool would keep the open connections

    def begin(sender: Any, **_: object) -> None:
        heartbeat.start()
        pulse = _worker_pulse(app, registry, WorkerName.COPY, taken)
        pulse.free, pulse.end = partial(is_free, sender), partial(spares.end_all, sender)
        pulse.start()
        spares.follow_hanging_attempts(sender, config.slots)
        deaths.follow_deaths(sender, registry.attempts)
        farewell.follow_end(lambda: _DRAIN[0] == 1, heartbeat.close)

    worker_shutting_down.connect(drain, weak=False)
    worker_ready.connect(begin, weak=False)
    worker_shutdown.connect(lambda **_: heartbeat.close(), weak=False)
    app = build_copy_app(url, config, heartbeat, taken)
    return _serve_queue(app, "prefork", config.slots, f"copy@{config.name}", copy_queue(config.name))


def serve_steps(url: str, config: HostConfig) -> int:
    """Run the steps worker, the host's heartbeat and its watcher until SIGTERM."""
    state.make_directory(config)
    # Made before any thread: the forker forks, and a program with threads should not fork.
    forker = Forker(lambda connection: serve_errands(connection, url, config), drivers.preload_drivers)
    mounts = MountTable((*config.read_roots, *config.target_roots))
    lanes = Lanes(forker.start, mounts.point_of)
    registry = HostRegistry(connect_client(url, at_most=CONNECTIONS), config.name)
    highest = Highest(config)
    highest.keep_room()
    known = {"decision": highest.number, "incarnation": highest.incarnation}
    ever = Roots(config).with_former().config  # work begun beneath a former root ends beneath the same root
    desk = Desk(registry, ever, lanes, mounts, known)
    watcher = Watcher(registry.attempts, Roots(config), desk.tidy)
    heartbeat = Heartbeat(registry.hosts, config, lambda: desk.told(watcher.hanging, watcher.aside.told()))
    taken = LastTaken()
    heartbeat.register()

    def forker_ended() -> None:
        log.error("the process that forks others has ended: this worker ends too, to be started again")
        os.kill(os.getpid(), signal.SIGTERM)

    def begin(**_: object) -> None:
        forker.watch(forker_ended)
        desk.start()
        heartbeat.start()
        watcher.start()
        _worker_pulse(app, registry, WorkerName.STEPS, taken).start()

    def end(**_: object) -> None:
        watcher.close()
        lanes.close(LAST_ERRANDS)
        desk.close()
        heartbeat.close()
        forker.close()

    worker_ready.connect(begin, weak=False)
    worker_shutdown.connect(end, weak=False)
    app = build_steps_app(url, config, desk, heartbeat, taken)
    return _serve_queue(app, "threads", STEP_THREADS, f"steps@{config.name}", steps_queue(config.name))


def _worker_pulse(app: Celery, registry: HostRegistry, worker: WorkerName, taken: LastTaken) -> Pulse:
    def send() -> None:
        with suppress(OperationalError, OSError):  # a pulse that was not sent is not taken, as the check expects
            send_pulse(app, copy_queue(registry.host) if worker is WorkerName.COPY else steps_queue(registry.host))

    return Pulse(taken, lambda: registry.bells.wait(registry.host, worker), send)


def _serve_queue(app: Celery, pool: str, concurrency: int, name: str, queue: str) -> int:
    setup_logging.connect(lambda **_: None, weak=False)  # the caller configures logging
    worker_ready.connect(lambda **_: _report_life(), weak=False)  # after everything begun by the caller
    worker = app.Worker(
        hostname=name, queues=[queue], pool=pool, concurrency=concurrency, without_gossip=True, without_mingle=True,
        heartbeat_interval=SHOWN, loglevel="INFO", quiet=True,
    )  # fmt: skip
    worker.start()
    return int(worker.exitcode or 0)


def _report_life() -> None:
    """Report to the starter of this process: ready now, and alive from now on."""
    report_ready()
    if interval := report_interval():
        vital_thread(lambda: _report_each(interval), "watchdog").start()


def _report_each(seconds: float) -> None:
    rest = threading.Event()
    while not rest.wait(seconds):
        report_alive()
