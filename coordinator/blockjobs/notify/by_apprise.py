"""Notices through apprise: mail, chats, pagers.  An optional extra: without it these URLs are refused by name."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from blockjobs.model.errors import BadInput
from blockjobs.model.notices import Kind, checked_url, notice_text, notice_title, public_url, scrubbed_text, url_carrier

MISSING: Final = "apprise is not installed here: pip install 'blockjobs[notify]'"


def is_apprise_installed() -> bool:
    return find_spec("apprise") is not None


def check_url(url: str) -> str:
    """``url``, if valid; the details of an apprise URL are checked only if apprise is installed.

    Raises:
        BadInput: the fault, without any part of the URL that may be secret.
    """
    checked_url(url)
    if url_carrier(url) is Kind.APPRISE and is_apprise_installed():
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # apprise logs URLs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # apprise imports deprecated modules
            import apprise  # noqa: PLC0415 - a second, for those who need it

            known = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if not known:
            raise BadInput(
                f"{public_url(url)}: apprise knows no such URL; https://HOST/PATH or one of apprise's was expected"
            )
    return url


def notify_apprise(url: str, said: Mapping[str, Any]) -> str:
    """Send a message to ``url``; "" for success as reported by apprise, else the reason without secrets."""
    if not is_apprise_installed():
        return MISSING
    import apprise  # noqa: PLC0415

    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setLevel(logging.WARNING)
    logging.getLogger("apprise").addHandler(handler)
    logging.getLogger("apprise").propagate = False
    kinds = {0: apprise.NotifyType.SUCCESS, 1: apprise.NotifyType.FAILURE, 4: apprise.NotifyType.WARNING}
    one = apprise.Apprise()
    if not one.add(url):
        return "apprise knows no such URL"
    if one.notify(title=notice_title(said), body=notice_text(said), notify_type=kinds[said.get("exit-code", 4)]):
        return ""
    why = [line for line in log.getvalue().splitlines() if line.strip()]
    return scrubbed_text(why[-1], url) if why else "apprise could not tell it, and did not say why"
