"""The JSON documents of `--json` (see `docs/reference/cli.md`), and short texts of the same facts for tables. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silo_vault import VaultStatus

from silo.model import File, Result, SecretSpec, Skill, SkillHeader, Tool
from silo.sandbox.base import Probe

if TYPE_CHECKING:
    from silo_vault import VaultStatus

    from silo.approvals.store import ListedQuestion

Document = dict[str, Any]


def skill_document(skill: Skill) -> Document:
    """Everything that is known about an installed skill."""
    return {
        "namespace": skill.namespace,
        "digest": skill.digest,
        "source": skill.source,
        "folder": str(skill.folder),
        "installed_at": skill.installed_at,
        "described_by": skill.described_by.value,
        "instructions": skill.instructions,
        "packages": list(skill.packages),
        "header": header_document(skill.header),
        "tools": [tool_document(tool) for tool in skill.tools],
    }


def header_document(header: SkillHeader) -> Document:
    """What a skill's header asks for."""
    return {
        "description": header.description,
        "requires_python": header.requires_python,
        "dependencies": list(header.dependencies),
        "network": list(header.network),
        "memory_mib": header.memory_mib,
        "timeout_s": header.timeout_s,
        "require_approval": header.require_approval,
        "min_isolation": None if header.min_isolation is None else header.min_isolation.value,
        "secrets": {name: _secret_document(spec) for name, spec in header.secrets.items()},
        "examples": {name: list(given) for name, given in header.examples.items()},
    }


def tool_document(tool: Tool) -> Document:
    """One tool, with its schemas."""
    return {
        "id": tool.id,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "output_schema": tool.output_schema,
        "require_approval": tool.require_approval,
        "secrets": list(tool.secrets),
        "timeout_s": tool.timeout_s,
        "hints": {
            "title": tool.hints.title,
            "read_only": tool.hints.read_only,
            "destructive": tool.hints.destructive,
            "idempotent": tool.hints.idempotent,
        },
    }


def result_document(tool: str, result: Result, written: Sequence[Path]) -> Document:
    """The result of a call. Files are in it as base64, or as paths if they were written."""
    return {
        "tool": tool,
        "text": result.text,
        "has_data": result.has_data,
        "data": result.data,
        "is_error": result.is_error,
        "files": [_file_document(file, written[i] if written else None) for i, file in enumerate(result.files)],
        "logs": {"stdout": result.logs.stdout, "stderr": result.logs.stderr, "truncated": result.logs.truncated},
        "isolation": result.isolation.value,
        "guest": dict(result.guest),
        "timing": dict(result.timing),
        "truncated": result.truncated,
    }


def probe_document(probe: Probe) -> Document:
    """The findings about one backend."""
    return {
        "isolation": probe.isolation.value,
        "works": probe.works,
        "detail": probe.detail,
        "missing": list(probe.missing),
        "notes": list(probe.notes),
        "hint": probe.hint,
    }


def vault_document(status: VaultStatus, *, has_master_key: bool) -> Document:
    """What is known about the vault without opening it."""
    return {
        "file": str(status.path),
        "exists": status.exists,
        "created": status.created or None,
        "generation": status.generation,
        "should_rotate": status.should_rotate,
        "secrets": status.secrets,
        "keys": [{"kind": slot.kind, "key_id": slot.key_id, "kdf": slot.kdf} for slot in status.keys],
        "master_key": has_master_key,
    }


def question_document(entry: ListedQuestion, now: float) -> Document:
    """What waits for a person, or was decided, without what it asks."""
    posted = entry.posted
    is_waiting = posted.state == "waiting"
    until = posted.expires_at if is_waiting else entry.until
    return {
        "id": posted.id,
        "state": posted.state,
        "tool": entry.subject,
        "title": posted.question.title,
        "who": posted.question.who,
        "wants_secret": None if posted.question.wanted is None else posted.question.wanted.name,
        "asked_at": _time(posted.asked_at),
        "decided_at": None if posted.decided_at is None else _time(posted.decided_at),
        "decided_by": entry.by or None,
        "reason": posted.reason,
        "grace": posted.grace,
        "until": _time(until) if until else None,
        "left_s": max(0, int(until - now)) if until else None,
        "uses": entry.uses,
    }


def first_line(text: str) -> str:
    """The first line of a description, for a table."""
    return text.strip().partition("\n")[0]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _secret_document(spec: SecretSpec) -> Document:
    return {
        "deliver": spec.deliver,
        "description": spec.description,
        "host": spec.host,
        "header": spec.header,
        "format": spec.format,
    }


def _file_document(file: File, path: Path | None) -> Document:
    document: Document = {"name": file.name, "media_type": file.media_type, "size_bytes": file.size}
    if path is None:
        return {**document, "base64": base64.b64encode(file.data).decode()}
    return {**document, "path": str(path)}
