"""The store of installed skills: `SILO_HOME/skills`.

    skills/<namespace>/current             a link to the version in use, replaced atomically
    skills/<namespace>/<16 hex digits>/    skill.py, skill.py.lock, SKILL.md (if there is one), manifest.json, its seal
    skills/.locks/<namespace>              flock: one install or removal of a skill at a time
    skills/.locks/.installs                flock: shared by all installs in progress
    skills/.locks/.alone                   flock: one process at a time deletes data that belongs to no skill
    skills/.staging/<namespace>-*/         an install in progress, or an interrupted one
    skills/.removed/<namespace>            which tools of a removed skill needed approval, one a line; `?`: unknown

The seal is an empty file `manifest.json.<16 hex digits>`, with the SHA-256 of the manifest in its name. It reveals a
change by accident or by hand, as the digest does for the script. Anyone who may write here could renew both, so neither
is a signature.

Readers take no lock: they follow `current`, and try again if the version was deleted meanwhile. `silo.sandbox` has
images and templates.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from silo.catalog.digest import skill_digest
from silo.catalog.manifest import ManifestInvalid, decode_manifest, encode_manifest
from silo.errors import SkillChanged, SkillUnknown
from silo.model import Skill, Tool
from silo.names import suggest
from silo.remedies import LIST_SKILLS

if TYPE_CHECKING:
    from silo.catalog.lock import Lock  # importing `packaging` would slow down listing skills

SCRIPT: Final = "skill.py"
LOCK: Final = "skill.py.lock"
MANUAL: Final = "SKILL.md"
MANIFEST: Final = "manifest.json"

UNKNOWN: Final = "?"
"""Stands for the tools of a skill whose record can't be read."""

_CURRENT = "current"
_INSTALLS = ".installs"
_ALONE = ".alone"
_VERSION = re.compile(r"[0-9a-f]{16}")
_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LOOKS = 8
# An attempt fails only if another install was committed meanwhile.
_LOCK_POLL_S = 0.05
# A blocking flock could not be cancelled with Ctrl-C at once, so the store polls.


@dataclass(frozen=True)
class Damaged:
    """An installed skill whose record can't be read, with the reason."""

    namespace: str
    reason: str


Fingerprint = frozenset[tuple[str, int, int]]


def fingerprint(folder: Path) -> Fingerprint:
    """Return a value that changes when a skill under `folder` is installed, replaced or removed.

    A version of a skill counts as soon as the link `current` points to it, so an install in progress changes nothing.
    """
    found = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _NAMESPACE.fullmatch(entry.name):
                    continue
                try:
                    # A Path each would double the cost.
                    link = os.lstat(os.path.join(entry.path, _CURRENT))  # noqa: PTH118
                except OSError:
                    continue
                if stat.S_ISLNK(link.st_mode):
                    found.add((entry.name, link.st_ino, link.st_mtime_ns))
    except FileNotFoundError:  # nothing was ever installed; a folder that can't be read is an error
        return frozenset()
    return frozenset(found)


