"""What the whole fleet shares: stores with so many copies at once and so many bytes a second, and limits of hosts.

The part of ``blockjobs.Fleet`` that is about limits of many jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from blockjobs.registry.doors import Registry
from blockjobs.registry.limits import StoreView


class Budgets:
    """Mixed into ``Coordinator``, which brings the registry."""

    registry: Registry

    def stores(self) -> Sequence[StoreView]:
        """All stores, by name, with what runs, waits and flows."""
        return self.registry.limits.stores()

    def store(self, name: str) -> StoreView:
        """One store; raises NoSuchStore."""
        return self.registry.limits.store(name)

    def set_store(
        self, name: str, *, jobs: int | None = None, speed: int | None = None, by: str = ""
    ) -> tuple[int, int]:
        """Change what a store takes: copies at once, and bytes a second of all of them (0: no limit, None: as it is).

        Felt by what runs within a second; copies that run beyond a new number of them run to their end.  Returns what
        it was.  The next run whose file defines the store says it anew.

        Raises:
            NoSuchStore: no run file has defined it.
            BadInput: a limit is no whole number from 0 to 2^63-1.
        """
        return self.registry.limits.set_store(name, jobs=jobs, speed=speed, by=by) or (0, 0)

    def remove_store(self, name: str, *, by: str = "") -> None:
        """Forget a store; the next run whose file defines it brings it back.  What lies in it is not touched.

        Raises:
            NoSuchStore: there is none.
            StoreBusy: a job that is not over uses it.
        """
        self.registry.limits.remove_store(name, by=by)

    def set_host(self, host: str, *, speed: int, by: str = "") -> int:
        """Limit what all copies of a host move together, in bytes a second (0: no limit); returns the limit before.

        Raises:
            HostDown: it is not known.
            BadInput: the limit is no whole number from 0 to 2^63-1.
        """
        return self.registry.limits.set_host(host, speed, by=by)
