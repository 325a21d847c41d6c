"""`silo mcp serve`: from the environment to a running server. `silo.server` speaks MCP.

A client waits while this loads, so typer is not imported. `silo --help` loads it too, so slow modules are imported
where they are used: within `fast_imports`, `silo.config.schema` (pydantic) and `silo.server.transports.stdio`.
"""

from __future__ import annotations

from silo.cli.context import CommandContext
from silo.errors import UsageError
from silo.model import Caller
from silo.server.engine import ServerOptions
from silo.server.transports.startup import fast_imports
from silo.version import __version__


def serve(
    context: CommandContext, *, transport: str = "stdio", expose: str | None = None, headless: bool = False
) -> int:
    """Serve one MCP client over stdin and stdout until it leaves; return the exit status.

    Args:
        context: has the environment, and opens the runtime.
        transport: only `stdio` in this version.
        expose: overrides `server.expose` of the configuration.
        headless: ask nobody, whatever the configuration says.

    Raises:
        UsageError: `transport` is another one, or stdin or stdout is closed.
        HomeUnsafe, ConfigInvalid, StateUnusable: the state folder can't be used.
    """
    if transport != "stdio":
        raise UsageError(
            f"this version of silo does not serve MCP over {transport}",
            hint="leave --transport out: a client starts `silo mcp serve` and speaks over stdin and stdout",
        )
    with fast_imports():
        from silo.config.schema import ServerSection
        from silo.server.transports.stdio import serve as serve_stdio

        # Opened before stdout is claimed, so that a broken configuration is reported like any other error.
        runtime = context.open_runtime(
            caller=Caller("mcp"), overrides={"approval.headless": True} if headless else None
        )
    section = runtime.config.server
    if expose is not None:
        section = ServerSection.model_validate({**section.model_dump(), "expose": expose})
    options = ServerOptions(
        version=__version__,
        expose=section.expose,
        direct_budget_tokens=section.direct_budget_tokens,
        patience_s=runtime.config.approval.patience_s,
        request_state_key=None if runtime.config.approval.headless else runtime.sealing_key(),
        uses_client="client" in runtime.config.approval.channels,
    )
    return serve_stdio(lambda: runtime, options)
