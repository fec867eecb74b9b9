"""One try to send a notice, in a separate process: bounded in time, and without the libraries in the daemon.

    python -m blockjobs.notify.send      reads {url, said, secret, timeout} as JSON, writes "" or the reason as JSON

The secret and the URL go through a pipe, never through the command line or the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from blockjobs.model.notices import Kind, scrubbed_text, url_carrier
from blockjobs.notify import by_apprise, webhook
from blockjobs.process.spawn import end_with_parent

LIMIT: Final = 15.0  # seconds for one try as a whole
LOOK: Final = 0.1  # seconds between two checks of ``stop`` and the time limit


class Interrupted(Exception):
    """The daemon is stopping; whether the message was sent is not known."""


def send_notice(
    url: str, said: Mapping[str, Any], secret: str = "", *, limit: float = LIMIT, stop: threading.Event | None = None
) -> str:
    """Send a message to ``url`` once; "" for success, else the reason.

    Raises:
        Interrupted: ``stop`` was set meanwhile.
    """
    order = json.dumps({"url": url, "said": dict(said), "secret": secret, "timeout": limit}).encode()
    argv = [sys.executable, "-P", "-m", "blockjobs.notify.send"]
    give_up = time.monotonic() + limit
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("BLOCKJOBS_")},
    ) as child:
        try:
            asks: bytes | None = order
            while True:
                try:
                    answer, _ = child.communicate(asks, timeout=LOOK)
                    break
                except subprocess.TimeoutExpired:
                    asks = None  # the input is written already, or is still being written
                    if stop is not None and stop.is_set():
                        raise Interrupted from None
                    if time.monotonic() > give_up:
                        return f"no answer within {limit:.0f} s"
        finally:
            if child.poll() is None:
                child.kill()
    try:
        return scrubbed_text(str(json.loads(answer)), url, secret)
    except ValueError:
        return f"the process that should tell it ended with {child.returncode}"


def main() -> None:
    end_with_parent()
    order = json.load(sys.stdin)
    url, said = order["url"], order["said"]
    if url_carrier(url) is Kind.WEBHOOK:
        reason = webhook.post_webhook(url, said, order["secret"], time.time(), order["timeout"])
    else:
        reason = by_apprise.notify_apprise(url, said)
    json.dump(reason, sys.stdout)


if __name__ == "__main__":
    main()
