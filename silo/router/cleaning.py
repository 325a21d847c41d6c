"""Clean untrusted texts before they are ranked or shown, and find phrases that instruct the model.

A description is data, and its author isn't the user: it may be written to get the tool called first. So a phrase that
tells the model what to do does not count in the ranking, and callers of `suspicious_phrases` mark it where they show
the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_MARKS = 5
"""How many suspicious phrases of a text are reported: enough to judge it."""

_MAX_SCANNED_CHARS = 20_000
_MAX_MARK_CHARS = 80


def clean(text: str, *, limit: int) -> str:
    """Return the first `limit` characters of a text: in NFKC, one space for each gap, without invisible characters.

    Invisible are control and format characters, bidirectional overrides, tags, variation selectors, lone surrogates and
    unassigned code points; with them, a text could mean one thing to the reader and another to the machine.
    """
    text = text[: limit * 2]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    if not text.isprintable():
        text = _GAP.sub(" ", _TERMINAL.sub(" ", text))
        if not text.replace("\n", " ").isprintable():
            text = "".join(map(_visible, text))
    if not text.isascii():
        text = _SELECTORS.sub("", text)
    return text[:limit]


def suspicious_phrases(text: str) -> tuple[str, ...]:
    """Return the phrases of a text that instruct the model rather than describe a tool; none for an ordinary text.

    The text is cleaned first, so that invisible characters inside of a word hide nothing. A match proves nothing; it is
    only for marking the text.
    """
    cleaned = clean(text, limit=_MAX_SCANNED_CHARS)
    found = sorted(match.span() for pattern in _patterns(cleaned) for match in pattern.finditer(cleaned))
    phrases: list[str] = []
    end = 0
    for start, stop in found:
        if start >= end:  # one phrase can fit two patterns
            phrases.append(cleaned[start:stop][:_MAX_MARK_CHARS].strip())
        end = max(end, stop)
    return tuple(dict.fromkeys(phrases))[:MAX_MARKS]


def without_instructions(text: str) -> str:
    """Return a cleaned text without the phrases that `suspicious_phrases` finds."""
    for pattern in _patterns(text):
        text = pattern.sub(" ", text)
    return text


def _patterns(text: str) -> list[re.Pattern[str]]:
    """Return the patterns of whose words the text has one. Nearly always none, which is quick to find out."""
    if len(text) < _SHORTEST:
        return []
    folded = " ".join(text.lower().split())
    there = {word for word in _TELLING if word in folded}
    return [pattern for telling, pattern in _INSTRUCTIONS if not there.isdisjoint(telling)] if there else []


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] == "Z":
        return " "
    return "" if category[0] == "C" and char != "\n" else char


_GAP = re.compile(r"[^\S\n\x1c-\x1f]")
_TERMINAL = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")
"""Terminal escape sequences; without the escape character, their letters would count as words."""

_SELECTORS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Invisible code points that Unicode calls marks or letters."""

_CALL = r"(?:call|use|invoke|run|choose|select|pick|prefer)"
_THIS = r"(?:this|the (?:present|current)|it)"
_TOOL = r"(?:tools?|functions?|skills?|apis?)"
_OTHER = r"(?:others?|another|different|alternative|remaining)"
_OTHERS = rf"(?:(?:any|all|every|the|each)\s+)?(?:of\s+the\s+)?{_OTHER}(?:\s+{_TOOL})?"
_EVERYTHING = r"(?:everything|every\s+\w+|all\s+\w+|any\s+\w+)"
_UNDONE = r"(?:previous|prior|above|earlier|preceding|system|safety|other)"
_ORDERS = r"(?:instructions?|prompts?|rules?|guidelines?|messages?|tools?|directions?)"


def _compiled(patterns: Iterable[tuple[tuple[str, ...], str]]) -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    return tuple((telling, re.compile(pattern, re.IGNORECASE)) for telling, pattern in patterns)


_INSTRUCTIONS = _compiled(
    (
        # overrides the model's instructions
        (
            ("ignore", "disregard", "forget", "override", "bypass"),
            (
                rf"\b(?:ignore|disregard|forget|override|bypass)\s+(?:\w+\s+){{0,3}}?{_UNDONE}"
                rf"(?:\s+(?:and\s+)?\w+)?\s*{_ORDERS}?"
            ),
        ),
        (("your ", "the "), r"\b(?:your|the)\s+(?:new|real|true)\s+(?:instructions?|task|role|purpose)\b"),
        (("you are now",), r"\byou\s+are\s+now\s+(?:an?|the|in)\b"),
        (("system ", "developer "), r"\b(?:system|developer)\s+(?:prompt|message)\b"),
        (
            ("system", "important", "instruction", "assistant", "admin", "inst]"),
            r"</?\s*(?:system|important|instructions?|assistant|admin)\s*/?>|\[/?(?:system|inst|important)\]",
        ),
        # asks to be called first, always, or alone
        (
            ("always", "must", "should", "only", "never"),
            (
                rf"\b(?:always|must|should|only|never)\s+(?:\w+\s+){{0,2}}?{_CALL}\s+{_THIS}(?:\s+{_TOOL})?"
                rf"(?:\s+(?:first|before|instead|always|only)(?:\s+(?:of\s+)?{_OTHERS})?)?"
            ),
        ),
        (
            (" first", " instead", " before", " over ", " rather", " for every", " for all", " for any"),
            (
                rf"\b{_CALL}\s+{_THIS}(?:\s+{_TOOL})?\s+"
                rf"(?:first\b|(?:instead\s+of|before|over|rather\s+than)\s+{_OTHERS}|for\s+{_EVERYTHING})"
            ),
        ),
        (
            ("not ", "n't ", "never ", "avoid "),
            rf"\b(?:do\s+not|don't|never|avoid)\s+(?:\w+\s+){{0,2}}?(?:{_CALL}|using|calling|trust)\s+{_OTHERS}",
        ),
        (
            ("before ",),
            rf"\bbefore\s+(?:you\s+)?(?:calling|using|call|use|doing|answering)\s+(?:{_OTHERS}|anything|any\s+{_TOOL})",
        ),
        (("other ",), rf"\b(?:(?:all|any|every)\s+)?other\s+{_TOOL}\s+(?:are|is|must|should)\s+\w+"),
        (
            ("best ", "only ", "highest", "most important", "preferred ", "mandatory "),
            (
                rf"\b(?:the\s+)?(?:best|only|highest[ -]priority|most\s+important|preferred|mandatory)\s+{_TOOL}\b"
                r"(?:\s+(?:for\s+\w+|ever|of\s+all))?"
            ),
        ),
        # hides something from the user
        (
            ("user",),
            (
                r"\b(?:do\s+not|don't|never)\s+(?:tell|mention|inform|show|reveal|notify|alert|ask)\b"
                r"(?:\s+\w+){0,3}?\s+(?:the\s+)?user\b"
                r"|\bwithout\s+(?:telling|asking|informing|notifying)\s+(?:the\s+)?user\b"
            ),
        ),
    )
)
"""Phrases of published attacks on tool descriptions, and of descriptions that demand to be called. Each pattern has a
list of words; it is only tried on texts that have one of them."""

_TELLING = tuple(sorted({word for telling, _ in _INSTRUCTIONS for word in telling}))
_SHORTEST = 8
"""No phrase above is shorter."""
