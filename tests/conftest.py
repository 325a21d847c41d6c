"""What tests that start real guests share: the guest kernel, the images, and units made of a script's text.

All of it lies under `.cache/tests` of the checkout (or `SILO_TEST_CACHE`), never in anybody's HOME. It is
content-addressed, so that a second run of the suite starts at once. The workers of pytest-xdist share it: files for all
workers are made under a file lock. If QEMU or bubblewrap is missing, no test is skipped: it fails, and says what to do.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from textwrap import dedent

import anyio
import pytest
from hypothesis import settings

from silo.catalog.interpreter import inspect_interpreter
from silo.model import Interpreter, Isolation
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.backends.namespace.backend import NamespaceBackend
from silo.sandbox.base import Backend, Limits
from silo.sandbox.image import Images
from silo.sandbox.skill.base import Unit
from silo.setup import packages

pytest.register_assert_rewrite("silo.testing.conformance")  # before any test imports it

# By default, Hypothesis fails an example that takes 200 ms, and on a busy machine any example can.
settings.register_profile("silo", deadline=None)
settings.load_profile("silo")

REPOSITORY = Path(__file__).resolve().parent.parent

MakeUnit = Callable[..., Awaitable[Unit]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _signals_as_on_a_terminal() -> Iterator[None]:
    """Programs that tests start must not inherit an ignored SIGHUP, as everything under `nohup` does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the user's silo. A test that does not name a state folder finds none."""
    for name in [name for name in os.environ if name.startswith("SILO_") and not name.startswith("SILO_TEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SILO_HOME", "/nonexistent/silo-home-of-no-test")


@pytest.fixture(scope="session")
def cache() -> Path:
    """The folder that outlives a test run."""
    folder = Path(os.environ.get("SILO_TEST_CACHE", REPOSITORY / ".cache" / "tests"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def one_worker(cache: Path) -> Callable[[str], AbstractContextManager[None]]:
    """Let one worker at a time make something that all of them use: `with one_worker("kernel"): ...`."""

    @contextmanager
    def alone(name: str) -> Iterator[None]:
        with open(cache / f".lock-{name}", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    return alone


@pytest.fixture(scope="session")
def kernel_folder(cache: Path, one_worker: Callable[[str], AbstractContextManager[None]]) -> Path:
    """The folder with the guest kernel, fetched once."""
    folder = cache / "kernel"
    with one_worker("kernel"):
        todo = packages.plan(folder)
        if not todo.is_empty:
            packages.run(todo, folder, lambda step: print(step, file=sys.stderr))
    return folder


@pytest.fixture(scope="session")
def npm_install(one_worker: Callable[[str], AbstractContextManager[None]]) -> Callable[[Path], Path]:
    """Run one of the `install.py` that put npm packages into a cache, and return the path that it prints."""

    def install(script: Path) -> Path:
        with one_worker("npm"):
            done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=True)
        return Path(done.stdout.strip())

    return install


@pytest.fixture(scope="session")
def ts_client(npm_install: Callable[[Path], Path]) -> Path:
    """The folder of the TypeScript clients; the first run downloads them."""
    return npm_install(REPOSITORY / "tests" / "e2e" / "ts-client" / "install.py")


@pytest.fixture(scope="session")
def images(cache: Path) -> Images:
    return Images(cache / "images")


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    # In its own thread: a test's event loop may be open in this one.
    with ThreadPoolExecutor(max_workers=1) as pool:
        executable = Path(sys._base_executable)  # type: ignore[attr-defined]
        found = pool.submit(anyio.run, inspect_interpreter, executable, os.environ).result()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def make_unit(images: Images, interpreter: Interpreter) -> MakeUnit:
    """Make a unit of a script's text: `await make_unit(text, packages=[folder of a module], limits=...)`."""

    async def make(
        script: str, *, name: str = "probe", packages: Sequence[Path] = (), limits: Limits | None = None
    ) -> Unit:
        text = dedent(script)
        base = await images.base(interpreter, lambda step: None)
        staged = images.staging()
        (staged / "skill.py").write_text(text)
        (staged / "env").mkdir()
        whole = sha256(text.encode())
        for package in packages:
            target = staged / "env" / package.name
            if package.is_dir():
                shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(package, target)
            whole.update(str(package).encode())
        layer = await images.layer(whole.hexdigest(), staged, base, lambda step: None)
        shutil.rmtree(staged, ignore_errors=True)
        return Unit(name, base, layer, await images.runtime(interpreter.version), limits or Limits())

    return make


# The scope is a module, not the session: an open fixture keeps its event loop open, and then no test can run another.
@pytest.fixture(scope="module")
async def microvm(cache: Path, images: Images, kernel_folder: Path) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as stack:
        backend = MicrovmBackend(home=cache, images=images, kernel_folder=kernel_folder)
        yield await stack.enter_async_context(backend)


@pytest.fixture(scope="module")
async def namespace() -> AsyncIterator[Backend]:
    # It takes a control group where one can be made. `tests/promises/test_unlimited.py` tests what it does elsewhere.
    async with NamespaceBackend(allow_unlimited=["memory"]) as backend:
        yield backend


@pytest.fixture(params=[Isolation.MICROVM, Isolation.NAMESPACE], ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn: a promise must hold on all backends that make it."""
    found: Backend = request.getfixturevalue(str(request.param))
    return found
