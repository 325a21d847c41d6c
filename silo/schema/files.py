"""Which arguments of a call are files: found by the tool's schema, and put back later. Pure.

`silo.calls.files` reads the bytes of what was given there; `silo.schema.arguments` checks the other arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File, Tool
from silo.schema.checker import describe_path
from silo.schema.walk import Schema, flatten, inner, is_file, takes
from silo.wire.messages import MAX_FILES, Json

WAYS = 'pass base64 text, or a link {"uri": "file:///..."} to a file below a folder that the user allowed'
"""How a caller can give a file, for hints."""


@dataclass(frozen=True)
class FileArgument:
    """A place that takes a file, and what the caller gave there."""

    where: str
    given: File | str | Mapping[str, Any]


def find_files(tool: Tool, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[FileArgument, ...]]:
    """Return the arguments with `{"$file": index}` in place of each file, and the files in that order. Pure.

    Tuples become lists on the way, as they would in JSON.

    Raises:
        ArgumentsInvalid: the value for a file can't be one, or a `File` is where the tool takes none.
        FileRefused: more than 32 files.
    """
    finder = _Finder(tool.input_schema)
    replaced = finder.walk(arguments, tool.input_schema, ())
    return replaced, tuple(finder.found)


def put_back(value: Json, files: tuple[File, ...]) -> Json:
    """Return arguments with each file in its place again, so that a person sees what is passed."""
    if isinstance(value, dict):
        if value.keys() == {"$file"} and type(index := value["$file"]) is int and 0 <= index < len(files):
            return files[index]
        return {key: put_back(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [put_back(item, files) for item in value]
    return value


def link_scheme(text: str) -> Literal["data", "file"] | None:
    """Return the scheme of a link that silo reads; case does not matter (RFC 3986 §3.1)."""
    start = text[:5].lower()
    return "data" if start == "data:" else "file" if start == "file:" else None


class _Finder:
    """Walks arguments and their schema side by side; what the schema does not describe is copied as it is."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self.found: list[FileArgument] = []

    def walk(self, value: Json, schema: Json, path: tuple[str | int, ...]) -> Json:
        schemas = flatten(schema, self._root)
        if any(is_file(part) for part in schemas) and self._is_file(value, schemas):
            return self._take(value, path)
        if isinstance(value, File):
            raise ArgumentsInvalid(
                f"{describe_path('arguments', path)} takes no file",
                hint="pass the file where the tool's schema has one",
            )
        if isinstance(value, Mapping):
            return {key: self.walk(item, inner(schemas, key), (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.walk(item, inner(schemas, index), (*path, index)) for index, item in enumerate(value)]
        return value

    def _is_file(self, value: Json, schemas: list[Schema]) -> bool:
        """Whether a value is meant as the file where the schema allows a file or something else."""
        others = [part for part in schemas if not is_file(part)]
        if isinstance(value, File):
            return True
        if isinstance(value, str):
            return link_scheme(value) is not None or not any(takes(part, "string") for part in others)
        if isinstance(value, Mapping):
            return "uri" in value or not any(takes(part, "object") for part in others)
        return False

    def _take(self, value: Json, path: tuple[str | int, ...]) -> dict[str, int]:
        where = describe_path("arguments", path)
        if isinstance(value, Mapping) and not isinstance(value.get("uri"), str):
            raise ArgumentsInvalid(f"{where} takes a file, and this object has no 'uri'", hint=WAYS)
        if len(self.found) == MAX_FILES:
            raise FileRefused(f"a call may take {MAX_FILES} files", hint="pass fewer, or pack them into an archive")
        self.found.append(FileArgument(where, value))
        return {"$file": len(self.found) - 1}
