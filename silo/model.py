"""The nouns of silo: what crosses from one package to another, as frozen dataclasses. No behaviour beyond reading them.

`Call` and `Result` are what `silo run`, `Runtime.call` and an agent's `tools/call` have in common. What crosses into a guest is
`silo.sandbox.skill.base`'s and `silo.wire`'s; configuration is `silo.config`'s.
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
    """The boundaries that silo knows, weakest first; compare with `is_at_least`, never as text."""

    NAMESPACE = "namespace"
    GVISOR = "gvisor"
    MICROVM = "microvm"

    def is_at_least(self, floor: Isolation) -> bool:
        """Whether this boundary is as strong as `floor`, or stronger."""
        order = list(Isolation)
        return order.index(self) >= order.index(floor)


@dataclass(frozen=True)
class Interpreter:
    """A CPython of the host whose files go into guests; what `python -I -S` says of itself, nothing guessed.

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
        deliver: `stdin` hands the value to the skill; `inject` lets the egress proxy put it in (refused in this version).
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
    """The PEP 723 header of a skill: the ceiling of what its tools may have.

    Attributes:
        requires_python: a version specifier (PEP 440), e.g. `>=3.11`.
        dependencies: requirements (PEP 508).
        network: host names that any of the tools may reach; must be empty in this version.
        memory_mib: the guest's memory.
        timeout_s: how long one call may take.
        min_isolation: the weakest boundary that the skill accepts, or None for the user's own floor.
        examples: requests that a tool answers, by its name; for finding it, and for nothing else.
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
    """What a tool says of its effects (MCP's tool annotations); hints of a stranger, never a ground for a decision."""

    title: str | None = None
    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None


@dataclass(frozen=True)
class Tool:
    """One function of a skill, as the catalog knows it. `id` is its name on the wire, `skill.name`."""

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
        digest: SHA-256 in hex over script and lock; what a person agreed to.
        folder: where this version is installed: `skill.py`, `skill.py.lock`, `SKILL.md`, `manifest.json`.
        source: where it was installed from (`builtin:jwt` or a path).
        instructions: the manual that `@skill.instructions()` returned, or None.
        installed_at: ISO 8601, UTC.
        image: digest of the image that was built for it.
        described_by: the isolation under which the script was run to read its tools.
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

    @property
    def script(self) -> Path:
        """The installed copy of the script."""
        return self.folder / "skill.py"


@dataclass(frozen=True)
class Caller:
    """Who asks: the way in (`cli`, `mcp` or `library`), and what the client calls itself (a claim, for the record).

    Attributes:
        session: one run of a client, so that its calls can be counted together; made up by silo, and no part of who it is.
    """

    kind: Literal["cli", "mcp", "library"]
    client: str = ""
    session: str = ""


@dataclass(frozen=True)
class Call:
    """One call of one tool, as it arrived.

    Attributes:
        tool: the tool's id, `skill.name`.
        arguments: JSON values; where the tool takes a file, a `File`, or what `silo.calls.files` turns into one.
        backend: the name of the backend for this one call, or None for the configured choice.
        patience_s: how long the call may wait for a person, in seconds, before it fails with `ApprovalPending` while the question
            stands; None: as long as the question does.
        shows_links: the client shows links to its user by itself, so silo opens no browser.
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
    """What policy says of a call, and why; `ask` means that a person must agree first.

    Attributes:
        rule: the user's rule that says so, e.g. `silo.toml rule 2`; empty where none does.
    """

    verdict: Literal["allow", "ask", "deny"]
    reason: str
    rule: str = ""


@dataclass(frozen=True)
class ProgressReport:
    """One step of a running call, from silo (`starting a microVM`) or from the skill."""

    progress: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class Logs:
    """What a skill printed, decoded with replacement, capped and redacted."""

    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


@dataclass(frozen=True)
class Result:
    """What a call came to.

    Attributes:
        text: for a model to read.
        data: the structured value, or None.
        files: what the tool returned as files.
        is_error: the tool itself reported a failure.
        isolation: the boundary that the call really had.
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
