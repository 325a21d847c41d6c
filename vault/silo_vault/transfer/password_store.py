"""Reads a store of `pass`, the standard Unix password manager: a folder of files, each encrypted with GnuPG.

`gpg` and its agent find the key and ask for its passphrase; this module gets neither. The store is never changed.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from silo_vault.errors import SourceUnreadable
from silo_vault.transfer.entry import Candidate, Found, Skipped, check_count, quoted, to_found

TIMEOUT_S = 60.0
"""For one file. Decrypting takes milliseconds, but a person may have to type the passphrase of the key."""

MAX_DECRYPTED_BYTES = 1024 * 1024
"""Largest decrypted file. Notes may follow the value on the first line, and GnuPG decompresses what it decrypts."""

_MAX_STATUS_BYTES = 64 * 1024
_CANCELLED = frozenset({99, 198})
"""`GPG_ERR_CANCELED` and `GPG_ERR_FULLY_CANCELED` of libgpg-error, the low 16 bits of the codes that gpg reports."""


class _Decrypted(NamedTuple):
    """The result for one file: its content, or why there is none and whether to skip the files after it."""

    content: bytes | None
    reason: str = ""
    stop: bool = False


def read_password_store(folder: Path, *, gpg: str = "gpg", timeout_s: float = TIMEOUT_S) -> Found:
    """Return the first line of each `*.gpg` file below `folder`, which is the password by the convention of `pass`.

    `web/site-1.gpg` becomes `WEB_SITE_1`, without a namespace. Further lines (`user: me`, notes) are not imported.
    Links to folders are not followed, and links to files only within the store. `.git` is ignored.

    `gpg` runs once for each file. A file that it can't decrypt is skipped. If it doesn't answer in time, or the person
    refuses to give the passphrase, all further files are skipped too, so that nobody is asked again for each of them.

    Args:
        folder: the store, usually `~/.password-store`.
        gpg: name or path of the program.
        timeout_s: how long one file may take.

    Raises:
        SourceUnreadable: `folder` is not a folder, `gpg` is not installed, or there are more than 100,000 files.
    """
    if not folder.is_dir():
        raise SourceUnreadable(
            f"{quoted(str(folder))} is not a folder", hint="give the folder of the store, usually ~/.password-store"
        )
    program = shutil.which(gpg)
    if program is None:
        raise SourceUnreadable(
            f"the program {quoted(gpg)}, which opens a password store, is not installed",
            hint="install it, e.g. with `apt install gnupg`, on the machine that has the key of the store",
        )
    root = folder.resolve()
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    stopped_at = None
    for path, flaw in sorted(_files(root)):
        where = quoted(path.relative_to(root).as_posix())
        if flaw or stopped_at:
            skipped.append(Skipped(where, flaw or f"not tried after {stopped_at}"))
            continue
        decrypted = _decrypt(program, path, time.monotonic() + timeout_s)
        if decrypted.content is None:
            skipped.append(Skipped(where, decrypted.reason))
            stopped_at = where if decrypted.stop else None
            continue
        first = decrypted.content.partition(b"\n")[0].removesuffix(b"\r")
        try:
            value = first.decode()
        except UnicodeDecodeError:
            skipped.append(Skipped(where, "its first line is not text in UTF-8"))
            continue
        candidates.append(Candidate(where, "", path.relative_to(root).with_suffix("").as_posix(), value))
    return to_found(candidates, skipped)


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file or link of the store, with the reason to skip it or an empty text."""
    count = 0
    unlisted: list[OSError] = []
    for parent, folders, files in os.walk(root, onerror=unlisted.append):
        folders[:] = [name for name in folders if name != ".git"]
        for name in [*folders, *files]:
            path = Path(parent, name)
            flaw = ""
            if path.is_symlink():
                target = Path(os.path.realpath(path))
                if target.is_dir():
                    flaw = "a link to a folder is not followed"
                elif name.endswith(".gpg") and not target.is_relative_to(root):
                    flaw = "a link out of the store is not followed"
            if not flaw and (name in folders or not name.endswith(".gpg")):
                continue
            if not flaw and not path.is_file():
                flaw = "it is not a file"
            count += 1
            check_count(count)
            yield path, flaw
    for error in unlisted:
        yield Path(error.filename), f"the folder cannot be listed: {error.strerror}"


def _decrypt(program: str, path: Path, deadline: float) -> _Decrypted:
    # The messages of --status-fd don't depend on the language.
    command = [program, "--batch", "--quiet", "--status-fd", "2", "--decrypt", str(path)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
    except OSError as error:
        return _Decrypted(None, f"gpg could not be started: {error.strerror}", stop=True)
    with process:
        try:
            content, status = _read_both(process, deadline)
            exit_status = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            return _Decrypted(None, "gpg did not answer in time", stop=True)
        except _TooMuch:
            return _Decrypted(None, f"it holds more than {MAX_DECRYPTED_BYTES} bytes")
        finally:
            # An agent that gpg started is a separate daemon and keeps running, as after any use of gpg.
            process.kill()
    return _judge(content, status, exit_status)


def _judge(content: bytes, status: bytes, exit_status: int) -> _Decrypted:
    """Accept `content` only if gpg reports that it decrypted it.

    It also prints content that isn't encrypted or was changed.
    """
    words = [line.split()[1:] for line in status.splitlines() if line.startswith(b"[GNUPG:] ")]
    said = {line[0] for line in words if line}
    if exit_status == 0 and b"DECRYPTION_OKAY" in said:
        return _Decrypted(content)
    codes = [int(line[2]) & 0xFFFF for line in words if line[:1] == [b"ERROR"] and len(line) > 2 and line[2].isdigit()]
    if _CANCELLED.intersection(codes):
        return _Decrypted(None, "the passphrase of its key was not given", stop=True)
    # GnuPG 2.2 only has the text for people. If that is in another language, the last line of this function applies.
    if b"NO_SECKEY" in said or b": No secret key" in status:
        return _Decrypted(None, "gpg has no secret key for it here")
    if exit_status == 0:
        return _Decrypted(None, "it is not encrypted")
    return _Decrypted(None, f"gpg could not decrypt it (exit status {exit_status}); `gpg --decrypt` on it says why")


class _TooMuch(Exception):
    """The program wrote more than the limit."""


def _read_both(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Return what the process writes to stdout and stderr. The part of stderr above its limit is dropped."""
    assert process.stdout is not None
    assert process.stderr is not None
    content, status = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, content)
        selector.register(process.stderr, selectors.EVENT_READ, status)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.data is content:
                    content += piece
                    if len(content) > MAX_DECRYPTED_BYTES:
                        raise _TooMuch
                elif len(status) < _MAX_STATUS_BYTES:
                    status += piece
    return bytes(content), bytes(status)
