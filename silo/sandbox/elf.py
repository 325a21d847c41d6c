"""Which shared libraries an ELF file needs, read from the file (`man 5 elf`). Pure, but `resolve` looks at folders.

`ldd` is not used, because it may run the file. The files may come from an untrusted wheel, so every offset is checked,
and a damaged file counts as one that needs no libraries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
_MAX_DYNAMIC_ENTRIES = 4096


@dataclass(frozen=True)
class Elf:
    """The content of the dynamic section: machine (`e_machine`), needed names, search path, program interpreter."""

    machine: int
    needed: tuple[str, ...]
    search: tuple[str, ...]
    interpreter: str | None


def read(path: Path) -> Elf | None:
    """Parse a 64-bit little-endian ELF file; None for anything else, damaged files included."""
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x7fELF\x02\x01":
                return None
            file.seek(0)
            return _parse(file.read())
    except (OSError, struct.error, ValueError, IndexError, OverflowError):
        return None


def _parse(data: bytes) -> Elf:
    machine = struct.unpack_from("<H", data, 18)[0]
    table = struct.unpack_from("<Q", data, 32)[0]
    entry_size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    interpreter = None
    for index in range(count):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, table + index * entry_size)
        if kind == _PT_LOAD:
            loads.append((address, offset, size))
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, size)
        elif kind == _PT_INTERP:
            interpreter = _string(data, offset)
    if dynamic is None:
        return Elf(machine, (), (), interpreter)
    entries = []
    for index in range(min(dynamic[1] // 16, _MAX_DYNAMIC_ENTRIES)):
        tag, value = struct.unpack_from("<QQ", data, dynamic[0] + index * 16)
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    tags = dict(entries)
    if _DT_STRTAB not in tags:
        return Elf(machine, (), (), interpreter)
    strings = _file_offset(tags[_DT_STRTAB], loads)
    needed = tuple(_string(data, strings + value) for tag, value in entries if tag == _DT_NEEDED)
    path_tag = _DT_RUNPATH if _DT_RUNPATH in tags else _DT_RPATH
    search = tuple(_string(data, strings + tags[path_tag]).split(":")) if path_tag in tags else ()
    return Elf(machine, needed, tuple(part for part in search if part), interpreter)


def _file_offset(address: int, loads: Iterable[tuple[int, int, int]]) -> int:
    for start, offset, size in loads:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(f"address {address:#x} lies in no segment")


def _string(data: bytes, offset: int) -> str:
    end = data.index(b"\0", offset)
    if end - offset > 4096:
        raise ValueError("a name longer than a path may be")
    return data[offset:end].decode()


@dataclass(frozen=True)
class NeededLibrary:
    """A library that is needed, and where it lies on the host."""

    name: str
    path: Path


def closure(
    files: Iterable[Path], have: Iterable[str], system: Mapping[str, Path], *, trust_search: bool
) -> Iterator[NeededLibrary]:
    """Yield each library that `files` need, directly or indirectly, and that is not in `have`.

    Args:
        files: ELF files; other files are ignored.
        have: file names of libraries that the image has already.
        system: the host's libraries by name, as its loader would find them (see `parse_ldconfig`).
        trust_search: whether a file's own search path (DT_RUNPATH) may name folders of the host. Never for files from a
            wheel: one could name `/home/you/.ssh` there and get your key into its image as a "library".
    """
    names = set(have)
    queue = list(files)
    while queue:
        file = queue.pop()
        elf = read(file)
        if elf is None:
            continue
        for name in elf.needed:
            if name in names or "/" in name:
                continue
            path = (_searched(name, elf, file) if trust_search else None) or system.get(name)
            if path is None:
                continue  # the loader in the guest will report it, in words that a skill's author knows
            names.add(name)
            queue.append(path)
            yield NeededLibrary(name, path)


def _searched(name: str, elf: Elf, file: Path) -> Path | None:
    origin = str(file.parent)
    for folder in elf.search:
        candidate = Path(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)) / name
        if candidate.is_file():
            return candidate
    return None


def parse_ldconfig(text: str, machine_tag: str) -> dict[str, Path]:
    """Parse `ldconfig -p` into name → path, first entry first, as the loader does (`man 8 ldconfig`).

    Args:
        text: the output of `ldconfig -p`.
        machine_tag: the word that marks this machine's libraries, e.g. `x86-64` or `AArch64`.
    """
    found: dict[str, Path] = {}
    for line in text.splitlines()[1:]:
        name, bracket, rest = line.strip().partition(" (")
        kind, arrow, path = rest.partition(") => ")
        if bracket and arrow and machine_tag in kind:
            found.setdefault(name, Path(path))
    return found
