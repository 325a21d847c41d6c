"""Ask a person a question that a program must not answer for them.

    from silo_interaction import Question, TerminalChannel

    answer = await TerminalChannel().ask(Question("Run jwt.sign?", who="an agent"), timeout_s=60)

This is the public interface, with `silo_interaction.page` (the approval page) and `silo_interaction.desktop` (browser
and notifications). The library knows nothing of silo; the caller decides what an answer means.
"""

from silo_interaction.board import Board, DecideOutcome, PostedQuestion, QuestionState
from silo_interaction.errors import InteractionError, NoAnswer, NobodyToAsk
from silo_interaction.question import Answer, Channel, Question, WantedSecret
from silo_interaction.terminal import TerminalChannel

__all__ = [
    "Answer",
    "Board",
    "Channel",
    "DecideOutcome",
    "InteractionError",
    "NoAnswer",
    "NobodyToAsk",
    "PostedQuestion",
    "Question",
    "QuestionState",
    "TerminalChannel",
    "WantedSecret",
]
