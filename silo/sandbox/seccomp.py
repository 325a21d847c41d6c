"""The system-call filter of confined programs, as a classic BPF program (`man 2 seccomp`).

Everything is allowed except the listed calls. These reach the host's kernel beyond processes, files and loopback
sockets, reach what namespaces do not isolate (the kernel keyring, vsock), or have let programs out of sandboxes before.
A call with a number newer than the table gets ENOSYS, so that a new kernel opens no new way out. Numbers are from
Linux's `unistd_64.h` and `asm-generic/unistd.h`.

Sockets are different: only the listed protocols are allowed. A domain alone says too little, because AF_INET also has
MPTCP, SCTP, DCCP, UDP-Lite, ICMP and SMC, each with code of its own in the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1, _ARGUMENT_2 = 0, 4, 16, 24, 32
"""Offsets in `struct seccomp_data`. Of an argument, only the low 32 bits are loaded: the calls below take `int`."""

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_BIT = 0x40000000
_LAST_KNOWN = 462
"""`mseal`, of Linux 6.10."""

_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME."""

_SOCKET_TYPE = 0xF
"""SOCK_TYPE_MASK of `linux/net.h`: the type without SOCK_CLOEXEC and SOCK_NONBLOCK."""

_Types = dict[int, tuple[int, ...]]

_UNIX: _Types = {1: (0, 1), 2: (0, 1), 5: (0, 1)}
_INTERNET: _Types = {1: (0, 6), 2: (0, 17)}
_SOCKETS = {1: _UNIX, 2: _INTERNET, 10: _INTERNET}
"""The protocols that a socket may have, by domain and type: AF_UNIX (stream, datagram, seqpacket), and TCP and UDP over
AF_INET and AF_INET6. 0 is the type's own protocol."""

_SOCKET_PAIRS = {1: _UNIX}

_OPTION_LEVELS: _Types = {
    1: (26, 51),  # SOL_SOCKET without SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF, which load programs
    0: (),  # IPPROTO_IP
    41: (),  # IPPROTO_IPV6
    6: (31,),  # TCP without TCP_ULP, which turns a socket into one of TLS, SMC or another protocol
    17: (100,),  # UDP without UDP_ENCAP, which does so for ESP and L2TP
}
"""The levels at which options may be set, and the options that may not."""

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
    # What other programs of the host have read lately.
    "cachestat": (451, 451),
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
    # All programs of the host share one number of requests (fs.aio-max-nr).
    "io_setup": (206, 0),
    # They name folders of the host, as /proc/self/mountinfo does.
    "statmount": (457, 457), "listmount": (458, 458),
}  # fmt: skip

_CLONE, _IOCTL, _SOCKET, _SOCKET_PAIR, _SET_OPTION = (56, 220), (16, 29), (41, 198), (53, 199), (54, 208)

MEMORY_POLICY = frozenset({"get_mempolicy", "mbind", "set_mempolicy"})
"""What QEMU calls for a guest's memory, whatever the policy is."""

_Instruction = tuple[int, int, int, int]


def build(machine: str | None = None, *, allowing: Collection[str] = ()) -> bytes:
    """Return the filter for an architecture (`platform.machine()`), ready for `bwrap --seccomp`.

    Args:
        machine: the architecture, or None for this one.
        allowing: names of calls that are refused otherwise.

    Raises:
        KeyError: an architecture without a table.
    """
    numbers = _ARCHITECTURES[machine or platform.machine()]
    denied = [pair[numbers.column] for name, pair in _DENIED.items() if name not in allowing]
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, numbers.audit),
        (_RETURN, 0, 0, _KILL),  # 32-bit entry points
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
        (_AT_LEAST, 0, 1, _LAST_KNOWN + 1),
        _fail(errno.ENOSYS),
    ]
    for number in denied:
        if number is not None:
            program += _case(number, [_fail(errno.EPERM)])
    for pair in _ABSENT.values():
        program += _case(pair[numbers.column], [_fail(errno.ENOSYS)])
    program += _case(
        _CLONE[numbers.column],
        [(_LOAD, 0, 0, _ARGUMENT_0), (_ANY_BIT, 0, 1, _NEW_NAMESPACES), _fail(errno.EPERM), _PASS],
    )
    program += _case(
        _IOCTL[numbers.column],
        [(_LOAD, 0, 0, _ARGUMENT_1), *_cases(_TERMINAL_INJECTION, [_fail(errno.EPERM)]), _PASS],
    )
    program += _case(_SOCKET[numbers.column], _sockets(_SOCKETS))
    program += _case(_SOCKET_PAIR[numbers.column], _sockets(_SOCKET_PAIRS))
    program += _case(_SET_OPTION[numbers.column], _options())
    program.append(_PASS)
    return b"".join(
        struct.pack("=HBBI", code, if_true, if_false, operand) for code, if_true, if_false, operand in program
    )


def sealed(rules: bytes) -> int:
    """Put a filter into a sealed anonymous file, and return its descriptor, at its start; the caller closes it."""
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, rules)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
    return descriptor


_PASS: _Instruction = (_RETURN, 0, 0, _ALLOW)


def _fail(code: int) -> _Instruction:
    return _RETURN, 0, 0, _ERRNO | code


def _case(value: int, body: Sequence[_Instruction]) -> list[_Instruction]:
    """Run `body`, which returns on every path, if the loaded value is this one; jump over it otherwise."""
    return [(_EQUAL, 0, len(body), value), *body]


def _cases(values: Collection[int], body: Sequence[_Instruction]) -> list[_Instruction]:
    return [instruction for value in values for instruction in _case(value, body)]


def _sockets(allowed: dict[int, _Types]) -> list[_Instruction]:
    """Look at domain, type and protocol of a socket."""
    program: list[_Instruction] = [(_LOAD, 0, 0, _ARGUMENT_0)]
    for domain, types in allowed.items():
        inner: list[_Instruction] = [(_LOAD, 0, 0, _ARGUMENT_1), (_AND, 0, 0, _SOCKET_TYPE)]
        for kind, protocols in types.items():
            passed = _cases(protocols, [_PASS])
            inner += _case(kind, [(_LOAD, 0, 0, _ARGUMENT_2), *passed, _fail(errno.EPROTONOSUPPORT)])
        program += _case(domain, [*inner, _fail(errno.ESOCKTNOSUPPORT)])
    return [*program, _fail(errno.EAFNOSUPPORT)]


def _options() -> list[_Instruction]:
    """Look at level and name of a socket's option."""
    program: list[_Instruction] = [(_LOAD, 0, 0, _ARGUMENT_1)]
    for level, refused in _OPTION_LEVELS.items():
        inner = [(_LOAD, 0, 0, _ARGUMENT_2), *_cases(refused, [_fail(errno.EPERM)]), _PASS]
        program += _case(level, inner)
    return [*program, _fail(errno.ENOPROTOOPT)]
