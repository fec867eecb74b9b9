"""Rules of ``doctor``: tables of rules that turn collected facts into findings, one table per kind of subject.

A fact is a mapping.  Every matching rule gives a finding; a subject without a matching rule is ok.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from blockjobs.model.numbers import size_text

GIB: Final = 1 << 30


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: level, subject, the fault, and advice."""

    level: Level
    subject: str
    text: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return {"level": str(self.level), "subject": self.subject, "text": self.text, "advice": self.advice}


Fact = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """``text`` and ``advice`` are filled in from the fact."""

    level: Level
    when: Callable[[Fact], bool]
    text: str
    advice: str = ""


E, W, N = Level.ERROR, Level.WARNING, Level.NOTE


def _fact_equals(key: str, value: object = True) -> Callable[[Fact], bool]:
    return lambda f: bool(f.get(key) == value)


def _lacks_ability(ability: str) -> Callable[[Fact], bool]:
    """True of a writable root without ``ability``; abilities of a root that cannot be written are not tested."""
    return lambda f: bool(f.get("abilities", {}).get(ability)) and not f["abilities"].get("write")


def _free_part(f: Fact, free: str, whole: str) -> float:
    return float(f.get(free, 0)) / float(f[whole]) if f.get(whole) else 1.0


ABILITIES: Final = (  # ability tested on a write root, level and consequence of its absence
    ("flock",            E, "nothing keeps two writers apart here: use another file system"),
    ("fsync-directory",  E, "a commit cannot be made durable here: use another file system"),
    ("rename-noreplace", N, "a link and an unlink do it"),
    ("reflink",          N, "'snapshot: reflink' does not work here (XFS and Btrfs can)"),
    ("punch-hole",       N, "zeros are written instead"),
    ("fallocate",        N, "space is not reserved"),
    ("seek-data",        N, "holes of a source here are read as zeros"),
    ("tmpfile",          N, "nothing needs it"),
)  # fmt: skip

