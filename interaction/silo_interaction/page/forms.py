"""Read forms within limits, parse them strictly, and turn them into answers that the question allows.

`silo_interaction.page.app` checks who sent a form.
"""

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
"""The largest secret is a private key of some kilobytes, and percent-encoding triples it at most."""

_MAX_FIELDS = 16
_BODY_TIMEOUT_S = 10.0
"""A browser sends a form at once, so a slower sender isn't one."""

_TOO_LARGE = Refusal(413, "This form is too large", "Nothing was decided. A secret can have about 60,000 characters.")
_UNREADABLE = Refusal(400, "This form can't be read", "Nothing was decided. Open the page again.")
_TOO_SLOW = Refusal(408, "This form did not arrive in time", "Nothing was decided. Send it again.")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form of at most 64 KiB.

    Raises:
        Refused: the body is too large, too slow, or isn't a form.
    """
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal():
        raise Refused(_UNREADABLE)
    if len(stated) > len(str(MAX_BODY_BYTES)) or int(stated) > MAX_BODY_BYTES:
        raise Refused(_TOO_LARGE)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(_TOO_LARGE)
    except TimeoutError:
        raise Refused(_TOO_SLOW) from None
    return parse_form(bytes(body))


def parse_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form in which each field occurs once.

    Raises:
        Refused: the body isn't a form or isn't UTF-8, or a field occurs twice, so that it isn't clear which one counts.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        # Not decoded with replacement characters, because they would turn a secret into another one. `from None`,
        # because the error holds a part of the secret.
        raise Refused(_UNREADABLE) from None
    fields = dict(pairs)
    if not fields or len(fields) != len(pairs):
        raise Refused(_UNREADABLE)
    return fields


def to_answer(question: Question, form: Mapping[str, str]) -> Answer:
    """Return a form's answer to a question.

    Raises:
        Refused: the question doesn't allow this answer.
    """
    choice = form.get("choice", "")
    reason = form.get("reason", "").replace("\r\n", "\n").strip()
    if len(reason) > MAX_REASON_CHARS:
        hint = f"Nothing was decided. Go back, and write at most {MAX_REASON_CHARS} characters."
        raise Refused(Refusal(400, "This reason is too long", hint))
    if choice == "deny":
        why = f": {visible(' '.join(reason.split()))}" if reason else ""
        return Answer(approved=False, reason=f"declined on {DECIDED_BY}{why}")
    if question.wanted is not None and choice == "give":
        value = form.get("value", "")
        if not value:
            raise Refused(
                Refusal(400, "No secret was typed in", "Nothing was decided. Go back, and type the secret in.")
            )
        keep = bool(question.wanted.keeper) and form.get("keep") == "yes"
        return Answer(approved=True, reason=f"typed in on {DECIDED_BY}", value=value, keep=keep)
    if question.wanted is None and choice == "approve":
        return Answer(approved=True, reason=f"approved on {DECIDED_BY}")
    if question.wanted is None and choice == "grace" and question.grace_s > 0:
        return Answer(approved=True, reason=f"approved on {DECIDED_BY} for {duration(question.grace_s)}", grace=True)
    raise Refused(Refusal(400, "This question has no such answer", "Nothing was decided. Go back, and press a button."))
