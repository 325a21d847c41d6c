"""Exceptions inside a skill's process. The errors of the host are in `silo.errors`, which guests do not have."""

from __future__ import annotations


class SecretUnavailable(Exception):
    """`require_secret` has no such secret: the header does not declare it, or no call is running.

    A tool may catch it, to work without an optional secret. If it does not, the call ends with `secret-undeclared`.
    """


class InvokeFailed(Exception):
    """A call has no result. The guest reports it to the host as `silo.wire.messages.Failed`.

    Attributes:
        code: one of `silo.wire.messages.FAILURE_CODES`.
        message: one line for a person or a model.
        traceback: Python's, from the skill's first frame on, or empty.
    """

    def __init__(self, code: str, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return self.message


class SkillDefinitionError(InvokeFailed):
    """The script declares something invalid: a name, a signature, an annotation, or an argument of a decorator.

    The decorator raises most of them, at the line to change. Annotations are checked when the skill is described,
    because an annotation may name a class that is defined further down.
    """

    def __init__(self, message: str) -> None:
        super().__init__("skill-metadata-invalid", message)
