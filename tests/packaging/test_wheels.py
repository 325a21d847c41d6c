"""The three wheels: their contents, and how they work in an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

PATIENCE_S = 300.0

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("silo_runtime", "silo_vault", "silo_interaction")


def environ(**more: str) -> dict[str, str]:
    """Return the variables that tell uv which package indexes to use, and a cache that is kept between runs."""
    passed = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_CERT_"))}
    cache = str(REPOSITORY / ".cache" / "uv")
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **passed, "UV_CACHE_DIR": cache, **more}


def uv(*arguments: str, home: Path) -> None:
    done = subprocess.run(
        [find_uv_bin(), *arguments],
        cwd=REPOSITORY,
        env=environ(HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, home) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    uv("build", "--all-packages", "--wheel", "--out-dir", str(folder), home=home)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def install(tmp_path_factory, home):
    """Make an empty environment, install wheels and what they depend on, and return its folder of programs."""

    def into_an_empty_environment(*chosen: Path) -> Path:
        folder = tmp_path_factory.mktemp("environment") / "venv"
        uv("venv", "--no-project", "--python", sys.executable, str(folder), home=home)
        uv("pip", "install", "--python", str(folder), *map(str, chosen), home=home)
        return folder / "bin"

    return into_an_empty_environment


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_there_are_three_wheels_and_each_holds_one_package_its_types_and_the_licence(wheels):
    assert set(wheels) == set(NAMES)
    for name, package in zip(NAMES, ("silo", "silo_vault", "silo_interaction"), strict=True):
        names = contents(wheels[name])
        (metadata,) = {one.partition("/")[0] for one in names} - {package}
        assert metadata.endswith(".dist-info")
        assert f"{package}/py.typed" in names
        assert f"{metadata}/licenses/LICENSE" in names


def test_wheel_has_every_file_of_the_source_tree_and_no_test(wheels):
    trees = {"silo_runtime": REPOSITORY / "silo", "silo_vault": REPOSITORY / "vault/silo_vault"}
    trees["silo_interaction"] = REPOSITORY / "interaction/silo_interaction"
    for name, tree in trees.items():
        files = {
            f"{tree.name}/{path.relative_to(tree).as_posix()}"
            for path in tree.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        names = contents(wheels[name])
        built_in = {one for one in names if one.startswith(("silo/builtin/", "silo/bench_skills/"))}
        assert {one for one in names if one.startswith(f"{tree.name}/")} - built_in == files
        assert not [one for one in names if "test_" in one or "/tests/" in one or "__pycache__" in one]


def test_built_in_skills_are_shipped_with_their_locks_and_manuals(wheels):
    shipped = {name for name in contents(wheels["silo_runtime"]) if name.startswith("silo/builtin/")}
    skills = {path.parent.name for path in REPOSITORY.glob("skills/*/skill.py")}
    assert skills >= {"jwt", "table", "pdf", "image"}
    parts = ("skill.py", "skill.py.lock", "SKILL.md")
    assert shipped == {f"silo/builtin/{skill}/{part}" for skill in skills for part in parts}
    assert "silo/bench_skills/httpx_pydantic/skill.py" in contents(wheels["silo_runtime"])


def test_locks_name_no_package_index_of_whoever_made_them(wheels):
    with zipfile.ZipFile(wheels["silo_runtime"]) as archive:
        locks = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".lock")]
    hosts = {host for lock in locks for host in re.findall(r"://([^/\"]+)", lock)}
    assert hosts == {"index.invalid"}  # RFC 6761: a name that nobody can own


def test_installed_silo_runs_and_finds_its_built_in_skills(wheels, install, tmp_path, kernel_folder):
    programs = install(*wheels.values())
    surroundings = environ(HOME=str(tmp_path), SILO_HOME=str(tmp_path / "state"), SILO_KERNEL=str(kernel_folder))

    def silo(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [programs / "silo", *arguments],
            env=surroundings,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    assert silo("--version").stdout.split()[-1] == wheels["silo_runtime"].name.split("-")[1]
    assert "silo install jwt" in silo("install", "--help").stdout
    assert json.loads(silo("doctor", "--json").stdout)["chosen"] == "microvm"
    refused = silo("install", "no-such-skill", "--yes", status=2)
    assert "built-in are image, jwt, pdf, table" in refused.stderr
    check = "import silo, silo_vault, silo_interaction; print(silo.__file__)"
    found = subprocess.run([programs / "python", "-I", "-c", check], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(programs.parent)


@pytest.mark.parametrize("name", ["silo_vault", "silo_interaction"])
def test_member_installs_and_imports_without_the_others(wheels, install, name):
    programs = install(wheels[name])
    others = sorted({"silo", "silo_vault", "silo_interaction"} - {name})
    check = (
        f"import importlib.util, {name}\n"
        f"assert all(hasattr({name}, one) for one in {name}.__all__)\n"
        f"print([one for one in {others!r} if importlib.util.find_spec(one)])\n"
    )
    done = subprocess.run([programs / "python", "-I", "-c", check], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
