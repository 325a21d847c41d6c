"""Files on the command line: read those that go into a call, and write those that come out of it.

A person may name any file that they can read; `silo.calls.files` says what an agent may name. Names of result files
come from a guest, so they can choose neither the folder nor an existing file.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from silo.cli.arguments import FromFile
from silo.errors import FileRefused, UsageError
from silo.model import File
from silo.sdk.files import guess_extension, guess_media_type
from silo.sizes import MIB
from silo.wire.rules import is_safe_name

MAX_TEXT_BYTES = 64 * MIB
"""The most that `--args` reads: the largest files of a call in base64, and room to spare."""

_TURN_MS = 100
"""How long a Ctrl-C may go unnoticed at worst. A shorter time would wake an idle machine needlessly."""


def load_files(value: Any, *, max_bytes: int) -> Any:  # noqa: ANN401 - JSON in, JSON with files out
    """Return arguments with each `FromFile` read.

    Raises:
        FileRefused: a file can't be read, or is larger than a call may take.
    """
    if isinstance(value, FromFile):
        name = "" if value.path == "-" else Path(value.path).name
        return File(read_bytes(value.path, max_bytes=max_bytes), guess_media_type(name), name)
    if isinstance(value, Mapping):
        return {key: load_files(item, max_bytes=max_bytes) for key, item in value.items()}
    if isinstance(value, list):
        return [load_files(item, max_bytes=max_bytes) for item in value]
    return value


def read_bytes(path: str, *, max_bytes: int) -> bytes:
    """Read a file, or standard input for `-`, to its end.

    Raises:
        FileRefused: it can't be read, or is larger.
    """
    try:
        if path == "-":
            return _read(sys.stdin.buffer, path, max_bytes)
        with open(Path(path).expanduser(), "rb") as file:
            return _read(file, path, max_bytes)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path; `~nobody`
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileRefused(
            f"can't read '{path}': {reason}", hint="check the path; a value with a leading @ names a file"
        ) from error


def read_text(path: str, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a file, or standard input for `-`, as UTF-8.

    Raises:
        FileRefused: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, max_bytes=max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileRefused(f"'{path}' is not UTF-8", hint="save it as UTF-8") from error


def prepare_folder(folder: Path) -> Path:
    """Make the folder for results if it does not exist. Done before the call, so a typo can't lose its result.

    Raises:
        UsageError: it can't be made, or can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"can't make the folder '{folder}': {error.strerror}", hint="give --output another folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"can't write to the folder '{folder}'", hint="give --output another folder")
    return folder


def write_files(files: Sequence[File], folder: Path) -> list[Path]:
    """Write the files of a result as new files, and return their paths. A name that is taken gets a number.

    Raises:
        UsageError: the system refused, e.g. the disk is full.
    """
    written = []
    for index, file in enumerate(files):
        name = file.name if is_safe_name(file.name) else f"file-{index + 1}{guess_extension(file.media_type)}"
        try:
            written.append(_write_new(folder, name, file.data))
        except OSError as error:
            raise UsageError(
                f"can't write '{folder / name}': {error.strerror}", hint="make room, or give --output another folder"
            ) from error
    return written


def _write_new(folder: Path, name: str, data: bytes) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in count(1):
        path = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            with open(path, "xb") as file:  # O_EXCL: follows no link, replaces nothing
                file.write(data)
        except FileExistsError:
            continue
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path
    raise AssertionError("count never ends")


def _read(file: BinaryIO, path: str, max_bytes: int) -> bytes:
    data = bytearray()
    while len(data) <= max_bytes and (part := _read_some(file, max_bytes + 1 - len(data))):
        data += part
    if len(data) > max_bytes:
        raise FileRefused(
            f"'{path}' is larger than {max_bytes // MIB} MiB",
            hint="pass a smaller file, or raise it in silo.toml: [files] max_mib",
        )
    return bytes(data)


def _read_some(file: BinaryIO, size: int) -> bytes:
    """Wait for data, and return at most `size` bytes of it, or nothing at the end of the file.

    Python handles a signal between two bytecode instructions. If a signal arrives just before a blocking read, it is
    handled only when the read returns, which can take for ever. So this waits in turns.
    """
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while not poll.poll(_TURN_MS):
        pass
    return os.read(file.fileno(), size)
