"""The schema of a skill's PEP 723 header, as pydantic models. `silo.catalog.header` finds and reads the block.

It is imported only when a header is read: listing installed skills must not pay for importing pydantic.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

NAMESPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""`__` is refused as well: it separates skill and tool where a client allows no dot (`github__list_issues`)."""

TOOL_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

MAX_EXAMPLES: Final = 10
"""Examples of one tool. More hardly improve the search, and must not buy an author a better rank."""

MAX_EXAMPLE_CHARS: Final = 200
"""A request is a sentence or two; a person who agrees to an install reads all examples."""

_HOST = re.compile(
    r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?(?::[0-9]{1,5})?"
)
# RFC 1123 §2.1 labels in lower case, at least two of them, with an optional `*.` in front and an optional port.

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
# A token of RFC 9110 §5.6.2.

_OWN_NAMES = frozenset({"silo", "silo-runtime"})


def check_namespace(value: str) -> str:
    """Return `value` if it can be a skill's namespace, else raise ValueError with the rule."""
    if not NAMESPACE.fullmatch(value):
        raise ValueError("a namespace is 1 to 32 characters of a-z, 0-9 and '_', and starts with a letter")
    if "__" in value:
        raise ValueError("a namespace may not hold '__', which separates skill and tool in some clients")
    if value == "silo":
        raise ValueError("the namespace 'silo' is reserved")
    return value


def _check_host(value: str) -> str:
    if len(value) > 260 or not _HOST.fullmatch(value):
        raise ValueError("expected a host name in lower case such as 'api.example.org', with no scheme and no path")
    return value


def _check_field_name(value: str) -> str:
    if not _FIELD_NAME.fullmatch(value):
        raise ValueError("expected the name of an HTTP header such as 'Authorization'")
    return value


def _check_format(value: str) -> str:
    if value.count("{secret}") != 1 or not value.isprintable():
        raise ValueError("expected one line that holds '{secret}' once, such as 'Bearer {secret}'")
    return value


def _check_python(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        raise ValueError("expected a version specifier such as '>=3.11'") from error
    if not value.strip():
        raise ValueError("expected a version specifier such as '>=3.11'")
    return value


def _check_requirement(value: str) -> str:
    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"not a requirement (PEP 508): {str(error).splitlines()[0]}") from error
    if requirement.url is not None:
        raise ValueError(
            f"'{requirement.name}' comes from an address or a path; dependencies come from a package index"
        )
    if canonicalize_name(requirement.name) in _OWN_NAMES:
        raise ValueError(f"'{requirement.name}' is not a dependency: silo gives each guest its own copy of `silo`")
    return value


def check_secret_name(value: str) -> str:
    """Return `value` if it can be a secret's name, else raise ValueError with the rule."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,127}", value):  # the vault's own rule
        raise ValueError("a secret's name is 1 to 128 characters of A-Z, 0-9 and '_', and starts with a letter")
    return value


def _check_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("expected one line of printable characters")
    return value


def _check_tool_name(value: str) -> str:
    if not TOOL_NAME.fullmatch(value):
        raise ValueError("a tool's name is 1 to 64 characters of a-z, 0-9 and '_', and starts with a letter")
    return value


def _check_example(value: str) -> str:
    if not value.strip() or len(value) > MAX_EXAMPLE_CHARS:
        raise ValueError(f"an example is a request in words, of at most {MAX_EXAMPLE_CHARS} characters")
    return _check_line(value)


Line = Annotated[str, StringConstraints(max_length=300), AfterValidator(_check_line)]
Host = Annotated[str, AfterValidator(_check_host)]
SecretName = Annotated[str, AfterValidator(check_secret_name)]
ToolName = Annotated[str, AfterValidator(_check_tool_name)]
Example = Annotated[str, AfterValidator(_check_example)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SecretTable(_Table):
    """`[tool.silo.secrets.NAME]`."""

    deliver: Literal["stdin", "inject"] | None = None
    host: Host | None = None
    header: Annotated[str, AfterValidator(_check_field_name)] | None = None
    format: Annotated[str, StringConstraints(max_length=256), AfterValidator(_check_format)] | None = None
    description: Line = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.delivery == "inject" and (self.host is None or self.header is None):
            raise ValueError("deliver = 'inject' needs both 'host' and 'header'")
        if self.delivery == "stdin" and (self.host or self.header or self.format):
            raise ValueError(
                "'host', 'header' and 'format' belong to deliver = 'inject'; give both 'host' and 'header'"
            )
        return self

    @property
    def delivery(self) -> Literal["stdin", "inject"]:
        """How the secret is delivered: as declared; else injected if host and header are given; else over STDIN."""
        return self.deliver or ("inject" if self.host and self.header else "stdin")


class ToolTable(_Table):
    """`[tool.silo.tools.NAME]`: what the header declares about one tool."""

    examples: Annotated[list[Example], Field(max_length=MAX_EXAMPLES)] = []


class SiloTable(_Table):
    """`[tool.silo]`: the upper limit of what a call of the skill may have."""

    namespace: Annotated[str, AfterValidator(check_namespace)] | None = None
    description: Line = ""
    network: Annotated[list[Host], Field(max_length=64)] = []
    memory_mib: Annotated[int, Field(ge=64, le=8192)] = 256
    timeout_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 30.0
    require_approval: bool = False
    min_isolation: Literal["namespace", "gvisor", "microvm"] | None = None
    secrets: Annotated[dict[SecretName, SecretTable], Field(max_length=32)] = {}
    tools: Annotated[dict[ToolName, ToolTable], Field(max_length=128)] = {}


class ScriptTable(_Table):
    """The whole block of type `script` (PEP 723). Tables of other tools are ignored; the reader refuses `[tool.uv]`."""

    requires_python: Annotated[str, StringConstraints(max_length=200), AfterValidator(_check_python)] = Field(
        alias="requires-python"
    )
    dependencies: Annotated[
        list[Annotated[str, StringConstraints(max_length=500), AfterValidator(_check_requirement)]],
        Field(max_length=200),
    ] = []
    tool: dict[str, Any] = {}
