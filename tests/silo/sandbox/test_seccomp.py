"""The filter's verdicts, found by running its program as the kernel would (`man 2 bpf`, `linux/filter.h`)."""

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.sandbox import seccomp

GOLDEN = Path(__file__).parent / "golden"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT, ENOPROTOOPT = REFUSALS = tuple(
    0x50000 | code
    for code in (
        errno.EPERM,
        errno.ENOSYS,
        errno.EAFNOSUPPORT,
        errno.ESOCKTNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.ENOPROTOOPT,
    )
)

CLOEXEC, NONBLOCK = 0o2000000, 0o4000

NUMBERS = {
    "x86_64": {"clone": 56, "clone3": 435, "unshare": 272, "socket": 41, "ioctl": 16, "keyctl": 250,
               "io_uring_setup": 425, "mount": 165, "ptrace": 101, "bpf": 321, "setns": 308, "read": 0, "execve": 59,
               "openat": 257, "process_vm_readv": 310, "socketpair": 53, "setsockopt": 54, "io_setup": 206,
               "cachestat": 451, "statmount": 457, "mbind": 237},
    "aarch64": {"clone": 220, "clone3": 435, "unshare": 97, "socket": 198, "ioctl": 29, "keyctl": 219,
                "io_uring_setup": 425, "mount": 40, "ptrace": 117, "bpf": 280, "setns": 268, "read": 63, "execve": 221,
                "openat": 56, "process_vm_readv": 270, "socketpair": 199, "setsockopt": 208, "io_setup": 0,
                "cachestat": 451, "statmount": 457, "mbind": 235},
}  # fmt: skip


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None, rules: bytes | None = None) -> int:
    """Run the program on one system call."""
    data = struct.pack(
        "=IIQ6Q",
        number,
        ARCHITECTURES[machine] if audit is None else audit,
        0,
        *(*arguments, *[0] * (6 - len(arguments))),
    )
    program = list(struct.iter_unpack("=HBBI", rules or seccomp.build(machine)))
    accumulator = place = 0
    for _ in range(len(program) + 1):
        code, if_true, if_false, operand = program[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x15:
            place += if_true if accumulator == operand else if_false
        elif code == 0x35:
            place += if_true if accumulator >= operand else if_false
        elif code == 0x45:
            place += if_true if accumulator & operand else if_false
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            return operand
        else:
            raise AssertionError(f"an instruction that the filter has no use for: {code:#x}")
    raise AssertionError("the program does not end")


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request):
    return request.param


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("read", (), ALLOW),
        ("execve", (), ALLOW),
        ("openat", (), ALLOW),
        ("unshare", (0x10000000,), EPERM),
        ("setns", (), EPERM),
        ("mount", (), EPERM),
        ("keyctl", (), EPERM),
        ("bpf", (), EPERM),
        ("ptrace", (), EPERM),
        ("process_vm_readv", (), EPERM),
        ("clone3", (), ENOSYS),
        ("io_uring_setup", (), ENOSYS),
        ("clone", (0x11,), ALLOW),  # fork
        ("clone", (0x3D0F00,), ALLOW),  # a thread
        ("clone", (0x10000011,), EPERM),  # CLONE_NEWUSER
        ("clone", (0x20000,), EPERM),  # CLONE_NEWNS
        ("clone", (0x40000000 | 1 << 40,), EPERM),  # CLONE_NEWNET, and a bit that the kernel does not look at
        ("io_setup", (), ENOSYS),
        ("statmount", (), ENOSYS),
        ("cachestat", (), EPERM),
        ("mbind", (), EPERM),
        ("socket", (1, 1, 0), ALLOW),  # AF_UNIX, a stream
        ("socket", (1, 2 | CLOEXEC, 0), ALLOW),
        ("socket", (1, 5 | NONBLOCK, 1), ALLOW),  # SOCK_SEQPACKET, PF_UNIX
        ("socket", (1, 3, 0), ESOCKTNOSUPPORT),  # SOCK_RAW
        ("socket", (2, 1 | CLOEXEC | NONBLOCK, 0), ALLOW),  # TCP, by default and by name
        ("socket", (10, 1, 6), ALLOW),
        ("socket", (2, 2, 0), ALLOW),  # UDP
        ("socket", (10, 2 | CLOEXEC, 17), ALLOW),
        ("socket", (2, 1, 262), EPROTONOSUPPORT),  # MPTCP
        ("socket", (10, 1, 262), EPROTONOSUPPORT),
        ("socket", (2, 1 | CLOEXEC, 262 | 1 << 32), EPROTONOSUPPORT),
        ("socket", (2, 2, 136), EPROTONOSUPPORT),  # UDP-Lite
        ("socket", (10, 2, 136), EPROTONOSUPPORT),
        ("socket", (2, 1, 132), EPROTONOSUPPORT),  # SCTP
        ("socket", (2, 1, 256), EPROTONOSUPPORT),  # SMC
        ("socket", (2, 2, 1), EPROTONOSUPPORT),  # ICMP
        ("socket", (10, 2, 58), EPROTONOSUPPORT),  # ICMPv6
        ("socket", (2, 1, 17), EPROTONOSUPPORT),
        ("socket", (2, 5, 132), ESOCKTNOSUPPORT),  # SCTP by its other type
        ("socket", (2, 6, 33), ESOCKTNOSUPPORT),  # DCCP
        ("socket", (2, 3, 255), ESOCKTNOSUPPORT),  # SOCK_RAW
        ("socket", (2, 10, 0x300), ESOCKTNOSUPPORT),  # SOCK_PACKET, which the kernel turns into AF_PACKET
        ("socket", (0, 1, 0), EAFNOSUPPORT),
        ("socket", (16, 3, 0), EAFNOSUPPORT),  # AF_NETLINK
        ("socket", (17, 3, 0), EAFNOSUPPORT),  # AF_PACKET
        ("socket", (38, 5, 0), EAFNOSUPPORT),  # AF_ALG
        ("socket", (40, 1, 0), EAFNOSUPPORT),  # AF_VSOCK
        ("socket", (43, 1, 0), EAFNOSUPPORT),  # AF_SMC
        ("socket", (44, 3, 0), EAFNOSUPPORT),  # AF_XDP
        ("socketpair", (1, 1 | CLOEXEC, 0), ALLOW),
        ("socketpair", (1, 5, 0), ALLOW),
        ("socketpair", (2, 1, 0), EAFNOSUPPORT),
        ("socketpair", (30, 1, 0), EAFNOSUPPORT),  # AF_TIPC
        ("socketpair", (16, 3, 0), EAFNOSUPPORT),
        ("setsockopt", (3, 1, 2), ALLOW),  # SO_REUSEADDR
        ("setsockopt", (3, 6, 1), ALLOW),  # TCP_NODELAY
        ("setsockopt", (3, 41, 26), ALLOW),  # IPV6_V6ONLY
        ("setsockopt", (3, 0, 1), ALLOW),  # IP_TOS
        ("setsockopt", (3, 17, 103), ALLOW),  # UDP_SEGMENT
        ("setsockopt", (3, 1, 26), EPERM),  # SO_ATTACH_FILTER
        ("setsockopt", (3, 6, 31), EPERM),  # TCP_ULP
        ("setsockopt", (3, 6 | 1 << 32, 31 | 1 << 40), EPERM),
        ("setsockopt", (3, 17, 100), EPERM),  # UDP_ENCAP
        ("setsockopt", (3, 284, 1), ENOPROTOOPT),  # SOL_MPTCP
        ("setsockopt", (3, 136, 10), ENOPROTOOPT),  # SOL_UDPLITE
        ("setsockopt", (3, 282, 1), ENOPROTOOPT),  # SOL_TLS
        ("ioctl", (0, 0x5401), ALLOW),  # TCGETS
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("ioctl", (0, 0x5412 | 1 << 32), EPERM),  # CVE-2019-10063
        ("ioctl", (0, 0x541C), EPERM),  # TIOCLINUX
    ],
)
def test_each_call_gets_its_verdict(machine, name, arguments, expected):
    assert verdict(machine, NUMBERS[machine][name], *arguments) == expected


