"""What a form says: read within bounds, parsed strictly, and taken for an answer only if the question allows it. Not whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from silo_interaction.page.guard import Refusal, Refused
from silo_interaction.page.views import duration
from silo_interaction.question import Answer, Question
from silo_interaction.visible import visible

DECIDED_BY = "the approval page"
MAX_REASON_CHARS = 500
MAX_BODY_BYTES = 64 * 1024
"""A secret is at most a private key of some kilobytes, and percent-encoding makes three bytes of one."""

_MAX_FIELDS = 16
_BODY_TIMEOUT_S = 10.0
"""A form comes in one piece; whoever drips it is not a browser."""

_TOO_MUCH = Refusal(413, "This is too much", "Nothing was decided. A secret can have about 60,000 characters.")
_UNREADABLE = Refusal(400, "This form can't be read", "Nothing was decided. Open the page again.")
_TOO_SLOW = Refusal(408, "This form never came to an end", "Nothing was decided. Send it again.")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form of at most 64 KiB.

    Raises:
        Refused: it is too large, too slow, or no form.
    """
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal():
        raise Refused(_UNREADABLE)
    if len(stated) > len(str(MAX_BODY_BYTES)) or int(stated) > MAX_BODY_BYTES:
        raise Refused(_TOO_MUCH)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(_TOO_MUCH)
    except TimeoutError:
        raise Refused(_TOO_SLOW) from None
    return parse_form(bytes(body))


def parse_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form, which has each of them once.

    Raises:
        Refused: it is no form, not UTF-8, or has a field twice: which of the two counts must not be a matter of taste.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        # With replacement characters, a secret that isn't UTF-8 would become another secret. The error holds a part of it.
        raise Refused(_UNREADABLE) from None
    fields = dict(pairs)
    if not fields or len(fields) != len(pairs):
        raise Refused(_UNREADABLE)
    return fields


def to_answer(question: Question, form: Mapping[str, str]) -> Answer:
    """Return what a form says about a question.

    Raises:
        Refused: it says nothing that the question allows.
    """
    choice = form.get("choice", "")
    reason = form.get("reason", "").replace("\r\n", "\n").strip()
    if len(reason) > MAX_REASON_CHARS:
        hint = f"Nothing was decided. Go back, and say it in at most {MAX_REASON_CHARS} characters."
        raise Refused(Refusal(400, "This reason is too long", hint))
    if choice == "deny":
        why = f": {visible(' '.join(reason.split()))}" if reason else ""
        return Answer(approved=False, reason=f"declined on {DECIDED_BY}{why}")
    if question.wanted is not None and choice == "give":
        value = form.get("value", "")
        if not value:
            raise Refused(Refusal(400, "Nothing was typed in", "Nothing was decided. Go back, and type it in."))
        keep = bool(question.wanted.keeper) and form.get("keep") == "yes"
        return Answer(approved=True, reason=f"typed in on {DECIDED_BY}", value=value, keep=keep)
    if question.wanted is None and choice == "approve":
        return Answer(approved=True, reason=f"approved on {DECIDED_BY}")
    if question.wanted is None and choice == "grace" and question.grace_s > 0:
        return Answer(approved=True, reason=f"approved on {DECIDED_BY} for {duration(question.grace_s)}", grace=True)
    raise Refused(
        Refusal(400, "This is no answer to this question", "Nothing was decided. Go back, and press a button.")
    )
