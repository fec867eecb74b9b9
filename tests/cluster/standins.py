"""Light stand-ins for the workers of many hosts: one process, one Celery consumer on all their queues.

What is answered is the product's own: ``blockworker.steps.steps.Steps`` for the steps, claim, checkpoint and finish of
``HostRegistry.attempts`` for the copies, a beat in two seconds for each host.  Only the copy itself is left out of
``null-co`` volumes; files, which need ``--root``, are copied by the product's attempt, one after the other.

    python standins.py URL HOST [HOST ...]            all of them work
    python standins.py --stuck URL HOST [HOST ...]    their copies are claimed, and never come to an end
    python standins.py --root DIR URL HOST [HOST ...] all of them read below DIR/images and write below DIR/backup
"""

from __future__ import annotations

import argparse
import os
import threading
import uuid
from collections.abc import Callable, Iterable
from itertools import cycle

from celery import Celery
from kombu import Connection, Consumer, Message, Queue

from blockjobs.broker.tasks import COPY_TASK, QUESTION_TASK, STEP_TASK, configure_celery, copy_queue, steps_queue
from blockjobs.daemons.loop import stop_on_signals
from blockjobs.model.ids import Host, JobId, TxnId
from blockjobs.model.jobs import Checkpoint
from blockjobs.process.clock import read_boot_id
from blockjobs.registry.attempts import Progress, Who
from blockjobs.registry.connection import Client, connect_client
from blockjobs.registry.doors import HostRegistry
from blockworker.attempt import attempt
from blockworker.host.config import HostConfig, machine_facts
from blockworker.host.machine import machine_name
from blockworker.host.roots import Roots
from blockworker.questions.look import inspect_volumes
from blockworker.steps.steps import Steps
from blockworker.system.processstart import read_start
from blockworker.watch.watcher import Watcher

SLOTS = 2
BEAT = 3.0  # seconds between two beats of a host


class StandIn:
    """One host: its steps, and a copy that takes no time."""

    def __init__(self, client: Client, host: Host, *, stuck: bool, root: str = "") -> None:
        self.registry = HostRegistry(client, host)
        self._stuck = stuck
        self.roots = Roots(HostConfig(
            name=host, slots=SLOTS, read_roots=(f"{root}/images",) if root else (),
            write_roots=(f"{root}/backup",) if root else (),
        ))  # fmt: skip
        self._steps = Steps(self.registry.answers, self.roots)
        self._who = (os.getpid(), read_start(os.getpid()), read_boot_id())

    def step(self, name: str, txn: str) -> None:
        self.registry.bells.take(self.registry.host, name, TxnId(txn))
        self._steps.take(name, TxnId(txn))

    def question(self, question: str) -> None:
        questions, host = self.registry.questions, self.registry.host
        if (asked := questions.take(host, question)) is not None:
            questions.answer(host, question, inspect_volumes(self.roots, asked["looks"]))

    def copy(self, job: str) -> None:
        """A doorbell: claim, one checkpoint, finish."""
        attempts = self.registry.attempts
        if self.roots.config.read_roots:
            attempt.run_attempt(attempts, self.roots, JobId(job), draining=lambda: False, tell=lambda _: None)
            return
        claim = attempts.claim(JobId(job), Who(uuid.uuid4().hex, *self._who))
        if isinstance(claim, str):
            return
        size = int(claim.opened["size"])
        durable = Checkpoint(job, ((0, size),))
        if self._stuck:
            attempts.checkpoint(claim, Progress(size // 2, size))
            return
        attempts.checkpoint(claim, Progress(size, size), durable=durable)
        attempts.finish(claim, Progress(size, size), durable=durable, result={"attempts": claim.number})


def serve(url: str, hosts: Iterable[Host], *, stuck: bool, root: str = "") -> None:
    """Answer for ``hosts`` until a signal comes."""
    stop = stop_on_signals()
    client, beats = connect_client(url), connect_client(url)
    standins = {host: StandIn(client, host, stuck=stuck, root=root) for host in hosts}
    machines = {host: machine_name(standin.roots.config) for host, standin in standins.items()}
    # What a process before this one had claimed is dead: the product's watcher says so.
    few = standins if len(standins) < 8 else ()
    nowhere = {host: Roots(HostConfig(name=host, read_roots=(), write_roots=())) for host in few}
    watchers = [Watcher(HostRegistry(beats, host).attempts, nowhere[host]) for host in few]
    beating = threading.Thread(target=_beat, args=(HostRegistry(beats, Host("")), machines, stop))
    beating.start()
    for watcher in watchers:
        watcher.start()
    app = Celery("standins", set_as_current=False)
    configure_celery(app, url)
    tasks: dict[tuple[str, str], Callable[..., None]] = {}
    for host, standin in standins.items():
        tasks[copy_queue(host), COPY_TASK] = standin.copy
        tasks[steps_queue(host), STEP_TASK] = standin.step
        tasks[steps_queue(host), QUESTION_TASK] = standin.question
    with app.connection_for_read() as connection:
        _consume(connection, tasks, stop)
    for watcher in watchers:
        watcher.close()
    beating.join()
    client.close()
    beats.close()


def _consume(connection: Connection, tasks: dict[tuple[str, str], Callable[..., None]], stop: threading.Event) -> None:
    def ring(body: object, message: Message) -> None:
        message.ack()  # on receipt, as the real workers
        tasks[message.delivery_info["routing_key"], message.headers["task"]](*body[0])  # type: ignore[index]

    queues = [Queue(name, routing_key=name) for name in {queue for queue, _ in tasks}]
    with Consumer(connection.channel(), queues, callbacks=[ring], accept=["msgpack"], prefetch_count=1):
        while not stop.is_set():
            try:
                connection.drain_events(timeout=0.5)
            except TimeoutError:
                continue


def _beat(registry: HostRegistry, machines: dict[Host, str], stop: threading.Event) -> None:
    """A beat a second for each host, spread over the second."""
    about = machine_facts()
    for host in cycle(machines):
        registry.hosts.beat(host, machines[host], SLOTS, about)
        if stop.wait(BEAT / len(machines)):
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stuck", action="store_true")
    parser.add_argument("--root", default="")
    parser.add_argument("url")
    parser.add_argument("hosts", nargs="+")
    given = parser.parse_args()
    serve(given.url, [Host(host) for host in given.hosts], stuck=given.stuck, root=given.root)


if __name__ == "__main__":
    main()
