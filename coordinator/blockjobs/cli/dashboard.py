"""Flower on the fleet's broker, read-only: ``python -m blockjobs.cli.dashboard --port=5555`` for ``up --flower``.

Rule: a request is accepted or refused in this module, before Flower sees the request: only with this machine's own
names, and only for reading.  Flower's pages need no API; through the API, any page in a browser on this machine could
run tasks on every host.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final
from urllib.parse import quote, unquote

from celery import Celery
from flower import command
from flower.app import Flower
from flower.options import options
from flower.urls import settings
from tornado.web import ErrorHandler, RedirectHandler

from blockjobs.broker.tasks import configure_celery
from blockjobs.process.watchdog import report_ready
from blockjobs.registry.address import redacted_url
from blockjobs.settings import find_url

# Flower shows neither by default: args name the job or the transaction, result has the progress.
COLUMNS: Final = "name,args,state,result,received,runtime,worker"
SET: Final = {  # options of Flower -> values, stronger than the environment and files in the current directory
    "address": "127.0.0.1",
    "read_only": True,
    "tasks_columns": COLUMNS,
    "enable_events": False,  # our workers send events anyway, and obey no remote control
    "inspect_timeout": 1.0,  # milliseconds: without remote control no worker would answer
    "persistent": False,  # Flower would unpickle a file of the current directory
    "url_prefix": None,  # the paths below are the requested paths
    "unix_socket": "",  # a socket would be open to every user of this machine
    "debug": False,
}
OPEN: Final = "FLOWER_UNAUTHENTICATED_API"  # a variable that lets pages of other sites read every answer
HERE: Final = frozenset({"127.0.0.1", "localhost"})  # names of this machine in a browser's requests
READING: Final = frozenset({"GET", "HEAD"})
POSTED: Final = "/tasks/datatable"  # the only page requested by POST, and changes nothing


class Dashboard(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower without the API, for browsers on this machine."""

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        if status := error_status(request.host_name, request.method, request.path):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": status})
        if worker := worker_of(request.path):
            tasks = {"url": f"/tasks?worker={quote(worker, safe='')}", "permanent": False}
            return self.get_handler_delegate(request, RedirectHandler, tasks)
        return super().find_handler(request, **kwargs)


def error_status(host: str, method: str, path: str) -> int:
    """The error status for a request; 0: Flower answers.

    A page of another site may make its own name point to this machine: the ``Host`` of the request shows the page's
    name.
    """
    if host not in HERE:
        return 403
    if path.startswith("/api"):
        return 404
    return 0 if method in READING or (method == "POST" and path == POSTED) else 405


def worker_of(path: str) -> str:
    """The worker of a requested worker page; the page needs remote control, so the worker's tasks are shown instead."""
    return unquote(path.removeprefix("/worker/")) if path.startswith("/worker/") else ""


def main(argv: list[str]) -> None:
    """Serve until SIGTERM; copies are paused and cancelled by the verbs of the fleet, never by Flower."""
    url = find_url()
    app = Celery("blockjobs")
    configure_celery(app, url)
    os.environ.pop(OPEN, None)
    command.apply_env_options()
    options.parse_command_line(["flower", *argv])  # Flower's own command executes flowerconfig.py, too
    for name, value in SET.items():
        setattr(options, name, value)
    command.extract_settings()
    command.setup_logging()
    dashboard = Dashboard(capp=app, options=options, **settings)
    dashboard.broker_uri = redacted_url(url)  # for Flower's pages
    dashboard.start_http_server()
    report_ready()
    dashboard.start()


if __name__ == "__main__":
    main(sys.argv[1:])
