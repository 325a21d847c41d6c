"""The first process of a guest: it starts the runner, makes a restored clone unlike its twins, and reports its exit.

It holds the privileges that the skill must not have (entropy, clock, host name, freezer), so it runs none of the
skill's code: `silo.guest.runner` does, in a child of this process with another user id. In a microVM it is root and
process 1 of the guest's own kernel; in the namespace backend it is process 1 of a pid namespace without any privilege,
where `Resume` only opens the gate.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import sys
import time

from silo.guest import runner
from silo.guest.channel import MessageChannel
from silo.wire.messages import Booted, Exited, Held, Hold, Resume

SKILL_UID = 1000
"""The user that the skill runs as; it owns nothing in the image."""

_RNDADDENTROPY = 0x40085203  # man 4 random
_RNDRESEEDCRNG = 0x5207
_PR_SET_NO_NEW_PRIVS = 38  # man 2 prctl
_PR_SET_DUMPABLE = 4
_MNT_DETACH = 2  # man 2 umount2
_PORTS = "/sys/class/virtio-ports"
_CONTROL_GROUPS = "/sys/fs/cgroup"
_FREEZING_POLL_S = 0.001


def main_microvm() -> None:
    """Process 1 of a microVM: channels are virtio ports, found by name. Never returns."""
    ports = _virtio_ports()
    control = MessageChannel(os.open(ports["silo.control"], os.O_RDWR | os.O_CLOEXEC))
    call = os.open(ports["silo.call"], os.O_RDWR | os.O_CLOEXEC)
    out = os.open(ports["silo.out"], os.O_WRONLY | os.O_CLOEXEC)
    err = os.open(ports["silo.err"], os.O_WRONLY | os.O_CLOEXEC)
    arguments = _kernel_arguments()
    if "silo.clock" in arguments:  # of a template: in the past, whatever the clock of the machine says
        time.clock_settime(time.CLOCK_REALTIME, int(arguments["silo.clock"]))
    _supervise(control, call, out, err, processes=int(arguments["silo.processes"]), freezer=_Freezer())


def main_namespace(
    control: int, call: int, out: int, err: int, *, processes: int, data_bytes: int, file_bytes: int
) -> None:
    """Process 1 of a pid namespace: channels, stdout and stderr are inherited descriptors. Never returns.

    The limits are set here and not by the host, because they apply to the user namespace in which they are set
    (`man 2 setrlimit`, `man 7 user_namespaces`).
    """
    for descriptor in (control, call, out, err):
        os.set_inheritable(descriptor, False)
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    _supervise(MessageChannel(control), call, out, err, processes=processes, freezer=None)


def _supervise(
    control: MessageChannel, call: int, out: int, err: int, *, processes: int, freezer: _Freezer | None
) -> None:
    """Start the runner and watch it. Without a freezer, this process has no privilege."""
    gate_read, gate_write = os.pipe()
    control.send(Booted(kernel=os.uname().release, python="%d.%d.%d" % sys.version_info[:3]))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            os.close(gate_write)
            os.close(control.descriptor)
            if freezer is not None:
                freezer.enter()
            _become_skill(out, err, processes=processes, is_root=freezer is not None)
            runner.main(MessageChannel(call), gate_read)
        except BaseException:  # the process ends here: print any exception on stderr and exit
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(runner.INTERNAL_ERROR)
    os.close(gate_read)
    os.close(call)
    _watch(control, child, gate_write, freezer, None if freezer is None else _Twins())


class _ChildEnded(Exception):
    """A child of init ended: the runner, or an orphan that init inherited."""


def _on_child(signum: int, frame: object) -> None:
    raise _ChildEnded


def _watch(control: MessageChannel, child: int, gate: int, freezer: _Freezer | None, twins: _Twins | None) -> None:
    """Serve the control channel and reap until the runner has ended; then wait for the host to end the guest.

    The code for a `Resume` is as short as possible, because each clone runs it for the first time: a blocking read that
    SIGCHLD may interrupt, and no signal while a message is being handled.
    """
    signal.signal(signal.SIGCHLD, _on_child)
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            message = control.receive()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        except _ChildEnded:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            status = _reap(child)
            if status is not None:
                # In a namespace, the file counts what was killed on the whole host; there, the host finds out itself.
                control.send(Exited(status=status, oom_kills=_oom_kills() if twins else 0))
                while True:
                    signal.pause()
            continue
        except EOFError:
            os._exit(0)
        if isinstance(message, Hold) and freezer is not None:
            freezer.freeze()
            control.send(Held(realtime_ns=time.time_ns()))
        elif isinstance(message, Resume):
            if twins is not None:
                twins.make_unique(message)
            os.write(gate, b"\n")
            if freezer is not None:
                freezer.thaw()


def _reap(child: int) -> int | None:
    """Reap children that ended; return the runner's exit status (negative: the signal), or None while it lives."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = os.waitstatus_to_exitcode(status)


