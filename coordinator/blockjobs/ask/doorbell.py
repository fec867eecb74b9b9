"""Celery as the control plane's doorbell.  A message may be lost or arrive twice; the registry is the truth."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from blockjobs.broker.tasks import COPY_TASK, QUESTION_TASK, STEP_TASK, configure_celery, copy_queue, steps_queue
from blockjobs.model.ids import Host, JobId, TxnId

log = logging.getLogger(__name__)


class Doorbell:
    """Rings hosts.  A failed ring is logged and forgotten, as the caller rings again."""

    def __init__(self, url: str) -> None:
        self._app = Celery("blockjobs", set_as_current=False)
        configure_celery(self._app, url)
        # A ring must not wait long for the broker: by default kombu tries for six seconds.
        self._app.conf.broker_transport_options |= {"max_retries": 1, "interval_start": 0, "interval_max": 0}

    def copy(self, host: Host, job: JobId) -> None:
        self._ring(COPY_TASK, [str(job)], copy_queue(host))

    def step(self, host: Host, step: str, txn: TxnId) -> None:
        self._ring(STEP_TASK, [step, str(txn)], steps_queue(host))

    def question(self, host: Host, question: str) -> None:
        self._ring(QUESTION_TASK, [question], steps_queue(host))

    def _ring(self, task: str, args: list[Any], queue: str) -> None:
        try:
            self._app.send_task(task, args=args, queue=queue, retry=False, argsrepr=" ".join(map(str, args))[:200])
        except (OperationalError, OSError) as error:
            log.warning("queue %s: could not ring for %s: %s", queue, args, error)
