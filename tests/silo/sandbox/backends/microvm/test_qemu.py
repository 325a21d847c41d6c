"""QEMU's command lines as golden files, so that a change of a guest shows. They contain nothing of this machine."""

import itertools
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from silo.sandbox.backends.microvm.machine import MACHINES
from silo.sandbox.backends.microvm.qemu import (
    Boot,
    Firmware,
    Memory,
    Qemu,
    arguments,
    can_map_read_only,
    confine,
    find_firmware,
)
from silo.sandbox.identity import Identity
from silo.sandbox.programs import find_program

GOLDEN = Path(__file__).parent / "golden"


def qemu(machine, accelerator):
    row = MACHINES[machine]
    found = next(each for each in row.accelerators if each.name == accelerator)
    firmware = Firmware(Path("/usr/share/qemu") / row.firmware, "f" * 64) if row.firmware else None
    return Qemu(Path("/usr/bin") / row.binary, Path("/usr/bin/bwrap"), "7.2.22", False, row, found, firmware, 2_000_000)


CASES = [("x86_64", "tcg"), ("x86_64", "kvm"), ("aarch64", "tcg")]


@pytest.mark.parametrize(("machine", "accelerator"), CASES)
@pytest.mark.parametrize("kind", ["template", "clone"])
def test_a_guest_gets_exactly_these_devices(machine, accelerator, kind):
    chosen = qemu(machine, accelerator)
    is_template = kind == "template"
    line = arguments(
        chosen,
        memory=Memory("/memory" if is_template else "/proc/self/fd/20", 256, is_shared=is_template),
        disks={"base": "/disk/base", "layer": "/disk/layer", "runtime": "/disk/runtime"},
        ports={"silo.control": 10, "silo.call": 11, "silo.out": 12, "silo.err": 13},
        monitor=14,
        console=15 if is_template else None,
        boot=Boot("/boot/vmlinuz", "/boot/initramfs", chosen.kernel_arguments) if is_template else None,
    )
    assert line == json.loads((GOLDEN / f"qemu-{machine}-{accelerator}-{kind}.json").read_text())
    text = " ".join(line)
    assert "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" in text
    assert "-nodefaults" in line
    assert not any(word in text for word in ("netdev", "-nic", "virtfs", "vsock", "usb=on", "vhost", "guest-core=on"))
    assert text.count("read-only=on") == 6


def test_a_template_and_its_clone_have_the_same_devices_in_the_same_order():
    def devices(path):
        line = json.loads(path.read_text())
        return [value for flag, value in itertools.pairwise(line) if flag == "-device"]

    for machine, accelerator in CASES:
        template, clone = (
            devices(GOLDEN / f"qemu-{machine}-{accelerator}-{kind}.json") for kind in ("template", "clone")
        )
        assert template == clone
        assert len(template) == 8


def test_qemu_is_confined_to_its_own_files():
    chosen = qemu("x86_64", "tcg")
    line = confine(
        chosen, ["/usr/bin/qemu", "-x"], memory_mib=256, binds={"/disk/base": Path("/images/base")}, writable={}
    )
    wrap = line[: line.index("--")]
    assert wrap[0] == "/usr/bin/bwrap"
    assert {
        "--unshare-user",
        "--unshare-net",
        "--unshare-pid",
        "--as-pid-1",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    } <= set(wrap)
    assert "--bind" not in wrap
    assert "--dev-bind" not in wrap
    assert wrap[-4:] == ["--remount-ro", "/proc", "--remount-ro", "/"]
    bound = {source for flag, source in itertools.pairwise(wrap) if flag in ("--ro-bind", "--ro-bind-try")}
    assert bound <= {
        "/usr",
        "/lib",
        "/lib64",
        "/bin",
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/images/base",
        "/usr/share/qemu/qboot.rom",
        "/dev/null",  # in place of the names of the kernel's keys
    }
    script = line[line.index("-c") + 1]
    assert script.startswith("echo >&0 && read -r _ || exit 1; ulimit -c 0; ")
    assert f"ulimit -v {(256 + 2048) * 1024}" in script
    assert line[-2:] == ["/usr/bin/qemu", "-x"]


