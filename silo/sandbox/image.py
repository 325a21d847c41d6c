"""Images: the trees of files that guests are made of, content-addressed, built once and never changed.

Three images make a guest: the *base* (an interpreter of the host and what it needs), the *layer* of one skill (its
script and its locked environment), and the *runtime* (the guest's side of this version of silo). Each is a folder
`tree/`, with an ext4 file beside it once a microVM needed it. `silo.catalog` decides what goes into a skill's
environment; nothing here runs its code.
"""

from __future__ import annotations

import compileall
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from py_compile import PycInvalidationMode

import anyio.to_thread

from silo.errors import SandboxBroken
from silo.model import Interpreter
from silo.sandbox import elf
from silo.sandbox.base import Image, OnStep
from silo.sandbox.build_cache import BuildCache
from silo.sizes import MIB

_SILO = Path(__file__).resolve().parent.parent

_FORMAT = "silo-image-v1"
"""Part of every digest; incremented if the same inputs give another tree."""

GUEST_PREFIX = "opt/python"
_STDLIB_WITHOUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip", "lib2to3"}
)
_DYNLOAD_WITHOUT = ("_tkinter", "_test", "_ctypes_test", "xxlimited", "_xxtestfuzz")
_RUNTIME_PARTS = ("__init__.py", "version.py", "sdk", "wire", "guest")
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS
)
_LDCONFIG_TAGS = {"x86_64": "x86-64", "aarch64": "AArch64"}

_STAGING = ".staging-"
_MAKING = ".disk.ext4."

_DISK_SPARE = 1.15
"""Room for ext4's own tables, beyond the sum of the file sizes; `mke2fs -d` fails if it is too little."""


Filler = Callable[[Path], None]


