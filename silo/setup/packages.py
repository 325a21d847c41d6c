"""Find out what the host lacks and install it: QEMU, bubblewrap and e2fsprogs with apt, and a guest kernel.

This works on Debian and Ubuntu; on other systems the plan says what to install by hand. The kernel is never installed
on the host: its package is downloaded and unpacked into silo's folder. The backends' probes find out what works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import SandboxBroken, SandboxUnavailable
from silo.sandbox.backends.microvm import kernel
from silo.sandbox.backends.microvm.host import machine, missing_programs, no_machine
from silo.sandbox.backends.microvm.machine import MACHINES, Machine
from silo.sandbox.base import OnStep
from silo.setup.apt import apt, last_line
from silo.setup.kernel import fetch_kernel


@dataclass(frozen=True)
class SetupPlan:
    """What `silo setup` would do.

    Attributes:
        packages: Debian packages to install.
        needs_kernel: whether a guest kernel has to be fetched.
        command: the complete command that installs the packages, for a person or for `run`; empty if none is needed.
        can_install: whether this process may run `command` (root, or sudo without a password).
        by_hand: instructions for a system without apt; empty on Debian and Ubuntu.
    """

    packages: tuple[str, ...]
    needs_kernel: bool
    command: tuple[str, ...]
    can_install: bool
    by_hand: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is missing."""
        return not self.packages and not self.needs_kernel


def plan(kernel_folder: Path, *, repair: bool = False) -> SetupPlan:
    """Find out what is missing.

    Args:
        kernel_folder: the folder of kernel packs.
        repair: fetch the kernel even if there is one.

    Raises:
        SandboxUnavailable: silo has no machine type for this host.
    """
    host = machine()
    if host is None:
        raise SandboxUnavailable(
            no_machine(),
            hint=f"microVMs work on Linux on {' and '.join(MACHINES)}; "
            "on another Linux there is the namespace backend: `silo run --backend namespace`",
        )
    packages = tuple(sorted({program.package for program in missing_programs(host)}))
    try:
        needs_kernel = repair or kernel.find(kernel_folder) is None
    except SandboxBroken:
        needs_kernel = True
    apt = shutil.which("apt-get")
    if apt is None:
        by_hand = _by_hand(host, packages, needs_kernel) if packages or needs_kernel else ""
        return SetupPlan(packages, needs_kernel, (), can_install=False, by_hand=by_hand)
    sudo = () if os.geteuid() == 0 else ("sudo",)
    command = (*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages) if packages else ()
    return SetupPlan(packages, needs_kernel, command, can_install=not sudo or _has_sudo())


def _by_hand(host: Machine, packages: Sequence[str], needs_kernel: bool) -> str:
    """Return instructions for a system without apt."""
    lines = []
    if packages:
        lines.append(
            "install with your package manager: QEMU's system emulator for this machine "
            f"({host.binary}), bubblewrap (bwrap) and e2fsprogs (mke2fs)"
            + (f", and QEMU's firmware {host.firmware} (qboot)" if host.firmware else "")
        )
    if needs_kernel:
        lines.append(
            "make a kernel pack on a Debian or Ubuntu machine of the same architecture with `silo setup`, "
            "copy its folder `~/.silo/kernel` here, and run `silo doctor`"
        )
    return "; ".join(lines)


def _has_sudo() -> bool:
    sudo = shutil.which("sudo")
    return sudo is not None and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0


def run(todo: SetupPlan, kernel_folder: Path, on_step: OnStep) -> None:
    """Carry out a plan.

    Raises:
        SandboxUnavailable: packages are missing and can't be installed from here; the hint is the command to run.
        SandboxBroken: apt or the unpacking failed.
    """
    if todo.by_hand:
        raise SandboxUnavailable("this system has no apt, so silo can't install what is missing", hint=todo.by_hand)
    if todo.packages:
        if not todo.can_install:
            raise SandboxUnavailable(
                f"these packages are missing: {', '.join(todo.packages)}",
                hint=f"run `{' '.join(todo.command)}`, then `silo setup` again",
            )
        on_step(f"installing {', '.join(todo.packages)} with apt")
        _apt_install(todo)
    if todo.needs_kernel:
        fetch_kernel(kernel_folder, on_step)


def _apt_install(todo: SetupPlan) -> None:
    if apt(todo.command).returncode != 0:
        # An old package list is the usual reason: refresh it, then try once more.
        prefix = todo.command[: todo.command.index("apt-get") + 1]
        apt((*prefix, "update", "-q"))
        again = apt(todo.command)
        if again.returncode != 0:
            raise SandboxBroken(
                f"apt-get failed: {last_line(again)}", hint=f"run `{' '.join(todo.command)}` yourself to see all of it"
            )


def delete_templates(folder: Path) -> None:
    """Delete all templates; each is built again at the next call. A running call keeps its files open."""
    if folder.is_dir():
        doomed = folder.rename(folder.with_name(f".gone-{folder.name}-{os.getpid()}"))
        shutil.rmtree(doomed, ignore_errors=True)
