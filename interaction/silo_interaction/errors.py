"""The errors of a question that gets no answer. A "no" is an answer, not an error."""

from __future__ import annotations

from typing import ClassVar


class InteractionError(Exception):
    """Nobody answered: what happened, and what to do next.

    Attributes:
        message: names what failed.
        hint: a command to run or a line to change.
        code: stable, kebab-case.
    """

    code: ClassVar[str] = "interaction-error"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class NobodyToAsk(InteractionError):
    """This channel can't reach a person here; nothing was shown."""

    code = "nobody-to-ask"


class NoAnswer(InteractionError):
    """The question was shown, and nobody answered in time."""

    code = "no-answer"
