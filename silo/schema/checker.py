"""Check a JSON value against a skill's JSON Schema, in bounded time and without fetching anything. Pure.

The schema comes from a skill and the value from an agent or a guest, so neither is trusted. Three things that
`jsonschema` does by default would let one of them stop silo: Python's regular expressions backtrack without end while
they hold the interpreter lock, `$ref` may name an address to fetch, and nested alternatives can multiply. So patterns
run on an engine that takes linear time (the one in `pydantic_core`; look-around and back-references do not exist
there), references reach only into the document, and every check has a deadline.

`silo.schema.arguments` describes the arguments that a tool takes in words.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from silo.schema.defaults import DefaultsTooLarge, Filler
from silo.schema.files import FileArgument
from silo.schema.walk import Schema, SchemaTooDeep, is_file, rewrite
from silo.sizes import MIB
from silo.wire.messages import FILE_MARK, Json

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

# `silo --help` and `silo mcp serve` load this module, so slow modules are imported where they are used:
# `jsonschema`, `referencing` (which `jsonschema` loads) and `pydantic_core`.

CHECK_SECONDS = 2.0
"""A check of the largest honest value (8 MiB of rows) takes about a second; a hostile one would never end."""

MAX_DEFAULTS_BYTES = MIB
"""How long all defaults that one value gets may be together: as long as all arguments."""

MAX_PATTERN_CHARS = 1000
MAX_PATTERN_WORK = 50_000_000
"""Bound on estimated automaton states times length of the text; about 50 ms of the regex engine on a slow machine."""

_FILE_SCHEMA: Mapping[str, Any] = {FILE_MARK: True}
"""Replaces the schema of a file, because the value there is a `FileArgument` when it is checked, and never JSON."""


class SchemaUnusable(ValueError):
    """Nothing can be checked against the schema: it isn't JSON Schema 2020-12, or a check might never end."""


class CheckTooLong(Exception):
    """The check of a value did not end within `CHECK_SECONDS`."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a value.

    Attributes:
        path: keys and indexes from the root to the place.
        message: one sentence, with the offending value cut to a readable length.
        unknown: the name of a property that the schema does not have, if that is the flaw.
    """

    path: tuple[str | int, ...]
    message: str
    unknown: str | None = None


