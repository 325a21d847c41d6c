"""What a command may load before it answers. Checked in `sys.modules`, so the speed of the machine does not matter.

`docs/benchmarks` has the measured times (`*-startup.json`). If a module fails here, import it inside the function that
needs it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SLOW = {
    "asyncio": "fifty modules; only what opens an event loop needs it",
    "cryptography": "a native library; only an open vault needs it",
    "fastapi": "a web framework, which silo does not use",
    "jsonschema": "sixty modules; only a call or an installation checks a schema",
    "mcp": "hundreds of pydantic models; only the server and the test client speak MCP",
    "numpy": "a native library; only a search ranks",
    "pydantic": "defining its models takes longer than all other imports together",
    "pyrage": "a native library; only `silo vault export` and `import` encrypt with age",
    "rich": "only a table or a spinner needs it",
    "silo_interaction": "loads asyncio",
    "sqlite3": "a native library; only approvals and the search index keep a database",
    "starlette": "a web framework; `mcp` loads it",
    "uvicorn": "a web server; `mcp` loads it",
}

_OPENS_RUNTIME = {"asyncio", "pydantic", "silo_interaction", "sqlite3"}
"""What `silo.runtime` loads: the configuration's models, an event loop, and the store of approvals."""

_PROGRAM = """\
import json, sys
from silo.cli.main import main
status = main() if sys.argv[1:] else 0
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        pytest.param([], set(), id="import of silo.cli.main"),
        pytest.param(["--version"], set(), id="--version"),
        pytest.param(["--help"], set(), id="--help"),
        # The parser loads pydantic as soon as it runs a command.
        pytest.param(["mcp", "config", "vscode"], {"pydantic"}, id="mcp config"),
        pytest.param(["list", "--json"], _OPENS_RUNTIME, id="list"),
        pytest.param(["audit", "show"], {"asyncio", "pydantic", "silo_interaction"}, id="audit show"),
        # No such skill is installed. The refusal suggests the nearest tools, and that search loads numpy.
        pytest.param(["run", "absent.tool"], {*_OPENS_RUNTIME, "numpy"}, id="run"),
    ],
)
def test_command_loads_nothing_slow_that_it_does_not_need(tmp_path, arguments, allowed):
    status, loaded = _loaded(tmp_path, arguments)
    assert status in {0, 2}
    found = {name: why for name, why in SLOW.items() if name in loaded and name not in allowed}
    assert not found


def test_main_module_loads_no_parser_and_no_other_module_of_the_command_line(tmp_path):
    """`silo mcp serve` starts here, and a client waits for it."""
    _, loaded = _loaded(tmp_path, [])
    assert "typer" not in loaded
    ours = {name for name in loaded if name.partition(".")[0] == "silo"}
    assert {name for name in ours if name.startswith("silo.cli.")} == {"silo.cli.main"}


def test_server_starts_without_the_parser_and_what_draws_tables(tmp_path):
    """`mcp serve` is what a client waits for. Its input is closed, so it ends as soon as it has started."""
    status, loaded = _loaded(tmp_path, ["mcp", "serve"])
    assert status == 0
    assert "mcp" in loaded
    assert not loaded & {"typer", "rich", "numpy", "jsonschema", "mcp.client"}


def _loaded(home, arguments):
    environ = {"PATH": "/usr/bin:/bin", "SILO_HOME": str(home / "state"), "SILO_MASTER_KEY": "ab" * 32}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    return status, set(names)
