"""The nouns of silo: the frozen dataclasses that packages pass to each other. No behaviour beyond reading them.

`silo run`, `Runtime.call` and an agent's `tools/call` all use `Call` and `Result`. `silo.sandbox.skill.base` and
`silo.wire` have the types for a guest, `silo.config` those for the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from silo.sdk.files import File

__all__ = [
    "Call",
    "Caller",
    "Decision",
    "File",
    "Interpreter",
    "Isolation",
    "Logs",
    "ProgressReport",
    "Result",
    "SecretSpec",
    "Skill",
    "SkillHeader",
    "Tool",
    "ToolHints",
]


class Isolation(StrEnum):
    """The kinds of isolation, weakest first; compare with `is_at_least`, never as text."""

    NAMESPACE = "namespace"
    GVISOR = "gvisor"
    MICROVM = "microvm"

    def is_at_least(self, floor: Isolation) -> bool:
        """Whether this boundary is as strong as `floor`, or stronger."""
        order = list(Isolation)
        return order.index(self) >= order.index(floor)


@dataclass(frozen=True)
class Interpreter:
    """A CPython of the host whose files go into guests; all facts come from `python -I -S`, none is guessed.

    Attributes:
        executable: the real file, links resolved.
        version: e.g. `3.11.7`.
        stdlib: the pure part of the standard library.
        platstdlib: the part with extension modules (often the same folder).
        abi: SOABI, e.g. `cpython-311-x86_64-linux-gnu`.
    """

    executable: Path
    version: str
    stdlib: Path
    platstdlib: Path
    abi: str


@dataclass(frozen=True)
class SecretSpec:
    """A secret that a skill's header declares.

    Attributes:
        name: as in the vault and in `require_secret`, an upper-case identifier.
        deliver: `stdin` hands the value to the skill; `inject` lets the egress proxy insert it (refused in this
            version).
        host, header, format: where and how an injected secret goes.
    """

    name: str
    deliver: Literal["stdin", "inject"] = "stdin"
    host: str | None = None
    header: str | None = None
    format: str | None = None
    description: str = ""


@dataclass(frozen=True)
class SkillHeader:
    """The PEP 723 header of a skill: the upper limit of what its tools may have.

    Attributes:
        requires_python: a version specifier (PEP 440), e.g. `>=3.11`.
        dependencies: requirements (PEP 508).
        network: host names that any of the tools may reach; must be empty in this version.
        memory_mib: the guest's memory.
        timeout_s: how long one call may take.
        min_isolation: the weakest boundary that the skill accepts, or None for the user's own floor.
        examples: requests that a tool answers, by the tool's name; only used by the search.
    """

    namespace: str
    requires_python: str
    dependencies: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    secrets: Mapping[str, SecretSpec] = field(default_factory=dict)
    memory_mib: int = 256
    timeout_s: float = 30.0
    require_approval: bool = False
    min_isolation: Isolation | None = None
    description: str = ""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolHints:
    """A tool's own claims about its effects (MCP's tool annotations); untrusted, so no decision depends on them."""

    title: str | None = None
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None


@dataclass(frozen=True)
class Tool:
    """One function of an installed skill."""

    skill: str
    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    require_approval: bool
    time_to_live_s: int
    secrets: tuple[str, ...]
    timeout_s: float
    hints: ToolHints = ToolHints()

    @property
    def id(self) -> str:
        """The tool's name on the wire, e.g. `jwt.sign`."""
        return f"{self.skill}.{self.name}"


@dataclass(frozen=True)
class Skill:
    """An installed skill.

    Attributes:
        digest: SHA-256 in hex over script and lock, to which a person agreed.
        folder: where this version is installed: `skill.py`, `skill.py.lock`, `SKILL.md`, `manifest.json`.
        source: where it was installed from (`builtin:jwt` or a path).
        instructions: the manual that `@skill.instructions()` returned, or None.
        installed_at: ISO 8601, UTC.
        image: digest of the image that was built for it.
        described_by: the isolation under which the script was run to read its tools.
        agreed: who agreed that this version may have what its name holds (`silo.install.grants`): `question ID` or
            `silo.toml`; empty if the name held nothing new to it.
    """

    namespace: str
    digest: str
    header: SkillHeader
    tools: tuple[Tool, ...]
    folder: Path
    source: str
    instructions: str | None
    installed_at: str
    image: str
    described_by: Isolation
    packages: tuple[str, ...] = ()
    agreed: str = ""

    @property
    def script(self) -> Path:
        """The installed copy of the script."""
        return self.folder / "skill.py"


@dataclass(frozen=True)
class Caller:
    """Who makes a call: its kind (`cli`, `mcp` or `library`), and the name that the client claims, for the record.

    Attributes:
        session: one connection of a client, one open `Runtime`, or one command. Its calls are counted together, and an
            approval counts for it alone. silo makes it up, because a client can claim any name.
        terminal: the terminal at which a person types commands. An approval of one counts for all of them. Empty for
            callers that are no commands, and for commands without a person.
    """

    kind: Literal["cli", "mcp", "library"]
    client: str = ""
    session: str = ""
    terminal: str = ""


@dataclass(frozen=True)
class Call:
    """One call of one tool, as it arrived.

    Attributes:
        tool: the tool's id, `skill.name`.
        arguments: JSON values; where the tool takes a file, a `File`, or a value that `silo.calls.files` turns into
            one.
        backend: the name of the backend for this one call, or None for the configured choice.
        patience_s: how long the call may wait for a person, in seconds, before it fails with `ApprovalPending` while
            the question stands; None: as long as the question does.
        shows_links: the client shows links to its user, so silo opens no browser.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any]
    caller: Caller
    backend: str | None = None
    patience_s: float | None = None
    shows_links: bool = False


@dataclass(frozen=True)
class Decision:
    """What policy decides about a call, and why; `ask` means that a person must agree first.

    Attributes:
        rule: the user's rule that decided, e.g. `silo.toml rule 2`; empty if none did.
        question: the id of the question that a person answered; empty if nobody was asked.
    """

    verdict: Literal["allow", "ask", "deny"]
    reason: str
    rule: str = ""
    question: str = ""


@dataclass(frozen=True)
class ProgressReport:
    """One step of a running call, from silo (`starting a microVM`) or from the skill."""

    progress: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class Logs:
    """The output of a skill, decoded with replacement, capped and redacted."""

    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


@dataclass(frozen=True)
class Result:
    """The result of a call.

    Attributes:
        text: for a model to read.
        data: the structured value, or None.
        files: the files that the tool returned.
        is_error: the tool itself reported a failure.
        isolation: the isolation that the call really had.
        guest: facts about the guest: `kernel`, `python`, `backend detail`.
        timing: seconds by phase, in order; `total` is all of it.
    """

    text: str
    data: Any
    has_data: bool
    files: tuple[File, ...]
    is_error: bool
    logs: Logs
    isolation: Isolation
    guest: Mapping[str, str]
    timing: Mapping[str, float]
    truncated: bool = False
