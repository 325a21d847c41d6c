"""What the namespace backend's filter refuses, tried from inside.

`tests/silo/sandbox/backends/namespace/test_seccomp.py` shows every verdict of the filter's program. A microVM needs no
filter, because its own kernel handles its system calls. What those return is not a promise of silo.
"""

import platform

import pytest

pytestmark = [pytest.mark.anyio]

NEW_USER = 0x10000000
CALLS = {
    "unshare": ([272, NEW_USER], "EPERM"),
    "setns": ([308, 0, 0], "EPERM"),
    "clone with CLONE_NEWUSER": ([56, NEW_USER | 17, 0, 0, 0, 0], "EPERM"),
    "clone with CLONE_NEWNS, high bits set": ([56, 0x20000 | 17 | 1 << 40, 0, 0, 0, 0], "EPERM"),
    "clone3": ([435, 0, 0], "ENOSYS"),
    "io_uring_setup": ([425, 1, 0], "ENOSYS"),
    "io_uring_enter": ([426, 0, 0, 0, 0, 0], "ENOSYS"),
    "keyctl": ([250, 0, -3, 0], "EPERM"),
    "add_key": ([248, 0, 0, 0, 0, -3], "EPERM"),
    "request_key": ([249, 0, 0, 0, -3], "EPERM"),
    "bpf": ([321, 0, 0, 0], "EPERM"),
    "perf_event_open": ([298, 0, 0, -1, -1, 0], "EPERM"),
    "ptrace": ([101, 0, 0, 0, 0], "EPERM"),
    "process_vm_readv": ([310, 1, 0, 0, 0, 0, 0], "EPERM"),
    "userfaultfd": ([323, 0], "EPERM"),
    "memfd_secret": ([447, 0], "EPERM"),
    "mount": ([165, 0, 0, 0, 0, 0], "EPERM"),
    "open_tree": ([428, -100, 0, 1], "EPERM"),
    "pivot_root": ([155, 0, 0], "EPERM"),
    "chroot": ([161, 0], "EPERM"),
    "kexec_load": ([246, 0, 0, 0, 0], "EPERM"),
    "init_module": ([175, 0, 0, 0], "EPERM"),
    "personality": ([135, 0x0040000], "EPERM"),
    "a number of the future": ([470], "ENOSYS"),
    "socket AF_VSOCK": ([41, 40, 1, 0], "EAFNOSUPPORT"),
    "socket AF_NETLINK": ([41, 16, 3, 0], "EAFNOSUPPORT"),
    "socket AF_PACKET": ([41, 17, 3, 0], "EAFNOSUPPORT"),
    "socket of MPTCP": ([41, 2, 1, 262], "EPROTONOSUPPORT"),
    "socket of MPTCP over IPv6": ([41, 10, 1 | 0o2000000, 262], "EPROTONOSUPPORT"),
    "socket of UDP-Lite": ([41, 2, 2, 136], "EPROTONOSUPPORT"),
    "socket of SCTP": ([41, 2, 1, 132], "EPROTONOSUPPORT"),
    "socket of ICMP": ([41, 2, 2, 1], "EPROTONOSUPPORT"),
    "socket of DCCP": ([41, 2, 6, 33], "ESOCKTNOSUPPORT"),
    "socket SOCK_PACKET": ([41, 2, 10, 0x300], "ESOCKTNOSUPPORT"),
    "socketpair AF_TIPC": ([53, 30, 1, 0, 0], "EAFNOSUPPORT"),
    "socketpair AF_INET": ([53, 2, 1, 0, 0], "EAFNOSUPPORT"),
    "setsockopt SOL_MPTCP": ([54, 0, 284, 1, 0, 0], "ENOPROTOOPT"),
    "setsockopt TCP_ULP": ([54, 0, 6, 31, 0, 0], "EPERM"),
    "io_setup": ([206, 1, 0], "ENOSYS"),
    "statmount": ([457, 0, 0, 0, 0], "ENOSYS"),
    "ioctl TIOCSTI": ([16, 0, 0x5412, 0], "EPERM"),
    "ioctl TIOCSTI, high bits set": ([16, 0, 0x5412 | 1 << 32, 0], "EPERM"),
    "x32": ([0x40000000 | 39], "SIGSYS"),
    # These must work, or the filter would prove nothing.
    "getpid": ([39], "done"),
    "socket AF_UNIX": ([41, 1, 1, 0], "done"),
    "socket of TCP": ([41, 2, 1, 6], "done"),
    "socket of TCP by default, over IPv6": ([41, 10, 1 | 0o2000000, 0], "done"),
    "socket of UDP": ([41, 2, 2 | 0o4000, 17], "done"),
    "setsockopt SO_REUSEADDR, on no socket": ([54, 0, 1, 2, 0, 0], "ENOTSOCK"),
}


@pytest.fixture
def backend(namespace):
    return namespace


async def test_the_filter_refuses_what_leads_to_the_hosts_kernel(attack):
    assert platform.machine() == "x86_64", "the numbers are those of x86_64"
    results = await attack("system_calls", calls={name: numbers for name, (numbers, _) in CALLS.items()})
    assert results == {name: verdict for name, (_, verdict) in CALLS.items()}


async def test_the_32_bit_entry_point_kills(attack):
    assert await attack("old_entry_point") == "SIGSYS"