@pytest.mark.parametrize(("version", "option"), [("7.2.22", "-runas"), ("9.0.2", "-runas"), ("9.1.0", "-run-with")])
def test_qemu_that_root_starts_becomes_a_user_of_its_own_each_time(version, option):
    chosen = replace(qemu("x86_64", "tcg"), version=version, identity=Identity(range(70000, 80000)))
    users = set()
    for _ in range(5):
        line = arguments(
            chosen,
            memory=Memory("/memory", 256, is_shared=False),
            disks={},
            ports={},
            monitor=14,
            console=None,
            boot=None,
        )
        given = line[line.index(option) + 1].removeprefix("user=")
        user, group = (int(part) for part in given.split(":"))
        assert user == group
        users.add(user)
        assert "elevateprivileges=allow" in line[line.index("-sandbox") + 1]
    assert len(users) > 1
    assert users <= set(range(70000, 80000))


def test_qemu_that_becomes_another_user_is_the_child_of_the_shell_that_dies_with_silo():
    """`setuid` ends the tie to a parent (`man 2 prctl`, PR_SET_PDEATHSIG); so the shell must not become QEMU."""
    script = {}
    for identity in (Identity(), Identity(range(70000, 80000))):
        chosen = replace(qemu("x86_64", "tcg"), identity=identity)
        line = confine(chosen, ["/usr/bin/qemu"], memory_mib=256, binds={}, writable={})
        script[identity.users is None] = line[line.index("-c") + 1]
        assert ("--unshare-user" in line) == (identity.users is None)
        assert ("CAP_SETUID" in line) == (identity.users is not None)
    assert script[True].endswith('exec "$@"')
    assert script[False].endswith('(exec "$@" 2>&1 >/dev/null); exit $?')


def test_hardware_virtualisation_opens_its_device_and_no_other():
    line = confine(qemu("x86_64", "kvm"), ["qemu"], memory_mib=256, binds={}, writable={"/memory": Path("/m")})
    assert line[line.index("--dev-bind") + 1] == "/dev/kvm"
    assert line[line.index("--bind") + 1 :][:2] == ["/m", "/memory"]


@pytest.mark.parametrize(
    ("version", "expected"), [("7.2.22", False), ("8.1.5", False), ("8.2.0", True), ("10.0", True), ("unknown", False)]
)
def test_which_qemu_maps_memory_read_only(version, expected):
    assert can_map_read_only(version) is expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [("7.2.22", False), ("9.0.4", False), ("9.1.0", True), ("10.0.13", True), ("unknown", False)],
)
def test_which_qemu_migrates_to_files(version, expected):
    assert replace(qemu("x86_64", "tcg"), version=version).migrates_to_files is expected


def test_an_x86_guest_starts_with_the_firmware_that_silo_names_not_with_the_one_that_the_distribution_chose():
    """In Debian 13 `bios-microvm.bin`, the default, is a SeaBIOS, and no guest booted with it (a past bug)."""
    line = confine(qemu("x86_64", "tcg"), ["qemu"], memory_mib=256, binds={}, writable={})
    assert line[line.index("/usr/share/qemu/qboot.rom") - 1 :][:3] == [
        "--ro-bind",
        "/usr/share/qemu/qboot.rom",
        "/boot/firmware",
    ]


@pytest.fixture
def fake_qemu(tmp_path):
    """A program that prints two folders, as `qemu-system-x86_64 -L help` does."""
    program = tmp_path / "qemu"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-L help" ] && printf "%s\\n" {tmp_path}/one {tmp_path}/two\n')
    program.chmod(0o755)
    return program


def test_firmware_is_looked_for_where_this_qemu_keeps_its_data(fake_qemu, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "real.rom").write_bytes(b"firmware")
    (tmp_path / "two" / "silo-test.rom").symlink_to("real.rom")
    found = find_firmware(fake_qemu, "silo-test.rom")
    assert found == Firmware(tmp_path / "two" / "real.rom", sha256(b"firmware").hexdigest())


def test_firmware_that_is_nowhere_is_none(fake_qemu):
    assert find_firmware(fake_qemu, "silo-test.rom") is None


def test_firmware_is_never_taken_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "silo-test.rom").write_bytes(b"planted")
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\nprintf '\\n.\\nhere\\n'\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert find_firmware(program, "silo-test.rom") is None


def test_the_firmware_of_each_machine_is_on_this_host():
    for row in MACHINES.values():
        binary = find_program(row.binary)
        if row.firmware and binary is not None:
            assert find_firmware(binary, row.firmware) is not None
