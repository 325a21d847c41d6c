"""What a base image is made of: an interpreter of the host, the libraries that it needs, and a small `/etc`.

The files are those of the host, and the host is updated: each base remembers its sources, and is out of date as soon as
one of them has changed (`silo.sandbox.image.Images.is_current`). `silo.runners.units` then makes a new one before the
next call.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from silo.model import Interpreter
from silo.sandbox import elf
from silo.sandbox.host_files import Stamps, read_stamps, shared_objects, stamp_parts, stamps_of, system_libraries

GUEST_PREFIX: Final = "opt/python"
_STDLIB_WITHOUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip", "lib2to3"}
)
_DYNLOAD_WITHOUT = ("_tkinter", "_test", "_ctypes_test", "xxlimited", "_xxtestfuzz")
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS
)
_ZONES: Final = Path("/usr/share/zoneinfo")


@dataclass(frozen=True)
class BaseSources:
    """The files of the host that a base is made of.

    Attributes:
        interpreter: whose files they are.
        libraries: shared libraries and the program interpreter, by the name that they get in `/usr/lib`.
        stamps: of each source; a folder's time changes when a package replaces a file in it.
    """

    interpreter: Interpreter
    libraries: Mapping[str, Path]
    stamps: Stamps

    @classmethod
    def of(cls, interpreter: Interpreter) -> Self:
        """Look at the host. Reads the ELF files of the interpreter; blocks.

        Raises:
            OSError: a file of the interpreter can't be read.
        """
        libraries = _libraries(interpreter)
        always = [interpreter.executable, interpreter.stdlib, interpreter.platstdlib / "lib-dynload"]
        optional = [path for path in (_ca_bundle(), *_zone_files()) if path is not None]
        return cls(interpreter, libraries, stamps_of([*always, *libraries.values(), *optional]))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the base's digest: two hosts with the same parts make the same base."""
        return self.interpreter.version, self.interpreter.abi, *stamp_parts(self.stamps)

    def to_json(self) -> str:
        """Return the document that lies beside the base's tree; `from_json` reads it."""
        facts = {name: str(value) for name, value in asdict(self.interpreter).items()}
        libraries = {name: str(path) for name, path in self.libraries.items()}
        return json.dumps({"interpreter": facts, "libraries": libraries, "stamps": self.stamps}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the document.

        Raises:
            ValueError, KeyError, TypeError: it is damaged.
        """
        document = json.loads(text)
        facts = document["interpreter"]
        interpreter = Interpreter(
            executable=Path(facts["executable"]),
            version=str(facts["version"]),
            stdlib=Path(facts["stdlib"]),
            platstdlib=Path(facts["platstdlib"]),
            abi=str(facts["abi"]),
        )
        libraries = {str(name): Path(path) for name, path in document["libraries"].items()}
        return cls(interpreter, libraries, read_stamps(document))

    def fill(self, tree: Path) -> None:
        """Copy everything into the empty folder `tree`.

        Raises:
            OSError: the disk is full, or a file can't be read.
        """
        interpreter = self.interpreter
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
        for name, path in self.libraries.items():
            shutil.copyfile(path, lib / name)
            (lib / name).chmod(0o755)
        _add_etc(tree)


def _libraries(interpreter: Interpreter) -> dict[str, Path]:
    files = [interpreter.executable, *shared_objects(interpreter.platstdlib / "lib-dynload")]
    found = {one.name: one.path for one in elf.closure(files, (), system_libraries(), trust_search=True)}
    program = elf.read(interpreter.executable)
    if program is not None and program.interpreter is not None:
        loader = Path(program.interpreter)
        found[loader.name] = loader
    return found


def _ca_bundle() -> Path | None:
    return next((bundle for bundle in map(Path, _CA_BUNDLES) if bundle.is_file()), None)


def _zone_files() -> Iterable[Path]:
    """The folder of the time zones, and the file that has the version of its data."""
    return [path for path in (_ZONES, _ZONES / "tzdata.zi") if path.exists()]


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
    bundle = _ca_bundle()
    if bundle is not None:
        shutil.copyfile(bundle, etc / "ssl/certs/ca-certificates.crt")
        (etc / "ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
    if _ZONES.is_dir():
        shutil.copytree(
            _ZONES,
            tree / "usr/share/zoneinfo",
            ignore=shutil.ignore_patterns("right", "posix", "localtime"),
            symlinks=True,
        )