class SchemaChecker:
    """One schema, ready to check values. Safe to use from several threads; checks with one checker take turns.

    Raises:
        SchemaUnusable: the schema can't be checked.
    """

    def __init__(self, schema: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = 0.0
        self._lock = threading.Lock()
        self._patterns: dict[str, _Pattern] = {}
        try:
            prepared = rewrite(schema, self._prepare, max_depth=_MAX_DEPTH)
        except SchemaTooDeep as error:
            raise SchemaUnusable(f"it nests deeper than {_MAX_DEPTH}") from error
        self._validator = self._validator_for(prepared)
        self._filler = Filler(
            prepared,
            fits=self._fits,
            matches=lambda pattern, text: self._compile(pattern).matches(text),
            max_bytes=MAX_DEFAULTS_BYTES,
        )

    def filled(self, value: Json) -> Json:
        """Return a value with the defaults of the schema for what was left out, as `silo.schema.defaults` has it.

        Raises:
            CheckTooLong: it did not end in time, or the defaults are longer than `MAX_DEFAULTS_BYTES`.
            SchemaUnusable: as `flaw`.
        """
        with self._lock, self._bounded():
            try:
                return self._filler.fill(value)
            except DefaultsTooLarge as error:
                raise CheckTooLong from error

    def flaw(self, value: Json) -> Flaw | None:
        """Return what is most wrong with `value`, or None if it fits the schema.

        Raises:
            CheckTooLong: the check did not end in time.
            SchemaUnusable: a reference leads nowhere, or the schema refers only to itself.
        """
        from jsonschema.exceptions import best_match

        with self._lock, self._bounded():
            try:
                error = best_match(_first(self._validator.iter_errors(value), 20))
            except ArithmeticError:
                return Flaw((), "a number is too large to be checked")
        return None if error is None else _flaw(error)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        from referencing.exceptions import Unresolvable

        self._deadline = self._clock() + CHECK_SECONDS
        try:
            yield
        except Unresolvable as unresolvable:
            raise SchemaUnusable(f"a reference leads nowhere: {str(unresolvable)[:200]}") from unresolvable
        except RecursionError as recursion:
            raise SchemaUnusable("the schema refers to itself without end") from recursion

    def _fits(self, value: Json, schema: Json) -> bool:
        """Whether a value is valid under a part of the schema; for `filled`, within its time."""
        if self._clock() > self._deadline:
            raise CheckTooLong
        try:
            return next(self._validator.evolve(schema=schema).iter_errors(value), None) is None
        except ArithmeticError:
            return False

    def _prepare(self, schema: Schema) -> Schema:
        """Return a schema with its patterns compiled, `_FILE_SCHEMA` for a file's; refuse what can't be checked."""
        if is_file(schema):
            return _FILE_SCHEMA
        if refused := sorted(_REFUSED_KEYWORDS & schema.keys()):
            raise SchemaUnusable(f"silo does not check the keyword {refused[0]!r}")
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise SchemaUnusable(f"$ref may only refer to the schema itself (`#/...`), not to {reference[:80]!r}")
        if isinstance(pattern := schema.get("pattern"), str):
            self._compile(pattern)
        if isinstance(patterns := schema.get("patternProperties"), Mapping):
            for name in patterns:
                self._compile(str(name))
        # `jsonschema` takes another validator, one without the keywords below, where a `$ref` leads to a `$schema`.
        return {keyword: value for keyword, value in schema.items() if keyword != "$schema"}

    def _compile(self, pattern: str) -> _Pattern:
        if pattern not in self._patterns:
            self._patterns[pattern] = _Pattern(pattern)
        return self._patterns[pattern]

    def _validator_for(self, schema: Json) -> Validator:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import extend
        from referencing import Registry

        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise SchemaUnusable(f"not JSON Schema 2020-12: {_cut(error.message)}") from error
        except RecursionError as error:  # raised while it words the error for a deeply nested value
            raise SchemaUnusable("not JSON Schema 2020-12, and it nests too deep to say where") from error
        keywords = {**Draft202012Validator.VALIDATORS}
        keywords["pattern"] = self._check_pattern
        keywords["patternProperties"] = self._check_pattern_properties
        keywords["additionalProperties"] = self._check_additional
        keywords["uniqueItems"] = _check_unique
        keywords[FILE_MARK] = _check_file
        timed = {name: self._timed(check) for name, check in keywords.items()}
        checker: type[Validator] = extend(Draft202012Validator, timed)  # type: ignore[no-untyped-call]
        # An empty registry fetches nothing; the default one opens what `$ref` names.
        registry: Registry[Any] = Registry()
        return checker(schema, registry=registry)

    def _timed(self, check: _Keyword) -> _Keyword:
        def timed(validator: Validator, value: Json, instance: Json, schema: Json) -> Iterator[ValidationError]:
            if self._clock() > self._deadline:
                raise CheckTooLong
            yield from check(validator, value, instance, schema) or ()

        return timed

    def _check_pattern(
        self, validator: Validator, pattern: str, instance: Json, schema: Json
    ) -> Iterator[ValidationError]:
        from jsonschema.exceptions import ValidationError

        if isinstance(instance, str) and not self._compile(pattern).matches(instance):
            yield ValidationError(f"{instance!r} does not match {pattern!r}")

    def _check_pattern_properties(
        self, validator: Validator, patterns: Mapping[str, Any], instance: Json, schema: Json
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict):
            for pattern, subschema in patterns.items():
                for key, value in instance.items():
                    if self._compile(pattern).matches(key):
                        yield from _descend(validator, value, subschema, path=key, schema_path=pattern)

    def _check_additional(
        self, validator: Validator, rest: Json, instance: Json, schema: Json
    ) -> Iterator[ValidationError]:
        from jsonschema.exceptions import ValidationError

        if not isinstance(instance, dict):
            return
        known = schema.get("properties", {})
        patterns = [self._compile(pattern) for pattern in schema.get("patternProperties", {})]
        for key, value in instance.items():
            if key in known or any(pattern.matches(key) for pattern in patterns):
                continue
            if rest is False:
                yield ValidationError(f"unknown property {key!r}", validator=_UNKNOWN, validator_value=key)
            else:
                yield from _descend(validator, value, rest, path=key)


_Keyword = Callable[["Validator", Json, Json, Json], "Iterator[ValidationError] | None"]
_Descend = Callable[..., "Iterator[ValidationError]"]

_UNKNOWN = "silo:unknown"
_MAX_DEPTH = 64
_REFUSED_KEYWORDS = frozenset({"unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$dynamicAnchor", "$id"})
# The first two evaluate their neighbours again for each item and match patterns with Python's engine; the others change
# the base that references start from. Neither annotations nor pydantic produce any of them.


class _Pattern:
    """A regular expression, searched anywhere in a text: ECMA-262 in JSON Schema, its linear-time subset here."""

    def __init__(self, pattern: str) -> None:
        from pydantic_core import SchemaError, SchemaValidator, core_schema

        if len(pattern) > MAX_PATTERN_CHARS:
            raise SchemaUnusable(f"a pattern has {len(pattern)} characters; {MAX_PATTERN_CHARS} are allowed")
        try:
            self._validator = SchemaValidator(
                core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
            )
        except SchemaError as error:
            reason = str(error).strip().splitlines()[-1].strip().removeprefix("error: ")
            raise SchemaUnusable(
                f"the pattern {_cut(repr(pattern))} can't be checked in bounded time: {reason}"
            ) from error
        states = max(1, len(pattern))
        for low, high in _COUNTED.findall(pattern):
            states = min(states * max(int(low), int(high or 0), 1), MAX_PATTERN_WORK)
        self._longest = MAX_PATTERN_WORK // states

    def matches(self, text: str) -> bool:
        if len(text) > self._longest:
            raise CheckTooLong
        return self._validator.isinstance_python(text)


_COUNTED = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def _descend(
    validator: Validator, value: Json, schema: Json, *, path: str, schema_path: str | None = None
) -> Iterator[ValidationError]:
    """Check a part of the value. `jsonschema` has this method for keywords on the class, but not in its protocol."""
    descend: _Descend = validator.descend  # type: ignore[attr-defined]
    return descend(value, schema, path=path, schema_path=schema_path)


def _check_unique(validator: Validator, wanted: Json, instance: Json, schema: Json) -> Iterator[ValidationError]:
    """Compare canonical texts in a set; `jsonschema` compares all pairs of items if they can't be sorted."""
    from jsonschema.exceptions import ValidationError

    if wanted and isinstance(instance, list):
        seen = set()
        for item in instance:
            text = json.dumps(_plain_numbers(item), sort_keys=True, default=id)  # two files are never the same
            if text in seen:
                yield ValidationError(f"{item!r} is in the list twice")
                return
            seen.add(text)


def _check_file(validator: Validator, mark: Json, instance: Json, schema: Json) -> Iterator[ValidationError]:
    """Accept what `silo.schema.files` found to be a file. No JSON value is one, whatever it looks like."""
    from jsonschema.exceptions import ValidationError

    if mark is True and not isinstance(instance, FileArgument):
        yield ValidationError(f"{instance!r} is not a file")


def _plain_numbers(value: Json) -> Json:
    """In JSON Schema, 1 and 1.0 are equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    return value


def _first(errors: Iterator[ValidationError], count: int) -> Iterator[ValidationError]:
    # A million wrong items would give a million errors, and only one is shown.
    for _, error in zip(range(count), errors, strict=False):
        yield error


def _flaw(error: ValidationError) -> Flaw:
    path = tuple(error.absolute_path)
    if error.validator == _UNKNOWN:
        return Flaw(path, _cut(error.message), unknown=str(error.validator_value))
    if error.validator == "required":
        return Flaw(path, _cut(error.message.replace(" is a required property", " is missing")))
    return Flaw(path, _cut(error.message))


def _cut(text: str, limit: int = 300) -> str:
    if len(text) <= limit:
        return text
    # The end says what was expected ("... is not of type 'integer'"), so the value at the front is cut.
    return f"{text[: limit // 2]}…{text[-limit // 2 :]}"
