"""What to do about an error, as data: each edge words it for its own reader. Every error has a remedy. Pure.

`str(remedy)` is the wording for a person at a terminal, and JSON documents hold the same text. A model has no command
line, so `silo.server.protocol.results` words the remedy for it. No code parses a wording.

`words` is a sentence with `{}` where the commands, the header line or the setting belong: one `{}` for each of them, or
a single one for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Sought = Literal["", "tools", "parameters"]
"""What a command would look up: the installed tools, or the parameters of one of them."""


@dataclass(frozen=True)
class Advice:
    """Plain words, if no other kind fits."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Commands:
    """Commands for a person to run.

    Attributes:
        lines: each a whole command line.
        words: the sentence around them.
        finds: what the commands only look up, so that a reader without a command line can look it up elsewhere.
    """

    lines: tuple[str, ...]
    words: str
    finds: Sought = ""

    def __str__(self) -> str:
        return _fill(self.words, [f"`{line}`" for line in self.lines])


@dataclass(frozen=True)
class HeaderLine:
    """A line to write into the header of a skill's script, or a table of it: `[tool.silo.secrets]`."""

    line: str
    words: str

    def __str__(self) -> str:
        return _fill(self.words, [self.line if self.line.startswith("[") else f"`{self.line}`"])


@dataclass(frozen=True)
class Setting:
    """A setting of `silo.toml` to change, by its dotted key or as the table `[secrets.sources]`."""

    key: str
    words: str

    def __str__(self) -> str:
        return _fill(self.words, [self.key if self.key.startswith("[") else f"`{self.key}`"])


@dataclass(frozen=True)
class CallAgain:
    """Make the same call again; `when` says when, or what for."""

    when: str

    def __str__(self) -> str:
        return f"call it again {self.when}"


@dataclass(frozen=True)
class DoNotCallAgain:
    """Don't make the call again, except in one case."""

    unless: str

    def __str__(self) -> str:
        return f"do not call it again unless {self.unless}"


@dataclass(frozen=True)
class AnswerQuestion:
    """A person has to answer a question at `link`; the same call of `tool`, made again, finds the answer."""

    link: str
    tool: str

    def __str__(self) -> str:
        return f"{self.place}, then call {self.tool} again with the same arguments; {self.pairing}"

    @property
    def place(self) -> str:
        """Where the user answers."""
        return f"ask the user to open {self.link} and to answer there"

    @property
    def pairing(self) -> str:
        """What a browser needs that isn't paired yet."""
        return (
            "a browser that is not paired yet needs a code, which the desktop notification and `silo approvals pair` "
            "show to the user"
        )


@dataclass(frozen=True)
class NearestNames:
    """The names that were probably meant, best first; at least one."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        quoted = [repr(name) for name in self.names]
        return f"did you mean {', '.join(quoted[:-1]) + ' or ' if len(quoted) > 1 else ''}{quoted[-1]}?"


Remedy = Advice | Commands | HeaderLine | Setting | CallAgain | DoNotCallAgain | AnswerQuestion | NearestNames


def command(line: str, words: str = "run {}", *, finds: Sought = "") -> Commands:
    """Return the remedy of one command."""
    return Commands((line,), words, finds)


LIST_TOOLS = command("silo list", "{} shows the installed skills and their tools", finds="tools")
LIST_SKILLS = Commands(("silo list", "silo install"), "{} shows what is; {} adds one", finds="tools")
INSPECT_TOOL = command("silo inspect", "{} shows what the tool takes", finds="parameters")


def _fill(words: str, named: Sequence[str]) -> str:
    """Return the sentence with the names filled in."""
    before, *after = words.split("{}")
    if not after:
        return words
    if len(after) != len(named):
        return f"{before}{' and '.join(named)}{''.join(after)}"
    return before + "".join(name + rest for name, rest in zip(named, after, strict=True))
