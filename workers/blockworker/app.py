"""The Celery app of one host: two workers of it run there, ``copy`` (a process a slot) and ``steps`` (threads).

Celery rings, nothing more: a task names a job or a step, and what is to be done is read from the registry.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import redis
from celery import Celery, Task
from celery.signals import setup_logging, worker_ready, worker_shutdown, worker_shutting_down

from blockjobs.daemons.doorbell import (
    COPY_TASK,
    PROBE_TASK,
    PRUNE_TASK,
    RESIZE_TASK,
    STEP_TASK,
    configure,
    copy_queue,
    steps_queue,
)
from blockjobs.model.ids import JobId, TxnId
from blockjobs.store.connection import connect, line
from blockjobs.store.registry import HostRegistry
from blockworker import attempt
from blockworker.heartbeat import Heartbeat
from blockworker.highest import Highest
from blockworker.host import HostConfig
from blockworker.probe import look
from blockworker.prune import Pruner, question_of
from blockworker.resize import resize as resize_image
from blockworker.roots import Roots
from blockworker.steps import Steps
from blockworker.targets import abandoned
from blockworker.watcher import Watcher

log = logging.getLogger(__name__)

STEP_THREADS: Final = 4
CONNECTIONS: Final = 2  # of a steps worker to the registry: its steps, heartbeat and watcher talk for moments

# Set in the worker's main process, seen by its children: shared memory made before the fork.
_DRAIN: Final = mmap.mmap(-1, 1)


def copying(url: str, config: HostConfig) -> Celery:
    """The app of the copy worker.  Each attempt is a process of its own, with its own line to Redis."""
    app, roots = _app(url, config), Roots(config)

    @app.task(name=COPY_TASK, bind=True)
    def copy(task: Task[Any, Any], job: str) -> str:
        def tell(text: str) -> None:
            """Show progress in Flower, in a field it knows."""
            with suppress(Exception):  # a dashboard is no reason to fail a copy
                task.send_event("task-progress", retry=False, result=f"{job} on {config.name}: {text}")

        client = line(url)
        try:
            registry = HostRegistry(client, config.name)
            how = attempt.run(registry.attempts, roots, JobId(job), draining=lambda: _DRAIN[0] == 1, tell=tell)
            return f"{job} on {config.name}: {how}"
        finally:
            client.close()

    return app


def stepping(url: str, registry: HostRegistry, roots: Roots, highest: Highest) -> Celery:
    """The app of the steps worker, whose threads share the connections of one registry."""
    config = roots.config
    app, steps = _app(url, config), Steps(registry.answers, roots, highest)

    @app.task(name=STEP_TASK)
    def step(name: str, txn: str) -> None:
        with _redis_may_be_away(f"transaction {txn}: {name} is rung for again"):
            steps.take(name, TxnId(txn))

    @app.task(name=PROBE_TASK)
    def probe(question: str, looks: list[dict[str, Any]]) -> None:
        with _redis_may_be_away("a question was not answered"):
            registry.questions.answer(config.name, question, look(roots, looks))

    @app.task(name=RESIZE_TASK)
    def resize(question: str, volume: dict[str, Any], size: int) -> None:
        with _redis_may_be_away("an image was not resized, or nobody heard of it"):
            answer = resize_image(
                roots, volume, size, in_use=registry.answers.in_use,
                permitted=lambda: registry.questions.take_permit(config.name, question),
            )  # fmt: skip
            if answer is not None:
                registry.questions.answer(config.name, question, answer)

    @app.task(name=PRUNE_TASK)
    def prune(question: str, keys: dict[str, Any]) -> None:
        with _redis_may_be_away("targets were not pruned, or nobody heard of it"):
            pruner = Pruner(
                roots, in_use=registry.answers.in_use,
                permitted=lambda: registry.questions.take_permit(config.name, question),
            )  # fmt: skip
            registry.questions.answer(config.name, question, pruner.answer(question_of(keys)))

    return app


def _app(url: str, config: HostConfig) -> Celery:
    app = Celery(f"blockjobs-{config.name}", set_as_current=False)
    configure(app, url)
    return app


@contextmanager
def _redis_may_be_away(what: str) -> Iterator[None]:
    """Whoever asked waits, and asks again."""
    try:
        yield
    except redis.RedisError as error:
        log.warning("%s: Redis is away: %s", what, error)


def serve_copies(url: str, config: HostConfig) -> int:
    """Run the copy worker until SIGTERM: its jobs park at a checkpoint, and go on at the next start."""

    def drain(**_: object) -> None:
        _DRAIN[0] = 1  # runs inside a signal handler: nothing but this

    worker_shutting_down.connect(drain, weak=False)
    return _serve(copying(url, config), "prefork", config.slots, f"copy@{config.name}", copy_queue(config.name))


def serve_steps(url: str, config: HostConfig) -> int:
    """Run the steps worker, the host's heartbeat and its watcher until SIGTERM."""
    registry = HostRegistry(connect(url, at_most=CONNECTIONS), config.name)
    highest = Highest(config)
    heartbeat = Heartbeat(registry.hosts, config, highest)
    roots = Roots(config)
    watcher = Watcher(registry.attempts, roots, lambda: abandoned.settle(registry.answers, roots, highest))
    heartbeat.register()

    def begin(**_: object) -> None:
        heartbeat.start()
        watcher.start()

    def end(**_: object) -> None:
        watcher.close()
        heartbeat.close()

    worker_ready.connect(begin, weak=False)
    worker_shutdown.connect(end, weak=False)
    app = stepping(url, registry, roots, highest)
    return _serve(app, "threads", STEP_THREADS, f"steps@{config.name}", steps_queue(config.name))


def _serve(app: Celery, pool: str, concurrency: int, name: str, queue: str) -> int:
    setup_logging.connect(lambda **_: None, weak=False)  # logging is the caller's
    worker = app.Worker(
        hostname=name, queues=[queue], pool=pool, concurrency=concurrency, without_gossip=True, without_mingle=True,
        loglevel="INFO", quiet=True,
    )  # fmt: skip
    worker.start()
    return int(worker.exitcode or 0)
