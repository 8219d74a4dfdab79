"""Keeps a process and all that it starts off the network, for good: a filter of system calls (seccomp(2)).

Sockets of its own machine alone (AF_UNIX) may be made. Refused with EACCES besides: io_uring, which makes sockets past
the filter, and calls through another architecture's entries, which have other numbers. Needs no privilege.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass
from functools import cache

# linux/audit.h, linux/seccomp.h, linux/bpf_common.h
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x45, 0x06
# struct seccomp_data: nr, arch, instruction_pointer, args[6]; of an argument, the lower half: both are little-endian
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
X32_BIT = 0x40000000  # linux: arch/x86/include/uapi/asm/unistd.h
IO_URING_SETUP = 425  # on every architecture

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class _Numbers:
    """Of system calls, on one architecture."""

    socket: int
    socketpair: int


_NUMBERS = {"x86_64": _Numbers(socket=41, socketpair=53), "aarch64": _Numbers(socket=198, socketpair=199)}


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@cache
def no_network(machine: str | None = None) -> bytes:
    """The filter for a machine (`uname -m`), this one as a rule. Raises OSError for one that it is not written for."""
    machine = machine or os.uname().machine
    numbers = _NUMBERS.get(machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"jobs without network are possible on {', '.join(_NUMBERS)}, not on {machine}")
    refuse, family, allow = "refuse", "family", "allow"
    steps: list[tuple[int, str | None, str | None, int]] = [
        (LOAD_WORD, None, None, ARCHITECTURE_AT),
        (JUMP_IF_EQUAL, None, refuse, AUDIT_ARCH[machine]),
        (LOAD_WORD, None, None, NUMBER_AT),
        (JUMP_IF_SET, refuse, None, X32_BIT),
        (JUMP_IF_EQUAL, refuse, None, IO_URING_SETUP),
        (JUMP_IF_EQUAL, family, None, numbers.socket),
        (JUMP_IF_EQUAL, family, allow, numbers.socketpair),
        (LOAD_WORD, None, None, FIRST_ARGUMENT_AT),
        (JUMP_IF_EQUAL, allow, refuse, socket.AF_UNIX),
        (RETURN, None, None, SECCOMP_RET_ALLOW),
        (RETURN, None, None, SECCOMP_RET_ERRNO | errno.EACCES),
    ]
    at = {family: 7, allow: 9, refuse: 10}
    return b"".join(
        struct.pack(
            "=HBBI",
            code,
            0 if if_so is None else at[if_so] - place - 1,
            0 if if_not is None else at[if_not] - place - 1,
            value,
        )
        for place, (code, if_so, if_not, value) in enumerate(steps)
    )


def impose(program: bytes) -> None:
    """Put this process under a filter. Before: it can gain no privileges (`seclusion`). Raises OSError."""
    bpf = _Program(len(program) // 8, program)
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(bpf), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