_HANGS: Final = Rule(
    E, _fact_equals("hangs"), "does not answer: whatever touches it hangs", "is its server away? umount -l it"
)
_ROOT: Final = (
    _HANGS,
    Rule(E, lambda f: "error" in f, "{error}", "make it, mount it, or correct host.toml"),
    Rule(
        E,
        _fact_equals("listed", value=False),
        "user {user} cannot read it",
        "give that user read and search permission",
    ),
)
RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    # The first four tables: a server with an error in them is refused by every process at its start.
    "setting": (
        Rule(
            E,
            lambda f: f["found"] != f["needed"],
            "it has '{name} {found}': '{needed}' is needed, because {why}",
            "set '{name} {needed}' in redis.conf",
        ),
    ),
    "server": (
        Rule(E, _fact_equals("too-old"), "version {version} is too old", "install Redis 7.0 or newer, or Valkey"),
        Rule(
            E,
            _fact_equals("cluster"),
            "it runs in cluster mode, where no script may touch all keys of a job",
            "connect to a server with 'cluster-enabled no'",
        ),
        Rule(E, lambda f: f["role"] != "master", "this is a replica, which takes no writes", "connect to its primary"),
    ),
    "default-user": (
        Rule(
            E,
            lambda f: bool(f["refused"]),
            "a restart would lose the registry: {name} {version} replays its append-only file as the user default, "
            "who may not {refused}",
            "write 'user default off resetpass ~* &* +@all' in its ACL file and load it; or install {name} {fixed}",
        ),
    ),
    "asked": (
        Rule(
            W,
            _fact_equals("known", value=False),
            "{what} cannot be looked at",
            "give this user {right} in the ACL file",
        ),
    ),
    "redis": (
        Rule(
            E,
            lambda f: f["aof-status"] != "ok",
            "its last write to the append-only file failed",
            "look for space and errors on its disk",
        ),
        Rule(
            E,
            lambda f: 0 < f["maxmemory"] < 1.05 * f["memory"],
            "{memory_} of maxmemory {maxmemory_} are used",
            "raise maxmemory: writes are being refused",
        ),
        Rule(
            W,
            lambda f: 0 < 1.05 * f["memory"] <= f["maxmemory"] < 1.25 * f["memory"],
            "{memory_} of maxmemory {maxmemory_} are used",
            "raise maxmemory",
        ),
        Rule(
            W,
            lambda f: bool(f["machine-memory"]) and f["memory"] > f["machine-memory"] / 2,
            "{memory_} of {machine_memory_} of memory are its",
            "give it more memory: a rewrite may need it twice",
        ),
        Rule(
            E,
            lambda f: f["clients"] > 0.95 * f["maxclients"],
            "{clients} of {maxclients} connections are in use",
            "raise maxclients",
        ),
        Rule(
            W,
            lambda f: f["needed-clients"] > 0.8 * f["maxclients"],
            "{hosts} hosts with {slots} slots need up to {needed_clients} connections, maxclients is {maxclients}",
            "raise maxclients, and the limit of open files",
        ),
    ),
    "script": (
        Rule(
            W,
            lambda f: f["ms"] > 10,
            "a script takes {ms:.1f} ms (median)",
            "look for a busy machine, a slow network, SLOWLOG GET",
        ),
    ),
    "write": (
        Rule(
            W,
            lambda f: f["ms"] > 25,
            "a durable write takes {ms:.1f} ms (median)",
            "move Redis to a disk of its own: every change waits for it",
        ),
    ),
    "clock": (
        Rule(
            W,
            lambda f: abs(f["ahead"]) > 2,
            "its clock and this machine's differ by {ahead:+.1f} s",
            "synchronize both (chrony, NTP)",
        ),
    ),
    "registry": (Rule(N, lambda f: not f["incarnation"], "nobody has used it yet", "start a coordinator"),),
    "unreadable": (
        Rule(
            E,
            lambda f: bool(f["why"]),
            "it cannot be read, and is left out everywhere: {why}",
            "install the same version everywhere; a damaged record needs the right data of Redis: docs/operating.md",
        ),
    ),
    "daemon": (
        Rule(
            E,
            _fact_equals("alive", value=False),
            "it does not run: {does} until it does",
            "systemctl start blockjobs-{name}, or blockjobs up",
        ),
    ),
    "attention": (Rule(W, lambda f: bool(f["text"]), "{text}", "blockjobs show {run}"),),
    "overdue": (
        Rule(
            W,
            lambda f: bool(f["late"]),
            "{text}",
            "blockjobs history {name}; or, if its run file is gone, blockjobs overdue --forget {name}",
        ),
    ),
    "aside": (
        Rule(
            E,
            lambda f: bool(f["error"]),
            "{item} is put aside, and tried again ever later: {error}",
            "the log of {daemon} says more; `blockjobs show` the run or job, and cancel it if nobody needs it",
        ),
    ),
    "host-aside": (
        Rule(
            E,
            lambda f: bool(f["error"]),
            "{item} is put aside, and tried again ever later: {error}",
            "mend what is named (the log of blockjobs-worker@steps there says more); nothing else waits for it",
        ),
    ),
    "host": (
        Rule(
            N,
            _fact_equals("state", "left"),
            "it has left: its workers were stopped",
            "systemctl start blockjobs-worker@copy blockjobs-worker@steps there",
        ),
        Rule(
            E,
            lambda f: f["state"] == "down" and not f.get("missing"),
            "it is down: no heartbeat {since}",
            "look at it; if it is gone for good: blockjobs abandon {name}",
        ),
        Rule(
            E,
            lambda f: f["state"] == "down" and bool(f.get("missing")),
            "it is down {since}: {missing}",
            "start blockjobs-worker@{worker} there; its log says why it ended, if its version is this one",
        ),
        Rule(
            E,
            lambda f: bool(f.get("unreadable")),
            "{unreadable}",
            "install the same version everywhere, then restart blockjobs-worker@steps there",
        ),
        Rule(E, lambda f: bool(f.get("lost")), "{lost}", "bring back the right data of Redis: docs/operating.md"),
        Rule(
            E,
            _fact_equals("silent"),
            "it is up, and did not answer within {patience:.0f} s",
            "is blockjobs-worker@steps busy or of an older version there?",
        ),
        Rule(E, lambda f: bool(f.get("failed")), "{failed}", "look at the log of blockjobs-worker@steps there"),
        Rule(
            E,
            lambda f: bool(f.get("strangers")),
            "another machine takes its orders under this name: {strangers}",
            "stop the workers there, or give that machine a name of its own",
        ),
        Rule(
            W,
            lambda f: f["version"] not in ("", f["ours"]),
            "it runs version {version}, here is {ours}",
            "install the same version everywhere",
        ),
        Rule(
            W,
            lambda f: abs(f.get("skew", 0.0)) > 1.0,
            "its clock and Redis' differ by {skew:+.1f} s",
            "synchronize it (chrony, NTP)",
        ),
    ),
    "refused-events": (
        Rule(
            E,
            lambda f: f["hours"] < 24,
            "{count} events that no worker of this host writes were refused, the last one at {at}",
            "somebody has the password of user worker-{host}: change it (users.acl, and env on the host)",
        ),
    ),
    "hanging": (
        Rule(
            E,
            lambda f: bool(f["path"]),
            "it hangs {since}: {about}",
            "mend or thaw the file system mounted on {point}; whatever waits for it ends by itself then",
        ),
    ),
    "state": (
        _HANGS,
        Rule(E, lambda f: "error" in f, "{error}", "let user {user} write it, or set state in host.toml"),
        Rule(
            E,
            _fact_equals("writable", value=False),
            "user {user} cannot write {path}",
            "give that user write permission, or set state in host.toml",
        ),
        Rule(
            W,
            lambda f: not f["path"],
            "{wanted} cannot be made: what was decided is forgotten at each restart",
            "make its parent directory, writable for user {user}, or set state in host.toml",
        ),
        Rule(
            N,
            lambda f: bool(f["path"]) and not f["own"] and bool(f["wanted"]),
            "{wanted} cannot be made: the records lie in {path}",
            "make its parent directory, writable for user {user}, or set state in host.toml",
        ),
    ),
    "read-root": _ROOT,
    "write-root": (
        *_ROOT,
        Rule(
            E,
            lambda f: bool(f.get("abilities", {}).get("write")),
            "user {user} cannot write here: {no_write}",
            "give that user write permission, or remount it writable",
        ),
        Rule(
            E,
            lambda f: "free" in f and f["free"] < GIB and _free_part(f, "free", "size") < 0.01,
            "{free_} are free",
            "make room: blockjobs prune, or a larger disk",
        ),
        Rule(
            W,
            lambda f: (
                "free" in f
                and _free_part(f, "free", "size") < 0.05
                and not (f["free"] < GIB and _free_part(f, "free", "size") < 0.01)
            ),
            "{free_} of {size_} are free",
            "make room: blockjobs prune, or a larger disk",
        ),
        Rule(
            W,
            lambda f: _free_part(f, "free-inodes", "inodes") < 0.05,
            "{free_inodes} of {inodes} inodes are free",
            "make room: a backup needs three, and directories",
        ),
        Rule(
            W,
            lambda f: f.get("unowned", 0) > 0,
            "{unowned} transactions have files here that the registry does not know",
            "blockjobs sweep --dry-run",
        ),
        Rule(
            N,
            _fact_equals("local", value=False),
            "{fs} is no local file system: how far its locks reach is up to its server",
            "two hosts must not have the same write root",
        ),
        *(Rule(level, _lacks_ability(name), f"no {name}: {{no_{name}}}", advice) for name, level, advice in ABILITIES),
    ),
    "restore-root": (
        *_ROOT,
        Rule(
            W,
            lambda f: bool(f.get("abilities", {}).get("write")),
            "no restore can write here: user {user} cannot: {no_write}",
            "give that user write permission before the day of the restore, or remove it from restore-roots",
        ),
    ),
    "device": (
        _HANGS,
        Rule(W, lambda f: "error" in f, "{error}", "let user {user} read it (group disk), or remove it from host.toml"),
    ),
    "command": (
        _HANGS,
        Rule(E, lambda f: "error" in f, "{program}: {error}", "install it, or correct host.toml"),
        Rule(
            E,
            _fact_equals("executable", value=False),
            "{program} is no program that user {user} may execute",
            "chmod a+rx",
        ),
        Rule(
            E,
            _fact_equals("world-writable"),
            "{program}, or its directory, can be written by everybody",
            "chmod o-w: whoever can write it decides what blockjobs calls",
        ),
    ),
    "tool": (
        Rule(
            N,
            lambda f: not f.get("version"),
            "not found: images in qcow2 and vmdk cannot be used there",
            "install qemu-utils, where they are wanted",
        ),
    ),
    "cage": (
        Rule(
            W,
            lambda f: bool(f["lack"]) and f["uncaged"],
            "QEMU's tools run without a cage, for the kernel has {lack}: an image may read any file of user {user}",
            "use a newer kernel, or remove 'uncaged-formats' from host.toml",
        ),
        Rule(
            N,
            lambda f: bool(f["lack"]) and not f["uncaged"],
            "the kernel has {lack}: images in qcow2 and vmdk are refused there",
            "use a newer kernel, where they are wanted",
        ),
        Rule(
            N,
            lambda f: not f["lack"] and f["uncaged"],
            "'uncaged-formats' is not needed: the kernel has a cage",
            "remove it from host.toml",
        ),
    ),
}

