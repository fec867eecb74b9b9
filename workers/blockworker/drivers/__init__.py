"""Drivers: a class per job type, found by the type's name among the entry points of the installed distributions."""

from __future__ import annotations

import errno
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from typing import Final

from blockjobs.model.errors import JobFailed
from blockworker.drivers.base import Driver

GROUP: Final = "blockjobs.drivers"


class NoDriver(JobFailed):
    def __init__(self, name: str, host: str) -> None:
        super().__init__(errno.ENOTSUP, f"no driver '{name}' on host {host}")


def find_driver(name: str, host: str) -> Driver:
    """The driver of jobs of type ``name``.

    Raises:
        NoDriver: this host has no driver of the name, or the installed driver cannot be loaded.
    """
    driver = _load_driver(name)
    if driver is None:
        raise NoDriver(name, host)
    return driver


def preload_drivers() -> None:
    """Load every installed driver, for the processes that are forked afterwards."""
    for point in entry_points(group=GROUP):
        with suppress(Exception):  # a driver that cannot be loaded: ``find`` reports the failure
            _load_driver(point.name)


@cache
def _load_driver(name: str) -> Driver | None:
    for point in entry_points(group=GROUP, name=name):
        driver = point.load()()
        if not isinstance(driver, Driver):
            raise TypeError(f"entry point {point.value} of {GROUP} is no Driver")
        return driver
    return None
