"""Stock Flower on our broker: ``python -m blockjobs.cli.dashboard --port=5555``, as ``up --flower`` runs it."""

from __future__ import annotations

import sys
from typing import Final

from celery import Celery

from blockjobs.daemons.doorbell import configure
from blockjobs.settings import find_url

# Flower shows neither by default: args name the job or the transaction, result has the progress.
COLUMNS: Final = "name,args,state,result,received,runtime,worker"


def main(options: list[str]) -> None:
    """Run Flower, with its own options, until SIGTERM.  Read only: copies are paused and cancelled by our verbs."""
    app = Celery("blockjobs")
    configure(app, find_url())
    app.start(["flower", "--address=127.0.0.1", "--read_only=True", f"--tasks_columns={COLUMNS}", *options])


if __name__ == "__main__":
    main(sys.argv[1:])
