"""Every command's arguments, as in QEMU's schema; ``host`` is an extension of the fleet."""

from __future__ import annotations

from typing import Final

from blockjobs.qmp.qapi import BOOL, DEFINITIONS, INT, STR, UINT32, UINT64, Enum, ListOf, Members, Reference, Struct
from blockjobs.qmp.qapi import Union as Tagged

ON_ERROR: Final = Enum(("report", "ignore", "enospc", "stop", "auto"))
SYNC: Final = Enum(("top", "full", "none", "incremental", "bitmap"))
NEW_IMAGE: Final = Enum(("existing", "absolute-paths"))
COPY_MODE: Final = Enum(("background", "write-blocking"))
PERF: Final = Struct(
    {"*use-copy-range": BOOL, "*max-workers": INT, "*max-chunk": INT, "*min-cluster-size": UINT64}
)  # fmt: skip

NONE: Final[Members] = {}
ID: Final[Members] = {"id": STR}
DEVICE: Final[Members] = {"device": STR}
SPEED: Final[Members] = {"device": STR, "speed": INT}
CANCEL: Final[Members] = {"device": STR, "*force": BOOL}
NODE: Final[Members] = {"node-name": STR}
CAPABILITIES: Final[Members] = {"*enable": ListOf(Enum(("oob",)))}
SINCE: Final[Members] = {"since": Struct({"seconds": INT, "microseconds": INT})}
FLAT: Final[Members] = {"*flat": BOOL}

_BACKUP: Final[Members] = {
    "*job-id": STR, "device": STR, "sync": SYNC, "*speed": INT, "*bitmap": STR,
    "*bitmap-mode": Enum(("on-success", "never", "always")), "*compress": BOOL, "*on-source-error": ON_ERROR,
    "*on-target-error": ON_ERROR, "*on-cbw-error": Enum(("break-guest-write", "break-snapshot")),
    "*auto-finalize": BOOL, "*auto-dismiss": BOOL, "*filter-node-name": STR, "*discard-source": BOOL, "*x-perf": PERF,
}  # fmt: skip
BLOCKDEV_BACKUP: Final[Members] = {**_BACKUP, "target": STR}
DRIVE_BACKUP: Final[Members] = {**_BACKUP, "target": STR, "*format": STR, "*mode": NEW_IMAGE}
_MIRROR: Final[Members] = {
    "*job-id": STR, "device": STR, "target": STR, "*replaces": STR, "sync": SYNC, "*speed": INT,
    "*granularity": UINT32, "*buf-size": INT, "*on-source-error": ON_ERROR, "*on-target-error": ON_ERROR,
    "*copy-mode": COPY_MODE, "*auto-finalize": BOOL, "*auto-dismiss": BOOL,
}  # fmt: skip
BLOCKDEV_MIRROR: Final[Members] = {**_MIRROR, "*filter-node-name": STR, "*target-is-zero": BOOL}
DRIVE_MIRROR: Final[Members] = {**_MIRROR, "*format": STR, "*node-name": STR, "*mode": NEW_IMAGE, "*unmap": BOOL}

# Transactions: the supported kinds of actions, with their arguments.
ACTIONS: Final[dict[str, Members]] = {
    "abort": {},
    "blockdev-backup": BLOCKDEV_BACKUP,
    "drive-backup": DRIVE_BACKUP,
}
TRANSACTION: Final[Members] = {
    "actions": ListOf(Tagged({"type": Enum(tuple(ACTIONS))}, "type", ACTIONS, inner=True)),
    "*properties": Struct({"*completion-mode": Enum(("individual", "grouped"))}),
}

# Nodes.
RESIZE: Final[Members] = {"*device": STR, "*node-name": STR, "size": INT}
_RULE: Final = Struct(
    {
        "event": Enum(("none", "read_aio", "write_aio", "flush_to_disk")),
        "*state": INT,
        "*iotype": Enum(("read", "write", "write-zeroes", "flush")),
        "*errno": INT,
        "*sector": INT,
        "*once": BOOL,
        "*immediately": BOOL,
    }
)
DRIVERS: Final[dict[str, Members]] = {
    "file":        {"filename": STR, "*locking": Enum(("auto", "on", "off")), "*aio": STR},
    "host_device": {"filename": STR, "*locking": Enum(("auto", "on", "off")), "*aio": STR},
    "null-co":     {"*size": INT, "*latency-ns": UINT64, "*read-zeroes": BOOL},
    "raw":         {"file": Reference("BlockdevRef"), "*offset": INT, "*size": INT},
    "qcow2":       {"file": Reference("BlockdevRef"), "*backing": Reference("BlockdevRef", null=True)},
    "vmdk":        {"file": Reference("BlockdevRef"), "*backing": Reference("BlockdevRef", null=True)},
    "blkdebug":    {"image": Reference("BlockdevRef"), "*inject-error": ListOf(_RULE)},
}  # fmt: skip
BLOCKDEV: Final = Tagged(
    {
        "driver": Enum(tuple(DRIVERS)), "*node-name": STR, "*discard": Enum(("ignore", "unmap")),
        "*cache": Struct({"*direct": BOOL, "*no-flush": BOOL}), "*read-only": BOOL, "*auto-read-only": BOOL,
        "*force-share": BOOL, "*detect-zeroes": Enum(("off", "on", "unmap")), "*host": STR,
    },
    "driver",
    DRIVERS,
)  # fmt: skip
DEFINITIONS["BlockdevRef"] = BLOCKDEV
