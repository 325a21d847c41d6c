"""Turns sections of the configuration into the types of the packages that use them. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from silo.calls.files import InputRules
from silo.config.schema import Config, Pattern, Patterns, PolicySection, RouterSection
from silo.policy.patterns import Glob, scalar_text
from silo.policy.rules import Rule, tool_glob
from silo.router.settings import RouterSettings
from silo.sandbox.base import Limits
from silo.sizes import KIB, MIB

T = TypeVar("T")


def rules_of(section: PolicySection) -> tuple[Rule, ...]:
    """Return the user's rules, each named by its place."""
    return tuple(
        Rule(
            f"silo.toml rule {number}",
            rule.verdict,
            tuple(tool_glob(text) for text in _one_or_several(rule.tool)),
            {path: _globs(patterns) for path, patterns in rule.arguments.items()},
            rule.callers,
            rule.reason,
        )
        for number, rule in enumerate(section.rules, 1)
    )


def router_settings(section: RouterSection) -> RouterSettings:
    """Return which parts of the ranking are on."""
    return RouterSettings(semantic=section.semantic, rerank=section.rerank)


def limits_of(config: Config) -> Limits:
    """Return what a guest may send back."""
    return Limits(
        log_bytes=config.call.log_kib * KIB,
        result_bytes=config.call.result_kib * KIB,
        files_bytes=config.call.files_mib * MIB,
    )


def input_rules(config: Config, home: Path) -> InputRules:
    """Return which files calls may get; silo's own state is never among them."""
    return InputRules(config.files.allow_read, config.files.max_mib * MIB, forbidden=(home,))


def kernel_folder(home: Path, config: Config) -> Path:
    """Return where guest kernels lie."""
    return config.sandbox.kernel or home / "kernel"


def _globs(patterns: Patterns) -> tuple[Glob, ...]:
    several: tuple[Pattern, ...] = _one_or_several(patterns)
    return tuple(Glob(scalar_text(one)) for one in several)


def _one_or_several(given: T | tuple[T, ...]) -> tuple[T, ...]:
    return given if isinstance(given, tuple) else (given,)
