"""Read the PEP 723 header of a skill from its text. Pure: the script is never imported, compiled or run.

`silo.catalog.header_schema` has the schema; `silo.catalog.lock` checks whether the lock fits the header.

`silo list` loads this module and reads no header, so slow modules are imported where they are used: `pydantic` and
`silo.catalog.header_schema` (pydantic).
"""

from __future__ import annotations

import difflib
import io
import re
import tokenize
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from silo.errors import FeatureNotYet, HeaderInvalid
from silo.model import Isolation, SecretSpec, SkillHeader
from silo.names import suggestion
from silo.remedies import HeaderLine

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MAX_SCRIPT_BYTES: Final = 1024 * 1024
"""A larger script has data in it; and all its readers (uv, a person) read the whole script."""

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
# The reference expression of PEP 723, unchanged. It scans to the script's end from each line that opens a block, so the
# number of such lines is bounded: a hundred thousand of them would take an hour.
_OPENING = re.compile(r"(?m)^# /// [a-zA-Z0-9-]+$")
_MAX_BLOCKS = 32

_EXAMPLE = 'start the script with\n# /// script\n# requires-python = ">=3.11"\n# dependencies = []\n# ///'


def read_header(script: bytes, *, name: str, filename: str = "skill.py") -> SkillHeader:
    r"""Read and check the header of a skill.

    Args:
        script: the script's bytes: UTF-8 without a byte order mark, at most 1 MiB, `\n` or `\r\n` line ends.
        name: the namespace if the header has none; a folder's or file's name, so `-` and capitals are converted.
        filename: names the script in errors.

    Raises:
        HeaderInvalid: no header, two of them, invalid TOML, an unknown key, or a value that the schema refuses; the
            message starts with `file:line`.
    """
    text = _decode(script, filename)
    first_line, block = _find_block(text, filename)
    try:
        document = tomllib.loads(block)
    # TOMLDecodeError is a ValueError; tomllib raises other ones as well.
    except (ValueError, RecursionError) as error:
        raise _broken_toml(error, first_line, filename) from error
    where = _Lines(block, first_line, filename)
    if "uv" in _table(document, "tool"):
        raise HeaderInvalid(
            f"{where.of(('tool', 'uv'))}: '[tool.uv]' is refused: a script must not choose where code comes from",
            hint="remove the table; package indexes are set by the user, in uv's own configuration",
        )
    return _parse(document, name, where)


def refuse_not_yet(header: SkillHeader) -> None:
    """Refuse features that the schema has and this version of silo does not implement.

    Raises:
        FeatureNotYet: the header asks for network, or for a secret that the egress proxy would insert.
    """
    if header.network:
        raise FeatureNotYet(
            f"the skill '{header.namespace}' asks for network ({', '.join(header.network)}), "
            "but a call has no network in this version of silo",
            hint="give the data to the tool as arguments or files, and remove 'network' from the header",
        )
    for secret in header.secrets.values():
        if secret.deliver == "inject":
            raise FeatureNotYet(
                f"the secret '{secret.name}' is to be injected into requests to {secret.host}, "
                "but a call has no network in this version of silo",
                hint="with deliver = \"stdin\", and neither 'host' nor 'header', the tool itself gets the value",
            )


def namespace_from(name: str) -> str:
    """Turn the name of a folder or file into a namespace: converts `-`, blanks and capitals, and checks nothing."""
    return name.lower().replace("-", "_").replace(" ", "_")


# --- finding the block ------------------------------------------------------------------------------------------------


