"""The filter's verdicts, found by running its program as the kernel would (`man 2 bpf`, `linux/filter.h`)."""

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.sandbox.backends.namespace import seccomp

GOLDEN = Path(__file__).parent / "golden"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EAFNOSUPPORT = (0x50000 | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))

NUMBERS = {
    "x86_64": {"clone": 56, "clone3": 435, "unshare": 272, "socket": 41, "ioctl": 16, "keyctl": 250,
               "io_uring_setup": 425, "mount": 165, "ptrace": 101, "bpf": 321, "setns": 308, "read": 0, "execve": 59,
               "openat": 257, "process_vm_readv": 310},
    "aarch64": {"clone": 220, "clone3": 435, "unshare": 97, "socket": 198, "ioctl": 29, "keyctl": 219,
                "io_uring_setup": 425, "mount": 40, "ptrace": 117, "bpf": 280, "setns": 268, "read": 63, "execve": 221,
                "openat": 56, "process_vm_readv": 270},
}  # fmt: skip


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """Run the program on one system call."""
    data = struct.pack(
        "=IIQ6Q",
        number,
        ARCHITECTURES[machine] if audit is None else audit,
        0,
        *(*arguments, *[0] * (6 - len(arguments))),
    )
    program = list(struct.iter_unpack("=HBBI", seccomp.build(machine)))
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
        ("socket", (1,), ALLOW),
        ("socket", (2,), ALLOW),
        ("socket", (10,), ALLOW),
        ("socket", (16,), EAFNOSUPPORT),
        ("socket", (17,), EAFNOSUPPORT),
        ("socket", (40,), EAFNOSUPPORT),
        ("socket", (38,), EAFNOSUPPORT),
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
    assert verdict(machine, number, *arguments) in (ALLOW, KILL, EPERM, ENOSYS, EAFNOSUPPORT)


@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 2**64 - 1))
def test_no_flags_of_clone_that_make_a_namespace_get_through(machine, flags):
    expected = EPERM if flags & 0x7E020080 else ALLOW
    assert verdict(machine, NUMBERS[machine]["clone"], flags) == expected


def test_the_program_fits_the_kernel_and_is_the_golden_one(machine):
    program = seccomp.build(machine)
    assert len(program) // 8 <= 4096
    assert program == (GOLDEN / f"seccomp-{machine}.bpf").read_bytes()


def test_an_architecture_without_a_table_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.build("riscv64")
