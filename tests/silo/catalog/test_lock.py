from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.catalog.lock import (
    PLACEHOLDER,
    WheelsMissing,
    check_lock,
    make_lock,
    normalise,
    read_requirements,
    resolve,
)
from silo.catalog.sdists import Sdist, write_stand_in
from silo.catalog.uv import Uv
from silo.errors import DependencyUnavailable, LockDrift

GOLDEN = Path(__file__).parent / "golden"
HASH = "sha256:" + "0" * 64


def lock_text(
    address: str = "https://mirror.example", package: str = "", requirement: str = '{ name = "alpha" }'
) -> str:
    package = (
        package
        or f'''
name = "alpha"
version = "1.0"
source = {{ registry = "{address}/simple" }}
wheels = [{{ url = "{address}/f/alpha-1.0-py3-none-any.whl", hash = "{HASH}" }}]
'''
    )
    return (
        f'version = 1\nrequires-python = ">=3.11"\n[manifest]\nrequirements = [{requirement}]\n[[package]]\n{package}'
    )


def test_normalising_gives_the_golden_text():
    lock = normalise((GOLDEN / "uv-lock-rev3.toml").read_text())
    assert lock.text == (GOLDEN / "normalised-lock.toml").read_text()
    assert [(one.name, one.version, bool(one.wheels)) for one in lock.packages] == [
        ("alpha", "2.0", False),
        ("zeta", "1.0+local.1", True),
    ]


def test_a_normalised_lock_holds_no_address_but_the_placeholder():
    text = normalise((GOLDEN / "uv-lock-rev3.toml").read_text()).text
    assert set(re.findall(r'[^"]*://[^"]*', text)) == {PLACEHOLDER}


@given(
    st.from_regex(
        r"https?://[a-z0-9-]{1,20}(\.[a-z]{2,5}){1,2}(:[0-9]{2,4})?(/[a-zA-Z0-9_.~-]{1,10}){0,3}", fullmatch=True
    )
)
def test_the_same_lock_from_any_mirror_is_the_same_text(address: str):
    assert normalise(lock_text(address)) == normalise(lock_text())


def test_normalising_twice_changes_nothing():
    once = normalise((GOLDEN / "uv-lock-rev3.toml").read_text())
    assert normalise(once.text) == once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "version None"),
        ("version = 2\n", "version 2"),
        ("version = 1\n", "no proper 'requires-python'"),
        ("not toml", "not TOML"),
        ("a = " + "[" * 3000, "not TOML"),
        (lock_text(requirement='{ name = "x", url = "https://a.example/x.whl" }'), "elsewhere than a package index"),
        (lock_text(requirement='{ name = "x", git = "https://a.example/x" }'), "elsewhere than a package index"),
        (lock_text(requirement='{ name = "x", marker = "a\\n--index-url https://a.example" }'), "no proper 'marker'"),
        (lock_text(requirement='{ name = "../x" }'), "without a proper 'name'"),
        (
            lock_text(package='name = "a"\nversion = "1"\nsource = { git = "https://a.example/x" }'),
            "elsewhere than a pac",
        ),
        (lock_text(package='name = "a"\nversion = "1"\nsource = { path = "a.whl" }'), "elsewhere than a package index"),
        (lock_text(package='name = "a"\nversion = "1"\nsource = { editable = "." }'), "elsewhere than a package index"),
        (lock_text(package='name = "a"\nversion = "1"\n'), "'nowhere'"),
        (lock_text(package='name = "A B"\nversion = "1"\n'), "without a proper name"),
        (lock_text(package='name = "a"\nversion = "1 --x"\n'), "no proper version"),
        (lock_text(package='name = "a"\nversion = "1"\nsource = { registry = "x" }'), "no file of a"),
        (
            lock_text(package='name = "a"\nversion = "1"\nsource = { registry = "x" }\nsdist = { url = "x/a.tar.gz" }'),
            "no SHA-256",
        ),
        (
            lock_text(
                package='name = "a"\nversion = "1"\nsource = { registry = "x" }\n'
                'wheels = [{ url = "x/a.whl", hash = "md5:00" }]'
            ),
            "no SHA-256",
        ),
        (
            lock_text(
                package='name = "a"\nversion = "1"\nsource = { registry = "x" }\n'
                f'wheels = [{{ filename = "a b.whl", hash = "{HASH}" }}]'
            ),
            "without a proper file name",
        ),
    ],
)
def test_a_lock_that_is_none_or_reaches_beyond_an_index_is_refused(text: str, message: str):
    with pytest.raises(LockDrift) as caught:
        normalise(text)
    assert message in caught.value.message
    assert "uv lock --script" in caught.value.hint


