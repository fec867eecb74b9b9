"""Start one of QEMU's tools in a process that can open only the files handed to the tool.

    python -I -S launch.py PARENT ABI FILTER MEMORY LISTENER FILES PROGRAM ARGUMENT...

Standard library only; run by its path.

    PARENT    process id of the starter; the tool is killed (SIGKILL) when the starting thread ends
    ABI       version of Landlock to use; 0: none, any file may be opened
    FILTER    1: no socket can be made; 0: no filter of system calls
    MEMORY    bytes of address space for the tool
    LISTENER  descriptor that the tool finds as systemd's first one, or "-"
    FILES     descriptors that the tool may open again as /dev/fd/N, separated by commas, in the mode of the open
              descriptor: for reading, or for reading and writing

The tool may also read and execute itself and libraries, and use /dev/null and /dev/urandom.

Sources: landlock(7), seccomp(2), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import sys

EXECUTE, WRITE_FILE, READ_FILE, TRUNCATE, IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 14, 1 << 15
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # by version: the number of rights on files; later versions have 16
TCP = 4, 0b11  # the first version that knows binding and connecting, and the two rights
SCOPES = 6, 0b11  # the first version that keeps signals and abstract sockets inside, and the two scopes

LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib",
             "/nix/store", "/gnu/store")  # fmt: skip
PROGRAMS = ("/bin", "/usr/bin")  # only for a script that stands in the place of the tool
FILES = {
    "/etc/ld.so.cache": READ_FILE,
    "/etc/ld.so.preload": READ_FILE,
    "/dev/urandom": READ_FILE,
    # QEMU tries its locks on /dev/null. If /dev/null cannot be opened, QEMU takes POSIX locks, and closing any
    # descriptor of a file drops the POSIX locks of the file.
    "/dev/null": READ_FILE | WRITE_FILE,
    # libnuma and glibc count processors: these files hold only numbers, and a missing file causes a warning.
    "/sys/devices/system/cpu/possible": READ_FILE,
    "/sys/devices/system/cpu/online": READ_FILE,
}

# By machine: seccomp's number of the machine, and the numbers of socket and connect.
MACHINES = {
    "x86_64": (0xC000003E, 41, 42),
    "aarch64": (0xC00000B7, 198, 203),
    "riscv64": (0xC00000F3, 198, 203),
    "ppc64le": (0xC0000015, 326, 328),
    "s390x": (0x80000016, 359, 362),
}
_IO_URING_SETUP = 425  # the same on every machine; no filter sees the operations of io_uring
_X32 = 0x40000000  # from this number on: the calls of another table

_PDEATHSIG, _GET_SECCOMP, _SET_SECCOMP, _NO_NEW_PRIVS = 1, 21, 22, 38  # operations of prctl
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def landlock_abi() -> int:
    """The version of Landlock that this kernel offers; 0: none, or Landlock is switched off or forbidden."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def has_filter() -> bool:
    """Whether this kernel filters system calls, and the numbers to filter are known for this machine."""
    return os.uname().machine in MACHINES and int(_libc.prctl(_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def main(words: list[str]) -> None:
    parent, abi, filters, memory, listener, files, program, *arguments = words
    _exit_on_failure(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != int(parent):
        sys.exit("whoever started this is gone")
    _exit_on_failure(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))  # and so no exec clears the signal above
    _set_limit(resource.RLIMIT_AS, int(memory))
    _set_limit(resource.RLIMIT_CORE, 0)
    os.environ["MALLOC_ARENA_MAX"] = "2"  # an arena takes 64 MiB of address space; default: 8 a processor
    if int(abi):
        restrict_files(int(abi), [int(each) for each in files.split(",") if each], program)
    if int(filters):
        restrict_calls()
    if listener != "-":
        os.dup2(int(listener), 3)
        os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    try:
        os.execv(program, [os.path.basename(program), *arguments])  # noqa: S606
    except OSError as error:
        sys.exit(f"{os.path.basename(program)}: {program}: {error.strerror}")


def restrict_files(abi: int, files: list[int], program: str) -> None:
    """Let this process and all descendants open only ``files`` and the paths listed at the top of this module."""
    every = (1 << RIGHTS.get(abi, 16)) - 1
    handled = [every, TCP[1] if abi >= TCP[0] else 0, SCOPES[1] if abi >= SCOPES[0] else 0]
    attr = struct.pack("=QQQ", *handled)  # an older kernel accepts an unknown end if the end is 0
    ruleset = _exit_on_failure(_libc.syscall(_CREATE_RULESET, attr, ctypes.c_size_t(len(attr)), 0))
    for fd in files:
        _allow_path(ruleset, fd, _rights_of(fd) & every)
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(program)))
    folders = [*LIBRARIES, *(os.path.join(prefix, name) for name in ("lib", "lib64"))]
    if _is_script(program):
        folders += PROGRAMS
    for path, rights in {**dict.fromkeys([*folders, program], READ_FILE | EXECUTE), **FILES}.items():
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # some of the paths are missing on some hosts
        _allow_path(ruleset, fd, rights & every)
        os.close(fd)
    _exit_on_failure(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _rights_of(fd: int) -> int:
    """The rights of a descriptor's open mode; sizes and sectors of a device are asked for by ioctl."""
    writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    device = stat.S_ISBLK(os.fstat(fd).st_mode)
    return READ_FILE | (WRITE_FILE | TRUNCATE if writable else 0) | (IOCTL_DEV if device else 0)


def _is_script(program: str) -> bool:
    with open(program, "rb") as file:
        return file.read(2) == b"#!"


def _allow_path(ruleset: int, fd: int, rights: int) -> None:
    rule = struct.pack("=Qi", rights, fd)
    _exit_on_failure(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))


def restrict_calls() -> None:
    """Forbid this process and all descendants to make a socket, with any version of Landlock."""
    machine, *numbers = MACHINES[os.uname().machine]
    denied = (*numbers, _IO_URING_SETUP)
    # struct sock_filter: code, jumps if true and if false, value. The last two lines: allow, and refuse with EACCES.
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    refuse = 4 + len(denied) + 1
    lines = [
        (load, 0, 0, 4),
        (equal, 0, refuse - 2, machine),
        (load, 0, 0, 0),
        (at_least, refuse - 4, 0, _X32),
        *((equal, refuse - 5 - at, 0, number) for at, number in enumerate(denied)),
        (answer, 0, 0, 0x7FFF0000),
        (answer, 0, 0, 0x00050000 | errno.EACCES),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = struct.pack("@HP", len(lines), ctypes.addressof(code))
    _exit_on_failure(_libc.prctl(_SET_SECCOMP, 2, program, 0, 0))


def _set_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _exit_on_failure(result: int) -> int:
    if result < 0:
        sys.exit(f"the cage cannot be closed: {os.strerror(ctypes.get_errno())}")
    return int(result)


if __name__ == "__main__":
    main(sys.argv[1:])
