"""Read the configuration: flag, then environment, then `silo.toml`, then default; the first that has a value wins.

The schema is `silo.config.schema`. The configuration is parsed once and frozen; nothing is read again later. An unknown
key or variable is an error, because ignoring a misspelt restriction would leave a door open.
"""

from __future__ import annotations

import os
import shlex
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from silo.config.home import GROUP_OR_OTHERS_WRITE
from silo.config.schema import Config, PolicyRule
from silo.errors import ConfigInvalid, ConfigUnknownKey
from silo.names import suggestion

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE_NAME = "silo.toml"

VARIABLES: Mapping[str, str] = {
    "SILO_BACKEND": "sandbox.backend",
    "SILO_HEADLESS": "approval.headless",
    "SILO_KERNEL": "sandbox.kernel",
    "SILO_MIN_ISOLATION": "sandbox.min_isolation",
}
"""Environment variables that set a key of the configuration."""

OTHER_VARIABLES = frozenset({"SILO_HOME", "SILO_MASTER_KEY", "SILO_DEBUG"})
"""silo's variables that set no key: where the state is, the vault's key, and how the command line reports bugs."""

TEST_PREFIX = "SILO_TEST_"
"""Variables of test suites; silo reads none of them."""

MAX_FILE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Loaded:
    """The configuration, and where each value came from.

    Attributes:
        origins: for every key of the schema, dotted: `flag`, the name of a variable, `silo.toml:12`, or `default`.
        text: of `silo.toml`.
    """

    config: Config
    origins: Mapping[str, str]
    text: str = field(default="", repr=False)

    def rows(self) -> tuple[tuple[str, object, str], ...]:
        """Return key, JSON value and origin of each setting, sorted by key; what `silo config show` prints."""
        values = self.config.model_dump(mode="json")
        return tuple(
            (key, values[key.split(".")[0]][key.split(".")[1]], origin) for key, origin in sorted(self.origins.items())
        )

    def rule_places(self) -> tuple[str, ...]:
        """Return `silo.toml:12` for each of `policy.rules`. `load` doesn't compute it, because no call needs it."""
        places: list[str] = []
        index = 0
        for number in range(len(self.config.policy.rules)):
            # Rules stand one after the other, so the search goes on where the previous one begins.
            found = _line(("policy", "rules", number), self.text, start=index)
            index = index if found is None else found
            places.append(FILE_NAME if found is None else f"{FILE_NAME}:{found + 1}")
        return tuple(places)


def load(home: Path, *, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read the configuration of one `SILO_HOME`.

    Args:
        home: the folder that may hold a `silo.toml`; a missing file is an empty one.
        environ: the environment; only `SILO_*` variables count.
        overrides: values from flags by dotted key, e.g. `{"sandbox.backend": "namespace"}`.

    Raises:
        ConfigUnknownKey: a key, variable or override isn't in the schema; says where, with the nearest names.
        ConfigInvalid: a file that can't be read or that others can write, or a value out of bounds.
    """
    path = home / FILE_NAME
    text = _read(path)
    values, origins = _from_file(text, path)
    for name, value in _variables(environ):
        _set(values, VARIABLES[name], value)
        origins[VARIABLES[name]] = name
    for key, value in (overrides or {}).items():
        if key not in _keys():
            raise ConfigUnknownKey(f"unknown key {key!r}", hint=_did_you_mean(key))
        _set(values, key, value)
        origins[key] = "flag"
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _invalid(error, values, origins, text, path) from error
    return Loaded(config, {key: origins.get(key, "default") for key in _keys()}, text)


def _read(path: Path) -> str:
    """Return the file's text, empty without a file; any other problem stops silo."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigInvalid(
            f"can't read {path}: {error.strerror}",
            hint=f"make it a file that you can read: ls -ld {shlex.quote(str(path))}",
        ) from error
    if facts.st_mode & GROUP_OR_OTHERS_WRITE:
        raise ConfigInvalid(
            f"{path} can be written by other users (mode {stat.S_IMODE(facts.st_mode):04o})",
            hint=f"chmod 600 {shlex.quote(str(path))}",
        )
    if len(data) > MAX_FILE_BYTES:
        raise ConfigInvalid(
            f"{path} is larger than 256 KiB", hint="a configuration has a few dozen lines; look at what it holds"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigInvalid(
            f"{path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8, as TOML demands"
        ) from error


def _from_file(text: str, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path.name} is not TOML: {error}", hint=f"fix {path}, or move it away") from error
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    known = _keys()
    for section, table in document.items():
        if section not in Config.model_fields:
            raise _unknown((section,), text, path)
        if not isinstance(table, dict):
            raise ConfigInvalid(
                f"{_place((section,), text, path)}: {section!r} is a table",
                hint=f"write [{section}] and its keys below it",
            )
        for name, value in table.items():
            key = f"{section}.{name}"
            if key not in known:
                raise _unknown((section, name), text, path)
            _set(values, key, value)
            origins[key] = _place((section, name), text, path)
    return values, origins


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environ):
        if not name.startswith("SILO_") or name in OTHER_VARIABLES or name.startswith(TEST_PREFIX):
            continue
        if name not in VARIABLES:
            hint = suggestion(name, {*VARIABLES, *OTHER_VARIABLES}, otherwise=f"unset {name}")
            raise ConfigUnknownKey(f"unknown environment variable {name}", hint=hint)
        if environ[name] == "":
            raise ConfigInvalid(f"{name} is set but empty", hint=f"give it a value, or run: unset {name}")
        yield name, environ[name]


