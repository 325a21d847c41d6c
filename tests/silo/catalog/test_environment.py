from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from silo.catalog import environment as environments
from silo.catalog.environment import build_environment
from silo.catalog.lock import PLACEHOLDER, check_lock, make_lock, normalise, read_requirements
from silo.catalog.uv import Uv
from silo.errors import DependencyUnavailable
from silo.sizes import MIB
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def build(index, interpreter, header_for, tmp_path: Path):
    async def run(*dependencies: str, uv: Uv | None = None, on_step=lambda _: None):
        header = header_for(*dependencies)
        lock = await make_lock(header, interpreter, index.uv)
        requirements = await read_requirements(lock, header, interpreter, index.uv)
        return await build_environment(
            tmp_path / "env",
            requirements,
            interpreter,
            uv or index.uv,
            name="demo",
            on_step=on_step,
        )

    return run


async def test_packages_lie_in_a_plain_folder_without_programs_and_compiled_code(index, build):
    index.add_wheel(
        "leaf",
        files={
            "leaf/__init__.py": "def f():\n    return 1\n",
            "leaf/broken.py": "def (:\n",
            "leaf/__pycache__/other.cpython-311.pyc": "came along",
            "leaf-1.0.data/scripts/leaf": "#!python\n",
        },
    )
    steps: list[str] = []
    environment = await build("leaf", on_step=steps.append)
    assert sorted(path.name for path in environment.folder.iterdir()) == ["leaf", "leaf-1.0.dist-info"]
    assert sorted(path.name for path in (environment.folder / "leaf").iterdir()) == ["__init__.py", "broken.py"]
    assert environment.size_bytes == sum(one.stat().st_size for one in environment.folder.rglob("*") if one.is_file())
    assert steps == ["installing 1 packages"]


async def test_code_that_would_start_by_itself_neither_runs_nor_stays(index, build, tmp_path: Path):
    trace = tmp_path / "ran"
    poison = f"open({str(trace)!r}, 'w').close()\n"
    index.add_wheel(
        "leaf",
        files={
            "leaf.py": poison,
            "zz-leaf.pth": f"import os; {poison}",
            "sitecustomize.py": poison,
            "usercustomize/__init__.py": poison,
        },
    )
    environment = await build("leaf")
    assert not trace.exists()
    assert environment.removed == ("sitecustomize.py", "usercustomize", "zz-leaf.pth")
    assert sorted(path.name for path in environment.folder.iterdir()) == ["leaf-1.0.dist-info", "leaf.py"]


async def test_what_is_installed_does_not_change_with_uvs_cache(index, build):
    index.add_wheel("leaf", files={"leaf.py": "x = 1\n"})
    environment = await build("leaf")
    assert (environment.folder / "leaf.py").stat().st_nlink == 1


async def test_another_file_than_the_locked_one_is_refused_and_nothing_stays(
    index, interpreter, header_for, tmp_path: Path
):
    index.add_wheel("leaf", files={"leaf.py": "good = 1\n"})
    header = header_for("leaf")
    lock = await make_lock(header, interpreter, index.uv)
    requirements = await read_requirements(lock, header, interpreter, index.uv)
    index.add_wheel("leaf", files={"leaf.py": "evil = 1\n"})
    fresh = Uv({**index.environ, "UV_CACHE_DIR": str(tmp_path / "fresh")})
    with pytest.raises(DependencyUnavailable) as caught:
        await build_environment(tmp_path / "env", requirements, interpreter, fresh, name="demo")
    assert "don't install it" in caught.value.hint
    assert not (tmp_path / "env").exists()


async def test_a_package_without_a_wheel_is_never_built_here(index, interpreter, header_for, tmp_path: Path):
    """uv would build outside of any sandbox; `silo.install.builds` builds, and this installs the wheel."""
    trace = tmp_path / "built"
    index.add_sdist("raw", on_build=f"open({str(trace)!r}, 'w').close()")
    lock = normalise(
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n[manifest]\nrequirements = [{ name = "raw" }]\n'
        f'[[package]]\nname = "raw"\nversion = "1.0"\nsource = {{ registry = "{PLACEHOLDER}" }}\n'
        f'sdist = {{ hash = "sha256:{index.digest("raw")}" }}\n'
    )
    header = header_for("raw")
    await check_lock(lock, header, interpreter, index.uv)
    requirements = await read_requirements(lock, header, interpreter, index.uv)
    assert requirements.unbuilt == ("raw==1.0",)
    with pytest.raises(DependencyUnavailable, match=r"raw==1\.0, which has no wheel") as caught:
        await build_environment(tmp_path / "env", requirements, interpreter, index.uv, name="demo")
    assert "--allow-builds" in caught.value.hint
    # uv does not build it either, if silo asks.
    with pytest.raises(DependencyUnavailable, match="no usable wheels"):
        await build_environment(tmp_path / "env", replace(requirements, unbuilt=()), interpreter, index.uv, name="demo")
    assert not (tmp_path / "env").exists()
    made = index.add_wheel("raw", files={"raw.py": "built = True\n"}).rename(tmp_path / "raw-1.0-py3-none-any.whl")
    built = requirements.with_wheels({"raw==1.0": made})
    environment = await build_environment(tmp_path / "env", built, interpreter, index.uv, name="demo")
    assert (environment.folder / "raw.py").read_text() == "built = True\n"
    assert not trace.exists()


async def test_no_dependencies_make_an_empty_folder_without_asking_uv(build, tmp_path: Path):
    environment = await build(uv=Uv({}, binary=str(tmp_path / "no-uv")))
    assert list(environment.folder.iterdir()) == []
    assert environment.size_bytes == 0