class Images:
    """The images under one folder. Safe to use from several processes: each image is built once, under a lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache = BuildCache(folder)
        # The files of a running silo do not change; reading them for each call would cost milliseconds.
        self._runtimes: dict[str, Image] = {}

    async def base(self, interpreter: Interpreter, on_step: OnStep) -> Image:
        """Return the base image for an interpreter, building it if this is the first time.

        Raises:
            SandboxBroken: the disk is full, or the interpreter's files can't be read.
        """
        digest = _base_digest(interpreter)
        image = self.find("base", digest)
        if image is None:
            on_step(f"building the base image for Python {interpreter.version}")
            image = await anyio.to_thread.run_sync(
                lambda: self._build("base", digest, lambda tree: _fill_base(tree, interpreter))
            )
        return image

    async def layer(self, digest: str, staged: Path, base: Image) -> Image:
        """Make the layer image of a skill from `staged`, which is moved.

        Args:
            digest: identifies the skill (script and lock), as in `Skill.digest`.
            staged: a folder on the same file system with `skill.py` and `env/`.
            base: the image below, whose libraries need no second copy.
        """
        full = _digest("layer", digest, base.digest)

        def fill(tree: Path) -> None:
            _take_over(staged, tree)
            _add_libraries(tree, base)

        found = self.find("layer", full)
        if found is not None:
            return found
        return await anyio.to_thread.run_sync(lambda: self._build("layer", full, fill))

    async def runtime(self, interpreter_version: str) -> Image:
        """Return the image with the guest's side of this silo, compiled for an interpreter version such as `3.11.7`."""
        minor = ".".join(interpreter_version.split(".")[:2])
        known = self._runtimes.get(minor)
        if known is not None and known.tree.is_dir():
            return known
        found = self._runtimes[minor] = await anyio.to_thread.run_sync(self._build_runtime, minor)
        return found

    def _build_runtime(self, minor: str) -> Image:
        digest = _digest("runtime", minor, *_runtime_contents(_SILO))
        return self.find("runtime", digest) or self._build(
            "runtime", digest, lambda tree: _fill_runtime(tree, _SILO, minor)
        )

    def find(self, kind: str, digest: str) -> Image | None:
        """Return the image if it exists and is complete."""
        tree = self._folder / f"{kind}-{digest[:32]}" / "tree"
        return Image(digest, tree) if tree.is_dir() else None

    def staging(self) -> Path:
        """Make a new folder beside the images, for the files of a layer. The caller passes it to `layer` or deletes it.

        The stage of its install (`silo.catalog.store.SkillStore.stage`) marks it as in use.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._folder))

    def disk(self, image: Image) -> Path:
        """Return the ext4 file of an image; made at first use. Blocks.

        Raises:
            SandboxBroken: `mke2fs` is missing or failed.
        """
        if image.disk.is_file():
            return image.disk
        with self._cache.locked(image.tree.parent.name):
            if not image.disk.is_file():
                _make_ext4(image.tree, image.disk)
        return image.disk

    def prune(self, keep: Iterable[str]) -> list[Path]:
        """Delete layers whose digests aren't in `keep`, and leftovers of killed processes; return the layers.

        Call this only while no install is under way (`silo.catalog.store.SkillStore.no_install_in_progress`): its layer
        is in no record yet, and its staging folder would be taken for an abandoned one. Bases and runtimes stay: any
        skill may need them, and there are few.
        """
        for staged in self._folder.glob(f"{_STAGING}*"):
            _delete(staged)
        wanted = {f"layer-{digest[:32]}" for digest in keep}
        names = self._cache.names()
        unwanted = [name for name in names if name.startswith("layer-") and name not in wanted]
        gone = [self._folder / name for name in unwanted if self._cache.discard(name)]
        for name in names:
            if disks := list((self._folder / name).glob(f"{_MAKING}*")):
                with self._cache.try_locked(name) as is_held:
                    for disk in disks if is_held else ():
                        disk.unlink(missing_ok=True)
        self._cache.sweep()
        return gone

    def _build(self, kind: str, digest: str, fill: Filler) -> Image:
        name = f"{kind}-{digest[:32]}"
        with self._cache.locked(name):
            found = self.find(kind, digest)
            if found is not None:
                return found
            building = self._cache.building(name)
            try:
                tree = building / "tree"
                tree.mkdir(mode=0o755)
                fill(tree)
                building.chmod(0o755)
                building.rename(self._folder / name)
            except OSError as error:
                raise SandboxBroken(
                    f"cannot build the image in {self._folder}: {_first_reason(error)}",
                    hint="look at the free space and the permissions of that folder, then try again",
                ) from error
            finally:
                _delete(building)
        return Image(digest, self._folder / name / "tree")


def _digest(*parts: str) -> str:
    whole = sha256()
    for part in (_FORMAT, platform.machine(), *parts):
        data = part.encode()
        whole.update(len(data).to_bytes(8) + data)
    return whole.hexdigest()


def _first_reason(error: OSError) -> str:
    """Say why in one line.

    `shutil.copytree` goes on after a failure and then lists them all, thousands on a full disk.
    """
    if isinstance(error, shutil.Error) and isinstance(failures := error.args[0], list) and failures:
        return str(failures[0][2])
    return str(error)


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


# --- the base ---------------------------------------------------------------------------------------------------------


def _base_digest(interpreter: Interpreter) -> str:
    """Fingerprint the host's interpreter: a change shows in its file and in its standard library's folder."""
    stamps = []
    for path in (interpreter.executable, interpreter.stdlib, interpreter.platstdlib / "lib-dynload"):
        found = path.stat()
        stamps.append(f"{path}:{found.st_size}:{found.st_mtime_ns}")
    return _digest("base", interpreter.version, interpreter.abi, *stamps)


def _fill_base(tree: Path, interpreter: Interpreter) -> None:
    minor = ".".join(interpreter.version.split(".")[:2])
    lib = tree / "usr/lib"
    for folder in ("usr/bin", "usr/lib", "etc/ssl/certs", f"{GUEST_PREFIX}/bin", f"{GUEST_PREFIX}/lib"):
        (tree / folder).mkdir(parents=True)
    for mount in ("dev", "proc", "sys", "tmp", "skill", "runtime"):
        (tree / mount).mkdir()
    for name, target in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib"), ("usr/lib64", "lib")):
        (tree / name).symlink_to(target)
    (tree / "usr/lib" / f"{platform.machine()}-linux-gnu").symlink_to(".")
    executable = tree / GUEST_PREFIX / "bin/python3"
    shutil.copy2(interpreter.executable, executable)
    executable.chmod(0o755)
    (tree / "usr/bin/python3").symlink_to(f"/{GUEST_PREFIX}/bin/python3")
    stdlib = tree / GUEST_PREFIX / "lib" / f"python{minor}"
    _copy_tree(interpreter.stdlib, stdlib)
    dynload = stdlib / "lib-dynload"
    if not dynload.is_dir() and (interpreter.platstdlib / "lib-dynload").is_dir():
        _copy_tree(interpreter.platstdlib / "lib-dynload", dynload)
    binaries = [interpreter.executable, *_binaries(interpreter.platstdlib / "lib-dynload")]
    for found in elf.closure(binaries, (), _system_libraries(), trust_search=True):
        shutil.copyfile(found.path, lib / found.name)
        (lib / found.name).chmod(0o755)
    loader = elf.read(interpreter.executable)
    if loader is not None and loader.interpreter is not None:
        name = Path(loader.interpreter).name
        shutil.copyfile(loader.interpreter, lib / name)
        (lib / name).chmod(0o755)
    _add_etc(tree)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a part of the standard library with its timestamps, because compiled files are checked against them."""

    def ignore(folder: str, names: list[str]) -> set[str]:
        dropped = {name for name in names if name in _STDLIB_WITHOUT or name.startswith("config-")}
        dropped |= {name for name in names if name.endswith((".opt-1.pyc", ".opt-2.pyc", ".a"))}
        if Path(folder).name == "lib-dynload":
            dropped |= {name for name in names if name.startswith(_DYNLOAD_WITHOUT)}
        return dropped

    shutil.copytree(source, target, ignore=ignore, symlinks=False, ignore_dangling_symlinks=True)


