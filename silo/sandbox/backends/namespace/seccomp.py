"""The system-call filter of the namespace backend, as a classic BPF program (`man 2 seccomp`). Pure.

Everything is allowed except the listed calls. These reach the host's kernel beyond processes, files and loopback
sockets, reach what namespaces do not isolate (the kernel keyring, vsock), or have let programs out of sandboxes before.
A call with a number newer than the table gets ENOSYS, so that a new kernel opens no new way out. Numbers are from
Linux's `unistd_64.h` and `asm-generic/unistd.h`.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_BIT = 0x40000000
_LAST_KNOWN = 462
"""`mseal`, of Linux 6.10."""

_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME."""

_DOMAINS = (1, 2, 10)
"""AF_UNIX, AF_INET and AF_INET6.

Others (netlink, packet, vsock, alg, bluetooth) reach code or hosts that no skill needs.
"""

_TERMINAL_INJECTION = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX; compared in their low 32 bits, all that the kernel looks at (CVE-2019-10063)."""


@dataclass(frozen=True)
class _Numbers:
    """One architecture: its AUDIT_ARCH value, and its column in the tables of numbers (None: it has no such call)."""

    audit: int
    column: int


_ARCHITECTURES = {"x86_64": _Numbers(0xC000003E, 0), "aarch64": _Numbers(0xC00000B7, 1)}

_DENIED: dict[str, tuple[int | None, int | None]] = {
    # The kernel's own state.
    "acct": (163, 89), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "clock_settime": (227, 112),
    "delete_module": (176, 106), "finit_module": (313, 273), "init_module": (175, 105), "ioperm": (173, None),
    "iopl": (172, None), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None), "nfsservctl": (180, 42), "personality": (135, 92), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "setdomainname": (171, 162), "sethostname": (170, 161),
    "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "_sysctl": (156, None),
    "sysfs": (139, None), "syslog": (103, 116), "uselib": (134, None), "ustat": (136, None), "vhangup": (153, 58),
    # Keys of the host's user, which no namespace hides.
    "add_key": (248, 217), "keyctl": (250, 219), "request_key": (249, 218),
    # Other processes, and memory that can't be inspected.
    "kcmp": (312, 272), "memfd_secret": (447, 447), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "userfaultfd": (323, 282), "bpf": (321, 280), "get_mempolicy": (239, 236),
    "mbind": (237, 235), "migrate_pages": (256, 238), "move_pages": (279, 239), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    # Mounts and namespaces.
    "chroot": (161, 51), "fanotify_init": (300, 262), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fsopen": (430, 430), "fspick": (433, 433), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "pivot_root": (155, 41), "setns": (308, 268), "umount2": (166, 39), "unshare": (272, 97),
}  # fmt: skip

_ABSENT: dict[str, tuple[int, int]] = {
    # If these are missing (ENOSYS), programs try an older call. The flags of clone3 are in memory, where a filter can't
    # look (CVE-2021-41133).
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
}  # fmt: skip

_CLONE, _SOCKET, _IOCTL = (56, 220), (41, 198), (16, 29)


def build(machine: str | None = None) -> bytes:
    """Return the filter for an architecture (`platform.machine()`), ready for `bwrap --seccomp`.

    Raises:
        KeyError: an architecture without a table.
    """
    numbers = _ARCHITECTURES[machine or platform.machine()]
    denied = [pair[numbers.column] for pair in _DENIED.values()]
    program: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, numbers.audit),
        (_RETURN, 0, 0, _KILL),  # 32-bit entry points
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
        (_AT_LEAST, 0, 1, _LAST_KNOWN + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in denied:
        if number is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    for pair in _ABSENT.values():
        program += [(_EQUAL, 0, 1, pair[numbers.column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    program += [
        (_EQUAL, 0, 4, _CLONE[numbers.column]),
        (_LOAD, 0, 0, _ARGUMENT_0),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 2 + len(_DOMAINS) + 1, _SOCKET[numbers.column]),
        (_LOAD, 0, 0, _ARGUMENT_0),
        *((_EQUAL, len(_DOMAINS) - index, 0, domain) for index, domain in enumerate(_DOMAINS)),
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 2 + len(_TERMINAL_INJECTION) + 1, _IOCTL[numbers.column]),
        (_LOAD, 0, 0, _ARGUMENT_1),
        *((_EQUAL, len(_TERMINAL_INJECTION) - index, 0, request) for index, request in enumerate(_TERMINAL_INJECTION)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(
        struct.pack("=HBBI", code, if_true, if_false, operand) for code, if_true, if_false, operand in program
    )