async def test_cancelling_kills_uv_and_removes_the_folder(index, interpreter, header_for, tmp_path: Path):
    """The index accepts and never answers; when uv dies, its end of the connection closes."""
    index.add_wheel("leaf", files={"leaf.py": ""})
    header = header_for("leaf")
    lock = await make_lock(header, interpreter, index.uv)
    requirements = await read_requirements(lock, header, interpreter, index.uv)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    slow = Uv(
        {**index.environ, "UV_DEFAULT_INDEX": f"http://127.0.0.1:{port}", "UV_CACHE_DIR": str(tmp_path / "fresh")}
    )
    closed = anyio.Event()

    with anyio.fail_after(PATIENCE_S):
        async with listener, anyio.create_task_group() as server, anyio.create_task_group() as client:

            async def answer_nothing(stream: anyio.abc.ByteStream) -> None:
                async with stream:
                    await stream.receive()
                    client.cancel_scope.cancel()
                    try:
                        while True:
                            await stream.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        closed.set()
                        server.cancel_scope.cancel()

            server.start_soon(listener.serve, answer_nothing)
            client.start_soon(lambda: build_environment(tmp_path / "env", requirements, interpreter, slow, name="demo"))
    assert closed.is_set()
    assert not (tmp_path / "env").exists()


async def test_secrets_of_silo_and_settings_that_weaken_uv_do_not_reach_it(tmp_path: Path):
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\nenv\npwd\n")
    fake.chmod(0o755)
    kept = {
        "HOME": "/h",
        "UV_DEFAULT_INDEX": "https://mirror.example",
        "UV_INDEX_ACME_PASSWORD": "w",
        "HTTPS_PROXY": "p",
    }
    dropped = {
        "SILO_MASTER_KEY": "k",
        "PYTHONPATH": "/evil",
        "PYTHONSTARTUP": "/evil",
        "UV_NO_VERIFY_HASHES": "1",
        "UV_FROZEN": "1",
        "UV_COMPILE_BYTECODE": "1",
        "UV_PYTHON": "/evil/python",
        "LD_PRELOAD": "/evil.so",
        "VIRTUAL_ENV": "/evil",
    }
    uv = Uv({"PATH": os.environ["PATH"], **kept, **dropped}, binary=str(fake))
    done = await uv.run(["anything"], timeout_s=PATIENCE_S)
    lines = done.stdout.splitlines()
    seen = dict(line.split("=", 1) for line in lines[:-1])
    assert lines[-1] == "/"
    assert {name: seen[name] for name in kept} == kept
    assert not dropped.keys() & seen.keys()
    bare = (await uv.run(["anything"], timeout_s=PATIENCE_S, settings=False)).stdout
    assert "mirror.example" not in bare
    assert "UV_INDEX_ACME_PASSWORD" not in bare


async def test_a_uv_that_hangs_is_killed_with_its_children(tmp_path: Path):
    """The grandchild holds a named pipe open; reading it ends only when the grandchild is dead."""
    pipe = tmp_path / "held"
    os.mkfifo(pipe)
    fake = tmp_path / "uv"
    fake.write_text(f"#!/bin/sh\nsh -c 'exec 3>{pipe}; exec sleep 600' & wait\n")
    fake.chmod(0o755)

    held = os.open(
        pipe, os.O_RDONLY | os.O_NONBLOCK
    )  # before anything writes, so that neither side waits for the other to open it
    with pytest.raises(DependencyUnavailable, match="did not finish within 1 s"):
        await Uv({"PATH": os.environ["PATH"]}, binary=str(fake)).run([], timeout_s=1)
    os.set_blocking(held, True)
    with anyio.fail_after(PATIENCE_S):
        async with await anyio.open_file(held, "rb") as file:
            assert await file.read() == b""


async def test_a_small_archive_that_unpacks_to_much_is_stopped_and_leaves_nothing(index, build, tmp_path):
    """The archive has some hundred KB; unpacked, it would have 640 MB."""
    zeros = "\0" * (32 * MIB)
    wheel = index.add_wheel("bomb", files={"bomb.py": "x = 1\n"} | {f"bomb{number}.bin": zeros for number in range(20)})
    assert wheel.stat().st_size < MIB
    cache = tmp_path / "cache"
    uv = Uv({**index.environ, "UV_CACHE_DIR": str(cache)}, max_unpacked_bytes=8 * MIB)
    with pytest.raises(DependencyUnavailable, match="more than 8 MiB when unpacked") as caught:
        await build("bomb", uv=uv)
    assert "install.max_mib" in caught.value.hint
    assert not list(cache.glob(".tmp*"))
    # It was stopped early: the whole of it is not in uv's cache, as it would be if only the outcome were measured.
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 64 * MIB
    assert not (tmp_path / "env").exists()


async def test_an_archive_that_unpacks_to_a_little_too_much_is_refused_afterwards(index, build):
    index.add_wheel("large", files={"large.py": "x = 1\n", "large.bin": "\0" * MIB})
    with pytest.raises(DependencyUnavailable, match="more than 1 MiB"):
        await build("large", uv=replace(index.uv, max_unpacked_bytes=MIB))
    assert (await build("large", uv=replace(index.uv, max_unpacked_bytes=2 * MIB))).size_bytes > MIB


async def test_too_many_files_are_refused(index, build, monkeypatch):
    monkeypatch.setattr(environments, "MAX_FILES", 20)
    index.add_wheel("many", files={f"many/m{number}.py": "" for number in range(30)})
    with pytest.raises(DependencyUnavailable, match="at most 20 are possible"):
        await build("many")
