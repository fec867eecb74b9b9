"""What the operator of a site does when it is whole again, until everything on it has come to an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from sites import Site
from workload import Workload

from blockjobs.ask.doorbell import Doorbell
from blockjobs.ask.sweep import Sweep
from blockjobs.client.fleet import Fleet

AFTERWARDS = 150.0  # seconds; a run whose client died while it was staged is removed after 120
LEAST = 3.0  # seconds; what is started again has to be heard of first


def recover(site: Site, workload: Workload, left: Callable[[], Iterable[str]], *, sweep: bool) -> float:
    """Start what ended, accept what was lost, and wait until all is over; the seconds until it was.

    ``left``: what lies on disks of transactions that are over.  ``sweep``: the registry has forgotten transactions, and
    what hosts have of them is removed.
    """
    began = time.monotonic()
    with Fleet(site.server.url) as here:
        while time.monotonic() < began + AFTERWARDS:
            site.supervise()
            for doubt in doubts(site):
                workload.accept_loss(here, doubt)
            if not still_open(site) and time.monotonic() > began + LEAST:
                if sweep:
                    list(Sweep(here.registry, Doorbell(here.url))(site.hosts, dry=False, lost=""))
                if not list(left()):
                    break
            site.rest(0.2)
    return time.monotonic() - began


def still_open(site: Site) -> list[str]:
    """Runs that are not over, and transactions that are not closed."""
    runs = [key.decode() for key in site.client.scan_iter("bj:run:story*", 1000)
            if key.count(b":") == 2 and not site.client.hexists(key, "ended")]  # fmt: skip
    return runs + [txn.decode() for txn in site.client.zrange("bj:unfinished", 0, -1) if txn.startswith(b"story")]


def doubts(site: Site) -> list[str]:
    """Why transactions are not decided."""
    keys = [key for key in site.client.scan_iter("bj:txn:*", 1000) if site.client.type(key) == b"hash"]
    return [doubt.decode() for key in keys if (doubt := site.client.hget(key, "doubt"))]
