"""The one schema of silo's configuration: names, types, bounds and defaults, each with what it means.

`silo.config.load` reads the values. The reference page and the JSON Schema are made from this module. Every default is
the safe choice, and the description of a setting that can widen something says what it opens.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from silo.model import Isolation
from silo.policy.rules import CALLERS, CallerKind, Verdict, check_path, tool_glob
from silo.secrets.sources import check_mapped, parse_reference

T = TypeVar("T")

Pattern = str | bool | int | float
Patterns = Pattern | tuple[Pattern, ...]


class Section(BaseModel):
    """What all tables have in common: an unknown key is an error, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _folder(path: Path) -> Path:
    expanded = path.expanduser()
    if not expanded.is_absolute() or ".." in expanded.parts:
        raise ValueError("must be an absolute path without '..' (a leading '~' is fine)")
    if expanded == Path("/"):
        raise ValueError("the whole file system can't be opened; name the folders that calls may read")
    return expanded


class SandboxSection(Section):
    """`[sandbox]`: how strongly calls are isolated."""

    backend: Literal["auto", "microvm", "gvisor", "namespace"] = "auto"
    """The name of the backend that runs calls. `auto` takes the strongest that works here and whose isolation isn't
    below `min_isolation`."""

    min_isolation: Isolation = Isolation.MICROVM
    """The weakest isolation that `auto` may choose. `namespace` lets skills share this machine's kernel."""

    allow_unlimited: tuple[Literal["memory"], ...] = ()
    """Limits that guests of the `namespace` backend may lack where this machine has no way to enforce them. `memory`
    lets a guest use up the machine's memory where no control group can be made; without it, none starts there."""

    warm: Annotated[int, Field(ge=0, le=8)] = 1
    """How many guests a resident process keeps ready for each recently used skill. Each takes its skill's memory."""

    template_memory_mib: Annotated[int, Field(ge=0, le=65_536)] = 512
    """How much memory a process that stays may use for copies of the templates of microVMs, in MiB. The least recently
    used go first. A copy takes 100 to 170 MiB for most skills. QEMU 8.2 and later need no copies. With `0`, none is
    kept, and each new guest takes some 50 ms longer."""

    kernel: Annotated[Path, AfterValidator(_folder)] | None = None
    """The folder with the kernels of microVM guests, as `silo setup` makes it. If not set, `kernel` in the state
    directory."""


class FilesSection(Section):
    """`[files]`: which files of this machine an agent may hand to a tool."""

    allow_read: tuple[Annotated[Path, AfterValidator(_folder)], ...] = ()
    """Folders from which `file://` links are copied into guests. Any tool that takes a file can get the files in
    them."""

    max_mib: Annotated[int, Field(ge=1, le=256)] = 32
    """The limit for all files of one call together, in MiB."""


class ServerSection(Section):
    """`[server]`: what an MCP client sees."""

    expose: Literal["auto", "router", "direct"] = "auto"
    """`router` lists only search and execute. `direct` lists every tool as well. `auto` decides by
    `direct_budget_tokens`."""

    direct_budget_tokens: Annotated[int, Field(ge=0, le=200_000)] = 6000
    """How many tokens the tools that `auto` lists may cost an agent in every conversation. If all tools fit, all are
    listed; else search, execute, and the tools that the agent called most."""


class RouterSection(Section):
    """`[router]`: how tools are found. No request leaves this machine, and no language model is asked."""

    semantic: bool = True
    """Compare meanings as well as words, with the token table that is part of silo. If `false`, only words count."""

    rerank: bool = True
    """Order the first fifty tools with a small model that is part of silo."""

    learning: bool = True
    """Remember for which words an agent called which tool, and how often, to find the tool better. Kept for each client
    separately, without values of arguments. If `false`, silo writes nothing and does not use what it wrote before.
    `silo search --forget` deletes it."""


ChannelName = Literal["terminal", "client", "browser", "notification"]


def _each_once(channels: tuple[ChannelName, ...]) -> tuple[ChannelName, ...]:
    if len(set(channels)) < len(channels):
        raise ValueError("names a channel twice")
    return channels


class ApprovalSection(Section):
    """`[approval]`: asking a person."""

    channels: Annotated[tuple[ChannelName, ...], AfterValidator(_each_once)] = (
        "terminal",
        "client",
        "browser",
        "notification",
    )
    """The ways to reach a person, in the order in which silo tries them. A way that is not in the list is never used.
    With an empty list, nobody is asked.

    `terminal` works if silo runs in the foreground of a terminal, `client` if the MCP client shows links to its user;
    `browser` opens the approval page. silo uses the first of these that works. `notification` also shows a message on
    the desktop, with a pairing code."""

    timeout_s: Annotated[float, Field(ge=1, le=3600)] = 300.0
    """How long a question stays open, in seconds. No answer means denied."""

    patience_s: Annotated[float, Field(ge=0, le=300)] = 25.0
    """How many seconds an agent's call waits for a person before the agent is told to call again. Many clients give up
    after 60."""

    headless: bool = False
    """Nobody can be asked. What needs a person fails at once with `SILO_APPROVAL_REQUIRED` or `SILO_AUTH_REQUIRED`."""


