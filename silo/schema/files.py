"""File arguments: find where a tool takes a file, and turn what the caller gave there into bytes. Nothing else reads files for a call.

An agent chooses these values and may be talked into choosing `file:///home/me/.ssh/id_ed25519`. So a path is opened only below a
folder that the user allowed, component by component on descriptors of the folders, without following a single link; only
regular files are read, and no more of them than allowed. What other arguments may hold is `silo.schema.arguments`'s.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote_to_bytes, urlsplit

from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File, Tool
from silo.schema.checker import FILE_MARK, Json, describe_path
from silo.sdk.files import DEFAULT_MEDIA_TYPE, guess_media_type
from silo.wire.messages import MAX_FILES, is_media_type, is_safe_name

MIB = 1024 * 1024


@dataclass(frozen=True)
class InputRules:
    """Which files an agent may hand over.

    Attributes:
        folders: absolute paths of folders from which `file://` links are read.
        max_bytes: of all files of one call together.
        forbidden: folders from which nothing is read even if they lie in an allowed one: silo's own state.
    """

    folders: tuple[Path, ...] = ()
    max_bytes: int = 32 * MIB
    forbidden: tuple[Path, ...] = ()


@dataclass(frozen=True)
class FileArgument:
    """A place that takes a file, and what the caller gave there."""

    where: str
    given: File | str | Mapping[str, Any]


def find_files(tool: Tool, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[FileArgument, ...]]:
    """Return the arguments with `{"$file": index}` in place of each file, and the files in that order. Pure.

    Tuples become lists on the way, as they would in JSON.

    Raises:
        ArgumentsInvalid: something is where a file belongs that can't be one, or a `File` where none belongs.
        FileRefused: more than 32 files.
    """
    finder = _Finder(tool.input_schema)
    replaced = finder.walk(arguments, tool.input_schema, ())
    return replaced, tuple(finder.found)


def put_back(value: Json, files: tuple[File, ...]) -> Json:
    """Return arguments with each file in its place again, so that a person sees what is passed."""
    if isinstance(value, dict):
        if value.keys() == {"$file"} and isinstance(index := value["$file"], int) and index < len(files):
            return files[index]
        return {key: put_back(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [put_back(item, files) for item in value]
    return value


def load_files(files: tuple[FileArgument, ...], rules: InputRules) -> tuple[File, ...]:
    """Turn what was given into files with safe names; blocking, so run it in a worker thread.

    Raises:
        ArgumentsInvalid: text that is neither base64 nor a `data:` or `file://` URI.
        FileRefused: not in an allowed folder, a link on the way, not a regular file, or too large.
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


class _Finder:
    """Walks arguments and their schema side by side; what the schema does not describe is copied as it is."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self.found: list[FileArgument] = []

    def walk(self, value: Json, schema: Json, path: tuple[str | int, ...]) -> Json:
        schemas = _flatten(schema, self._root)
        if any(part.get(FILE_MARK) is True for part in schemas) and self._is_file(value, schemas):
            return self._take(value, path)
        if isinstance(value, File):
            raise ArgumentsInvalid(
                f"{describe_path('arguments', path)} takes no file",
                hint="pass the file where the tool's schema has one",
            )
        if isinstance(value, Mapping):
            return {key: self.walk(item, _inner(schemas, key), (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.walk(item, _inner(schemas, index), (*path, index)) for index, item in enumerate(value)]
        return value

    def _is_file(self, value: Json, schemas: list[Mapping[str, Any]]) -> bool:
        """Whether a value is meant as the file where the schema allows a file or something else."""
        others = [part for part in schemas if part.get(FILE_MARK) is not True]
        if isinstance(value, File):
            return True
        if isinstance(value, str):
            return _scheme(value) is not None or not any(_takes(part, "string") for part in others)
        if isinstance(value, Mapping):
            return "uri" in value or not any(_takes(part, "object") for part in others)
        return False

    def _take(self, value: Json, path: tuple[str | int, ...]) -> dict[str, int]:
        where = describe_path("arguments", path)
        if isinstance(value, Mapping) and not isinstance(value.get("uri"), str):
            raise ArgumentsInvalid(f"{where} takes a file, and this object has no 'uri'", hint=_WAYS)
        if len(self.found) == MAX_FILES:
            raise FileRefused(f"a call may take {MAX_FILES} files", hint="pass fewer, or pack them into an archive")
        self.found.append(FileArgument(where, value))
        return {"$file": len(self.found) - 1}


_WAYS = 'pass base64 text, or a link {"uri": "file:///..."} to a file below a folder that the user allowed'


def _flatten(schema: Json, root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schema and all that it refers to or combines, each once; references that lead nowhere are left out."""
    flat: list[Mapping[str, Any]] = []
    todo = [schema]
    while todo:
        part = todo.pop()
        if not isinstance(part, Mapping) or any(part is seen for seen in flat):
            continue
        flat.append(part)
        if part.get(FILE_MARK) is True:
            continue  # what a file's schema says of its text and link is for the caller to read
        if isinstance(reference := part.get("$ref"), str) and reference.startswith("#"):
            todo.append(_follow(reference, root))
        for keyword in ("anyOf", "oneOf", "allOf"):
            if isinstance(branches := part.get(keyword), list):
                todo.extend(branches)
    return flat


