"""Names of tasks and queues, and the settings of every Celery app of the project."""

from __future__ import annotations

import ssl
from typing import Final

from celery import Celery

from blockjobs.broker import transport
from blockjobs.model.ids import Host
from blockjobs.registry import keys
from blockjobs.registry.address import parse_address

COPY_TASK: Final = "blockjobs.copy"
STEP_TASK: Final = "blockjobs.step"
QUESTION_TASK: Final = "blockjobs.question"
PULSE_TASK: Final = "blockjobs.pulse"


def copy_queue(host: Host) -> str:
    return f"{transport.COPY}{host}"


def steps_queue(host: Host) -> str:
    return f"{transport.STEPS}{host}"


def configure_celery(app: Celery, url: str) -> None:
    """The settings shared by every Celery app of the project; docs/decisions/celery.md has the reason for each."""
    transport.install_transport()
    address = parse_address(url)
    app.conf.update(
        broker_url=address.shown,  # only for Celery's log: the transport connects through the option "address"
        # The transport already uses TLS by the address; without this setting kombu warns of a connection without TLS.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if address.scheme == "rediss" else None,
        result_backend=None,
        task_ignore_result=True,
        task_serializer="msgpack",
        result_serializer="msgpack",
        event_serializer="msgpack",
        accept_content=["msgpack"],
        result_accept_content=["msgpack"],
        broker_transport_options={
            "global_keyprefix": keys.CELERY_PREFIX,
            **transport.OPTIONS,
            "address": address,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "client_name": "blockjobs-broker",
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_max_tasks_per_child=50,
        worker_max_memory_per_child=1 << 20,  # KiB
        task_default_queue="blockjobs.unrouted",  # consumed by no worker: a missing queue becomes visible
        worker_send_task_events=True,
        task_send_sent_event=False,
        worker_enable_remote_control=False,  # every user of the broker could silence every host
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )


def send_pulse(app: Celery, queue: str) -> None:
    """Send a worker of this app a message that only proves delivery, over a separate connection.

    Raises OperationalError, OSError: the broker is away.
    """
    with app.connection_for_write() as connection:
        app.send_task(PULSE_TASK, queue=queue, retry=False, connection=connection)
