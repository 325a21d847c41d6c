"""Follow a tutorial page: write its files, type its commands, compare what is shown with what comes.

Conventions of a page, the same that a reader sees:

- a fenced block `python title="folder/name.py"` (any language) is a file that the reader saves;
- in a fenced block `console`, a line that begins with `$ ` is typed (`> ` continues it), the lines below it are its
  output;
- a line `...` stands for any number of lines, `...` within a line for any text. No output shown means no output;
- lines of progress (`silo: booting a microVM ...`) appear only if a step takes more than a second, so they are left
  out;
- a command succeeds, unless it shows an error of silo's or `$ echo $?` follows and shows the status that is meant.

All commands run in one shell, so what is exported stays. Which sandbox they find is the environment's matter.
"""

from __future__ import annotations

import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_FENCE = re.compile(r"^```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_ANY = "..."
_PROGRESS = re.compile(r"silo: (?!error: |hint: |warning: ).* \.\.\.")
STEP_S = 300.0
"""How long one command may take: making a template under emulation on a busy machine is the longest."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page; `attributes` are the `name="value"` pairs behind its language."""

    line: int
    language: str
    attributes: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class FileStep:
    """A file that the reader saves; `path` is relative to where they work."""

    line: int
    path: str
    text: str


@dataclass(frozen=True)
class CommandStep:
    """A command that the reader types, and the lines that the page shows below it."""

    line: int
    command: str
    expected: tuple[str, ...]


Step = FileStep | CommandStep


class WalkthroughFailed(AssertionError):
    """A page does not tell what happens."""


def read_blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [
        Block(
            line=markdown.count("\n", 0, found.start()) + 1,
            language=found["language"],
            attributes=dict(_ATTRIBUTE.findall(found["rest"])),
            text=found["body"],
        )
        for found in _FENCE.finditer(markdown)
    ]


def read_steps(markdown: str) -> list[Step]:
    """Return what a reader of a page does, in order."""
    steps: list[Step] = []
    for block in read_blocks(markdown):
        if "title" in block.attributes:
            steps.append(FileStep(block.line, block.attributes["title"], block.text))
        elif block.language == "console":
            steps.extend(_commands(block))
    return steps


def _commands(block: Block) -> Iterator[CommandStep]:
    started: tuple[int, str] | None = None
    shown: list[str] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            if started is not None:
                yield CommandStep(*started, tuple(shown))
            started, shown = (number, line[2:]), []
        elif started is None:
            raise WalkthroughFailed(f"line {number}: output before the first command of its block")
        elif line.startswith("> ") and started[1].endswith("\\"):
            started = (started[0], started[1].removesuffix("\\") + line[2:])
        else:
            shown.append(line)
    if started is not None:
        yield CommandStep(*started, tuple(shown))


def matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether lines fit what a page shows; see the module for what `...` stands for."""
    pattern = ""
    for line in expected:
        if line.strip() == _ANY:
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*?".join(re.escape(part) for part in line.split(_ANY)) + r"[^\S\n]*\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None


class Shell:
    """One bash that types commands one after the other; stdin of each is empty, stdout and stderr come as one text."""

    _MARK = "walkthrough-d1f0c2b4"

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._status = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def run(self, command: str, *, timeout_s: float = STEP_S) -> tuple[int, list[str]]:
        """Type one command and return its exit status and the lines that came, progress aside.

        Raises:
            WalkthroughFailed: it did not end in time, or ended the shell.
        """
        assert self._process.stdin is not None
        # `$?` is that of the command before; the braces keep what it exports.
        script = f"(exit {self._status}); {{ {command}\n}} </dev/null; printf '\\n%s %d\\n' {self._MARK} $?\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        text, self._status = self._until_mark(command, timeout_s)
        return self._status, [line for line in text.splitlines() if not _PROGRESS.fullmatch(line)]

    def _until_mark(self, command: str, timeout_s: float) -> tuple[str, int]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + timeout_s
        said = b""
        mark = re.compile(rb"\n" + self._MARK.encode() + rb" (\d+)\n\Z")
        while (found := mark.search(said)) is None:
            left = end - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                self._process.kill()
                raise WalkthroughFailed(f"`{command}` did not end within {timeout_s:g} s; it said:\n{said.decode()}")
            piece = self._process.stdout.read1(65536)  # type: ignore[attr-defined]
            if not piece:
                raise WalkthroughFailed(f"`{command}` ended the shell; it said:\n{said.decode()}")
            said += piece
        return said[: found.start()].decode(errors="replace"), int(found[1])


def walk(page: Path, folder: Path, environ: Mapping[str, str], *, replacing: Mapping[str, str] | None = None) -> int:
    """Do everything that a page says, in `folder`, and return how many steps that were.

    Args:
        page: the Markdown file.
        folder: where the reader works; empty at the start.
        environ: the whole environment of the reader's shell.
        replacing: words of the page that differ here, e.g. `{"microvm": "namespace"}`; in expected output only.

    Raises:
        WalkthroughFailed: a step did not come to what the page shows; says which line.
    """
    steps = read_steps(page.read_text(encoding="utf-8"))
    with Shell(folder, environ) as shell:
        for number, step in enumerate(steps):
            if isinstance(step, FileStep):
                path = folder / step.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(step.text, encoding="utf-8")
                continue
            expected = [_replaced(line, replacing or {}) for line in step.expected]
            status, said = shell.run(step.command)
            following = steps[number + 1] if number + 1 < len(steps) else None
            may_fail = any(line.startswith("silo: error:") for line in expected) or (
                isinstance(following, CommandStep) and following.command == "echo $?"
            )
            if not matches(expected, said) or (status != 0 and not may_fail):
                raise WalkthroughFailed(
                    f"{page.name}:{step.line}: `{step.command}` ended with status {status} and said\n"
                    + "\n".join(f"  {line}" for line in said)
                    + "\nwhere the page shows\n"
                    + "\n".join(f"  {line}" for line in expected)
                )
    return len(steps)


def _replaced(line: str, replacing: Mapping[str, str]) -> str:
    for old, new in replacing.items():
        line = line.replace(old, new)
    return line
