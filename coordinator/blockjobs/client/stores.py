"""Limits for the whole fleet: stores with copies at once and bytes a second, and speed limits of hosts.

The part of ``blockjobs.Fleet`` for limits of many jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from blockjobs.registry.doors import Registry
from blockjobs.registry.limits import StoreView


class Budgets:
    """Mixed into ``Fleet``, which brings the registry."""

    registry: Registry

    def stores(self) -> Sequence[StoreView]:
        """The stores by name, with running and waiting copies and the flow."""
        return self.registry.limits.stores()

    def store(self, name: str) -> StoreView:
        """A store by name; raises NoSuchStore."""
        return self.registry.limits.store(name)

    def set_store(
        self, name: str, *, jobs: int | None = None, speed: int | None = None, by: str = ""
    ) -> tuple[int, int]:
        """Change the budget of a store; return the old budget.

        ``jobs``: copies at once; ``speed``: bytes a second of the copies together; 0: no limit, None: unchanged.
        Running copies feel a new speed within a second; running copies beyond a new number run to the end.  The next
        run whose file defines the store sets the budget anew.

        Raises:
            NoSuchStore: no run file has defined the store.
            BadInput: a limit is no whole number from 0 to 2^63-1.
        """
        return self.registry.limits.set_store(name, jobs=jobs, speed=speed, by=by) or (0, 0)

    def remove_store(self, name: str, *, by: str = "") -> None:
        """Forget a store, but touch no backup in it; the next run whose file defines the store brings the store back.

        Raises:
            NoSuchStore: the store is unknown.
            StoreBusy: a job that is not over uses the store.
        """
        self.registry.limits.remove_store(name, by=by)

    def set_host(self, host: str, *, speed: int, by: str = "") -> int:
        """Limit the copies of a host together, in bytes a second (0: no limit); return the limit before.

        Raises:
            HostDown: the host is not known.
            BadInput: the limit is no whole number from 0 to 2^63-1.
        """
        return self.registry.limits.set_host(host, speed, by=by)
