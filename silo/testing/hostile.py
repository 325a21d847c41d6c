"""What a hostile guest sends: every message of the wire, with every field wrong in every way.

Generated from the table `silo.wire.messages.MESSAGES`, by the kind of each field's rule. The messages are JSON as text,
because Python's encoder would not write some of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from silo.wire.messages import MESSAGES
from silo.wire.rules import AnyObject, AnyValue, Files, Flag, Maybe, Number, OneOf, Rule, Text, Whole
from silo.wire.strict_json import MAX_DEPTH, MAX_VALUES

_NOT_JSON: Final = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '{"a":1,"a":2}',
    "'x'",
    "",
)
_TOO_MUCH: Final = ("[" * MAX_DEPTH + "]" * MAX_DEPTH, "[" + "0," * MAX_VALUES + "0]", "1" * 5000)
_KINDS: Final = ("null", "true", "false", "0", "1", "1.0", "1.5", '""', '"x"', "[]", '["x"]', "{}", '{"x":1}')


def wrong_values(rule: Rule) -> Iterator[str]:
    """Yield JSON texts that a field with this rule may not have: of wrong type, out of range, or no valid JSON."""
    yield from _NOT_JSON
    yield from _TOO_MUCH
    if isinstance(rule, Maybe):
        yield from (text for text in wrong_values(rule.rule) if text != "null")
    elif isinstance(rule, AnyObject):
        yield from (text for text in _KINDS if not text.startswith("{"))
    elif isinstance(rule, Flag):
        yield from (text for text in _KINDS if text not in ("true", "false"))
    elif isinstance(rule, Whole):
        yield from (text for text in _KINDS if text not in ("0", "1"))
        yield from (str(rule.least - 1), str(rule.most + 1), str(10**400), f"{rule.least}.0", f'"{rule.least}"')
    elif isinstance(rule, Number):
        yield from (text for text in _KINDS if text not in ("0", "1", "1.0", "1.5"))
        yield from (str(10**400), str(-(10**400)), '"1"')
        yield from (str(int(rule.most) * 2), str(int(rule.least) * 2 - 1))
    elif isinstance(rule, Text):
        yield from (text for text in _KINDS if not text.startswith('"'))
        yield json.dumps("0" * (rule.most + 1))
        if rule.least:
            yield from ('""', json.dumps("0" * (rule.least - 1)))
        if rule.is_printable:
            yield from ('"0\\n"', '"\\u001b[2J"', '"\\u202e0"', '"\\u0000"')
        if rule.pattern:
            yield from ('"x' + "0" * (rule.least - 1) + '"', '"' + "0" * (rule.least - 1) + '\\n"', '"٣"')
    elif isinstance(rule, OneOf):
        yield from (text for text in _KINDS if text not in {json.dumps(value) for value in rule.values})
        yield from (json.dumps(value.upper()) for value in rule.values)
        yield json.dumps("x" * 5000)
    elif isinstance(rule, Files):
        yield from (text for text in _KINDS if text != "[]")
        yield from ("[null]", "[[]]", "[{}]", "[1]", _files([("name", '"x"')], extra=True))
        yield "[" + ",".join([_files([])[1:-1]] * (rule.most + 1)) + "]"
        for name, part in _HEAD.items():
            yield _files([], without=name)
            yield from (_files([(name, text)]) for text in part)
    elif not isinstance(rule, AnyValue):
        raise TypeError(f"no wrong values are known for {rule!r}")


_HEAD: Final[Mapping[str, tuple[str, ...]]] = {
    "name": (
        *(text for text in _KINDS if text != '"x"'),
        *('"../x"', '"/x"', '".x"', '"a\\nb"', '"\\u202ex"', json.dumps("x" * 256), json.dumps("é" * 128)),
    ),
    "media_type": (*_KINDS, '"text/plain; charset=utf-8"', '"text/"', json.dumps("a/" + "x" * 128)),
    "size": (*(text for text in _KINDS if text not in ("0", "1")), "-1", str(2**63), str(10**400), '"1"'),
}


def _files(changed: list[tuple[str, str]], *, without: str = "", extra: bool = False) -> str:
    head = {"name": '"x"', "media_type": '"text/plain"', "size": "1", **dict(changed)}
    head.pop(without, None)
    if extra:
        head["more"] = "1"
    return "[{" + ",".join(f'"{name}":{text}' for name, text in head.items()) + "}]"


def wrong_messages(kind: type[Any], body: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield what is wrong and the payload, for one kind of message.

    Args:
        kind: a class of `MESSAGES`.
        body: the fields of a valid message of the kind, as JSON values, without `type`.
    """
    form = MESSAGES[kind]
    texts = {"type": json.dumps(kind.TYPE), **{name: json.dumps(value) for name, value in body.items()}}
    for name, rule in form.rules.items():
        for number, text in enumerate(wrong_values(rule)):
            yield f"{name} {number}: {text[:40]}", _payload({**texts, name: text})
    for one in fields(kind):
        if one.default is MISSING:
            yield f"without {one.name}", _payload({name: text for name, text in texts.items() if name != one.name})
    yield "without type", _payload({name: text for name, text in texts.items() if name != "type"})
    yield "a field more", _payload({**texts, "more": "1"})
    yield "a field twice", _payload(texts)[:-1] + b',"type":"' + kind.TYPE.encode() + b'"}'
    for text in (*_NOT_JSON, *_TOO_MUCH, *_KINDS):
        yield f"type {text[:40]}", _payload({**texts, "type": text})
        yield f"all of it {text[:40]}", text.encode()
    yield "too long", _payload(texts).ljust(form.longest + 1)
    yield "not UTF-8", _payload(texts).replace(b'"type"', b'"\xfftype"')
    yield "not whole", _payload(texts)[:-1]
    yield "followed by another", _payload(texts) * 2


def _payload(texts: Mapping[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}").encode()
