"""Find the skill that `silo install` is given, a built-in name or the path of a script, and read its files once.

All later steps use the bytes that are read here, so changing a file meanwhile has no effect. `silo.catalog.header` and
`silo.catalog.lock` check them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from silo.catalog.header import MAX_SCRIPT_BYTES
from silo.catalog.lock import MAX_LOCK_BYTES
from silo.catalog.store import LOCK, MANUAL, SCRIPT
from silo.errors import FileRefused, SkillUnknown
from silo.model import Skill
from silo.names import suggestion
from silo.remedies import command

MAX_MANUAL_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Source:
    """A skill that can be installed.

    Attributes:
        label: `builtin:jwt`, or the absolute path of the script.
        name: the name of its folder or file, which is the namespace if the header has none.
        script: its path. The lock is beside it as `<script>.lock`, a manual as `SKILL.md`.
    """

    label: str
    name: str
    script: Path


@dataclass(frozen=True)
class SourceFiles:
    """The contents of a skill's files, read once. `lock` and `manual` are None if the skill has none."""

    script: bytes
    lock: str | None
    manual: str | None


def builtin_folder() -> Path:
    """Return the folder of built-in skills: in the package of an installed silo, `skills/` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "builtin"
    return installed if installed.is_dir() else package.parent / "skills"


def builtin_sources(folder: Path) -> tuple[Source, ...]:
    """Return the built-in skills, sorted by name."""
    if not folder.is_dir():
        return ()
    scripts = sorted(folder.glob(f"*/{SCRIPT}"))
    return tuple(Source(f"builtin:{script.parent.name}", script.parent.name, script) for script in scripts)


def resolve_source(source: str, *, builtins: Sequence[Source], cwd: Path) -> Source:
    """Find the skill that a person named.

    A bare name means a built-in skill before a folder: a folder in the working directory must not replace it.

    Args:
        source: `jwt` or `builtin:jwt`; a path of a `.py` file, or of a folder with a `skill.py`.
        builtins: from `builtin_sources`.
        cwd: the base of a relative path.

    Raises:
        SkillUnknown: there is no such skill; the hint has the nearest built-in names.
    """
    known = {one.name: one for one in builtins}
    if (name := source.removeprefix("builtin:")) in known:
        return known[name]
    if not source.startswith("builtin:") and (found := _by_path(source, cwd)) is not None:
        return found
    everything = f"built-in are {', '.join(sorted(known)) or 'none'}; or give the path of a .py file"
    raise SkillUnknown(
        f"no built-in skill and no script {source[:200]!r}", hint=suggestion(name, known, otherwise=everything)
    )


def read_source(source: Source) -> SourceFiles:
    """Read a skill's files.

    Raises:
        FileRefused: one of them is not a regular file, too large, unreadable, or (lock and manual) not UTF-8.
    """
    script = _read(source.script, MAX_SCRIPT_BYTES)
    if script is None:
        raise FileRefused(f"{source.script} is gone", hint="was it moved? name it again")
    manual = source.script.with_name(MANUAL) if source.script.name == SCRIPT else None
    return SourceFiles(
        script=script,
        lock=_read_text(source.script.with_name(LOCK if manual else f"{source.script.name}.lock"), MAX_LOCK_BYTES),
        manual=None if manual is None else _read_text(manual, MAX_MANUAL_BYTES),
    )


def _by_path(source: str, cwd: Path) -> Source | None:
    try:
        path = (cwd / Path(source).expanduser()).absolute()
        if (path / SCRIPT).is_file():
            return Source(str(path / SCRIPT), path.resolve().name, path / SCRIPT)
        if path.suffix == ".py" and path.is_file():
            return Source(str(path), path.resolve().parent.name if path.name == SCRIPT else path.stem, path)
        is_folder = path.is_dir()
    except (OSError, ValueError, RuntimeError):
        return None  # too long, has a NUL, `~nobody`, or below an unreadable folder
    if is_folder:
        raise SkillUnknown(
            f"the folder '{source}' has no {SCRIPT}", hint=command("silo init NAME", "{} makes a new skill")
        )
    return None


def _read(path: Path, limit: int) -> bytes | None:
    try:
        # Not blocking: opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileRefused(f"can't read {path}: {error.strerror}", hint="check its owner and mode") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileRefused(f"{path} is not a regular file", hint="a skill is a file on disk")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FileRefused(f"{path} has more than {limit} bytes", hint="move data out of it; a tool can take files")
    return data


def _read_text(path: Path, limit: int) -> str | None:
    data = _read(path, limit)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as error:
        raise FileRefused(f"{path} is not UTF-8 ({error.reason})", hint="save it as UTF-8") from error


def has_changed(skill: Skill) -> bool:
    """Whether the script from which a skill was installed differs now. A script that is gone counts as unchanged.

    silo runs the installed copy, which `silo.catalog.store` checks; this only serves to tell the author who edits the
    original.
    """
    name = skill.source.removeprefix("builtin:")
    source = builtin_folder() / name / SCRIPT if name != skill.source else Path(skill.source)
    try:
        return source.read_bytes() != skill.script.read_bytes()
    except OSError:
        return False