def _add_etc(tree: Path) -> None:
    etc = tree / "etc"
    (etc / "passwd").write_text("root:x:0:0:root:/:/usr/sbin/nologin\nskill:x:1000:1000:skill:/tmp:/usr/sbin/nologin\n")
    (etc / "group").write_text("root:x:0:\nskill:x:1000:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (etc / "resolv.conf").write_text("")
    for bundle in map(Path, _CA_BUNDLES):
        if bundle.is_file():
            shutil.copyfile(bundle, etc / "ssl/certs/ca-certificates.crt")
            (etc / "ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
            break
    zones = Path("/usr/share/zoneinfo")
    if zones.is_dir():
        shutil.copytree(
            zones,
            tree / "usr/share/zoneinfo",
            ignore=shutil.ignore_patterns("right", "posix", "localtime"),
            symlinks=True,
        )


def _system_libraries() -> dict[str, Path]:
    """Return the host's shared libraries by name, from the loader's cache; empty without glibc."""
    command = shutil.which("ldconfig", path="/sbin:/usr/sbin:/usr/bin")
    tag = _LDCONFIG_TAGS.get(platform.machine())
    if command is None or tag is None:
        return {}
    listing = subprocess.run([command, "-p"], capture_output=True, text=True, check=False, env={})
    return elf.parse_ldconfig(listing.stdout, tag)


def _binaries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.so*") if p.is_file() and not p.is_symlink())


# --- the layer of a skill ---------------------------------------------------------------------------------------------


def _take_over(staged: Path, tree: Path) -> None:
    tree.rmdir()
    staged.rename(tree)


def _add_libraries(tree: Path, base: Image) -> None:
    """Copy the system libraries that the skill's wheels need and the base does not have (e.g. `libstdc++`)."""
    binaries = _binaries(tree / "env")
    have = {path.name for path in binaries} | {entry.name for entry in (base.tree / "usr/lib").iterdir()}
    lib = tree / "lib"
    lib.mkdir(exist_ok=True)
    for found in elf.closure(binaries, have, _system_libraries(), trust_search=False):
        shutil.copyfile(found.path, lib / found.name)
        (lib / found.name).chmod(0o755)


# --- the runtime ------------------------------------------------------------------------------------------------------


def _runtime_files(source: Path) -> list[Path]:
    files: list[Path] = []
    for part in _RUNTIME_PARTS:
        path = source / part
        files.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path])
    return files


def _runtime_contents(source: Path) -> Iterator[str]:
    for file in _runtime_files(source):
        yield str(file.relative_to(source))
        yield file.read_text()


def _fill_runtime(tree: Path, source: Path, minor: str) -> None:
    for file in _runtime_files(source):
        target = tree / "silo" / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if minor == ".".join(map(str, sys.version_info[:2])):
        # Under another version, the guest compiles the files itself, which costs its template some tenths of a second.
        compileall.compile_dir(
            tree,
            quiet=1,
            stripdir=str(tree),
            prependdir="/runtime",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )


# --- ext4 -------------------------------------------------------------------------------------------------------------


def _make_ext4(tree: Path, disk: Path) -> None:
    """Write `tree` as an ext4 file without a journal; `mke2fs -d` needs no privilege (`man 8 mke2fs`)."""
    command = shutil.which("mke2fs", path="/sbin:/usr/sbin:/usr/bin:/opt/homebrew/opt/e2fsprogs/sbin")
    if command is None:
        raise SandboxBroken("mke2fs is missing", hint="install the package e2fsprogs, or run `silo setup`")
    entries = list(tree.rglob("*"))
    size = sum(-(-p.lstat().st_size // 4096) * 4096 for p in entries if not p.is_dir()) + len(entries) * 512
    blocks = int(size * _DISK_SPARE / 4096) + 4 * MIB // 4096
    making = disk.with_name(f"{_MAKING}{os.getpid()}")
    options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256", "-N", str(len(entries) + 64)]
    features = ["-O", "^has_journal,^resize_inode,^huge_file", "-E", "root_owner=0:0,lazy_itable_init=0"]
    try:
        done = subprocess.run(
            [command, *options, *features, "-d", str(tree), str(making), str(blocks)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if done.returncode != 0:
            raise SandboxBroken(
                f"mke2fs failed: {done.stderr.strip()[-300:]}",
                hint="look at the free space of the file system that holds SILO_HOME, then try again",
            )
        making.rename(disk)
    finally:
        making.unlink(missing_ok=True)
