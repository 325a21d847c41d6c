"""The process that runs the skill: import it, describe it, wait at the gate, serve one call, wait for the end.

Everything up to the gate is part of the template: it runs once, without secrets, and costs no call anything. `silo.sdk`
turns results and exceptions into messages; `silo.guest.init` has set privileges, limits and stdio.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType

from silo.guest.channel import MessageChannel
from silo.sdk.describe import describe
from silo.sdk.files import File
from silo.sdk.invoke import InvokeFailed, Outcome, invoke, rehearse, warm
from silo.sdk.skill import Skill, find_skill
from silo.wire.frames import WireError
from silo.wire.messages import (
    Described,
    Failed,
    FileHead,
    Finished,
    Progress,
    Rehearse,
    Rehearsed,
    Run,
    encode_message,
)

SCRIPT = "/skill/skill.py"
MODULE_NAME = "skill"
_REHEARSALS = 8
"""CPython 3.11 specialises a function's code after it has been called eight times."""

INTERNAL_ERROR = 70
"""Exit status of the runner when silo's own code fails in it (EX_SOFTWARE of `sysexits.h`)."""

_PIPE_BYTES = 64 * 1024
"""The capacity of a pipe (`man 7 pipe`)."""

_REPORTS_AT_ONCE = 100
_REPORTS_PER_S = 50
"""How many reports of progress are sent at once, and how many a second after that: half of what the host takes without
making the guest wait (`silo.sandbox.skill.link`)."""

_output: list[int] = []


def keep_output(*descriptors: int) -> None:
    """Remember the descriptors that get the end marker; called once by `silo.guest.init` before `main`."""
    _output.extend(descriptors)


def main(channel: MessageChannel, gate: int) -> None:
    """Import the skill, describe it, and serve calls until one has run. Returns only if the host hangs up."""
    try:
        skill = _load(channel)
        if skill is None:
            _pause()
            return
        os.read(gate, 1)
        _reseed_generators()
        _serve(channel, skill)
    except EOFError:
        return


def _load(channel: MessageChannel) -> Skill | None:
    """Import and warm the skill and send its description; if that fails, send the failure and return None."""
    started = time.monotonic()
    try:
        module = _import_script()
        skill = find_skill(module)
        described = describe(skill, summary=module.__doc__ or "")
        imported = time.monotonic()
        warm(skill)
        # Lazy imports, late binding and specialised code of the call's path are then part of the template.
        for _ in range(_REHEARSALS):
            rehearse(skill)
        _flush()
        message = Described(
            skill=described, import_s=round(imported - started, 6), warmup_s=round(time.monotonic() - imported, 6)
        )
        encode_message(message)
    except InvokeFailed as failure:
        channel.send(Failed(failure.code, _line(failure.message), _cap(failure.traceback)))
        return None
    except WireError as error:
        channel.send(Failed("skill-metadata-invalid", _line(f"the skill's description can't be sent: {error}")))
        return None
    # The collector ignores objects that live as long as the process: a call then copies fewer of their pages.
    gc.collect()
    gc.freeze()
    channel.send(message)
    return skill


