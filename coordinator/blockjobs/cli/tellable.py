"""Whether the coordinator can notify the targets of a run file: URLs other than webhooks need apprise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from blockjobs.model.notices import Kind, public_url, url_carrier
from blockjobs.registry.notices import Notices

INSTALL: Final = "pip install 'blockjobs[notify]'"


def first_of_apprise(notify: Mapping[str, Sequence[str]]) -> str:
    """The first URL that needs apprise, with hidden secrets and the place in the file; "" without such a URL."""
    found = (
        f"notify.{outcome}[{n}]: {public_url(url)}"
        for outcome, urls in notify.items() for n, url in enumerate(urls) if url_carrier(url) is Kind.APPRISE
    )  # fmt: skip
    return next(found, "")


def notify_target_error(notices: Notices, notify: Mapping[str, Sequence[str]]) -> str:
    """The error in the notify targets of a run file; "" without an error, or if apprise's presence is unknown."""
    url = first_of_apprise(notify)
    if not url or notices.has_apprise() is not False:
        return ""
    return f"{url} cannot be notified, as apprise is not installed where the coordinator runs: {INSTALL} there"
