"""Locks of skills: uv makes and checks them, and silo rewrites them without addresses of package indexes.

A lock from uv has the addresses of the index with which it was made. Users have their own mirrors, and the digest of a
skill must not depend on them. So a *normalised* lock keeps names, versions, markers and hashes, and the installation
gets the files with those hashes from the user's own index. `silo.catalog.environment` installs.

uv never sees the script. It gets a script that only has the checked header, so that both read the same header.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from silo.catalog.uv import Uv, failure
from silo.errors import DependencyUnavailable, LockDrift
from silo.model import Interpreter, SkillHeader

PLACEHOLDER: Final = "https://index.invalid/simple"
"""Replaces the user's package index; `.invalid` never resolves (RFC 2606 §2)."""

MAX_LOCK_BYTES: Final = 8 * 1024 * 1024
MAX_PACKAGES: Final = 1000

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]{1,100}")
_WHEEL = re.compile(r"[A-Za-z0-9.!+_-]{1,300}\.whl")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_PLAIN = re.compile(r"[ -!#-\[\]-~]*")
# Printable ASCII without `"` and `\`: enough for a marker or a specifier, and safe between quotes.


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock.

    Attributes:
        wheels: the file names of its wheels, for any platform.
        sdist: `sha256:…` of its source distribution; empty if there is none.
    """

    name: str
    version: str
    wheels: tuple[str, ...] = ()
    sdist: str = ""


@dataclass(frozen=True)
class Lock:
    """A normalised lock.

    Attributes:
        text: TOML in uv's format, without any address; the same bytes for the same content.
        packages: all packages of the lock, for any platform, sorted.
    """

    text: str
    packages: tuple[LockedPackage, ...]


@dataclass(frozen=True)
class Requirements:
    """The packages of a lock that this machine needs.

    Attributes:
        text: for `uv pip install -r`, each with its hashes.
        packages: `name==version` of the packages whose markers match the interpreter, sorted.
        unbuilt: those without a wheel for this machine, which must be built.
    """

    text: str
    packages: tuple[str, ...]
    unbuilt: tuple[str, ...]

    def with_wheels(self, wheels: Mapping[str, Path]) -> Requirements:
        """Return the same requirements, with these files in place of what the lock has for packages that were built.

        Args:
            wheels: by `name==version`.
        """
        lines = []
        for line in self.text.replace("\\\n", " ").splitlines():
            package = line.split(";", 1)[0].split(" --hash=", 1)[0].strip()
            if package not in wheels:
                lines.append(line)
                continue
            requirement = Requirement(line.split(" --hash=", 1)[0].strip())
            wheel = wheels[package]
            marker = f" ; {requirement.marker}" if requirement.marker is not None else ""
            lines.append(f"{requirement.name} @ {wheel.as_uri()}{marker} --hash={_sha256(wheel)}")
        unbuilt = tuple(one for one in self.unbuilt if one not in wheels)
        return Requirements("".join(f"{line}\n" for line in lines), self.packages, unbuilt)


@dataclass(frozen=True)
class WheelsMissing:
    """A resolution failed because packages have no wheel, and nothing may be built to read their metadata.

    Attributes:
        names: the packages that uv names.
        error: the failure, for a person.
    """

    names: tuple[str, ...]
    error: DependencyUnavailable


def normalise(
    text: str, *, hash_file: Callable[[Path], str] | None = None, sdists: Mapping[str, str] | None = None
) -> Lock:
    """Parse a lock strictly and write it again without addresses. `normalise(x).text` is a fixed point.

    Args:
        text: a lock from uv or from this function.
        hash_file: returns `sha256:…` of a local file if uv recorded none (`--find-links`); None refuses such entries.
        sdists: `sha256:…` of source distributions by `name==version`; the lock gets them in place of the wheels that
            stood for them.

    Raises:
        LockDrift: the text isn't a lock of uv, has an unknown version, or takes a package from elsewhere than an index.
    """
    if len(text) > MAX_LOCK_BYTES:
        raise _bad(f"has more than {MAX_LOCK_BYTES} characters")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"is not TOML: {error}") from error
    return _Normaliser(hash_file, sdists or {}).lock(document)


async def make_lock(header: SkillHeader, interpreter: Interpreter, uv: Uv) -> Lock:
    """As `resolve`, for dependencies that all have wheels.

    Raises:
        DependencyUnavailable: as `resolve`, or a package has no wheel.
    """
    found = await resolve(header, interpreter, uv)
    if isinstance(found, WheelsMissing):
        raise found.error
    return found


async def resolve(
    header: SkillHeader,
    interpreter: Interpreter,
    uv: Uv,
    *,
    links: Path | None = None,
    sdists: Mapping[str, str] | None = None,
) -> Lock | WheelsMissing:
    """Resolve the dependencies with the user's package index; nothing is written to the skill's folder.

    Nothing is built, so that no code of a package runs. Where a package has only a source distribution, this says so.

    Args:
        header: has the dependencies.
        interpreter: fits `requires-python`.
        uv: knows the user's index.
        links: a folder of wheels that stand for source distributions: they have the metadata.
        sdists: `sha256:…` of these source distributions by `name==version`, for the lock.

    Raises:
        DependencyUnavailable: uv failed for another reason; the message has it.
    """
    with tempfile.TemporaryDirectory(prefix="silo-lock-") as folder:
        script = _stage(Path(folder), header)
        done = await uv.run(
            ["lock", "--script", str(script), *_python(interpreter), "--no-build"]
            + ([] if links is None else ["--find-links", str(links)]),
            timeout_s=600,
        )
        if done.status != 0:
            error = failure(done, doing=f"can't resolve the dependencies of '{header.namespace}'")
            names = tuple(sorted({found.lower() for found in _WHEEL_REQUIRED.findall(done.stderr)}))
            if not names:
                raise error
            return WheelsMissing(names, error)
        try:
            return normalise(_lock_of(script).read_text(encoding="utf-8"), hash_file=_sha256, sdists=sdists)
        except LockDrift as error:
            raise DependencyUnavailable(error.message, hint="use a package index that publishes hashes") from error


async def check_lock(lock: Lock, header: SkillHeader, interpreter: Interpreter, uv: Uv) -> None:
    """Check, without any network, that a lock is for this header.

    Raises:
        LockDrift: the lock is for other requirements, or another `requires-python`; the message has the difference if
            it is known.
    """
    with tempfile.TemporaryDirectory(prefix="silo-lock-") as folder:
        script = _stage(Path(folder), header, lock)
        done = await uv.run(
            # If the lock doesn't fit, uv resolves again, and would build what its cache has.
            ["lock", "--check", "--no-build", "--script", str(script), *_python(interpreter)],
            timeout_s=60,
            settings=False,
        )
    if done.status != 0:
        raise LockDrift(f"the lock does not fit the header: {_difference(lock, header)}", hint=_RELOCK)


async def read_requirements(lock: Lock, header: SkillHeader, interpreter: Interpreter, uv: Uv) -> Requirements:
    """Return the packages of a lock that this interpreter needs, without any network.

    Raises:
        LockDrift: uv can't use the lock.
    """
    with tempfile.TemporaryDirectory(prefix="silo-lock-") as folder:
        script = _stage(Path(folder), header, lock)
        done = await uv.run(
            ["export", "--frozen", "--script", str(script), *_python(interpreter), *_EXPORT],
            timeout_s=60,
            settings=False,
        )
    if done.status != 0:
        raise LockDrift(f"uv can't use the lock: {failure(done, doing='uv export').message}", hint=_RELOCK)
    return _applicable(done.stdout, lock, interpreter)


# --- normalising ------------------------------------------------------------------------------------------------------

_WHEEL_REQUIRED = re.compile(r"Wheels are required for `([A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*)` because")
"""uv's hint under `--no-build`. If a later uv words it differently, nothing is found and nothing is built."""

