"""The signature of a tool: its parameters and its result, as shapes with texts. `silo.sdk.invoke` runs the tool."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from silo.sdk.annotations import AnnotationReader, describe_field, resolve_hints
from silo.sdk.docstring import parse_docstring
from silo.sdk.files import File
from silo.sdk.results import AgentResponse
from silo.sdk.shapes import MISSING, Anything, Field, Shape


@dataclass(frozen=True)
class Signature:
    """A tool as its code declares it.

    Attributes:
        description: the docstring without its parameter section.
        parameters: in the order of the code.
        returns: the shape of the results, or None if the results have no fixed shape: no annotation, plain text, files,
            an `AgentResponse` alone.
    """

    description: str
    parameters: tuple[Field, ...]
    returns: Shape | None


def read_signature(tool: str, function: Callable[..., Any]) -> Signature:
    """Read annotations and docstring of a tool.

    Raises:
        SkillDefinitionError: an annotation can't be used; the message names tool and parameter, and what to write
            instead.
    """
    where = f"the tool {tool!r}"
    # A decorator that changes the parameters sets `__signature__`; all others are unwrapped.
    hints = resolve_hints(inspect.unwrap(function, stop=lambda f: hasattr(f, "__signature__")), where)
    doc = parse_docstring(inspect.getdoc(function))
    reader = AnnotationReader(where, "input")
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        shape = reader.read(hints.get(parameter.name, Any), f"the parameter {parameter.name!r}")
        has_default = parameter.default is not parameter.empty
        parameters.append(
            Field(
                parameter.name,
                shape,
                required=not has_default,
                default=parameter.default if has_default else MISSING,
                description=describe_field(shape, doc.parameters.get(parameter.name, "")),
            )
        )
    returns: Shape | None = None
    annotation = _without_response(hints.get("return", Any))
    if _promises_data(annotation):
        returns = AnnotationReader(where, "output").read(annotation, "the result")
        if isinstance(returns, Anything):
            returns = None
    return Signature(doc.description, tuple(parameters), returns)


def _without_response(annotation: object) -> object:
    """Leave `AgentResponse` out of a union: with `dict | AgentResponse` the data is a dict, alone or as `raw_data`.

    A response with the status `error` is not checked against the schema, so a tool can report failures with it.
    """
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    others = tuple(option for option in typing.get_args(annotation) if option is not AgentResponse)
    return typing.Union[others] if others else annotation  # noqa: UP007 - made from a tuple at run time


def _promises_data(annotation: object) -> bool:
    """Whether every result of that annotation has data, which MCP requires of a tool with an output schema."""
    if annotation in (Any, object, None, type(None), str, bytes, File, AgentResponse, typing.Never, typing.NoReturn):
        return False
    if isinstance(annotation, typing.TypeVar) or annotation is typing.LiteralString:
        return False
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return not issubclass(annotation, str)
    for attribute in ("__supertype__", "__value__"):  # typing.NewType, `type X = ...`
        if hasattr(annotation, attribute):
            return _promises_data(getattr(annotation, attribute))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(map(_promises_data, arguments))
    if origin is typing.Literal:
        return not all(isinstance(option, str) for option in arguments)
    if origin is typing.Annotated or (origin in (abc.Awaitable, abc.Coroutine) and arguments):
        return _promises_data(arguments[0] if origin is not abc.Coroutine else arguments[-1])
    if origin in (list, tuple, abc.Sequence, abc.Iterable, abc.Collection):
        return not any(argument in (File, bytes) for argument in arguments)
    return True
