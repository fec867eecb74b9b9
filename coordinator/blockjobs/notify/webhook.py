"""A webhook: a POST of JSON, signed with HMAC-SHA256 over the time and the body."""

from __future__ import annotations

import hmac
import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from blockjobs import __version__
from blockjobs.model.notices import scrubbed_text

TIMESTAMP: Final = "Blockjobs-Timestamp"
SIGNATURE: Final = "Blockjobs-Signature"
KEY: Final = "Idempotency-Key"


def notice_signature(secret: bytes, timestamp: str, content: bytes) -> str:
    """The signature, as computed by a receiver with the secret."""
    return "v1=" + hmac.digest(secret, timestamp.encode() + b"." + content, "sha256").hex()


def webhook_request(url: str, said: Mapping[str, Any], secret: str, now: float) -> urllib.request.Request:
    """The POST, with the user info of the URL as basic authentication; unsigned without a secret."""
    content = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json", "User-Agent": f"blockjobs/{__version__}", KEY: said["notice"],
        TIMESTAMP: str(int(now)),
    }  # fmt: skip
    if secret:
        headers[SIGNATURE] = notice_signature(secret.encode(), headers[TIMESTAMP], content)
    bare, authorization = _without_user(url)
    if authorization:
        headers["Authorization"] = authorization
    return urllib.request.Request(bare, data=content, headers=headers, method="POST")  # noqa: S310 - checked: http(s)


def _without_user(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme.lower(), place, parts.path or "/", parts.query, ""))
    return bare, f"Basic {b64encode(unquote(user).encode()).decode()}" if at else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirect would carry the message, the signature and a password to an unknown place."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post_webhook(url: str, said: Mapping[str, Any], secret: str, now: float, timeout: float) -> str:
    """Send a message to ``url``; "" after a 2xx answer, else the reason without secrets."""
    try:
        with urllib.request.build_opener(_NoRedirect).open(
            webhook_request(url, said, secret, now), timeout=timeout
        ) as answer:
            return "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    except urllib.error.HTTPError as wrong:
        wrong.close()
        moved = " (redirects are not followed)" if 300 <= wrong.code < 400 else ""
        return f"HTTP {wrong.code}{moved}"
    except urllib.error.URLError as wrong:
        return scrubbed_text(str(wrong.reason), url, secret)
    except (OSError, HTTPException, ValueError) as wrong:
        return scrubbed_text(f"{type(wrong).__name__}: {wrong}", url, secret)