@given(st.text(max_size=300))
def test_any_text_is_a_lock_or_refused(text: str):
    with pytest.raises(LockDrift):
        normalise(text)


# --- with real uv -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_lock_made_by_uv_fits_its_header_and_says_what_to_install(index, interpreter, header_for):
    index.add_wheel("leaf", files={"leaf.py": ""})
    index.add_wheel("tree", "2.0", files={"tree.py": ""}, requires=("leaf>=1", "elsewhere; sys_platform == 'win32'"))
    index.add_wheel("elsewhere", files={"elsewhere.py": ""})
    header = header_for("Tree<3")
    lock = await make_lock(header, interpreter, index.uv)
    assert str(index.root) not in lock.text
    await check_lock(lock, header, interpreter, index.uv)
    requirements = await read_requirements(lock, header, interpreter, index.uv)
    assert requirements.packages == ("leaf==1.0", "tree==2.0")
    assert requirements.unbuilt == ()
    assert requirements.text.count("--hash=sha256:") == 3


@pytest.mark.anyio
async def test_the_same_lock_comes_from_two_mirrors(index, interpreter, header_for, tmp_path: Path):
    index.add_wheel("leaf", files={"leaf.py": ""})
    mirror = tmp_path / "mirror"
    index.simple.rename(mirror)
    other = Uv({**index.environ, "UV_DEFAULT_INDEX": mirror.as_uri()})
    first = await make_lock(header_for("leaf"), interpreter, other)
    mirror.rename(index.simple)
    assert await make_lock(header_for("leaf"), interpreter, index.uv) == first