class _Freezer:
    """The control group of the runner and all that it starts; its processes and their threads stand still at once.

    A thread that the skill starts when it is imported would otherwise run on in each clone before `_Twins` has done its
    work there. The kernel decides when all of them stand still (`cgroup.freeze` of Linux's
    `Documentation/admin-guide/cgroup-v2.rst`). Signals would not do: a process can tell that it was stopped and
    continued, and the skill may have stopped children of its own.

    The files are opened before the runner starts, and the hierarchy is unmounted again: the skill never sees it.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        place = _CONTROL_GROUPS.encode()
        if libc.mount(b"cgroup2", place, b"cgroup2", 0, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), _CONTROL_GROUPS)
        group = f"{_CONTROL_GROUPS}/skill"
        os.mkdir(group)
        self._processes = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        self._switch = os.open(f"{group}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        self._events = os.open(f"{group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        if libc.umount2(place, _MNT_DETACH) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), _CONTROL_GROUPS)

    def enter(self) -> None:
        """Put the calling process into the group, and close its files, which the skill must not have."""
        os.write(self._processes, b"0")
        for descriptor in (self._processes, self._switch, self._events):
            os.close(descriptor)

    def freeze(self) -> None:
        """Return once nothing in the group runs."""
        os.pwrite(self._switch, b"1", 0)
        while b"frozen 1" not in os.pread(self._events, 256, 0):
            time.sleep(_FREEZING_POLL_S)

    def thaw(self) -> None:
        """Let everything in the group run, if it does not."""
        os.pwrite(self._switch, b"0", 0)


class _Twins:
    """Makes a clone unlike its twins: its own randomness, clock and host name, before any code of the skill runs.

    The files are opened before the snapshot, so that a clone need not open them.
    """

    def __init__(self) -> None:
        self._random = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        self._hostname = os.open("/proc/sys/kernel/hostname", os.O_WRONLY | os.O_CLOEXEC)

    def make_unique(self, message: Resume) -> None:
        """Reseed, set the clock, set the name.

        The kernel's generator is reseeded at once (RNDRESEEDCRNG); without it, twins would share up to a minute of
        output. The clock jumps by at least a day, because a template is built with its clock in the past: every OpenSSL
        in the process, statically linked ones too, then reseeds before its next output (its generators do so after an
        hour at the latest).
        """
        entropy = bytes.fromhex(message.entropy)
        fcntl.ioctl(self._random, _RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
        fcntl.ioctl(self._random, _RNDRESEEDCRNG)
        time.clock_settime_ns(time.CLOCK_REALTIME, message.realtime_ns)
        os.write(self._hostname, message.hostname.encode())


def _become_skill(out: int, err: int, *, processes: int, is_root: bool) -> None:
    """Drop privileges and set up the process: session, user, limits, no new privileges, no core dumps, stdio."""
    os.setsid()
    # Duplicated for the end marker, because the skill may close or replace its own stdout and stderr.
    runner.keep_output(os.dup(out), os.dup(err))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    if is_root:
        os.setgroups([])
        os.setresgid(SKILL_UID, SKILL_UID, SKILL_UID)
        os.setresuid(SKILL_UID, SKILL_UID, SKILL_UID)
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "prctl")
    os.environ.clear()
    os.environ.update(
        {
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "PATH": "/usr/bin",
            "LD_LIBRARY_PATH": "/skill/lib",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "SILO_GUEST": "1",
        }
    )
    os.umask(0o077)
    os.chdir("/tmp")


def _virtio_ports() -> dict[str, str]:
    """Return the device of each virtio port by name; the number of the device is not fixed."""
    found: dict[str, str] = {}
    for entry in os.listdir(_PORTS):
        with open(f"{_PORTS}/{entry}/name") as file:
            found[file.read().strip()] = f"/dev/{entry}"
    return found


def _kernel_arguments() -> dict[str, str]:
    """Return the arguments of the form `name=value` on the kernel's command line."""
    with open("/proc/cmdline") as file:
        return dict(word.split("=", 1) for word in file.read().split() if "=" in word)


def _oom_kills() -> int:
    """Return how many processes the guest's kernel has killed for lack of memory; 0 where that can't be read."""
    try:
        with open("/proc/vmstat") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
    return 0
