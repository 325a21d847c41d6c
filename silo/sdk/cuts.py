"""Cut texts of a call to the length that a message allows, without leaving a part of a secret at the edge.

The host redacts everything that a guest sends, but it can't recognise half a secret. So what is cut in the guest is
redacted before, with the secrets of the call. What is short enough is left to the host.
"""

from __future__ import annotations

from collections.abc import Mapping

from silo.sdk.finding import Finder, Markers, Span, replaced
from silo.sdk.forms import Forms

_MAX_EXPANSION = 12
"""How many times as long as the value a form may be: percent encoding that was applied five times."""

_SLACK_CHARS = 4096


def shortened(text: str, limit: int, secrets: Mapping[str, str], *, from_end: bool = False, mark: str = "") -> str:
    """Return at most `limit` characters of a text; if some are cut, all secrets in it are replaced first.

    Args:
        text: without lone surrogates.
        limit: characters, including `mark`.
        secrets: the call's secrets by name.
        from_end: keep the end instead of the beginning.
        mark: written where something was cut.
    """
    if len(text) <= limit:
        return text
    kept = limit - len(mark)
    if not secrets:
        return mark + text[-kept:] if from_end else text[:kept] + mark
    # A form that reaches into what is kept lies within this window, so the rest needs no search.
    window = kept + _SLACK_CHARS + _MAX_EXPANSION * max(map(len, map(_encoded, secrets.values())))
    data = _encoded(text[-window:] if from_end else text[:window])
    spans, _ = Finder(Forms.of(tuple(secrets.values()))).spans(data)
    # The cut is made in the original text, and a form that straddles it is taken in whole: redacting makes texts
    # shorter, and what moved up from the window's other edge may be half a form.
    if from_end:
        start = len(data) - len(_encoded(text[-kept:]))
        touching = [span for span in spans if span.end > start]
        start = min([start, *(span.start for span in touching)])
        moved = [Span(span.start - start, span.end - start, span.owner) for span in touching]
        return mark + replaced(data[start:], moved, Markers(tuple(secrets))).decode(errors="replace")[-kept:]
    end = len(_encoded(text[:kept]))
    touching = [span for span in spans if span.start < end]
    end = max([end, *(span.end for span in touching)])
    return replaced(data[:end], touching, Markers(tuple(secrets))).decode(errors="replace")[:kept] + mark


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")
