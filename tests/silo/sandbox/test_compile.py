"""The compiler of packages: what it writes, and what a stranger's module reaches through it, which is nothing."""

import marshal
import os
import socket

import anyio
import pytest

from silo.sandbox import compile as compiling
from silo.sandbox.compile import MOUNTED_AT, compile_modules
from silo.sandbox.confined import Confinement, run_confined

pytestmark = pytest.mark.anyio

PYTHON = ["/usr/bin/python3", "-I", "-S", "-c"]


@pytest.fixture
async def base(images, interpreter):
    return await images.base(interpreter, lambda step: None)


@pytest.fixture
def env(tmp_path):
    folder = tmp_path / "env"
    folder.mkdir()
    return folder


async def test_each_module_is_compiled_for_the_path_that_the_guest_sees_and_without_a_time(base, env, interpreter):
    (env / "leaf").mkdir()
    (env / "leaf" / "__init__.py").write_text("x = 1\n")
    (env / "leaf" / "broken.py").write_text("def (:\n")
    steps: list[str] = []
    await compile_modules(env, base, steps.append)
    (compiled,) = (env / "leaf" / "__pycache__").iterdir()
    assert compiled.name == f"__init__.{interpreter.abi.rsplit('-', 3)[0]}.pyc"
    data = compiled.read_bytes()
    assert int.from_bytes(data[4:8], "little") == 0b01  # PEP 552: hash-based, unchecked
    assert marshal.loads(data[16:]).co_filename == f"{MOUNTED_AT}/leaf/__init__.py"
    assert steps == ["compiling the packages"]


async def test_a_folder_without_modules_starts_no_compiler(base, env):
    (env / "data.txt").write_text("x")
    steps: list[str] = []
    assert await compile_modules(env, base, steps.append)
    assert steps == []


async def test_modules_that_take_too_long_leave_the_rest_uncompiled(base, env, monkeypatch):
    (env / "slow.py").write_text("x = " + "(" * 80 + "1" + ")" * 80 + "\n")
    monkeypatch.setattr(compiling, "COMPILE_TIMEOUT_S", 0.0)
    assert not await compile_modules(env, base, lambda step: None)


class TestWhatAConfinedProgramReaches:
    """The program is a Python that does at once what a fault in a parser would let a stranger do."""

    @pytest.fixture
    def attempt(self, base, env):
        async def run(code, **limits):
            return await run_confined([*PYTHON, code], Confinement(root=base.tree, write={"/skill/env": env}, **limits))

        return run

    async def test_it_can_write_the_files_that_it_was_given(self, attempt, env):
        assert (await attempt("open('/skill/env/new', 'w').write('x')")).status == 0
        assert (env / "new").read_text() == "x"

    @pytest.mark.parametrize("path", ["/etc/passwd", "/root", "/home", "/var", "/tmp", "/run", "/sys"])
    async def test_it_sees_no_file_of_the_host(self, attempt, path):
        done = await attempt(f"import os, sys; sys.exit(os.path.exists({path!r}))")
        assert done.status == 0, done.stderr

    @pytest.mark.parametrize("path", ["/new", "/usr/new", "/opt/new", "/dev/new", "/proc/sys/kernel/core_pattern"])
    async def test_it_writes_nowhere_else(self, attempt, path):
        done = await attempt(f"open({path!r}, 'w')")
        assert done.status == 1
        assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr

    async def test_it_has_no_network(self, attempt):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            done = await attempt(f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)")
        assert done.status == 1
        assert "OSError" in done.stderr or "refused" in done.stderr or "unreachable" in done.stderr

    async def test_it_sees_no_process_and_no_variable_of_silo(self, attempt, monkeypatch):
        monkeypatch.setenv("SILO_MASTER_KEY", "secret")
        done = await attempt(
            "import os, sys\n"
            "assert 'SILO_MASTER_KEY' not in os.environ\n"
            "assert len([name for name in os.listdir('/proc') if name.isdigit()]) <= 2\n"
        )
        assert done.status == 0, done.stderr

    async def test_it_has_no_capability_and_can_gain_none(self, attempt):
        done = await attempt(
            "lines = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
            "assert int(lines['CapEff'], 16) == int(lines['CapBnd'], 16) == 0, lines\n"
            "assert lines['NoNewPrivs'].strip() == '1' and lines['Seccomp'].strip() == '2', lines\n"
        )
        assert done.status == 0, done.stderr

    async def test_memory_and_file_size_are_limited(self, attempt, env):
        assert "MemoryError" in (await attempt("x = b'x' * (512 << 20)", address_mib=256)).stderr
        assert (await attempt("open('/skill/env/big', 'wb').write(b'x' * (9 << 20))", file_mib=8)).status != 0
        assert (env / "big").stat().st_size <= 8 << 20

    async def test_what_it_writes_to_stderr_is_limited(self, attempt):
        done = await attempt("import sys\nwhile True: sys.stderr.write('x' * 65536)", file_mib=1)
        assert done.status != 0
        assert len(done.stderr) <= 64 * 1024

    async def test_a_cancelled_task_leaves_no_process(self, attempt):
        marker = f"confined-{os.getpid()}-{os.urandom(4).hex()}"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attempt, f"import time; time.sleep(600) # {marker}")
            with anyio.fail_after(300):
                while not _running(marker):
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(300):
            while _running(marker):
                await anyio.sleep(0.05)


def _running(marker):
    return [name for name in os.listdir("/proc") if name.isdigit() and marker in _command_line(name)]


def _command_line(name):
    try:
        with open(f"/proc/{name}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