@pytest.mark.anyio
async def test_a_folder_of_wheels_serves_as_an_index(index, interpreter, header_for):
    """uv notes no hashes for `--find-links`; silo adds them, or installing could not check any."""
    wheel = index.add_wheel("leaf", files={"leaf.py": ""})
    uv = Uv({**index.environ, "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheel.parent)})
    by_folder = await make_lock(header_for("leaf"), interpreter, uv)
    assert by_folder == await make_lock(header_for("leaf"), interpreter, index.uv)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("dependencies", "python", "message"),
    [
        (("leaf>=1", "tree"), ">=3.11", "it lacks tree"),
        ((), ">=3.11", "it has leaf beyond the header"),
        (("leaf>=0.9",), ">=3.11", "other versions"),
        (("leaf[extra]>=1",), ">=3.11", "other versions"),
        (("leaf>=1; python_version < '3.13'",), ">=3.11", "other versions"),
        (("leaf>=1",), ">=3.11,<3.14", "it is for Python >=3.11"),
    ],
)
async def test_a_header_that_changed_after_locking_is_drift(
    index, interpreter, header_for, dependencies: tuple[str, ...], python: str, message: str
):
    index.add_wheel("leaf", files={"leaf.py": ""})
    lock = await make_lock(header_for("leaf>=1"), interpreter, index.uv)
    with pytest.raises(LockDrift) as caught:
        await check_lock(lock, header_for(*dependencies, python=python), interpreter, index.uv)
    assert message in caught.value.message
    assert "uv lock --script" in caught.value.hint


@pytest.mark.anyio
async def test_checking_and_reading_a_lock_need_no_index(index, interpreter, header_for, tmp_path: Path):
    index.add_wheel("leaf", files={"leaf.py": ""})
    header = header_for("LEAF>=1.0.0")
    lock = await make_lock(header, interpreter, index.uv)
    alone = Uv({**index.environ, "UV_CACHE_DIR": str(tmp_path / "empty"), "UV_DEFAULT_INDEX": "http://127.0.0.1:9"})
    await check_lock(lock, header, interpreter, alone)
    assert (await read_requirements(lock, header, interpreter, alone)).packages == ("leaf==1.0",)


@pytest.mark.anyio
async def test_an_empty_list_of_dependencies_locks_to_nothing(index, interpreter, header_for):
    lock = await make_lock(header_for(), interpreter, index.uv)
    await check_lock(lock, header_for(), interpreter, index.uv)
    assert (await read_requirements(lock, header_for(), interpreter, index.uv)).packages == ()


@pytest.mark.anyio
async def test_a_misspelt_dependency_is_named(index, interpreter, header_for):
    with pytest.raises(DependencyUnavailable, match="laef was not found") as caught:
        await make_lock(header_for("laef"), interpreter, index.uv)
    assert "is the name right?" in caught.value.hint


@pytest.mark.anyio
async def test_a_version_that_does_not_exist_is_named(index, interpreter, header_for):
    index.add_wheel("leaf", files={"leaf.py": ""})
    with pytest.raises(DependencyUnavailable, match=r"leaf<=1\.0|leaf==1\.0") as caught:
        await make_lock(header_for("leaf>=2"), interpreter, index.uv)
    assert "loosen" in caught.value.hint


@pytest.mark.anyio
async def test_an_index_out_of_reach_is_told_from_a_wrong_name(index, interpreter, header_for):
    away = Uv({**index.environ, "UV_DEFAULT_INDEX": "http://user:word@127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"})
    with pytest.raises(DependencyUnavailable) as caught:
        await make_lock(header_for("leaf"), interpreter, away)
    assert "is there a network?" in caught.value.hint
    assert "word" not in caught.value.message


@pytest.mark.anyio
async def test_locking_does_not_build_a_source_distribution(index, interpreter, header_for, tmp_path: Path):
    trace = tmp_path / "built"
    index.add_sdist("raw", on_build=f"open({str(trace)!r}, 'w')")
    with pytest.raises(DependencyUnavailable, match="no usable wheels") as caught:
        await make_lock(header_for("raw"), interpreter, index.uv)
    assert "--allow-builds" in caught.value.hint
    assert not trace.exists()


@pytest.mark.anyio
async def test_the_users_settings_choose_the_index_and_a_file_in_the_working_directory_does_not(
    index, interpreter, header_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index.add_wheel("leaf", files={"leaf.py": ""})
    without = {name: value for name, value in index.environ.items() if name != "UV_DEFAULT_INDEX"}
    settings = Path(without["HOME"]) / ".config/uv/uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[[index]]\nurl = "{index.simple.as_uri()}"\ndefault = true\n')
    (tmp_path / "uv.toml").write_text('[[index]]\nurl = "http://127.0.0.1:9/evil"\ndefault = true\n')
    monkeypatch.chdir(tmp_path)
    lock = await make_lock(header_for("leaf"), interpreter, Uv({**without, "PWD": str(tmp_path)}))
    assert [one.name for one in lock.packages] == ["leaf"]


@pytest.mark.anyio
async def test_uv_may_build_nothing_when_it_locks_or_looks_at_a_lock(interpreter, header_for, tmp_path: Path):
    """Offline, too: if a lock doesn't fit, uv resolves again, and would build source distributions of its cache."""
    fake = tmp_path / "uv"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/ran\nexit 1\n')
    fake.chmod(0o755)
    uv = Uv({"PATH": os.environ["PATH"]}, binary=str(fake))
    lock = normalise('version = 1\nrequires-python = ">=3.11"\n')
    for started in (
        resolve(header_for("leaf"), interpreter, uv),
        check_lock(lock, header_for("leaf"), interpreter, uv),
        read_requirements(lock, header_for("leaf"), interpreter, uv),
    ):
        with pytest.raises((DependencyUnavailable, LockDrift)):
            await started
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(ran) == 3
    assert all(" --no-build" in line for line in ran)


@pytest.mark.anyio
async def test_packages_without_wheels_are_named_and_stand_ins_resolve_them(
    index, interpreter, header_for, tmp_path: Path
):
    index.add_sdist("raw", on_build="raise SystemExit(1)")
    index.add_sdist("raw.two", on_build="raise SystemExit(1)")
    header = header_for("raw", "raw.two")
    found = await resolve(header, interpreter, index.uv)
    assert isinstance(found, WheelsMissing)
    assert set(found.names) <= {"raw", "raw-two", "raw.two"}
    assert found.names
    hashes = {}
    for name in ("raw", "raw-two"):
        write_stand_in(tmp_path, Sdist(name, "1.0", "", ""), f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n")
        hashes[f"{name}==1.0"] = "sha256:" + "1" * 64
    lock = await resolve(header, interpreter, index.uv, links=tmp_path, sdists=hashes)
    assert [(one.name, one.wheels, one.sdist) for one in lock.packages] == [
        (name, (), "sha256:" + "1" * 64) for name in ("raw", "raw-two")
    ]
    requirements = await read_requirements(lock, header, interpreter, index.uv)
    assert requirements.unbuilt == ("raw-two==1.0", "raw==1.0")


@pytest.mark.anyio
async def test_a_wheel_for_another_platform_counts_as_none(index, interpreter, header_for):
    made = index.add_wheel("leaf", files={"leaf.py": ""})
    made.rename(made.with_name("leaf-1.0-cp311-cp311-win_amd64.whl"))
    index.add_sdist("leaf", on_build="")
    lock = await make_lock(header_for("leaf"), interpreter, index.uv)
    assert lock.packages[0].wheels == ("leaf-1.0-cp311-cp311-win_amd64.whl",)
    assert (await read_requirements(lock, header_for("leaf"), interpreter, index.uv)).unbuilt == ("leaf==1.0",)
