from __future__ import annotations

import subprocess
import sys

from silo.testing import PATIENCE_S


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_deferred_package_becomes_the_whole_one_when_something_asks():
    """Other code in the process must not notice: a plugin that does `import mcp; mcp.Client` gets it."""
    assert run(
        "import gc, sys\n"
        "from silo.server.transports.startup import fast_imports\n"
        "with fast_imports():\n"
        "    import mcp.server.lowlevel.server as low\n"
        "print('mcp.client.client' in sys.modules)\n"
        "import mcp\n"
        "from mcp.server import MCPServer, Server\n"
        "from mcp import Client\n"
        "print(mcp.Client is Client, Server is low.Server, type(mcp).__name__, "
        "gc.isenabled(), gc.get_freeze_count() > 0)"
    ) == ["False", "True", "True", "module", "True", "True"]


def test_unknown_name_of_a_deferred_package_is_an_ordinary_error():
    assert run(
        "from silo.server.transports.startup import fast_imports\n"
        "with fast_imports(): import mcp\n"
        "try: from mcp import nothing\n"
        "except ImportError as error: print('nothing' in str(error), hasattr(mcp, '__wrapped__'))"
    ) == ["True", "False"]


def test_package_that_is_loaded_already_is_left_alone():
    assert run(
        "import mcp\n"
        "from silo.server.transports.startup import fast_imports\n"
        "before = mcp.Client\n"
        "with fast_imports(): import mcp.server\n"
        "print(mcp.Client is before)"
    ) == ["True"]