def _one_or_several(given: T | tuple[T, ...]) -> tuple[T, ...]:
    return given if isinstance(given, tuple) else (given,)


def _tools(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not given:
        raise ValueError("names no tool; '*' stands for all of them")
    for text in _one_or_several(given):
        tool_glob(text)
    return given


def _no_tables(given: object) -> object:
    """Say how a path is written to whoever wrote `arguments.issue.title = ...`, which TOML reads as a table."""
    for name, value in given.items() if isinstance(given, dict) else ():
        if isinstance(value, dict):
            inner = next(iter(value), "name")
            raise ValueError(f'{name!r} is a table; write a path in quotes: "{name}.{inner}" = ...')
    return given


def _patterns(given: dict[str, Patterns]) -> dict[str, Patterns]:
    for path, patterns in given.items():
        check_path(path)
        for one in (several := _one_or_several(patterns)):
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{path!r}: no argument is {one}, JSON does not have it")
        if not several:
            raise ValueError(f"{path!r}: an empty list matches nothing; leave {path!r} out if any value will do")
    return given


def _one_line(text: str) -> str:
    if text and not text.isprintable():
        raise ValueError("must be one line of text that can be seen")
    return text


class PolicyRule(Section):
    """One `[[policy.rules]]`: a verdict on the calls that match. Everything that the rule names must match."""

    verdict: Verdict
    """`deny` wins over `ask`, `ask` over `allow`. With `allow`, these calls run without a question, even if their skill
    asks for one."""

    tool: Annotated[str | tuple[str, ...], AfterValidator(_tools)]
    """A pattern for tool ids, e.g. `github.*`, or a list of which one must match. `*` is any characters, `?` is one."""

    arguments: Annotated[dict[str, Patterns], BeforeValidator(_no_tables), AfterValidator(_patterns)] = {}
    """Patterns by name or dotted path. All must match; case matters. An argument that is not named may have any value,
    or none."""

    callers: Annotated[tuple[CallerKind, ...], Field(min_length=1)] = CALLERS
    """The callers that the rule is for: `cli` is `silo run`, `mcp` an agent's client, `library` a program that uses
    `silo.runtime`."""

    reason: Annotated[str, Field(max_length=200), AfterValidator(_one_line)] = ""
    """Shown to the agent whose call is refused, and to the person who is asked."""


class PolicySection(Section):
    """`[policy]`: what may run without a person, what asks one, and what never runs."""

    rules: tuple[PolicyRule, ...] = ()
    """The rules, each a table `[[policy.rules]]`. Their order does not matter. If none applies, skill and tool
    decide."""


def _provision(given: dict[str, str]) -> dict[str, str]:
    for name, digest in given.items():
        if not _NAMESPACE.fullmatch(name):
            raise ValueError(f"{name[:80]!r} can't be the name of a skill")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{name!r}: {digest[:80]!r} isn't the digest of a skill, 64 hex digits")
    return given


_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class InstallSection(Section):
    """`[install]`: limits for installations, and installing without a person."""

    max_mib: Annotated[int, Field(ge=1, le=65536)] = 2048
    """How large the packages of one skill may be when unpacked, in MiB. An archive of a few hundred KiB can unpack to
    any size, so a package that you don't know could fill the disk."""

    provision: Annotated[dict[str, str], AfterValidator(_provision)] = {}
    """Digests by the name of a skill, e.g. `provision = { github = "2f6c…" }`. `silo install --provision` may install
    exactly that code under that name without asking, also if the name holds secrets or approvals. Only this file can
    set it, so keep an agent from writing it. `silo inspect NAME --json` shows the digest of an installed skill."""


class CallSection(Section):
    """`[call]`: limits for every call, whatever its skill says."""

    max_concurrent: Annotated[int, Field(ge=1, le=64)] = 8
    """How many calls run at once; further calls wait. Each takes its skill's memory."""

    log_kib: Annotated[int, Field(ge=1, le=1024)] = 64
    """How much of stdout is kept, in KiB, and the same for stderr."""

    result_kib: Annotated[int, Field(ge=1, le=4096)] = 4096
    """The limit for the text of a result, in KiB, and the same for its data."""

    files_mib: Annotated[int, Field(ge=1, le=256)] = 32
    """The limit for all files of a result together, in MiB."""


def _mapped(sources: dict[str, str]) -> dict[str, str]:
    for name, text in sources.items():
        check_mapped(name)
        parse_reference(text)
    return sources


def _server_path(path: str) -> str:
    if path:
        parse_reference(f"vault://{path}#NAME")
    return path


class SecretsSection(Section):
    """`[secrets]`: where silo looks secrets up: `sources` first, then HashiCorp Vault, the keyring, the vault file."""

    sources: Annotated[dict[str, str], AfterValidator(_mapped)] = {}
    """The one place for `NAME` or `skill.NAME`: `vault://mount/path#field`, `keyring://service/user` or
    `silo://[skill/]NAME`."""

    hashicorp_path: Annotated[str, AfterValidator(_server_path)] = ""
    """`mount/path` in HashiCorp Vault. `NAME` of a skill is the field of that name at `mount/path/skill`, or else at
    `mount/path`."""

    keyring: bool = False
    """Look secrets up in the OS keyring, service `silo-secrets`, user `skill/NAME`, or else `NAME`."""


_File = Annotated[Path, AfterValidator(_folder)] | None


class HashicorpSection(Section):
    """`[hashicorp]`: HashiCorp Vault or OpenBao. Its own variables (`VAULT_ADDR` and so on) override these keys.

    There is no key for a token: it comes from a variable or from its own file.
    """

    key: Literal["none", "transit", "kv"] = "none"
    """Which key of the server opens the vault file, before all others: a transit key, which never leaves it, or one in
    its KV engine."""

    address: str = ""
    """The server's address, e.g. `https://vault:8200`; `VAULT_ADDR` overrides it. `http://` is for this machine
    only."""

    namespace: str = ""
    """The namespace on the server; `VAULT_NAMESPACE` overrides it."""

    auth: Literal["token", "approle", "kubernetes", "jwt"] = "token"
    """How silo logs in: a token in `VAULT_TOKEN` or `~/.vault-token`, or one of the server's auth methods."""

    auth_mount: str = ""
    """Where the auth method is mounted, if that is not its own name."""

    token_file: _File = None
    """A file with the token, for `token`; it must be yours, with mode 0600."""

    role: str = ""
    """The role, for `kubernetes` and `jwt`."""

    role_id: str = ""
    """The role id, for `approle`."""

    secret_id_file: _File = None
    """A file with the secret id, or with a token that wraps it, for `approle`."""

    secret_id_wrapping_path: str = ""
    """The request that made the wrapping token, e.g. `auth/approle/role/silo/secret-id`. Set it if the secret id is
    wrapped."""

    remove_secret_id_file: bool = False
    """Delete `secret_id_file` once it is read."""

    jwt_file: _File = None
    """A file with the token, for `kubernetes` and `jwt`. silo reads it at each login."""

    jwt_variable: str = ""
    """The variable with the token, for `jwt`."""

    ca_cert: _File = None
    """A file with CA certificates to trust instead of the system's; `VAULT_CACERT` overrides it."""

    ca_path: _File = None
    """A folder with CA certificates to trust; `VAULT_CAPATH` overrides it."""

    client_cert: _File = None
    """The certificate to show to the server; `VAULT_CLIENT_CERT` overrides it."""

    client_key: _File = None
    """The certificate's key, if it is not in the same file; `VAULT_CLIENT_KEY` overrides it."""

    tls_server_name: str = ""
    """The name that the server's certificate must have, if it is not the one in the address."""

    timeout_s: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    """How long one request may take, in seconds."""

    deadline_s: Annotated[float, Field(ge=0.1, le=600)] = 30.0
    """How long one use may take in total, in seconds: login, renewal, and repeated requests."""

    max_retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often silo repeats a request after a temporary failure."""

    transit_mount: str = "transit"
    """Where the transit engine is mounted."""

    transit_key: str = "silo"
    """The name of the transit key. Make it on the server: `bao write -f transit/keys/silo`."""

    kek_path: str = ""
    """`mount/path#field` of a key of 32 bytes in hex or base64, for `key = "kv"`."""

    offline_grace_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    """How long an open vault stays open while the server does not answer, in seconds. A refusal closes it at once in
    any case."""


class AuditSection(Section):
    """`[audit]`: the record of what ran. It can't be switched off."""

    flush: bool = False
    """Wait until each record is on the disk. If `false`, a power cut can lose the last records; a crash of silo
    can't."""


class Config(Section):
    """All of silo's configuration, parsed and frozen."""

    sandbox: SandboxSection = SandboxSection()
    files: FilesSection = FilesSection()
    server: ServerSection = ServerSection()
    router: RouterSection = RouterSection()
    approval: ApprovalSection = ApprovalSection()
    policy: PolicySection = PolicySection()
    install: InstallSection = InstallSection()
    call: CallSection = CallSection()
    secrets: SecretsSection = SecretsSection()
    hashicorp: HashicorpSection = HashicorpSection()
    audit: AuditSection = AuditSection()
