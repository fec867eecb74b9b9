"""The words that stories are told in: the usual images, jobs and endings."""

from __future__ import annotations

from typing import Final

from playbook import MIB, SLOW, Ask, Step, ask, source, target, until

SIZE: Final = 4 * MIB


def backup(job: str = "j0", device: str = "a", to: str = "b", **more: object) -> Ask:
    return ask("blockdev-backup", {"job-id": job, "device": device, "target": to, "sync": "full"}, **more)


def mirror(job: str = "j0", device: str = "a", to: str = "b", **more: object) -> Ask:
    return ask("blockdev-mirror", {"job-id": job, "device": device, "target": to, "sync": "full"}, **more)


def bad(node: str = "bad", image: str = "a", **fault: object) -> Ask:
    """A node that fails once or always: ``errno``, ``iotype``, ``sector``, ``once``."""
    rule = {"event": "none", **fault}
    return ask("blockdev-add", {"driver": "blkdebug", "node-name": node, "image": image, "inject-error": [rule]})


def group(*members: Ask, mode: str = "grouped") -> Ask:
    """A transaction of backups."""
    actions = [{"type": member.command, "data": dict(member.arguments)} for member in members]
    return ask("transaction", {"actions": actions, "properties": {"completion-mode": mode}})


def look() -> list[Step]:
    return [ask("query-jobs"), ask("query-block-jobs")]


def pairs(count: int) -> list[Step]:
    """Images a0..., b0...: a source and a target for each member of a group."""
    return [step for n in range(count) for step in (source(f"a{n}"), target(f"b{n}"))]


def member(n: int, **more: object) -> Ask:
    return backup(f"j{n}", f"a{n}", f"b{n}", **more)


PAIR: Final[list[Step]] = [source(), target()]
RUNNING: Final[list[Step]] = [*PAIR, backup(speed=SLOW), until("j0", "running")]
KEPT: Final = {"auto-dismiss": False}
HELD: Final = {"auto-finalize": False, "auto-dismiss": False}
PENDING: Final[list[Step]] = [*PAIR, backup(**HELD), until("j0", "BLOCK_JOB_PENDING")]
CONCLUDED: Final[list[Step]] = [*PAIR, backup(**KEPT), until("j0", "concluded")]
VERBS: Final = ("pause", "resume", "cancel", "complete", "finalize", "dismiss")


def every_verb(job: str, *but: str) -> list[Step]:
    """Every verb in both of its spellings, except those that would be obeyed."""
    steps: list[Step] = [ask(f"job-{verb}", id=job) for verb in VERBS if verb not in but]
    for verb in VERBS:
        if verb not in but:
            word = "id" if verb in ("finalize", "dismiss") else "device"
            steps.append(ask(f"block-job-{verb}", {word: job}))
    if "set-speed" not in but:
        steps.append(ask("block-job-set-speed", device=job, speed=1))
    return steps


def failing(policy: str, errno: int = 5, *, once: bool = False, side: str = "source") -> list[Step]:
    """A job whose source, or target, fails in its third MiB."""
    where = {"sector": 2 * MIB // 512, "errno": errno, "once": once}
    if side == "source":
        fault, start = bad(iotype="read", **where), backup(device="bad", **{"on-source-error": policy}, **KEPT)
    else:
        fault = bad(image="b", iotype="write", **where)
        start = backup(to="bad", **{"on-target-error": policy}, **KEPT)
    return [*PAIR, fault, start]


STOPPED: Final[list[Step]] = [until("j0", "BLOCK_JOB_ERROR"), until("j0", "paused"), *look()]
RESUMED: Final[list[Step]] = [ask("job-resume", id="j0"), until("j0", "running")]
ENDED: Final[list[Step]] = [until("j0", "concluded"), *look()]


def both(what: str, count: int = 2) -> list[Step]:
    return [until(f"j{n}", what) for n in range(count)]


def dismiss(count: int) -> list[Step]:
    return [ask("job-dismiss", id=f"j{n}") for n in range(count)]
