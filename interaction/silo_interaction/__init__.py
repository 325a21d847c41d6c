"""Ask a person a question that a program must not answer for them.

    from silo_interaction import Question, TerminalChannel

    answer = await TerminalChannel().ask(Question("Run jwt.sign?", who="an agent"), timeout_s=60)

This is the whole public interface. It knows nothing of silo, and what an answer means is for the caller to decide.
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
