"""What a skill wants and what a new version of it changes, in words, for a person who decides or looks it up. Pure.

`silo inspect` and the question of an install use the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from silo.model import SecretSpec, Skill, SkillHeader


def header_facts(header: SkillHeader, packages: Sequence[str]) -> list[tuple[str, str]]:
    """Return labels and texts of what a skill wants, for a person who is asked to agree or looks it up."""
    facts = [("secret", secret_text(spec)) for spec in header.secrets.values()] or [("secrets", "none")]
    facts += [
        ("network", ", ".join(header.network) or "none"),
        ("limits", f"{header.memory_mib} MiB of memory, {header.timeout_s:g} s for a call"),
        ("approval", "asks a person before every call" if header.require_approval else "as each tool says"),
        ("packages", ", ".join(packages) or "none"),
    ]
    if header.min_isolation is not None:
        facts.append(("isolation", f"at least {header.min_isolation}"))
    if header.examples:
        facts.append(("found by", "\n".join(f"{name}: {_quoted(given)}" for name, given in header.examples.items())))
    return facts


def secret_text(spec: SecretSpec) -> str:
    """One secret, how it is delivered, and how its skill describes it."""
    way = f"injected for {spec.host}" if spec.deliver == "inject" else "handed to the skill over STDIN"
    return f"{spec.name}, {way}" + (f": {spec.description}" if spec.description else "")


def changes(before: Skill, header: SkillHeader, packages: Sequence[str]) -> list[str]:
    """Return what another version of a skill would change, as short sentences. Additions come before removals."""
    old = before.header
    said = [
        *_set_changes("secret", old.secrets, header.secrets),
        *_set_changes("network", dict.fromkeys(old.network), dict.fromkeys(header.network)),
        *_set_changes("package", dict.fromkeys(before.packages), dict.fromkeys(packages)),
    ]
    for name, spec in header.secrets.items():
        if name in old.secrets and secret_text(old.secrets[name]) != secret_text(spec):
            said.append(f"secret {name} was: {secret_text(old.secrets[name])}")
    said += [f"examples of {name} changed" for name in _changed(old.examples, header.examples)]
    for label, was, now in (
        ("memory", f"{old.memory_mib} MiB", f"{header.memory_mib} MiB"),
        ("timeout", f"{old.timeout_s:g} s", f"{header.timeout_s:g} s"),
        ("approval by the header", _yes(old.require_approval), _yes(header.require_approval)),
        ("least isolation", str(old.min_isolation or "the user's"), str(header.min_isolation or "the user's")),
    ):
        if was != now:
            said.append(f"{label}: {was}, now {now}")
    return said


def _changed(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts)


def _set_changes(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    gained = [f"+ {what} {name}" for name in sorted(new.keys() - old.keys())]
    return gained + [f"- {what} {name}" for name in sorted(old.keys() - new.keys())]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