_EXPORT = ("--no-build", "--format", "requirements.txt", "--no-header", "--no-annotate")
_RELOCK = "make a new one with `uv lock --script skill.py`, or delete it: silo makes one when it installs"


def _bad(what: str) -> LockDrift:
    return LockDrift(f"the lock {what}", hint=_RELOCK)


class _Normaliser:
    """Reads the tables of a lock one by one; drops unknown keys, and refuses invalid values of known ones."""

    def __init__(self, hash_file: Callable[[Path], str] | None, sdists: Mapping[str, str]) -> None:
        self._hash_file = hash_file
        self._sdists = sdists

    def lock(self, document: Mapping[str, Any]) -> Lock:
        if document.get("version") != 1:
            raise _bad(f"has the version {document.get('version')!r}; this silo knows 1")
        revision = document.get("revision", 0)
        if type(revision) is not int or not 0 <= revision < 1000:
            raise _bad("has a 'revision' that is not a number")
        packages = sorted(
            self._list(document, "package", dict), key=lambda one: (str(one.get("name")), str(one.get("version")))
        )
        if len(packages) > MAX_PACKAGES:
            raise _bad(f"names more than {MAX_PACKAGES} packages")
        parts = [
            f"version = 1\nrevision = {revision}\n",
            f"requires-python = {self._text(document, 'requires-python')}\n",
            self._markers(document),
            "\n[manifest]\n",
            self._array("requirements", [self._requirement(one) for one in self._manifest(document)]),
        ]
        known: dict[tuple[str, str], LockedPackage] = {}
        for table in packages:
            package, text = self._package(table)
            if (package.name, package.version) in known:
                raise _bad(f"names {package.name}=={package.version} twice")
            known[package.name, package.version] = package
            parts.append(text)
        return Lock("".join(parts), tuple(known.values()))

    def _manifest(self, document: Mapping[str, Any]) -> list[Any]:
        manifest = document.get("manifest", {})
        if not isinstance(manifest, dict):
            raise _bad("has a 'manifest' that is not a table")
        return sorted(
            self._list(manifest, "requirements", dict),
            key=lambda one: (str(one.get("name")), json.dumps(one, sort_keys=True, default=str)),
        )

    def _requirement(self, table: Mapping[str, Any]) -> str:
        for key in table:
            if key not in ("name", "extras", "specifier", "marker"):
                raise _bad(f"takes a requirement from elsewhere than a package index ('{key}')")
        return self._inline(table, names=("name",), lists=("extras",), texts=("specifier", "marker"))

    def _package(self, table: Mapping[str, Any]) -> tuple[LockedPackage, str]:
        name, version = table.get("name"), table.get("version")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _bad("has a package without a proper name")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise _bad(f"has no proper version of {name}")
        self._require_registry(table, name)
        wheels = sorted({self._wheel(one, name) for one in self._list(table, "wheels", dict)})
        sdist = table.get("sdist")
        if (known := self._sdists.get(f"{name}=={version}")) is not None:
            wheels, sdist = [], {"hash": known}
        if not wheels and sdist is None:
            raise _bad(f"has no file of {name}")
        lines = [
            "\n[[package]]\n",
            f'name = "{name}"\nversion = "{version}"\nsource = {{ registry = "{PLACEHOLDER}" }}\n',
            self._markers(table),
            self._array("dependencies", self._dependencies(table, "dependencies")),
        ]
        sdist_hash = ""
        if sdist is not None:
            if not isinstance(sdist, dict):
                raise _bad(f"has an 'sdist' of {name} that is not a table")
            sdist_hash = self._hash(sdist, name)
            lines.append(f'sdist = {{ hash = "{sdist_hash}" }}\n')
        lines.append(
            self._array("wheels", [f'{{ filename = "{file}", hash = "{digest}" }}' for file, digest in wheels])
        )
        extras = table.get("optional-dependencies", {})
        if not isinstance(extras, dict) or not all(_NAME.fullmatch(extra) for extra in extras):
            raise _bad(f"has wrong optional dependencies of {name}")
        if extras:
            lines.append("\n[package.optional-dependencies]\n")
            lines += [self._array(extra, self._dependencies(extras, extra)) for extra in sorted(extras)]
        return LockedPackage(name, version, tuple(file for file, _ in wheels), sdist_hash), "".join(lines)

    def _dependencies(self, table: Mapping[str, Any], key: str) -> list[str]:
        found = []
        for one in self._list(table, key, dict):
            text = self._inline(one, names=("name",), lists=("extra",), texts=("version", "marker"))
            if "source" in one:
                self._require_registry(one, str(one["name"]))
                text = f'{text.removesuffix(" }")}, source = {{ registry = "{PLACEHOLDER}" }} }}'
            found.append(text)
        return found

    def _require_registry(self, table: Mapping[str, Any], name: str) -> None:
        source = table.get("source")
        if not isinstance(source, dict) or set(source) != {"registry"} or not isinstance(source["registry"], str):
            kind = "/".join(source) if isinstance(source, dict) else "nowhere"
            raise _bad(f"takes {name} from elsewhere than a package index ('{kind}')")

    def _wheel(self, table: Mapping[str, Any], name: str) -> tuple[str, str]:
        for key in ("filename", "url", "path"):
            if isinstance(where := table.get(key), str):
                filename = where if key == "filename" else unquote(urlsplit(where).path).rsplit("/", 1)[-1]
                if not _WHEEL.fullmatch(filename):
                    break
                return filename, self._hash(table, name)
        raise _bad(f"has a wheel of {name} without a proper file name")

    def _hash(self, table: Mapping[str, Any], name: str) -> str:
        value = table.get("hash")
        if value is None and self._hash_file is not None and isinstance(path := table.get("path"), str):
            value = self._hash_file(Path(path))
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise _bad(f"has no SHA-256 for a file of {name}")
        return value

    # Values.

    def _list(self, table: Mapping[str, Any], key: str, kind: type) -> list[Any]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
            raise _bad(f"has a '{key}' that is not a list of the right kind")
        return value

    def _text(self, table: Mapping[str, Any], key: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not _PLAIN.fullmatch(value):
            raise _bad(f"has no proper '{key}'")
        return f'"{value}"'

    def _markers(self, table: Mapping[str, Any]) -> str:
        key = "resolution-markers"
        return self._array(key, [self._text({key: one}, key) for one in self._list(table, key, str)])

    def _inline(
        self, table: Mapping[str, Any], *, names: Sequence[str], lists: Sequence[str], texts: Sequence[str]
    ) -> str:
        parts = []
        for key in names:
            if not _NAME.fullmatch(str(table.get(key))):
                raise _bad(f"has an entry without a proper '{key}'")
            parts.append(f"{key} = {self._text(table, key)}")
        for key in lists:
            if key in table:
                values = [self._text({key: one}, key) for one in self._list(table, key, str)]
                parts.append(f"{key} = [{', '.join(values)}]")
        parts += [f"{key} = {self._text(table, key)}" for key in texts if key in table]
        return f"{{ {', '.join(parts)} }}"

    def _array(self, key: str, items: Sequence[str]) -> str:
        if not items:
            return ""
        return f"{key} = [\n" + "".join(f"    {item},\n" for item in items) + "]\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


# --- input and output of uv -------------------------------------------------------------------------------------------


def _stage(folder: Path, header: SkillHeader, lock: Lock | None = None) -> Path:
    script = folder / "skill.py"
    dependencies = ", ".join(_toml_string(one) for one in header.dependencies)
    script.write_text(
        f"# /// script\n# requires-python = {_toml_string(header.requires_python)}\n"
        f"# dependencies = [{dependencies}]\n# ///\n",
        encoding="utf-8",
    )
    if lock is not None:
        _lock_of(script).write_text(lock.text, encoding="utf-8")
    return script


def _toml_string(value: str) -> str:
    # A JSON string is a TOML basic string, except for DEL (TOML 1.0, "String").
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _lock_of(script: Path) -> Path:
    return script.with_name(script.name + ".lock")


def _python(interpreter: Interpreter) -> list[str]:
    return ["--python", str(interpreter.executable)]


def _applicable(exported: str, lock: Lock, interpreter: Interpreter) -> Requirements:
    environment: dict[str, str] = {key: str(value) for key, value in default_environment().items()}
    environment["python_full_version"] = environment["implementation_version"] = interpreter.version
    environment["python_version"] = ".".join(interpreter.version.split(".")[:2])
    environment["implementation_name"], environment["platform_python_implementation"] = "cpython", "CPython"
    tags = _tags(interpreter)
    without_wheel = {(one.name, one.version) for one in lock.packages if not _has_wheel_for(one, tags)}
    packages, unbuilt = [], []
    for line in exported.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        try:
            requirement = Requirement(line.split(" --hash=", 1)[0].strip())
        except InvalidRequirement as error:
            raise _bad(f"came back from uv with a line that isn't a requirement: {line[:200]}") from error
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name, version = requirement.name, str(requirement.specifier).removeprefix("==")
        packages.append(f"{name}=={version}")
        if (name, version) in without_wheel:
            unbuilt.append(f"{name}=={version}")
    return Requirements(exported, tuple(sorted(packages)), tuple(sorted(unbuilt)))


def _tags(interpreter: Interpreter) -> frozenset[Tag]:
    major, minor, *_ = (int(part) for part in interpreter.version.split("."))
    own = cpython_tags((major, minor))
    return frozenset([*own, *compatible_tags((major, minor), f"cp{major}{minor}")])


def _has_wheel_for(package: LockedPackage, tags: frozenset[Tag]) -> bool:
    for file in package.wheels:
        try:
            if not tags.isdisjoint(parse_wheel_filename(file)[3]):
                return True
        except InvalidWheelFilename:
            continue
    return False


def _difference(lock: Lock, header: SkillHeader) -> str:
    """Describe the difference between lock and header for a person; uv has found that they differ."""
    document = tomllib.loads(lock.text)
    locked = {one["name"] for one in document["manifest"].get("requirements", [])}
    wanted = {re.sub(r"[-_.]+", "-", Requirement(one).name).lower() for one in header.dependencies}
    told = []
    if missing := sorted(wanted - locked):
        told.append(f"it lacks {', '.join(missing)}")
    if extra := sorted(locked - wanted):
        told.append(f"it has {', '.join(extra)} beyond the header")
    if not told and document["requires-python"].replace(" ", "") != header.requires_python.replace(" ", ""):
        told.append(f"it is for Python {document['requires-python']}, the header for {header.requires_python}")
    return "; ".join(told) or "the header asks for other versions"
