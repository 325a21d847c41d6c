"""Read the files that a caller gives as text or as links. No other module reads files for a call.

An agent chooses these values and may be talked into choosing `file:///home/me/.ssh/id_ed25519`. So a path is opened
only below a folder that the user allowed, component by component on descriptors of the folders, and no link is
followed. Only regular files are read, up to the allowed size. `silo.schema.files` finds where a tool takes files.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File
from silo.schema.files import WAYS, FileArgument, link_scheme
from silo.sdk.files import DEFAULT_MEDIA_TYPE, guess_media_type
from silo.sizes import MIB
from silo.wire.rules import is_media_type, is_safe_name


@dataclass(frozen=True)
class InputRules:
    """Which files an agent may hand over.

    Attributes:
        folders: absolute paths of folders from which `file://` links are read.
        max_bytes: the limit for all files of one call together.
        forbidden: folders that are never read, even inside an allowed one: silo's own state.
    """

    folders: tuple[Path, ...] = ()
    max_bytes: int = 32 * MIB
    forbidden: tuple[Path, ...] = ()


def load_files(files: Sequence[FileArgument], rules: InputRules) -> tuple[File, ...]:
    """Return the given values as files with safe names. Blocks, so run it in a worker thread.

    Raises:
        ArgumentsInvalid: text that is neither base64 nor a `data:` or `file://` URI.
        FileRefused: a file is not in an allowed folder, behind a link, not a regular file, or too large.
    """
    left = rules.max_bytes
    loaded = []
    for index, argument in enumerate(files):
        file = _load(argument, rules, left)
        left -= file.size
        if left < 0:
            raise _too_large(argument.where, rules)
        loaded.append(_with_safe_labels(file, index))
    return tuple(loaded)


def _load(argument: FileArgument, rules: InputRules, left: int) -> File:
    given, where = argument.given, argument.where
    if isinstance(given, File):
        return given
    if isinstance(given, str):
        if link_scheme(given) is not None:
            return _from_uri(given, where, rules, left)
        return File(_from_base64(given, where, rules))
    file = _from_uri(given["uri"], where, rules, left)
    name, media_type = given.get("name"), given.get("mimeType")
    return File(
        file.data,
        media_type if isinstance(media_type, str) else file.media_type,
        name if isinstance(name, str) else file.name,
    )


def _from_base64(text: str, where: str, rules: InputRules) -> bytes:
    if len(text) > rules.max_bytes * 4 // 3 + 4:
        raise _too_large(where, rules)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArgumentsInvalid(f"{where} takes a file, and this text is not base64", hint=WAYS) from error


def _from_uri(uri: str, where: str, rules: InputRules, left: int) -> File:
    scheme = link_scheme(uri)
    if scheme is None:
        other = uri.partition(":")[0][:20]
        raise FileRefused(f"{where}: silo reads no {other!r} links, a call has no network", hint=WAYS)
    if scheme == "data":
        return _from_data_uri(uri, where, rules)
    path = _path_of(uri, where)
    data = _read_below(path, where, rules, left)
    return File(data, guess_media_type(path.name), path.name)


def _from_data_uri(uri: str, where: str, rules: InputRules) -> File:
    """Decode a `data:` URI (RFC 2397); the default media type is text."""
    head, comma, body = uri[len("data:") :].partition(",")
    if not comma:
        raise ArgumentsInvalid(f"{where}: a data: URI has a comma before its data", hint="data:text/csv;base64,QSxC")
    media_type, *parameters = head.split(";")
    if len(body) > rules.max_bytes * 4:
        raise _too_large(where, rules)
    raw = unquote_to_bytes(body)
    data = _from_base64(raw.decode("ascii", "replace"), where, rules) if "base64" in parameters else raw
    return File(data, media_type or "text/plain")


def _path_of(uri: str, where: str) -> PurePosixPath:
    """Return the absolute path in a `file:` URI (RFC 8089); refuse every spelling that could mean another path."""
    not_one = FileRefused(
        f"{where}: not a link to a file of this machine: {uri[:200]!r}", hint="write file:///absolute/path"
    )
    try:
        parts = urlsplit(uri)
    except ValueError:  # a bracket without an address
        raise not_one from None
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or parts.query or parts.fragment:
        raise not_one
    if "\0" in path or ".." in path.split("/"):
        raise FileRefused(f"{where}: a path may hold neither '..' nor NUL: {path[:200]!r}", hint="write the path out")
    return PurePosixPath(path)


def _read_below(path: PurePosixPath, where: str, rules: InputRules, left: int) -> bytes:
    """Read a file that lies in an allowed folder, following no link below that folder."""
    for folder in rules.folders:
        # The path of the folder itself may have links (`/tmp` on some systems). The user set it, so it is resolved.
        for spelling in dict.fromkeys((PurePosixPath(folder), PurePosixPath(os.path.realpath(folder)))):
            if path != spelling and path.is_relative_to(spelling):
                parts = path.relative_to(spelling).parts
                return _read_parts(Path(os.path.realpath(folder)), parts, path, where, rules, left)
            if path == spelling:
                raise FileRefused(f"{where}: {str(path)!r} is a folder", hint="pass a file that lies in it")
    if any(path.is_relative_to(os.path.realpath(place)) or path.is_relative_to(place) for place in rules.forbidden):
        raise FileRefused(f"{where}: {str(path)!r} belongs to silo itself", hint=_COPY_IT)
    allowed = ", ".join(str(folder) for folder in rules.folders) or "none"
    raise FileRefused(
        f"{where}: {str(path)!r} is in no folder that calls may read (allowed: {allowed})",
        hint=f"the user can allow it in silo.toml: [files] allow_read = [{str(path.parent)!r}]; "
        "or pass the content as base64",
    )


def _read_parts(
    folder: Path, parts: tuple[str, ...], path: PurePosixPath, where: str, rules: InputRules, left: int
) -> bytes:
    forbidden = {_identity(place.stat()) for place in rules.forbidden if place.exists()}
    opened: list[int] = []
    try:
        opened.append(os.open(folder, _FOLDER))
        for part in parts[:-1]:
            opened.append(os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=opened[-1]))
        if any(_identity(os.fstat(descriptor)) in forbidden for descriptor in opened):
            raise FileRefused(f"{where}: {str(path)!r} belongs to silo itself", hint=_COPY_IT)
        # O_PATH first: opening a device or a FIFO for reading can have side effects, or block forever.
        opened.append(os.open(parts[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1]))
        facts = os.fstat(opened[-1])
        if stat.S_ISLNK(facts.st_mode):
            raise FileRefused(f"{where}: {str(path)!r} is a link", hint="pass the path of the file itself")
        if not stat.S_ISREG(facts.st_mode):
            raise FileRefused(
                f"{where}: {str(path)!r} is not a regular file", hint="pass a file, not a folder or device"
            )
        if facts.st_size > left:
            raise _too_large(where, rules)
        opened.append(os.open(f"/proc/self/fd/{opened[-1]}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        return _read_all(opened[-1], left, lambda: _too_large(where, rules))
    except NotADirectoryError as error:
        raise FileRefused(
            f"{where}: a link, or something that isn't a folder, is on the way to {str(path)!r}",
            hint="pass the path without links; `realpath` shows it",
        ) from error
    except OSError as error:
        raise FileRefused(
            f"{where}: can't read {str(path)!r}: {error.strerror}", hint="check the path and its mode"
        ) from error
    finally:
        for descriptor in reversed(opened):
            os.close(descriptor)


_COPY_IT = "copy what you need to another folder"

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _read_all(descriptor: int, limit: int, too_large: Callable[[], FileRefused]) -> bytes:
    """Read to the end, but not beyond the limit if the file grows meanwhile."""
    pieces = []
    size = 0
    while piece := os.read(descriptor, MIB):
        size += len(piece)
        if size > limit:
            raise too_large()
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(where: str, rules: InputRules) -> FileRefused:
    return FileRefused(
        f"{where}: the files of one call may have {rules.max_bytes // MIB} MiB together",
        hint="pass a smaller file, or raise it in silo.toml: [files] max_mib",
    )


def _with_safe_labels(file: File, index: int) -> File:
    """Give a file a name and media type that are valid on the wire.

    Both are labels, so an invalid one is replaced, not refused.
    """
    name = file.name if is_safe_name(file.name) else f"input-{index}"
    media_type = file.media_type.partition(";")[0].strip()
    return File(file.data, media_type if is_media_type(media_type) else DEFAULT_MEDIA_TYPE, name)
