"""Reads a source file: as a whole, limited in size, and only if it is a regular file. The readers parse it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from silo_vault.errors import SourceUnreadable
from silo_vault.transfer.entry import MAX_SOURCE_BYTES, quoted


def read_source(path: Path, *, max_bytes: int = MAX_SOURCE_BYTES) -> bytes:
    """Return the contents of the file.

    Raises:
        SourceUnreadable: it is missing, not a regular file, larger than `max_bytes`, or not readable.
    """
    try:
        # Without O_NONBLOCK the open of a named pipe waits for a writer, which may never come.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        # Checked before `open`, which raises for a folder and leaves the descriptor open.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceUnreadable(f"{quoted(str(path))} is not a file", hint="give the path of a file")
        with open(descriptor, "rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        cause = error.strerror if isinstance(error, OSError) else "not a path"
        raise SourceUnreadable(
            f"cannot read {quoted(str(path))}: {cause}", hint="check the path and its permissions"
        ) from error
    if len(data) > max_bytes:
        raise SourceUnreadable(
            f"{quoted(str(path))} is larger than {max_bytes} bytes", hint="check that it is the right file"
        )
    return data


def to_text(data: bytes) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        SourceUnreadable: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        # `from None`: the error contains the whole file.
        raise SourceUnreadable("the file is not text in UTF-8", hint="convert it, e.g. with `iconv -t UTF-8`") from None