def test_other_entry_points_kill(machine):
    others = [audit for audit in (*ARCHITECTURES.values(), 0x40000003, 0x40000028) if audit != ARCHITECTURES[machine]]
    for audit in others:
        assert verdict(machine, 1, audit=audit) == KILL
    assert verdict(machine, 0x40000000 | 1) == KILL
    assert verdict(machine, 0xFFFFFFFF) == KILL


def test_what_no_table_knows_yet_is_not_there(machine):
    assert verdict(machine, 463) == ENOSYS
    assert verdict(machine, 0x3FFFFFFF) == ENOSYS


@given(
    st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6)
)
def test_every_call_gets_one_of_the_verdicts(machine, number, arguments):
    assert verdict(machine, number, *arguments) in (ALLOW, KILL, *REFUSALS)


@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 2**64 - 1))
def test_no_flags_of_clone_that_make_a_namespace_get_through(machine, flags):
    expected = EPERM if flags & 0x7E020080 else ALLOW
    assert verdict(machine, NUMBERS[machine]["clone"], flags) == expected


INTERNET = {(1, 0), (1, 6), (2, 0), (2, 17)}


@given(
    st.sampled_from(sorted(ARCHITECTURES)),
    st.integers(0, 64),
    st.integers(0, 15),
    st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)),
    st.sampled_from([0, CLOEXEC, NONBLOCK, CLOEXEC | NONBLOCK, 1 << 40]),
)
def test_a_socket_is_made_of_an_allowed_protocol_or_not_at_all(machine, domain, kind, protocol, flags):
    seen = verdict(machine, NUMBERS[machine]["socket"], domain, kind | flags, protocol)
    protocol &= 0xFFFFFFFF
    allowed = (domain == 1 and kind in (1, 2, 5) and protocol in (0, 1)) or (
        domain in (2, 10) and (kind, protocol) in INTERNET
    )
    assert (seen == ALLOW) == allowed
    assert verdict(machine, NUMBERS[machine]["socketpair"], domain, kind | flags, protocol) == (
        seen if domain == 1 else EAFNOSUPPORT
    )


def test_what_qemu_needs_is_allowed_by_name_and_nothing_else(machine):
    rules = seccomp.build(machine, allowing=seccomp.MEMORY_POLICY)
    assert verdict(machine, NUMBERS[machine]["mbind"], rules=rules) == ALLOW
    changed = [number for number in range(470) if verdict(machine, number, rules=rules) != verdict(machine, number)]
    assert len(changed) == len(seccomp.MEMORY_POLICY)


def test_the_program_fits_the_kernel_and_is_the_golden_one(machine):
    program = seccomp.build(machine)
    assert len(program) // 8 <= 4096
    assert program == (GOLDEN / f"seccomp-{machine}.bpf").read_bytes()


def test_an_architecture_without_a_table_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.build("riscv64")