def _decode(script: bytes, filename: str) -> str:
    if len(script) > MAX_SCRIPT_BYTES:
        raise HeaderInvalid(
            f"{filename}: the script has {len(script)} bytes, more than {MAX_SCRIPT_BYTES}",
            hint="move data out of the script; a tool can take it as a file",
        )
    if script.startswith(b"\xef\xbb\xbf"):
        raise HeaderInvalid(
            f"{filename}:1: the script starts with a byte order mark, behind which other tools do not find a header",
            hint="save it as UTF-8 without BOM",
        )
    try:
        # With a coding cookie, Python would read another text than the one that is checked here (PEP 263).
        encoding, _ = tokenize.detect_encoding(io.BytesIO(script).readline)
    except SyntaxError as error:
        encoding = str(error)
    if encoding != "utf-8":
        raise HeaderInvalid(
            f"{filename}: the script is not UTF-8 ({encoding})",
            hint="save it as UTF-8 and remove a 'coding:' comment that says otherwise",
        )
    try:
        text = script.decode()
    except UnicodeDecodeError as error:
        line = script.count(b"\n", 0, error.start) + 1
        raise HeaderInvalid(
            f"{filename}:{line}: the script is not UTF-8 ({error.reason})", hint="save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise HeaderInvalid(f"{filename}:{line}: the script holds a NUL byte", hint="save it as plain UTF-8 text")
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        # Python ends a line there, editors and the expression of PEP 723 do not: code could look like a comment.
        line = text.count("\n", 0, text.index("\r")) + 1
        raise HeaderInvalid(
            f"{filename}:{line}: a carriage return without a line feed", hint="save it with Unix line ends"
        )
    return text


def _find_block(text: str, filename: str) -> tuple[int, str]:
    """Return the number of the block's first line of TOML, and the TOML."""
    if len(_OPENING.findall(text)) > _MAX_BLOCKS:
        raise HeaderInvalid(
            f"{filename}: more than {_MAX_BLOCKS} lines that open a block (PEP 723)", hint="a skill needs one"
        )
    blocks = [match for match in _BLOCK.finditer(text) if match["type"] == "script"]
    if not blocks:
        opened = re.search(r"(?m)^[ \t]*#[ \t]*///[ \t]*script\b.*$", text)
        if opened is None:
            raise HeaderInvalid(f"{filename}: the script has no header (PEP 723)", hint=_EXAMPLE)
        line = text.count("\n", 0, opened.start()) + 1
        raise HeaderInvalid(
            f"{filename}:{line}: the header that starts here is not one (PEP 723)",
            hint="start it with exactly '# /// script' at the line's beginning, begin each line with '# ' "
            "and end it with '# ///'",
        )
    if len(blocks) > 1:
        line = text.count("\n", 0, blocks[1].start()) + 1
        raise HeaderInvalid(
            f"{filename}:{line}: a second header; PEP 723 allows one block of type 'script'", hint="merge the two"
        )
    content = blocks[0]["content"]
    toml = "".join(line[2:] if line.startswith("# ") else line[1:] for line in content.splitlines(keepends=True))
    return text.count("\n", 0, blocks[0].start("content")) + 1, toml


def _broken_toml(error: Exception, first_line: int, filename: str) -> HeaderInvalid:
    reason, line = str(error), ""
    if found := re.search(r" \(at line (\d+), column (\d+)\)$", reason):
        reason, line = reason[: found.start()], f":{first_line + int(found[1]) - 1}"
    elif reason.endswith(" (at end of document)"):
        reason = reason.removesuffix(" (at end of document)") + " at the header's end"
    return HeaderInvalid(
        f"{filename}{line}: the header is not TOML: {reason}", hint="see https://toml.io for its syntax"
    )


class _Lines:
    """Finds the line of a key for error messages, approximately; tomllib keeps no positions."""

    def __init__(self, block: str, first_line: int, filename: str) -> None:
        self._lines = block.split("\n")
        self._first = first_line
        self._filename = filename

    def of(self, path: Sequence[str | int]) -> str:
        """Return `file:line` of the key at `path`, or of the nearest key above it."""
        names = [part for part in path if isinstance(part, str)]
        found, wanted = self._first, 0
        table: list[str] = []
        for number, line in enumerate(self._lines, start=self._first):
            stripped = line.strip()
            if stripped.startswith("["):
                table = keys = _keys(stripped.strip("[]"))
            elif "=" in stripped:
                keys = [*table, *_keys(stripped.split("=", 1)[0])]
            else:
                continue
            depth = _common(names, keys)
            if depth > wanted:
                found, wanted = number, depth
        return f"{self._filename}:{found}"


def _keys(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    length = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        length += 1
    return length


# --- checking it ------------------------------------------------------------------------------------------------------


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _parse(document: dict[str, Any], name: str, where: _Lines) -> SkillHeader:
    from pydantic import ValidationError

    from silo.catalog.header_schema import ScriptTable, SiloTable, check_namespace

    try:
        script = ScriptTable.model_validate(document)
    except ValidationError as error:
        raise _refused(error, (), ScriptTable, where) from error
    for other in script.tool:
        # Tables of other tools are ignored. A table with nearly silo's name is a typo, and its restrictions would be
        # lost.
        if other != "silo" and _is_nearly_silo(other):
            raise HeaderInvalid(
                f"{where.of(('tool', other))}: [tool.{other}] is not silo's table", hint="did you mean [tool.silo]?"
            )
    own = script.tool.get("silo", {})
    try:
        silo = SiloTable.model_validate(own)
    except ValidationError as error:
        raise _refused(error, ("tool", "silo"), SiloTable, where) from error
    namespace = silo.namespace
    if namespace is None:
        try:
            namespace = check_namespace(namespace_from(name))
        except ValueError as error:
            raise HeaderInvalid(
                f"{where.of(('tool', 'silo'))}: the header names no namespace, and '{name}' can't be one: {error}",
                hint=HeaderLine('namespace = "…"', "add {} to [tool.silo]"),
            ) from error
    return SkillHeader(
        namespace=namespace,
        requires_python=script.requires_python,
        dependencies=tuple(script.dependencies),
        network=tuple(silo.network),
        secrets={
            key: SecretSpec(
                name=key,
                deliver=value.delivery,
                host=value.host,
                header=value.header,
                format=value.format,
                description=value.description,
            )
            for key, value in sorted(silo.secrets.items())
        },
        memory_mib=silo.memory_mib,
        timeout_s=float(silo.timeout_s),
        require_approval=silo.require_approval,
        min_isolation=None if silo.min_isolation is None else Isolation(silo.min_isolation),
        description=silo.description,
        examples={name: tuple(tool.examples) for name, tool in sorted(silo.tools.items()) if tool.examples},
    )


_NEARLY = 0.75
"""One letter of four too many, missing, doubled or exchanged with its neighbour."""


def _is_nearly_silo(name: str) -> bool:
    """Whether a table was probably meant for silo or its package, `silo-runtime`."""
    plain = name.casefold()
    return plain.startswith("silo") or difflib.SequenceMatcher(None, plain, "silo").ratio() >= _NEARLY


def _refused(error: ValidationError, prefix: tuple[str, ...], model: type[BaseModel], where: _Lines) -> HeaderInvalid:
    """Return pydantic's first error as ours; a person fixes one at a time."""
    first = error.errors(include_url=False)[0]
    path = tuple(part for part in (*prefix, *first["loc"]) if part != "[key]")
    dotted = ".".join(str(part) for part in path)
    place = where.of([part for part in path if isinstance(part, str)])
    match first["type"]:
        case "extra_forbidden":
            known = _known_keys(model, first["loc"])
            return HeaderInvalid(
                f"{place}: unknown key '{dotted}'",
                hint=suggestion(str(path[-1]), known, otherwise=f"known here are {', '.join(known)}"),
            )
        case "missing":
            return HeaderInvalid(
                f"{place}: '{dotted}' is missing",
                hint='add `requires-python = ">=3.11"`' if dotted == "requires-python" else f"add '{dotted}'",
            )
        case "value_error":
            reason = str(first["msg"]).removeprefix("Value error, ")
        case _:
            reason = str(first["msg"])[:1].lower() + str(first["msg"])[1:]
    return HeaderInvalid(f"{place}: '{dotted}': {reason}", hint=_hint(path))


def _known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    from silo.catalog.header_schema import SecretTable, ToolTable

    inner: Mapping[str | int, type[BaseModel]] = {"secrets": SecretTable, "tools": ToolTable}
    schema = inner.get(loc[0], model) if len(loc) > 1 else model
    return sorted(field.alias or key for key, field in schema.model_fields.items())


_HINTS: Final[Mapping[str, str]] = {
    "dependencies": 'write it as in a pyproject.toml, e.g. "httpx>=0.28" (PEP 508)',
    "requires-python": 'e.g. requires-python = ">=3.11"',
    "memory_mib": "between 64 and 8192; 256 is the default",
    "timeout_s": "between 0.1 and 3600 seconds; 30 is the default",
    "min_isolation": '"microvm", "gvisor" or "namespace"; leave it out for the user\'s own floor',
    "network": 'e.g. network = ["api.example.org"]',
    "secrets": "name it like an environment variable (A-Z, 0-9, _): [tool.silo.secrets.API_KEY]",
    "examples": 'up to 10 requests that this tool answers, e.g. examples = ["sign a token"]',
    "tools": "name the function: [tool.silo.tools.list_issues]",
    "namespace": 'e.g. namespace = "github"',
    "description": "at most 300 characters in one line",
    "deliver": 'deliver = "stdin" hands the value to the tool; "inject" puts it into requests to one host',
}


def _hint(path: Sequence[str | int]) -> str:
    for part in reversed(path):
        if part in _HINTS:
            return _HINTS[str(part)]
    return "see the reference page of the skill header"