def _import_script() -> ModuleType:
    """Import the script under the name `skill`, so that its `if __name__ == "__main__"` part does not run."""
    spec = importlib.util.spec_from_file_location(MODULE_NAME, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        in_script = error.filename == SCRIPT
        where = f"line {error.lineno}: {error.msg}" if in_script else f"{error.filename}: {error.msg}"
        raise InvokeFailed(
            "skill-syntax-error" if in_script else "skill-import-error", where, traceback.format_exc(limit=0)
        ) from error
    except InvokeFailed:
        raise  # a decorator refused a declaration, and its message says why
    except SystemExit as error:
        raise InvokeFailed("skill-import-error", f"the script exited with {error.code!r} while imported", "") from error
    except BaseException as error:  # the script may raise anything; the author gets it as text
        raise InvokeFailed(
            "skill-import-error", f"{type(error).__name__}: {error}", "".join(_script_frames(error))
        ) from error
    return module


def _script_frames(error: BaseException) -> Sequence[str]:
    """Return the traceback from the script's own first frame on, without this file and the import machinery."""
    summary = traceback.TracebackException.from_exception(error)
    frames = list(summary.stack)
    first = next((i for i, frame in enumerate(frames) if frame.filename == SCRIPT), len(frames))
    summary.stack = traceback.StackSummary.from_list(frames[first:])
    return list(summary.format())


def _reseed_generators() -> None:
    """Reseed the random generators of this process; init has reseeded the kernel's.

    OpenSSL's generators reseed themselves because the clock jumped (see `silo.guest.init`); mixing in fresh bytes here
    costs nothing.
    """
    if "random" in sys.modules:
        sys.modules["random"].seed(os.urandom(32))
    if "tempfile" in sys.modules:  # has its own generator for names, and makes a new one when it has none
        vars(sys.modules["tempfile"])["_name_sequence"] = None
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(int.from_bytes(os.urandom(4)))
    if "_ssl" in sys.modules:
        sys.modules["_ssl"].RAND_add(os.urandom(32), 32.0)


def _serve(channel: MessageChannel, skill: Skill) -> None:
    while True:
        request = channel.receive()
        if isinstance(request, Rehearse):
            _rehearse(channel, skill, request)
        elif isinstance(request, Run):
            _run(channel, skill, request)
            _pause()
            return
        else:
            raise WireError(f"not a request: {request.TYPE}")


def _rehearse(channel: MessageChannel, skill: Skill, request: Rehearse) -> None:
    """Run the code of `_run` with an empty call, so that a waiting clone has run all of it once."""
    _set_stdin(channel.receive_blob(request.document_size))
    with open(0, "rb", closefd=False) as stdin:
        stdin.read()
    rehearse(skill)
    encode_message(Finished("", {"rehearsed": True}, has_data=True))
    _flush()
    channel.send(Rehearsed())


def _run(channel: MessageChannel, skill: Skill, request: Run) -> None:
    _set_stdin(channel.receive_blob(request.document_size))
    files = tuple(File(channel.receive_blob(head.size), head.media_type, head.name) for head in request.files)

    reports = Reports(channel.send)
    answer: Finished | Failed
    try:
        with open(0, "rb", closefd=False) as stdin:
            outcome = invoke(skill, request.tool, stdin, files, reports.add)
        answer = _finished(outcome)
        encode_message(answer)
        blobs = tuple(file.data for file in outcome.files)
    except InvokeFailed as failure:
        answer, blobs = Failed(failure.code, _line(failure.message), _cap(failure.traceback)), ()
    except WireError as error:
        answer, blobs = Failed("result-too-large", f"the result can't be sent: {error}"), ()
    reports.end()
    _flush()
    marker = request.marker.encode()
    for descriptor in _output:
        os.write(descriptor, marker)
    channel.send(answer, *blobs)


class Reports:
    """Sends a tool's reports of progress, and leaves some out if they come too fast; never the last.

    A loop over a million rows may report each of them. MCP asks both sides to limit the rate of notifications, and a
    tool that had to wait for the host would be slow.
    """

    def __init__(self, send: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._due = clock()
        self._left_out: Progress | None = None

    def add(self, progress: float, total: float | None, message: str | None) -> None:
        """Send a report, or keep it as the newest that was left out."""
        report = Progress(progress, total, message)
        now = self._clock()
        due = max(self._due, now) + 1 / _REPORTS_PER_S
        if due - now > _REPORTS_AT_ONCE / _REPORTS_PER_S:
            self._left_out = report
            return
        self._due = due
        self._left_out = None
        self._send(report)

    def end(self) -> None:
        """Send the last report if it was left out."""
        if self._left_out is not None:
            self._send(self._left_out)
            self._left_out = None


def _finished(outcome: Outcome) -> Finished:
    heads = tuple(
        FileHead(file.name or f"file-{i}", file.media_type, file.size) for i, file in enumerate(outcome.files)
    )
    return Finished(outcome.text, outcome.data, outcome.has_data, heads, outcome.is_error)


def _set_stdin(document: bytes) -> None:
    """Make `document` the process's STDIN: a pipe, or a file in memory if it is too long for a pipe."""
    if len(document) <= _PIPE_BYTES:
        reader, writer = os.pipe()
        os.write(writer, document)
        os.close(writer)
    else:
        reader = os.memfd_create("call", os.MFD_CLOEXEC)
        view = memoryview(document)
        while view:
            view = view[os.write(reader, view) :]
        os.lseek(reader, 0, os.SEEK_SET)
    os.dup2(reader, 0)
    os.close(reader)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # the skill closed or replaced it: nothing to flush
            continue


def _line(text: str) -> str:
    """Return one line of at most 1,000 characters, without lone surrogates."""
    return " ".join(text.encode(errors="replace").decode().split())[:1000]


def _cap(text: str) -> str:
    return text.encode(errors="replace").decode()[-16000:]


def _pause() -> None:
    while True:
        signal.pause()
