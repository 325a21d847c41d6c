"""What ELF files need, read from real files and from hostile ones, which cause no crash and get no file of the host."""

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.sandbox import elf

PYTHON = Path(sys.executable).resolve()


def make(needed: list[str], *, runpath: str | None = None) -> bytes:
    """Return a small shared object with this dynamic section."""
    strings, entries = b"\0", []
    for tag, name in [(1, name) for name in needed] + ([(29, runpath)] if runpath is not None else []):
        entries.append((tag, len(strings)))
        strings += name.encode() + b"\0"
    header, segment = 64, 56
    dynamic_at = header + 2 * segment
    dynamic_size = 16 * (len(entries) + 3)
    strings_at = dynamic_at + dynamic_size
    total = strings_at + len(strings)
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in [*entries, (5, strings_at), (10, len(strings)), (0, 0)])
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, total, total, 4096)
    return (
        head
        + load
        + struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, 0, dynamic_size, dynamic_size, 8)
        + dynamic
        + strings
    )


def test_the_interpreter_that_runs_this_needs_a_c_library():
    found = elf.read(PYTHON)
    assert found is not None
    assert any(name.startswith(("libc.so", "libpython")) for name in found.needed)
    assert found.interpreter is not None
    assert Path(found.interpreter).exists()


def test_what_a_file_says_is_read(tmp_path):
    path = tmp_path / "lib.so"
    path.write_bytes(make(["libssl.so.3", "libc.so.6"], runpath="$ORIGIN/../lib:/opt/x"))
    assert elf.read(path) == elf.Elf(62, ("libssl.so.3", "libc.so.6"), ("$ORIGIN/../lib", "/opt/x"), None)


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x02" + bytes(100), b"#!/bin/sh\n"]
)
def test_what_is_no_elf_file_needs_nothing(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert elf.read(path) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12), st.integers(0, 500))
def test_a_damaged_file_is_read_or_needs_nothing(tmp_path, changes, length):
    data = bytearray(make(["liba.so", "libb.so"], runpath="/somewhere"))
    for place, byte in changes:
        data[place % len(data)] = byte
    path = tmp_path / "damaged"
    path.write_bytes(data[: length or None])
    found = elf.read(path)
    assert found is None or isinstance(found, elf.Elf)


def test_a_wheel_cannot_have_a_file_of_the_host_put_into_its_image(tmp_path):
    """Its RUNPATH could name a folder with keys, and a name with slashes any file."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "id_ed25519").write_text("private")
    wheel = tmp_path / "wheel.so"
    wheel.write_bytes(make(["id_ed25519", f"{keys}/id_ed25519", "../keys/id_ed25519", "libx.so"], runpath=str(keys)))
    system = {"libx.so": PYTHON}
    assert [found.name for found in elf.closure([wheel], (), system, trust_search=False)][:1] == ["libx.so"]
    assert "id_ed25519" not in {found.name for found in elf.closure([wheel], (), system, trust_search=False)}
    assert "id_ed25519" in {found.name for found in elf.closure([wheel], (), system, trust_search=True)}


def test_libraries_of_libraries_come_along_once_and_a_circle_ends(tmp_path):
    (tmp_path / "a.so").write_bytes(make(["b.so", "c.so"]))
    (tmp_path / "b.so").write_bytes(make(["c.so", "a.so"]))
    (tmp_path / "c.so").write_bytes(make(["b.so", "gone.so"]))
    system = {name: tmp_path / name for name in ("a.so", "b.so", "c.so")}
    found = [each.name for each in elf.closure([tmp_path / "a.so"], ["a.so"], system, trust_search=False)]
    assert sorted(found) == ["b.so", "c.so"]


def test_the_loaders_cache_is_read_first_entry_first():
    text = (
        "3 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n"
        "\tlibz.so.1 (libc6) => /lib/i386-linux-gnu/libz.so.1\n"
        "\tlibz.so.1 (libc6,x86-64) => /usr/lib/other/libz.so.1\n"
        "nonsense\n"
    )
    assert elf.parse_ldconfig(text, "x86-64") == {"libz.so.1": Path("/lib/x86_64-linux-gnu/libz.so.1")}
