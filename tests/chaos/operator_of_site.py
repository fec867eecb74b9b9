"""What the operator of a site does when it is whole again, until everything on it has come to an end."""

from __future__ import annotations

import time

from sites import Site
from workload import Workload

from blockjobs.client import Coordinator
from blockjobs.daemons.doorbell import Doorbell
from blockjobs.daemons.sweep import Sweep

AFTERWARDS = 100.0  # seconds in which a site that is whole again has to come to an end
LEAST = 3.0  # seconds; what is started again has to be heard of first


def recover(site: Site, workload: Workload) -> float:
    """Start what ended, accept what was lost, and sweep what nobody owns; the seconds until everything was over."""
    began = time.monotonic()
    with Coordinator(site.server.url) as here:
        while time.monotonic() < began + AFTERWARDS:
            site.supervise()
            if not still_open(site) and time.monotonic() > began + LEAST:
                break
            for doubt in doubts(site):
                workload.accept_loss(here, doubt)
            site.rest(0.2)
        seconds = time.monotonic() - began
        if workload.accepted:
            list(Sweep(here.registry, Doorbell(here.url))(site.hosts, dry=False, lost=""))
    return seconds


def still_open(site: Site) -> list[str]:
    """Runs that are not over, and transactions that are not closed."""
    runs = [key.decode() for key in site.client.scan_iter("bj:run:story*", 1000)
            if key.count(b":") == 2 and not site.client.hexists(key, "ended")]  # fmt: skip
    return runs + [txn.decode() for txn in site.client.zrange("bj:unfinished", 0, -1) if txn.startswith(b"story")]


def doubts(site: Site) -> list[str]:
    """Why transactions are not decided."""
    keys = [key for key in site.client.scan_iter("bj:txn:*", 1000) if site.client.type(key) == b"hash"]
    return [doubt.decode() for key in keys if (doubt := site.client.hget(key, "doubt"))]
