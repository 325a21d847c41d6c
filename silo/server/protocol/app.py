"""The MCP server: which request gets which answer, in both protocol eras. `silo.server.transports` carries the bytes.

Eras: up to 2025-11-25 a client starts with a handshake and keeps a session; since 2026-07-28 each request stands alone.
The low-level server of `mcp` serves both. What differs for silo (list changes, capabilities) is in `changes` and in
`SiloServer`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import mcp.types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError

from silo.errors import ArgumentsInvalid, ArgumentsRefused, SiloError
from silo.model import Caller, ProgressReport, Result, Tool
from silo.server.engine import Engine, ServerOptions
from silo.server.protocol.changes import LiveListing
from silo.server.protocol.elicitation import CallRequest, Elicitation, StateForeign, request_states
from silo.server.protocol.listing import CursorInvalid, Listing, page
from silo.server.protocol.manuals import MEDIA_TYPE, describe, manual_uri, read_manual
from silo.server.protocol.overview import overview
from silo.server.protocol.progress import relayed
from silo.server.protocol.results import call_result, error_result, hint_for_model, internal_error, printable
from silo.server.protocol.search import parse_search, search
from silo.server.protocol.tools import EXECUTE, SEARCH, execute_tool, listed_tokens, search_tool, skill_tool

_log = logging.getLogger(__name__)

Context = ServerRequestContext[None, Any]

CallAnswer = types.CallToolResult | types.InputRequiredResult

INSTRUCTIONS = f"""\
silo runs each call in a fresh sandbox. Find tools with `{SEARCH}`, call them with `{EXECUTE}`. A skill's manual is \
the resource `skill://SKILL/SKILL.md`. An error begins with `error [code]`; its hint says what to change, or what to \
ask the user for."""

MAX_CLIENT_CHARS = 100

_MAX_CLIENTS = 8
"""How many client names a list of tools is kept for. One process serves one client, which normally has one name."""


def build_server(engine: Engine, options: ServerOptions) -> Server[None]:
    """Return the MCP server for `engine`; run it once, on one transport.

    It watches the installed skills while it runs. No request makes it raise: an error becomes an answer.
    """
    installed = LiveListing(engine)
    app = _App(engine, options, installed)

    @asynccontextmanager
    async def lifespan(_: Server[None]) -> AsyncIterator[None]:
        async with installed.watched(options.poll_s):
            yield

    server = SiloServer(
        "silo",
        title="silo",
        version=options.version,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=app.list_tools,
        on_call_tool=app.call_tool,
        on_list_resources=app.list_resources,
        on_list_resource_templates=app.list_resource_templates,
        on_read_resource=app.read_resource,
        on_subscriptions_listen=installed.on_listen,
    )
    server.middleware.append(request_states(options.request_state_key))
    server.add_notification_handler("notifications/initialized", types.NotificationParams, app.initialized)
    return server


class SiloServer(Server[None]):
    """The low-level server, which tells clients of the handshake era, too, that its lists can change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As in `Server`, with `listChanged` for tools and resources unless told otherwise."""
        changing = NotificationOptions(tools_changed=True, resources_changed=True)
        return super().create_initialization_options(
            notification_options or changing, experimental_capabilities, extensions
        )


