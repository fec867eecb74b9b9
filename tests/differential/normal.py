"""What of a reply and an event counts: no clock, no progress in flight, no pause that nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence

from playbook import ENDINGS, Player, Transcript, job_of
from qemu.qmp import Message

# A number that depends on the instant of asking is shown as this.
MOVING = "..."
PAUSES = {"paused": "running", "standby": "ready"}


def normal_reply(reply: object) -> object:
    """A reply, with progress in flight masked and lists of nodes and jobs told by what both servers mean."""
    if isinstance(reply, list):
        return [normal_reply(item) for item in reply]
    if isinstance(reply, dict):
        return dict(sorted(_masked(reply).items()))
    return reply


def _masked(info: dict[str, object]) -> dict[str, object]:
    if "current-progress" in info:
        done = info["status"] == "concluded" and "error" not in info
        return info if done else info | {"current-progress": MOVING}
    if "io-status" in info:
        if info["status"] == "pending":
            return info | {"paused": MOVING}  # QEMU holds a mirror's nodes still until it is finalized
        return info | {"offset": MOVING, "busy": MOVING}
    return info


def transcript(player: Player, *, ordered: bool = True) -> Transcript:
    """What a player saw, made comparable."""
    seen = player.transcript
    for place in kept(player.events, player.asked_for):
        event = player.events[place]
        seen.jobs.setdefault(job_of(event), []).append(told(event))
        if ordered and event["event"] in ENDINGS:
            seen.endings.append(job_of(event))
    return seen


def kept(events: Sequence[Message], asked_for: set[int]) -> list[int]:
    """The places of the events that count: a pause that no step waited for and its end are left out."""
    dropped: set[int] = set()
    for place, event in enumerate(events):
        status = event["data"].get("status")
        if status in PAUSES and place not in asked_for:
            for later in range(place + 1, len(events)):
                if job_of(events[later]) == job_of(event) and "status" in events[later]["data"]:
                    if events[later]["data"]["status"] == PAUSES[status] and later not in asked_for:
                        dropped |= {place, later}
                    break
    return [place for place in range(len(events)) if place not in dropped]


def told(event: Message) -> str:
    name, data = str(event["event"]), dict(event["data"])
    if name == "JOB_STATUS_CHANGE":
        return str(data["status"])
    data.pop("device", None)
    data.pop("id", None)
    if "offset" in data and (name == "BLOCK_JOB_CANCELLED" or "error" in data):
        data["offset"] = MOVING
    return " ".join([name, *(f"{key}={data[key]}" for key in sorted(data))])
