"""Which user a confined program becomes: decided from the files that the kernel shows of a process (`man 5 proc`)."""

import pytest

from silo.errors import SandboxUnavailable
from silo.sandbox.identity import Identity, find_identity, try_to_confine, why_not
from silo.sandbox.programs import find_program
from silo.sandbox.seccomp import build

ALL = "         0          0 4294967295\n"
CONTAINER = "0 0 65536\n"
ROOTLESS = "0 1000 1\n1 100000 65535\n"
ONE = "0 1000 1\n"
CAPABILITIES = 0x1FFFFFFFFFF
UNPRIVILEGED_ROOT = 0xA80425FB  # what a container has by default


@pytest.fixture
def process(tmp_path):
    """Write the files of a process: `process(maps, capabilities)` returns their folder."""

    def make(ids, capabilities, groups=None):
        (tmp_path / "uid_map").write_text(ids)
        (tmp_path / "gid_map").write_text(groups or ids)
        (tmp_path / "status").write_text(f"Name:\tpython3\nCapPrm:\t0\nCapEff:\t{capabilities:016x}\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("ids", "first"),
    [(ALL, 0x70000000), (CONTAINER, 61184), (ROOTLESS, 61184), ("0 0 1\n5 5 4294967290\n", 0x70000000)],
)
def test_root_gives_each_program_a_user_that_owns_nothing(process, ids, first):
    identity = find_identity(process(ids, CAPABILITIES), user=0)
    assert identity.users.start == first
    drawn = {identity.draw() for _ in range(100)}
    assert len(drawn) > 90
    assert all(first <= user < 0x7FFE0000 and user not in (65534, 65535) for user in drawn)
    assert "--unshare-user" not in identity.namespaces
    assert identity.text == "as a user of its own"


@pytest.mark.parametrize(
    ("ids", "capabilities", "groups"),
    [(ONE, CAPABILITIES, None), (ONE, 0, None), (ROOTLESS, UNPRIVILEGED_ROOT, None), (ROOTLESS, CAPABILITIES, ONE)],
)
def test_root_of_a_user_namespace_of_which_the_host_knows_better_needs_only_another(process, ids, capabilities, groups):
    assert find_identity(process(ids, capabilities, groups), user=0) == Identity()


@pytest.mark.parametrize("ids", [ALL, CONTAINER, "0 0 1\n"])
def test_root_that_cannot_become_another_user_is_refused_and_told_what_to_do(process, ids):
    """A past bug: QEMU was then root, in a user namespace or not, and `silo doctor` was content."""
    with pytest.raises(SandboxUnavailable, match="would be root for the host's kernel") as refused:
        find_identity(process(ids, UNPRIVILEGED_ROOT), user=0)
    assert "CAP_SYS_ADMIN" in refused.value.message
    assert "--user 1000" in refused.value.hint
    if ids == ALL:
        assert find_identity(process(ids, UNPRIVILEGED_ROOT | 1 << 21), user=0).users is not None
    with pytest.raises(SandboxUnavailable, match="has no other user ids"):
        find_identity(process("0 0 1\n", CAPABILITIES), user=0)


def test_an_ordinary_user_needs_a_user_namespace_and_nothing_of_proc(tmp_path):
    identity = find_identity(tmp_path, user=1000)
    assert identity == Identity()
    assert identity.draw() is None
    assert "--unshare-user" in identity.namespaces
    assert "--unshare-user-try" not in identity.namespaces


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"kernel/unprivileged_userns_clone": "0"}, "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ({"user/max_user_namespaces": "0"}, "sudo sysctl -w user.max_user_namespaces=10000"),
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, "apparmor_parser -r /etc/apparmor.d/bwrap"),
        ({"kernel/unprivileged_userns_clone": "1", "user/max_user_namespaces": "9000"}, "in a container"),
        ({}, "in a container"),
    ],
)
def test_a_user_namespace_that_is_not_allowed_has_an_exact_remedy(tmp_path, switches, words):
    for name, value in switches.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    assert words in why_not("bwrap: setting up uid map: Permission denied", proc=tmp_path)


def test_what_bubblewrap_refuses_is_told_and_what_it_does_is_not():
    bwrap = find_program("bwrap")
    identity = find_identity()
    assert try_to_confine(bwrap, identity.namespaces, build()) == ""
    assert "/nonexistent" in try_to_confine(bwrap, [*identity.namespaces, "--ro-bind", "/nonexistent", "/x"], build())
