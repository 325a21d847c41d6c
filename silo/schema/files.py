"""Which arguments of a call are files: found by the tool's schema, and put in their places later. Pure.

Among the arguments, a file is an object of a class of its own: a `FileArgument` until it is read, then a `File`. No
JSON value stands for a file, so nothing that a caller writes can pass for one. `silo.calls.files` reads the bytes of
what was given there; `silo.schema.arguments` checks the other arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File, Tool
from silo.schema.walk import Schema, describe_path, entries, flatten, inner, is_file, properties, takes
from silo.wire.messages import FILE_MARK, MAX_FILES, Json

WAYS = 'pass base64 text, or a link {"uri": "file:///..."} to a file below a folder that the user allowed'
"""How a caller can give a file, for hints."""

MAX_SCHEMAS = 100_000
"""How many schemas one search may look at, about 0.1 s of work. An honest call looks at a few dozen: what the same
schemas describe costs nothing after the first time."""


@dataclass(frozen=True, eq=False)
class FileArgument:
    """A place that takes a file, and what the caller gave there. It stands among the arguments until it is read."""

    where: str
    given: File | str | Mapping[str, Any] = field(repr=False)


def find_files(tool: Tool, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[FileArgument, ...]]:
    """Return the arguments with a `FileArgument` in place of each file, and these in order. Pure.

    Tuples become lists on the way, as they would in JSON.

    Raises:
        ArgumentsInvalid: the value for a file can't be one, a `File` is where the tool takes none, or the search would
            take too long.
        FileRefused: more than 32 files.
    """
    has_files = any(key == FILE_MARK for key, _ in entries(tool.input_schema))
    finder = _Finder(tool.id, tool.input_schema)
    replaced = finder.walk(arguments, finder.start() if has_files else _NOTHING, ())
    return replaced, tuple(finder.found)


def put_in(arguments: Json, files: Mapping[FileArgument, File]) -> Json:
    """Return arguments with the file in each place that `find_files` found."""
    if isinstance(arguments, FileArgument):
        return files[arguments]
    if isinstance(arguments, Mapping):
        return {key: put_in(item, files) for key, item in arguments.items()}
    if isinstance(arguments, list):
        return [put_in(item, files) for item in arguments]
    return arguments


def link_scheme(text: str) -> Literal["data", "file"] | None:
    """Return the scheme of a link that silo reads; case does not matter (RFC 3986 §3.1)."""
    start = text[:5].lower()
    return "data" if start == "data:" else "file" if start == "file:" else None


class _Described:
    """The schemas that may describe one part of the arguments.

    Attributes:
        inner: what describes its items, once computed: by name, by index, and under None for all names that no schema
            has. The index after the last of any `prefixItems` stands for all further ones.
    """

    def __init__(self, schemas: Sequence[Schema]) -> None:
        self.takes_file = any(map(is_file, schemas))
        others = [schema for schema in schemas if not is_file(schema)]
        self.takes_text = any(takes(schema, "string") for schema in others)
        self.takes_object = any(takes(schema, "object") for schema in others)
        self.schemas = schemas
        self.names = frozenset(name for schema in schemas for name in properties(schema))
        prefixes = [schema.get("prefixItems") for schema in schemas]
        self.prefix = max((len(prefix) for prefix in prefixes if isinstance(prefix, list)), default=0)
        self.inner: dict[str | int | None, _Described] = {}


_NOTHING = _Described(())


class _Finder:
    """Walks arguments and their schema side by side; what the schema does not describe is copied as it is."""

    def __init__(self, tool_id: str, root: Schema) -> None:
        self._tool_id = tool_id
        self._root = root
        self._left = MAX_SCHEMAS
        self._known: dict[tuple[int, ...], _Described] = {}
        self.found: list[FileArgument] = []

    def start(self) -> _Described:
        return self._described([self._root])

    def walk(self, value: Json, described: _Described, path: tuple[str | int, ...]) -> Json:
        if described.takes_file and self._is_file(value, described):
            return self._take(value, path)
        if isinstance(value, File):
            raise ArgumentsInvalid(
                f"{describe_path('arguments', path)} takes no file",
                hint="pass the file where the tool's schema has one",
            )
        if isinstance(value, Mapping):
            return {key: self.walk(item, self._inner(described, key), (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.walk(item, self._inner(described, index), (*path, index)) for index, item in enumerate(value)]
        return value

    def _inner(self, described: _Described, key: str | int) -> _Described:
        """Return what describes an item of a value."""
        if not described.schemas:
            return _NOTHING
        names = described.names
        way = min(key, described.prefix) if isinstance(key, int) else key if key in names else None
        found = described.inner.get(way)
        if found is None:
            place = key if way is None else way
            found = described.inner[way] = self._described(inner(described.schemas, place)["anyOf"])
        return found

    def _described(self, parts: Iterable[Json]) -> _Described:
        schemas = [part for part in parts if isinstance(part, Mapping)]
        if not schemas:
            return _NOTHING
        key = tuple(map(id, schemas))  # they live as long as the root
        found = self._known.get(key)
        if found is None:
            flat = flatten({"anyOf": schemas}, self._root)
            self._left -= len(flat)
            if self._left < 0:
                raise ArgumentsInvalid(
                    f"the arguments of {self._tool_id} take too long to compare with its schema",
                    hint="send less at once; the skill's author can make the schema simpler",
                )
            found = self._known[key] = _Described(flat)
        return found

    def _is_file(self, value: Json, described: _Described) -> bool:
        """Whether a value is meant as the file where the schema allows a file or something else."""
        if isinstance(value, File):
            return True
        if isinstance(value, str):
            return link_scheme(value) is not None or not described.takes_text
        if isinstance(value, Mapping):
            return "uri" in value or not described.takes_object
        return False

    def _take(self, value: Json, path: tuple[str | int, ...]) -> FileArgument:
        where = describe_path("arguments", path)
        if isinstance(value, Mapping) and not isinstance(value.get("uri"), str):
            raise ArgumentsInvalid(f"{where} takes a file, and this object has no 'uri'", hint=WAYS)
        if len(self.found) == MAX_FILES:
            raise FileRefused(f"a call may take {MAX_FILES} files", hint="pass fewer, or pack them into an archive")
        self.found.append(FileArgument(where, value))
        return self.found[-1]
