"""Whether the coordinator can tell those whom a run file names: all kinds of URLs but webhooks need apprise there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from blockjobs.model.notices import Kind, kind_of, shown
from blockjobs.registry.notices import Notices

INSTALL: Final = "pip install 'blockjobs[notify]'"


def first_of_apprise(notify: Mapping[str, Sequence[str]]) -> str:
    """The first URL that only apprise can tell, as it may be shown, with its place in the file; "" where none is."""
    found = (
        f"notify.{outcome}[{n}]: {shown(url)}"
        for outcome, urls in notify.items() for n, url in enumerate(urls) if kind_of(url) is Kind.APPRISE
    )  # fmt: skip
    return next(found, "")


def untellable(notices: Notices, notify: Mapping[str, Sequence[str]]) -> str:
    """What is wrong with whom a run file tells; "" where nothing is, or where it is not known."""
    url = first_of_apprise(notify)
    if not url or notices.has_apprise() is not False:
        return ""
    return f"{url} cannot be told, as apprise is not installed where the coordinator runs: {INSTALL} there"