class _App:
    """The handlers, one method for each kind of request. They share the engine and the list of what is installed."""

    def __init__(self, engine: Engine, options: ServerOptions, installed: LiveListing) -> None:
        self._engine = engine
        self._options = options
        self._installed = installed
        self._elicitation = Elicitation(options.patience_s, prompt_s=options.prompt_s, uses_client=options.uses_client)
        self._shown: tuple[Listing, dict[str, tuple[types.Tool, ...]]] | None = None
        # A server runs once, on one transport, so all its requests come over one connection. Since 2026-07-28 no
        # request names a session, and what a client says of itself proves nothing: the connection is what is left.
        self._session = secrets.token_hex(8)

    async def initialized(self, ctx: Context, params: types.NotificationParams) -> None:
        self._installed.greet(ctx.session)

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        with _protocol_errors("tools/list"):
            tools = await self._tools(await self._installed.current(), self._caller(ctx))
            # The key sorts silo's own two tools first.
            keyed = sorted((f"{int(tool.name not in (SEARCH, EXECUTE))}{tool.name}", tool) for tool in tools)
            found, following = page(keyed, lambda item: item[0], _cursor(params), self._options.page_size)
            return types.ListToolsResult(tools=[tool for _, tool in found], next_cursor=following)

    async def _tools(self, listing: Listing, caller: Caller) -> tuple[types.Tool, ...]:
        """Return the tools that are listed for a client; they stay the same until the listing changes."""
        if self._shown is None or self._shown[0] is not listing:
            self._shown = listing, {}
        shown = self._shown[1]
        if caller.client not in shown:
            usage = await self._engine.usage(caller) if self._options.expose == "auto" else {}
            # A client may give another name each time. The oldest choice is dropped.
            while len(shown) >= _MAX_CLIENTS:
                del shown[next(iter(shown))]
            shown[caller.client] = await anyio.to_thread.run_sync(self._describe, listing, usage)
        return shown[caller.client]

    def _describe(self, listing: Listing, usage: Mapping[str, int]) -> tuple[types.Tool, ...]:
        def described(tool: Tool) -> types.Tool:
            return skill_tool(tool, listing.expected[tool.id])

        direct = listing.listed(
            self._options.expose,
            self._options.direct_budget_tokens,
            cost=lambda tool: listed_tokens(described(tool)),
            usage=usage,
        )
        return (execute_tool(), search_tool(overview(listing.skills)), *map(described, direct))

    async def list_resources(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        with _protocol_errors("resources/list"):
            skills = (await self._installed.current()).skills
            found, following = page(skills, lambda skill: skill.namespace, _cursor(params), self._options.page_size)
            resources = [
                types.Resource(
                    uri=manual_uri(skill.namespace),
                    name=skill.namespace,
                    title=f"Manual of {skill.namespace}",
                    description=describe(skill),
                    mime_type=MEDIA_TYPE,
                )
                for skill in found
            ]
            return types.ListResourcesResult(resources=resources, next_cursor=following)

    async def list_resource_templates(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        with _protocol_errors("resources/templates/list"):
            page((), str, _cursor(params), self._options.page_size)
            return types.ListResourceTemplatesResult(resource_templates=[])

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        with _protocol_errors("resources/read"):
            for skill in (await self._installed.current()).skills:
                if manual_uri(skill.namespace) == params.uri:
                    manual = await anyio.to_thread.run_sync(read_manual, skill)
                    text = types.TextResourceContents(uri=manual.uri, mime_type=MEDIA_TYPE, text=printable(manual.text))
                    return types.ReadResourceResult(contents=[text])
            raise MCPError(
                types.INVALID_PARAMS, "Unknown resource; resources/list gives the ones there are", {"uri": params.uri}
            )

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> CallAnswer:
        try:
            arguments: Mapping[str, Any] = params.arguments or {}
            if params.name == SEARCH:
                _refuse_unknown(SEARCH, arguments, set(search_tool().input_schema["properties"]))
                return await search(self._engine, self._installed, parse_search(arguments), self._caller(ctx))
            listing = await self._installed.current()
            name = params.name
            if name == EXECUTE:
                name, arguments = _parse_execute(arguments)
            return await self._run(ctx, params, listing, name, arguments)
        except StateForeign as error:
            raise MCPError(types.INVALID_PARAMS, "Invalid or expired requestState") from error
        except SiloError as error:
            return error_result(error)
        except Exception:
            # The call ends here. Up to 2025-11-25 the library would send the exception's text, which is not redacted.
            incident = _record("tools/call")
            return internal_error(incident)

    async def _run(
        self,
        ctx: Context,
        params: types.CallToolRequestParams,
        listing: Listing,
        name: str,
        arguments: Mapping[str, Any],
    ) -> CallAnswer:
        tool = listing.find(name)
        # An unknown name goes to the engine, too: it suggests the nearest names, and records the refusal.
        identity = tool.id if tool is not None else name
        caller = self._caller(ctx)

        async def work(on_progress: Callable[[ProgressReport], None]) -> Result | CallAnswer:
            async def attempt(patience_s: float, shows_links: bool) -> Result:
                return await self._engine.call(
                    identity,
                    arguments,
                    on_progress=on_progress,
                    caller=caller,
                    patience_s=patience_s,
                    shows_links=shows_links,
                )

            request = CallRequest.of(params, identity, arguments, caller.session)
            return await self._elicitation.call(ctx, request, attempt)

        try:
            outcome = await relayed(ctx.session.report_progress, work)
        except (ArgumentsInvalid, ArgumentsRefused) as error:
            return error_result(error, listing.show(name))
        return call_result(outcome, tool) if isinstance(outcome, Result) else outcome

    def _caller(self, ctx: Context) -> Caller:
        """Return the caller. The client's name is only its own claim, so it is cut, and unprintable characters go."""
        params = ctx.session.client_params
        name = "" if params is None else f"{params.client_info.name} {params.client_info.version}".strip()
        return Caller("mcp", "".join(c for c in name if c.isprintable())[:MAX_CLIENT_CHARS], self._session)


def _parse_execute(arguments: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    _refuse_unknown(EXECUTE, arguments, {"tool", "arguments"})
    shape = 'expected {"tool": "skill.name", "arguments": {…}}'
    tool, inner = arguments.get("tool"), arguments.get("arguments")
    if not isinstance(tool, str) or not tool:
        raise ArgumentsInvalid("'tool' must be the id of a tool", hint=f"{shape}; {SEARCH} gives the ids")
    if inner is not None and not isinstance(inner, dict):
        given = "a string; give the object itself, not its JSON" if isinstance(inner, str) else type(inner).__name__
        raise ArgumentsInvalid(f"'arguments' must be an object, not {given}", hint=shape)
    if tool in {SEARCH, EXECUTE}:
        raise ArgumentsInvalid(f"{tool} can't be called through {EXECUTE}", hint=f"call {tool} directly")
    return tool, inner or {}


def _refuse_unknown(tool: str, arguments: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(arguments) - known):
        names = " and ".join(f"'{name}'" for name in sorted(known))
        inside = " What the tool itself takes goes inside 'arguments'." if tool == EXECUTE else ""
        raise ArgumentsInvalid(f"{tool} has no argument {unknown[0][:80]!r}", hint=f"it takes {names}.{inside}")


def _cursor(params: types.PaginatedRequestParams | None) -> str | None:
    return params.cursor if params is not None else None


@contextmanager
def _protocol_errors(method: str) -> Iterator[None]:
    """Turn a handler's exceptions into protocol errors, without the text of unexpected ones."""
    try:
        yield
    except MCPError:
        raise
    except CursorInvalid as error:
        raise MCPError(types.INVALID_PARAMS, "Invalid cursor; start again without one") from error
    except SiloError as error:
        message = printable(f"{error.message} [{error.code}]")
        raise MCPError(
            types.INTERNAL_ERROR, message, {"code": error.code, "hint": printable(hint_for_model(error))}
        ) from error
    except Exception as error:
        # The request ends here. `call_tool` says why the text is not sent.
        incident = _record(method)
        raise MCPError(types.INTERNAL_ERROR, f"silo failed unexpectedly (incident {incident})") from error


def _record(method: str) -> str:
    """Write the current exception to the log, and return the id under which it can be found there."""
    incident = secrets.token_hex(4)
    _log.exception("incident %s: %s failed unexpectedly", incident, method)
    return incident