class SkillStore:
    """The installed skills of one SILO_HOME. Has no state: any number of processes may use the same folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # Reading.

    def namespaces(self) -> tuple[str, ...]:
        """Return the names of all installed skills, sorted, without reading their records."""
        try:
            with os.scandir(self.root) as entries:
                found = [entry.name for entry in entries if _NAMESPACE.fullmatch(entry.name)]
        except FileNotFoundError:
            return ()
        return tuple(sorted(name for name in found if (self.root / name / _CURRENT).is_symlink()))

    def list(self) -> tuple[Skill, ...]:
        """Return all installed skills, sorted by name. Scripts are not read, so they may have changed.

        Damaged skills are left out, so that one of them does not hide all others; `damaged` returns them.
        """
        return self._read_all(self.namespaces())[0]

    def damaged(self) -> tuple[Damaged, ...]:
        """Return the skills that `list` leaves out."""
        return self._read_all(self.namespaces())[1]

    def look(self) -> Fingerprint:
        """Return the fingerprint of the folder."""
        return fingerprint(self.root)

    def read(self, seen: Fingerprint) -> tuple[tuple[Skill, ...], tuple[Damaged, ...]]:
        """Return the skills that `list` and `damaged` return, of those that a look has shown."""
        return self._read_all(sorted(name for name, _, _ in seen))

    def is_current(self, skill: Skill) -> bool:
        """Whether a version of a skill is still the installed one."""
        try:
            return str((self.root / skill.namespace / _CURRENT).readlink()) == skill.folder.name
        except OSError:
            return False

    def get(self, namespace: str) -> Skill:
        """Return an installed skill, after checking that a person agreed to its script and lock.

        Raises:
            SkillUnknown: the skill is not installed; the hint has the nearest names.
            SkillChanged: script, lock or record were changed on disk. The manual is not checked, because it isn't run.
        """
        skill = self._read(namespace)
        if skill is None:
            raise self._unknown(namespace)
        try:
            script = (skill.folder / SCRIPT).read_bytes()
            lock = (skill.folder / LOCK).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            # Either another version has just replaced it, or it is damaged: reading again tells.
            again = self._read(namespace)
            if again is not None and again != skill:
                return self.get(namespace)
            raise _changed(namespace, f"script or lock can't be read ({error})") from error
        if skill_digest(script, lock) != skill.digest:
            raise _changed(namespace, "its script or lock is not the one that was installed")
        return skill

    def unrecorded_digest(self, namespace: str) -> str | None:
        """Return the digest of the script and lock of a skill whose record can't be read; None if it is damaged, too.

        The folder's name has the first 16 digits, so a script that was changed on disk has none.
        """
        try:
            folder = self.root / namespace / (self.root / namespace / _CURRENT).readlink()
            digest = skill_digest((folder / SCRIPT).read_bytes(), (folder / LOCK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return digest if digest[:16] == folder.name else None

    def removed(self, namespace: str) -> tuple[str, ...]:
        """Return the tools that needed a person's approval when a skill of this name was removed.

        They are forgotten when another skill of that name is installed, to which the person agreed who was told of
        them. `UNKNOWN` is among them if the record of the removed skill, or of the removal, can't be read.
        """
        try:
            return tuple((self._removed / namespace).read_text(encoding="utf-8").split())
        except FileNotFoundError:
            return ()
        except (OSError, ValueError):
            return (UNKNOWN,)

    def manual(self, skill: Skill) -> str | None:
        """Return the text of the skill's SKILL.md, or None if it has none."""
        try:
            return (skill.folder / MANUAL).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def folder_of(self, namespace: str, digest: str) -> Path:
        """Return the folder of a version of a skill, installed or not."""
        return self.root / namespace / digest[:16]

    # Writing.

    @asynccontextmanager
    async def stage(self, namespace: str) -> AsyncIterator[Stage]:
        """Begin an install: lock the skill, and make a private folder that is deleted at the end, whatever happens.

        A second install of the same skill waits here. The remains of interrupted installs are deleted first. While the
        stage is open, `no_install_in_progress` yields False.
        """
        _check(namespace)
        async with self._locked(namespace), self._locked(_INSTALLS, fcntl.LOCK_SH):
            await anyio.to_thread.run_sync(self._sweep, namespace)
            folder = self._staging / f"{namespace}-{secrets.token_hex(8)}"
            await anyio.Path(folder).mkdir(mode=0o700)
            try:
                yield Stage(self, namespace, folder)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_delete, folder)

    async def remove(self, namespace: str) -> Skill | None:
        """Remove a skill, damaged or not, and return it (None if its record can't be read).

        Raises:
            SkillUnknown: the skill is not installed.
        """
        if namespace not in self.namespaces():
            raise self._unknown(namespace)
        async with self._locked(namespace):
            if namespace not in self.namespaces():
                raise self._unknown(namespace)
            try:
                skill = self._read(namespace)
            except SkillChanged:
                skill = None
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._remove, namespace, skill)
        return skill

    @asynccontextmanager
    async def no_install_in_progress(self) -> AsyncIterator[bool]:
        """Yield whether no install is in progress; if so, none starts before the context ends.

        For deleting data that belongs to no installed skill: the data of an install in progress is in no record yet,
        and must not be deleted. Callers wait for each other, so that the last one sees the remains of all. They do not
        wait for an install, which calls this itself when it ends.
        """
        async with self._locked(_ALONE):
            with self._try_lock(_INSTALLS) as none_in_progress:
                yield none_in_progress

    def forget_removed(self, namespace: str) -> None:
        """Forget what `removed` returns. Only a commit does that."""
        (self._removed / namespace).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete the remains of interrupted installs and removals; those in progress are not touched."""
        if not self._staging.is_dir():
            return
        found = {path.name.partition("-")[0] for path in self._staging.iterdir()}
        found |= {path.name for path in self.root.iterdir()}
        for namespace in sorted(found):
            if _NAMESPACE.fullmatch(namespace):
                with self._try_lock(namespace) as is_held:
                    if is_held:
                        self._sweep(namespace)

    @property
    def _staging(self) -> Path:
        return self.root / ".staging"

    @property
    def _removed(self) -> Path:
        return self.root / ".removed"

    def _unknown(self, namespace: str) -> SkillUnknown:
        return SkillUnknown(
            f"no skill {namespace[:100]!r} is installed",
            hint=suggest(namespace, self.namespaces(), otherwise=LIST_SKILLS),
        )

    def _read_all(self, namespaces: Sequence[str]) -> tuple[tuple[Skill, ...], tuple[Damaged, ...]]:
        skills, damaged = [], []
        for namespace in namespaces:
            try:
                skill = self._read(namespace)
            except SkillChanged as error:
                damaged.append(Damaged(namespace, error.message))
            else:
                skills += [] if skill is None else [skill]
        return tuple(skills), tuple(damaged)

    def _read(self, namespace: str) -> Skill | None:
        """Read the record of a skill, or return None if there is none."""
        if not _NAMESPACE.fullmatch(namespace):
            return None
        current = self.root / namespace / _CURRENT
        reason = "it keeps changing"
        for _ in range(_LOOKS):
            try:
                version = str(current.readlink())
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _changed(namespace, f"'{_CURRENT}' is not a link ({error.strerror})") from error
            if not _VERSION.fullmatch(version):
                raise _changed(namespace, f"'{_CURRENT}' leads elsewhere")
            folder = self.root / namespace / version
            try:
                manifest = (folder / MANIFEST).read_text(encoding="utf-8")
                skill = decode_manifest(manifest, folder)
            except OSError as error:
                reason = f"its record can't be read ({error.strerror})"
                continue
            except ValueError as error:
                raise _changed(namespace, f"its record can't be read: {error}") from error
            if skill.namespace != namespace or skill.digest[:16] != version:
                raise _changed(namespace, "its record belongs to another skill")
            if (folder / _seal(manifest)).exists():
                return skill
            reason = "its record is not the one that was written"
        raise _changed(namespace, reason)

    def _sweep(self, namespace: str) -> None:
        for folder in self._staging.glob(f"{namespace}-*"):
            _delete(folder)
        # An interrupted commit: before the link pointed at the new version, or before the other versions were deleted.
        home = self.root / namespace
        if not home.is_dir():
            return
        current = home / _CURRENT
        version = str(current.readlink()) if current.is_symlink() else None
        if version is not None and not (_VERSION.fullmatch(version) and (home / version).is_dir()):
            return  # damaged: nothing here can tell which version is the right one
        for path in home.iterdir():
            if _VERSION.fullmatch(path.name) and path.name != version:
                _delete(path)
        if not any(home.iterdir()):
            home.rmdir()

    def _remove(self, namespace: str, skill: Skill | None) -> None:
        # Before the skill goes: after a crash in between, the note is about a skill that is still installed, and only
        # means that a person is asked once more.
        noted = [UNKNOWN] if skill is None else [tool.id for tool in skill.tools if needs_approval(skill, tool)]
        noted = sorted({*noted, *self.removed(namespace)})
        if noted:
            self._removed.mkdir(mode=0o700, exist_ok=True)
            _replace(self._removed / namespace, "".join(f"{one}\n" for one in noted).encode())
        # Renamed atomically, then deleted: after a crash in between, it is uninstalled, and `sweep` deletes the rest.
        aside = self._staging / f"{namespace}-{secrets.token_hex(8)}"
        (self.root / namespace).rename(aside)
        _delete(aside)

    @asynccontextmanager
    async def _locked(self, name: str, how: int = fcntl.LOCK_EX) -> AsyncIterator[None]:
        while True:
            with self._try_lock(name, how) as is_held:
                if is_held:
                    yield
                    return
            await anyio.sleep(_LOCK_POLL_S)

    @contextmanager
    def _try_lock(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
        locks = self.root / ".locks"
        for folder in (self.root, locks, self._staging):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The file is never deleted: two processes could otherwise lock two files of the same name.
        descriptor = os.open(locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                is_held = False
            else:
                is_held = True
            yield is_held
        finally:
            # `close` is not enough: a child between fork and exec has the descriptor too, and would keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


class Stage:
    """An install in progress; see `SkillStore.stage`.

    Attributes:
        folder: private to this install, on the same file system as the store; deleted when the stage ends.
    """

    def __init__(self, store: SkillStore, namespace: str, folder: Path) -> None:
        self._store = store
        self._namespace = namespace
        self.folder = folder

    def commit(self, skill: Skill, *, script: bytes, lock: Lock, manual: str | None) -> None:
        """Install the skill atomically, and delete its other versions.

        Args:
            skill: its `folder` is `SkillStore.folder_of(...)`, its digest that of script and lock.
            script: the content of `skill.py`.
            lock: the content of `skill.py.lock`.
            manual: the content of `SKILL.md`.

        Raises:
            ValueError: the skill is not the staged one, which is a mistake of the caller.
        """
        target = self._store.folder_of(skill.namespace, skill.digest)
        if (skill.namespace, skill.folder) != (self._namespace, target) or skill.digest != skill_digest(
            script, lock.text
        ):
            raise ValueError("the skill is not the one that was staged")
        manifest = encode_manifest(skill)
        try:
            decode_manifest(manifest, target)
        except ManifestInvalid as error:
            raise ValueError(f"the skill can't be recorded: {error}") from error
        files = {SCRIPT: script, LOCK: lock.text.encode()}
        if manual is not None:
            files[MANUAL] = manual.encode()
        # In this order, so that there is a seal for the old and the new manifest while the same version is renewed.
        files[_seal(manifest)] = b""
        files[MANIFEST] = manifest.encode()
        version = self.folder / "version"
        version.mkdir(mode=0o700)
        for name, data in files.items():
            _write(version / name, data)
        _sync(version)
        self._put(version, target, files)
        self._point_at(target)
        for other in target.parent.iterdir():
            if other.name not in (_CURRENT, target.name):
                _delete(other)
        self._store.forget_removed(self._namespace)

    def _put(self, version: Path, target: Path, files: dict[str, bytes]) -> None:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if not target.is_dir():
            version.rename(target)
            _sync(target.parent)
            return
        # The same script and lock again, perhaps damaged: replace file by file, so that readers always find all files.
        for name in files:
            (version / name).replace(target / name)
        for stale in target.iterdir():
            if stale.name not in files:
                _delete(stale)
        _sync(target)

    def _point_at(self, target: Path) -> None:
        link = self.folder / "link"
        link.symlink_to(target.name)
        link.replace(target.parent / _CURRENT)
        _sync(target.parent)


def needs_approval(skill: Skill, tool: Tool) -> bool:
    """Whether skill or tool demands that a person agrees to each call."""
    return skill.header.require_approval or tool.require_approval


def _check(namespace: str) -> None:
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"not a namespace: {namespace!r}")


def _seal(manifest: str) -> str:
    """Return the name of the seal of a manifest."""
    return f"{MANIFEST}.{sha256(manifest.encode()).hexdigest()[:16]}"


def _changed(namespace: str, what: str) -> SkillChanged:
    return SkillChanged(
        f"skill '{namespace}' was changed after it was installed: {what}",
        hint="install it again; if you did not change it, first find out who did",
    )


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write(aside, data)
    aside.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