FINE: Final[Mapping[str, str]] = {  # texts for subjects without a matching rule
    "setting": "{name} {found}",
    "server": "{name} {version}, a primary",
    "default-user": "the user default may replay the append-only file",
    "asked": "{what} can be looked at",
    "redis": "{memory_} used, {clients} of {maxclients} connections",
    "script": "a script takes {ms:.1f} ms",
    "write": "a durable write takes {ms:.1f} ms",
    "clock": "its clock and this machine's differ by {ahead:+.2f} s",
    "registry": "incarnation {incarnation}",
    "unreadable": "it can be read",
    "daemon": "runs",
    "attention": "needs nobody",
    "overdue": "{text}",
    "aside": "nothing is put aside",
    "host-aside": "nothing is put aside",
    "refused-events": "no event was refused for a day, {count} were before",
    "hanging": "nothing hangs",
    "host": "up, version {version}, {slots} slots, user {user}, clock {skew:+.2f} s",
    "state": "{path}",
    "read-root": "{fs}, readable",
    "write-root": "{fs}, writable, {free_} of {size_} free; every ability is there",
    "restore-root": "{fs}, writable, {free_} of {size_} free",
    "device": "{size_}, readable",
    "command": "{program}",
    "tool": "version {version}",
    "cage": "Landlock version {landlock}: QEMU's tools open nothing but the files of their job",
}  # fmt: skip


def examine_fact(kind: str, subject: str, fact: Fact) -> Iterator[Finding]:
    """Findings of ``kind`` for a fact: one per matching rule, or a single finding of level ok."""
    words = {name.replace("-", "_"): value for name, value in fact.items()}
    words |= {f"{name}_": size_text(value) for name, value in words.items() if isinstance(value, int)}
    words |= {f"no_{name}": why for name, why in fact.get("abilities", {}).items()}
    held = [rule for rule in RULES[kind] if rule.when(fact)]
    # A subject that cannot be inspected has no further findings.
    held = held[:1] if fact.get("hangs") or "error" in fact else held
    for rule in held:
        yield Finding(rule.level, subject, _fill_template(rule.text, words), _fill_template(rule.advice, words))
    if not held or (kind == "write-root" and all(rule.level is N for rule in held)):
        yield Finding(
            Level.OK, subject, _fill_template(FINE[kind].removesuffix("; every ability is there" * bool(held)), words)
        )


def worst_level(findings: Iterable[Finding]) -> Level:
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)


def _fill_template(text: str, words: Mapping[str, Any]) -> str:
    return text.format_map(words)
