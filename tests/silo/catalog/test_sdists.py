"""What a source distribution says of itself is read up to limits; nothing of it runs."""

import gzip
import io
import tarfile

import pytest

from silo.catalog.sdists import (
    MAX_UNPACKED_BYTES,
    Sdist,
    check_build_requirements,
    fetch,
    locate,
    read_project,
    write_stand_in,
)
from silo.errors import DependencyUnavailable

pytestmark = pytest.mark.anyio

RAW = Sdist("raw", "1.0", "sha256:" + "0" * 64, "/nowhere/raw-1.0.tar.gz")
STATIC = "Metadata-Version: 2.2\nName: Raw\nVersion: 1.0\nRequires-Dist: leaf>=1 ; extra == 'x'\nProvides-Extra: x\n"


def pack(folder, files):
    path = folder / "raw-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


async def test_static_metadata_is_taken_over_and_nothing_else(tmp_path):
    project = await read_project(pack(tmp_path, {"raw-1.0/PKG-INFO": STATIC + "Summary: ignored\n\nA long text"}), RAW)
    assert project.metadata == (
        'Metadata-Version: 2.2\nName: raw\nVersion: 1.0\nRequires-Dist: leaf>=1; extra == "x"\nProvides-Extra: x\n'
    )
    assert project.build_requires == ("setuptools>=40.8.0",)
    write_stand_in(tmp_path, RAW, project.metadata)
    assert (tmp_path / "raw-1.0-py3-none-any.whl").is_file()


@pytest.mark.parametrize(
    "text",
    [
        "Metadata-Version: 2.1\nName: raw\nVersion: 1.0\n",
        STATIC + "Dynamic: requires-dist\n",
        STATIC + "Dynamic: Summary\nDynamic: Provides-Extra\n",
        STATIC.replace("Raw", "other"),
        STATIC.replace("Version: 1.0", "Version: 2.0"),
        STATIC.replace("leaf>=1", "leaf >>>"),
        STATIC.replace("2.2", "new"),
        "",
    ],
)
async def test_metadata_that_a_build_may_change_or_of_another_package_does_not_count(tmp_path, text):
    assert (await read_project(pack(tmp_path, {"raw-1.0/PKG-INFO": text}), RAW)).metadata is None


async def test_only_files_at_the_top_count(tmp_path):
    files = {"raw-1.0/tests/PKG-INFO": STATIC, "PKG-INFO": STATIC, "raw-1.0/setup.py": ""}
    assert (await read_project(pack(tmp_path, files), RAW)).metadata is None


async def test_a_link_in_place_of_the_metadata_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text(STATIC)
    path = tmp_path / "raw-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("raw-1.0/PKG-INFO")
        member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(member)
    assert (await read_project(path, RAW)).metadata is None


@pytest.mark.parametrize(
    "pyproject",
    [
        "[build-system\n",
        "[build-system]\nrequires = 'setuptools'\n",
        "[build-system]\nrequires = ['x @ file:///etc/passwd']\n",
        "[build-system]\nrequires = ['x\\n--index-url=http://x']\n",
        "a = " + "[" * 5000,
    ],
)
async def test_a_build_system_that_can_not_be_is_refused(tmp_path, pyproject):
    with pytest.raises(DependencyUnavailable):
        await read_project(pack(tmp_path, {"raw-1.0/pyproject.toml": pyproject}), RAW)


async def test_an_archive_that_is_none_or_unpacks_to_too_much_is_refused(tmp_path):
    path = tmp_path / "raw-1.0.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(DependencyUnavailable, match="can't be read"):
        await read_project(path, RAW)
    member = tarfile.TarInfo("raw-1.0/big")
    member.size = MAX_UNPACKED_BYTES + 1
    path.write_bytes(gzip.compress(member.tobuf()))
    with pytest.raises(DependencyUnavailable, match="more than silo looks through"):
        await read_project(path, RAW)
    with pytest.raises(DependencyUnavailable, match="more than 1 MiB"):
        await read_project(pack(tmp_path, {"raw-1.0/PKG-INFO": "x" * (1024 * 1024 + 1)}), RAW)


@pytest.mark.parametrize("given", [None, {}, [1], ["a"] * 101, ["a" * 501], ["a b c"]])
def test_build_requirements_that_can_not_be_are_refused(given):
    with pytest.raises(DependencyUnavailable):
        check_build_requirements(given, "raw==1.0")


async def test_the_index_says_where_a_source_lies_and_nothing_is_built(index, interpreter, tmp_path):
    trace = tmp_path / "built"
    index.add_sdist("raw", on_build=f"open({str(trace)!r}, 'w').close()")
    found = await locate("raw>=1", ">=3.11", interpreter, index.uv)
    assert (found.package, found.hash) == ("raw==1.0", f"sha256:{index.digest('raw')}")
    archive = await fetch(found, tmp_path, index.environ)
    assert archive.name == "raw-1.0.tar.gz"
    assert not trace.exists()
    index.add_wheel("leaf", files={"leaf.py": ""})
    with pytest.raises(DependencyUnavailable, match="no source distribution of leaf"):
        await locate("leaf", ">=3.11", interpreter, index.uv)


async def test_a_file_with_another_hash_is_refused_and_deleted(index, interpreter, tmp_path):
    index.add_sdist("raw", on_build="")
    found = await locate("raw", ">=3.11", interpreter, index.uv)
    index.add_sdist("raw", on_build="other = 1")
    with pytest.raises(DependencyUnavailable, match="another file") as caught:
        await fetch(found, tmp_path, index.environ)
    assert "don't install it" in caught.value.hint
    assert not (tmp_path / "raw-1.0.tar.gz").exists()