def _follow(reference: str, root: Mapping[str, Any]) -> Json:
    """Resolve a JSON pointer (RFC 6901) within the document."""
    found: Any = root
    for token in reference.removeprefix("#").split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _inner(schemas: list[Mapping[str, Any]], key: str | int) -> Json:
    """Return what describes the item `key` of a value that all of `schemas` may describe."""
    found = []
    for schema in schemas:
        if isinstance(key, str):
            properties = schema.get("properties")
            if isinstance(properties, Mapping) and key in properties:
                found.append(properties[key])
            else:
                found.append(schema.get("additionalProperties"))
        else:
            prefix = schema.get("prefixItems")
            if isinstance(prefix, list) and key < len(prefix):
                found.append(prefix[key])
            else:
                found.append(schema.get("items"))
    return {"anyOf": [part for part in found if isinstance(part, Mapping)]}


def _takes(schema: Mapping[str, Any], kind: str) -> bool:
    types = schema.get("type")
    return types == kind or (isinstance(types, list) and kind in types)


def _load(argument: FileArgument, rules: InputRules, left: int) -> File:
    given, where = argument.given, argument.where
    if isinstance(given, File):
        return given
    if isinstance(given, str):
        if _scheme(given) is not None:
            return _from_uri(given, where, rules, left)
        return File(_from_base64(given, where, rules))
    file = _from_uri(given["uri"], where, rules, left)
    name, media_type = given.get("name"), given.get("mimeType")
    return File(
        file.data,
        media_type if isinstance(media_type, str) else file.media_type,
        name if isinstance(name, str) else file.name,
    )


def _scheme(text: str) -> Literal["data", "file"] | None:
    """Return the scheme of a link that silo reads; case does not matter (RFC 3986 §3.1)."""
    start = text[:5].lower()
    return "data" if start == "data:" else "file" if start == "file:" else None


def _from_base64(text: str, where: str, rules: InputRules) -> bytes:
    if len(text) > rules.max_bytes * 4 // 3 + 4:
        raise _too_large(where, rules)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArgumentsInvalid(f"{where} takes a file, and this text is not base64", hint=_WAYS) from error


def _from_uri(uri: str, where: str, rules: InputRules, left: int) -> File:
    scheme = _scheme(uri)
    if scheme is None:
        other = uri.partition(":")[0][:20]
        raise FileRefused(f"{where}: silo reads no {other!r} links, a call has no network", hint=_WAYS)
    if scheme == "data":
        return _from_data_uri(uri, where, rules)
    path = _path_of(uri, where)
    data = _read_below(path, where, rules, left)
    return File(data, guess_media_type(path.name), path.name)


def _from_data_uri(uri: str, where: str, rules: InputRules) -> File:
    """Decode a `data:` URI (RFC 2397); without a media type it is text."""
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
    """Return the absolute path that a `file:` URI names (RFC 8089), refusing every spelling that could mean another."""
    not_one = FileRefused(
        f"{where}: not a link to a file of this machine: {uri[:200]!r}", hint="write file:///absolute/path"
    )
    try:
        parts = urlsplit(uri)
    except ValueError:  # a bracket that opens no address
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
        # The folder itself may be spelt through links (`/tmp` on some systems); it is the user's own setting, so it is resolved.
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
        hint=f"the user can allow it in silo.toml: [files] allow_read = [{str(path.parent)!r}]; or pass the content as base64",
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
        # A mere reference first: opening a device or a FIFO for reading can already do something, or wait for ever.
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
            f"{where}: a link, or something that is no folder, is on the way to {str(path)!r}",
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
    """Read to the end; a file that grows meanwhile is not read beyond the limit."""
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
    """Give a file a name and media type that the wire carries; both are labels, so a bad one is replaced, not refused."""
    name = file.name if is_safe_name(file.name) else f"input-{index}"
    media_type = file.media_type.partition(";")[0].strip()
    return File(file.data, media_type if is_media_type(media_type) else DEFAULT_MEDIA_TYPE, name)