def _keys() -> frozenset[str]:
    return frozenset(
        f"{section}.{name}"
        for section, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    )


def _set(values: dict[str, Any], key: str, value: object) -> None:
    section, _, name = key.partition(".")
    values.setdefault(section, {})[name] = value


def _unknown(keys: tuple[str, ...], text: str, path: Path) -> ConfigUnknownKey:
    key = ".".join(keys)
    return ConfigUnknownKey(f"{_place(keys, text, path)}: unknown key {key!r}", hint=_did_you_mean(key))


def _did_you_mean(key: str) -> str:
    names = _keys() if "." in key else frozenset(Config.model_fields)
    return suggestion(key, names, otherwise="`silo config show` lists the keys that there are; remove this one")


def _invalid(
    error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str], text: str, path: Path
) -> ConfigInvalid | ConfigUnknownKey:
    flaws = error.errors(include_url=False, include_context=False)
    # A misspelt key comes first: a missing key may be missing because it is misspelt.
    first = next((flaw for flaw in flaws if flaw["type"] == "extra_forbidden"), flaws[0])
    if first["loc"][:2] == ("policy", "rules") and len(first["loc"]) > 3:
        return _invalid_rule(first, values, text, path)
    keys = tuple(str(part) for part in first["loc"][:2])
    key = ".".join(keys)
    where = origins.get(key) or _place(keys, text, path)
    return ConfigInvalid(
        f"{where}: {key}: {first['msg']} (found {_found(first)})",
        hint=f"change it, or leave it out for the default; `silo config show` explains {key!r}",
    )


def _invalid_rule(
    flaw: ErrorDetails, values: Mapping[str, Any], text: str, path: Path
) -> ConfigInvalid | ConfigUnknownKey:
    """Return the error for a policy rule, with the rule's number, counted from 1, and its line."""
    rule, key = f"policy rule {int(flaw['loc'][2]) + 1}", str(flaw["loc"][3])
    keys: list[str | int] = []
    value: Any = values
    for part in flaw["loc"]:  # after the keys of the file, `loc` has parts of the schema
        if not _has(value, part):
            break
        keys.append(part)
        value = value[part]
    where = _place(keys, text, path)
    if flaw["type"] == "extra_forbidden":
        known = PolicyRule.model_fields
        hint = suggestion(key, known, otherwise=f"a rule has {', '.join(known)}; remove this one")
        return ConfigUnknownKey(f"{where}: unknown key {key!r} in {rule}", hint=hint)
    if flaw["type"] == "missing":
        return ConfigInvalid(f"{where}: {rule}: {key!r} is missing", hint=f"add it: {_EXAMPLES[key]}")
    return ConfigInvalid(
        f"{where}: {rule}: {key}: {flaw['msg']} (found {_found(flaw)})",
        hint=f"change it in {path}; until then nothing runs",
    )


_EXAMPLES: Mapping[str, str] = {"verdict": 'verdict = "ask"', "tool": 'tool = "github.*"'}


def _found(flaw: ErrorDetails) -> str:
    found = repr(flaw["input"])
    return found if len(found) <= 80 else f"{found[:77]}..."


def _place(keys: Sequence[str | int], text: str, path: Path) -> str:
    """Return `silo.toml:12`, the line where a key gets its value; without a number if the line wasn't found."""
    found = _line(keys, text)
    return path.name if found is None else f"{path.name}:{found + 1}"


def _line(keys: Sequence[str | int], text: str, *, start: int = 0) -> int | None:
    """Return the index of the line where a key, or an item of a list, gets its value; None if it wasn't found.

    `tomllib` gives no positions. But the first lines of a TOML document, up to the end of a statement, are a document
    too. The key's statement begins at the line where the document above lacks the key and a longer one has it.

    Args:
        keys: names, and indexes of lists.
        start: the first index to look at.
    """
    lines = text.splitlines(keepends=True)
    name = next(key for key in reversed(keys) if isinstance(key, str))
    for index in range(start, len(lines)):
        if name not in lines[index] or _holds("".join(lines[:index]), keys) is not False:
            continue
        for end in range(index + 1, min(index + _MAX_STATEMENT_LINES, len(lines)) + 1):
            held = _holds("".join(lines[:end]), keys)
            if held:
                return index
            if held is False:
                break
    return None


_MAX_STATEMENT_LINES = 200


def _holds(text: str, keys: Sequence[str | int]) -> bool | None:
    """Whether a document has a key, or an item of a list; None if it is not a whole document."""
    try:
        value: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    for key in keys:
        if not _has(value, key):
            return False
        value = value[key]
    return True


def _has(value: object, key: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(key, int) and key < len(value)
    return isinstance(value, dict) and key in value
