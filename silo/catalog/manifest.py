"""The format of `manifest.json`, the record of an installed skill: canonical and versioned. Pure.

`silo.catalog.store` reads and writes the file. A manifest of an unknown version is refused, never guessed at.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

from silo.model import Isolation, SecretSpec, Skill, SkillHeader, Tool, ToolHints

VERSION: Final = 1

T = TypeVar("T")


class ManifestInvalid(ValueError):
    """The text isn't a manifest of a known version. `silo.catalog.store` adds the skill's name."""


def encode_manifest(skill: Skill) -> str:
    """Return the manifest as JSON with its keys in a fixed order; it does not depend on the skill's folder.

    Keys inside a tool's schema keep the skill's order, which is the order of the tool's parameters.
    """
    header = asdict(skill.header)
    # The key has the name already; a second copy could disagree.
    header["secrets"] = {name: _without(spec, "name") for name, spec in header["secrets"].items()}
    if not header["examples"]:
        del header["examples"]  # added later: the manifest of a skill without examples must stay unchanged
    document = {
        "manifest": VERSION,
        "namespace": skill.namespace,
        "digest": skill.digest,
        "source": skill.source,
        "installed_at": skill.installed_at,
        "image": skill.image,
        "described_by": skill.described_by,
        "instructions": skill.instructions,
        "packages": list(skill.packages),
        "header": _without(header, "namespace"),
        "tools": [_without(asdict(tool), "skill") for tool in skill.tools],
    }
    if skill.agreed:
        document["agreed"] = skill.agreed  # added later: the manifest of a skill without it must stay unchanged
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode_manifest(text: str, folder: Path) -> Skill:
    """Read a manifest strictly.

    Args:
        text: the result of `encode_manifest`.
        folder: where the skill is installed; a manifest does not have it.

    Raises:
        ManifestInvalid: not JSON, another version, or a key missing, unknown or of the wrong type.
    """
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.pop("manifest", None) != VERSION:
            raise ManifestInvalid(f"it is not of version {VERSION}")
        skill = _skill(document, folder)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ManifestInvalid(str(error)) from error
    if encode_manifest(skill) != text:
        raise ManifestInvalid("it was edited")
    return skill


def _skill(document: dict[str, Any], folder: Path) -> Skill:
    namespace = _is(document.pop("namespace"), str)
    return Skill(
        namespace=namespace,
        digest=_is(document.pop("digest"), str),
        header=_header(namespace, document.pop("header")),
        tools=tuple(_tool(namespace, one) for one in document.pop("tools")),
        folder=folder,
        source=_is(document.pop("source"), str),
        instructions=_optional(document.pop("instructions"), str),
        installed_at=_is(document.pop("installed_at"), str),
        image=_is(document.pop("image"), str),
        described_by=Isolation(document.pop("described_by")),
        packages=_texts(document.pop("packages")),
        agreed=_is(document.pop("agreed", ""), str),
        **document,  # an unknown key raises TypeError
    )


def _header(namespace: str, table: dict[str, Any]) -> SkillHeader:
    floor = table.pop("min_isolation")
    return SkillHeader(
        namespace=namespace,
        requires_python=_is(table.pop("requires_python"), str),
        dependencies=_texts(table.pop("dependencies")),
        network=_texts(table.pop("network")),
        secrets={name: _secret(name, spec) for name, spec in table.pop("secrets").items()},
        memory_mib=_is(table.pop("memory_mib"), int),
        timeout_s=_is(table.pop("timeout_s"), float),
        require_approval=_is(table.pop("require_approval"), bool),
        min_isolation=None if floor is None else Isolation(floor),
        description=_is(table.pop("description"), str),
        examples={name: _texts(given) for name, given in _is(table.pop("examples", {}), dict).items()},
        **table,
    )


def _tool(namespace: str, table: dict[str, Any]) -> Tool:
    return Tool(
        skill=namespace,
        name=_is(table.pop("name"), str),
        description=_is(table.pop("description"), str),
        input_schema=_is(table.pop("input_schema"), dict),
        output_schema=_optional(table.pop("output_schema"), dict),
        require_approval=_is(table.pop("require_approval"), bool),
        time_to_live_s=_is(table.pop("time_to_live_s"), int),
        secrets=_texts(table.pop("secrets")),
        timeout_s=_is(table.pop("timeout_s"), float),
        hints=_hints(table.pop("hints")),
        **table,
    )


def _secret(name: str, table: dict[str, Any]) -> SecretSpec:
    deliver = table.pop("deliver")
    if deliver not in ("stdin", "inject"):
        raise ManifestInvalid("a secret is neither delivered over STDIN nor injected")
    return SecretSpec(
        name=name,
        deliver=deliver,
        host=_optional(table.pop("host"), str),
        header=_optional(table.pop("header"), str),
        format=_optional(table.pop("format"), str),
        description=_is(table.pop("description"), str),
        **table,
    )


def _hints(table: dict[str, Any]) -> ToolHints:
    return ToolHints(
        title=_optional(table.pop("title"), str),
        read_only=_optional(table.pop("read_only"), bool),
        destructive=_optional(table.pop("destructive"), bool),
        idempotent=_optional(table.pop("idempotent"), bool),
        **table,
    )


def _is(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ManifestInvalid(f"a value of the wrong type: {str(value)[:50]!r}")
    return value


def _optional(value: object, kind: type[T]) -> T | None:
    return None if value is None else _is(value, kind)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_is(one, str) for one in _is(value, list))


def _without(table: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name != key}
