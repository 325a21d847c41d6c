"""Promise 8: the vault never loses an entry, through the real command line.

`tests/silo_vault` flips every byte, kills at every system call, fills disks and checks format vectors. This file tests
what happens to users: a wrong key, damage, a newer version, two writers at once, wrong permissions. Each gives a clear
error and leaves the file unchanged.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

KEY, OTHER_KEY = "11" * 32, "22" * 32


class Cli:
    def __init__(self, home):
        self.home = home
        self.path = home / "credentials.silo"

    def __call__(self, *arguments, key=KEY, stdin=""):
        environ = {"PATH": os.environ["PATH"], "SILO_HOME": str(self.home)}
        if key is not None:
            environ["SILO_MASTER_KEY"] = key
        command = [sys.executable, "-m", "silo", "vault", *arguments]
        return subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, check=False)

    def names(self):
        done = self("list", "--json")
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def vault(tmp_path):
    cli = Cli(tmp_path / "home")
    for name in ("FIRST", "SECOND"):
        assert cli("add", name, stdin=f"the value of {name}").returncode == 0
    return cli


def test_the_wrong_key_writes_nothing(vault):
    before = vault.path.read_bytes()
    done = vault("add", "THIRD", key=OTHER_KEY, stdin="a value of it")
    assert done.returncode == 4
    assert "[vault-locked]" in done.stderr
    assert "hint:" in done.stderr
    assert vault.path.read_bytes() == before
    assert "FIRST" in vault.names()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "newer"])
def test_a_file_that_is_not_whole_is_refused_and_left_alone(vault, damage):
    whole = vault.path.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        "emptied": b"",
        "newer": whole[:8] + bytes([whole[8] ^ 0x40]) + whole[9:],
    }[damage]
    assert damaged != whole
    vault.path.write_bytes(damaged)
    done = vault("add", "THIRD", stdin="a value of it")
    assert done.returncode == 4, done.stderr
    assert "[vault-" in done.stderr
    assert vault.path.read_bytes() == damaged
    vault.path.write_bytes(whole)
    assert "SECOND" in vault.names()


def test_ten_writers_at_once_lose_nothing(vault):
    names = [f"WRITER_{number}" for number in range(10)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(lambda name: vault("add", name, stdin=f"value of {name}"), names))
    assert [done.returncode for done in results] == [0] * 10, [done.stderr for done in results]
    listed = vault.names()
    assert all(name in listed for name in [*names, "FIRST", "SECOND"])


def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(vault):
    vault.path.chmod(0o644)
    done = vault("add", "THIRD", stdin="a value of it")
    assert done.returncode == 4
    assert "chmod" in done.stderr


def test_a_value_never_comes_from_an_argument_and_is_never_shown(vault):
    assert vault("add", "THIRD", "the-value-itself").returncode == 2
    for command in (("list",), ("list", "--json"), ("status",), ("status", "--json")):
        assert "the value of" not in vault(*command).stdout
