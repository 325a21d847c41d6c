"""silo for agents written in Python: what is installed, finding tools, calling them.

    from silo.runtime import Runtime

    async with Runtime() as silo:
        found = await silo.search("sign a token")
        result = await silo.call("jwt.sign", {"claims": {"sub": "42"}})

`SyncRuntime` is the same without `async`. `silo.compose` builds the parts, `silo.calls.pipeline` shows the steps of a
call. The command line and the MCP server use this module as any program does, and wait for it. So slow modules are
imported where they are used: `silo.install.installer` (packaging and uv, 0.03 s).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio import to_thread
from silo_vault import Vault

from silo.calls.explain import CallExplanation, explain_call
from silo.calls.pipeline import CallPipeline
from silo.catalog.store import Damaged
from silo.compose.parts import build_parts
from silo.compose.vault import VaultSetup
from silo.config.schema import Config
from silo.errors import ArgumentsInvalid, StateUnusable, UsageError
from silo.model import Call, Caller, ProgressReport, Result, Skill, Tool
from silo.policy.visible import ExpectedVerdict, Visible
from silo.router.index import Match
from silo.runners.units import ImageStore
from silo.sandbox.base import Backend, Probe

if TYPE_CHECKING:
    from silo_interaction import Channel

    from silo.catalog.plan import InstallPlan
    from silo.sync import SyncRuntime as SyncRuntime

A_PROGRAM = Caller("library")
"""The caller, if the program names none."""


class Runtime:
    """Installed skills, and everything that is needed to call them; an async context manager.

    Calls may run side by side from any number of tasks of one event loop (asyncio; trio is not supported by all parts).
    Leaving the context ends every guest.
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        config: Config | None = None,
        environ: Mapping[str, str] | None = None,
        caller: Caller = A_PROGRAM,
        channel: Channel | None = None,
        ask_passphrase: Callable[[], str | None] | None = None,
        show_code: Callable[[str], None] | None = None,
        backends: Sequence[Backend] | None = None,
        images: ImageStore | None = None,
    ) -> None:
        """Read the configuration and check the home folder; nothing is started yet.

        Args:
            home: the folder with all state; default `$SILO_HOME`, else `~/.silo`. Made if it is not there.
            config: default: `silo.toml` of that folder, and the environment.
            environ: default: the process's. silo uses its own variables, and uv uses those about package indexes.
            caller: on whose behalf this runtime calls; the audit log and every question to a person name it.
            channel: reaches a person where this process runs; it stands for `terminal` in `approval.channels`. None:
                nobody is there.
            ask_passphrase: asks a person for the vault's recovery passphrase if no other key opens the vault; returns
                None if nobody is there. Called in a worker thread.
            show_code: shows the code that pairs a browser with the approval page. Only the person who runs this program
                may see it: an agent that sees it can approve its own calls. Called in a worker thread.
            backends: strongest first, in place of silo's own; for tests and for third-party backends.
            images: in place of those under `home`; for tests.

        Raises:
            HomeUnsafe: others could change the folder.
            ConfigInvalid: the configuration can't be read, or doesn't fit the schema.
        """
        self._parts = build_parts(
            home=home,
            config=config,
            environ=environ,
            caller=caller,
            channel=channel,
            ask_passphrase=ask_passphrase,
            show_code=show_code,
            backends=backends,
            images=images,
        )
        self._stack = AsyncExitStack()
        self._is_open = False

    async def __aenter__(self) -> Self:
        """Get backends ready; fast, because they probe and build only when they are first needed."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._parts.approvals.close)
            for backend in self._parts.backends:
                await stack.enter_async_context(backend)
            self._stack = stack.pop_all()
        self._is_open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End every guest."""
        self._is_open = False
        await self._stack.aclose()
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._parts.finder.close)
            await to_thread.run_sync(self._parts.vault.close)

    @property
    def home(self) -> Path:
        """The folder with all state."""
        return self._parts.home

    @property
    def config(self) -> Config:
        """The configuration as it was read."""
        return self._parts.config

    @property
    def vault(self) -> Vault:
        """The vault; created at first use of this property, opened at first read. Its methods block."""
        return self._parts.vault.vault

    @property
    def vault_setup(self) -> VaultSetup:
        """The vault with the keys and places that belong to it."""
        return self._parts.vault

    def record(self, event: str, **facts: object) -> None:
        """Add an event that isn't a call to the audit log, e.g. a change of keys. Blocks.

        Raises:
            AuditBroken: the log could not be written.
        """
        self._parts.record(event, **facts)

    def sealing_key(self) -> bytes:
        """Return 32 bytes that stay the same for this state folder. Blocks.

        The server seals with them what clients keep for silo between two requests.

        Raises:
            StateUnusable: the store can't be opened.
        """
        return self._parts.approvals.sealing_key()

    async def skills(self) -> tuple[Skill, ...]:
        """Return the installed skills, sorted by namespace."""
        return (await to_thread.run_sync(self._parts.skills.now)).skills

    async def damaged(self) -> tuple[Damaged, ...]:
        """Return the skills that `skills` leaves out because their record can't be read, sorted by namespace."""
        return (await to_thread.run_sync(self._parts.skills.now)).damaged

    async def tools(self) -> tuple[Tool, ...]:
        """Return the tools of all installed skills, sorted by id."""
        return (await to_thread.run_sync(self._parts.skills.now)).tools

    async def skill(self, namespace: str) -> Skill:
        """Return one installed skill.

        Raises:
            SkillUnknown: no skill has that name; the hint has the nearest names.
            SkillChanged: its files are not what was agreed to.
        """
        return await to_thread.run_sync(self._parts.skills.get, namespace)

    async def resolve(self, tool: str, caller: Caller | None = None) -> tuple[Skill, Tool]:
        """Return the tool that a call by this name would reach, and its skill.

        Raises:
            SkillUnknown, ToolUnknown, SkillChanged: as a call would.
        """
        return await to_thread.run_sync(self._parts.skills.resolve, tool, self._who(caller))

    async def visible(self, caller: Caller | None = None) -> Visible:
        """Return the tools that a caller may know of, and the verdict that it can expect for each.

        It is the same object until a skill is installed, replaced or removed. Pass it to `search` or `find` as `among`,
        and they don't look at the folder again.
        """
        return await to_thread.run_sync(self._parts.skills.visible, self._who(caller))

    async def expected_verdicts(self, caller: Caller | None = None) -> Mapping[str, ExpectedVerdict]:
        """Return by tool what a caller can expect of a call: it runs, asks, is refused, or its arguments decide."""
        return (await self.visible(caller)).expected

    async def outlooks(self, caller: Caller | None = None) -> Mapping[str, ExpectedVerdict]:
        """Deprecated: the old name of `expected_verdicts`."""
        return await self.expected_verdicts(caller)

    async def usage(self, caller: Caller | None = None) -> Mapping[str, int]:
        """Return how often a caller has called each tool lately; nothing if `router.learning` is off."""
        return await to_thread.run_sync(self._parts.finder.usage, self._who(caller))

    async def search(
        self,
        query: str,
        *,
        limit: int = 5,
        skill: str | None = None,
        caller: Caller | None = None,
        among: Visible | None = None,
    ) -> tuple[Match, ...]:
        """Return at most `limit` tools that do what the query says and that the caller may use, best first.

        Args:
            query: a few words; any text has an answer, and only its first 2,000 characters count.
            limit: how many.
            skill: look only among its tools.
            caller: default: the caller of this runtime.
            among: what `visible` returned for this caller; None looks at the folder of skills again.

        Raises:
            SkillUnknown: the caller knows no skill of that name; the hint has the nearest names.
        """
        return (await self.find([query], limit=limit, skill=skill, caller=caller, among=among))[0]

    async def find(
        self,
        queries: Sequence[str],
        *,
        limit: int = 5,
        skill: str | None = None,
        caller: Caller | None = None,
        among: Visible | None = None,
    ) -> tuple[tuple[Match, ...], ...]:
        """Do what `search` does for several queries of one task; returns an answer for each, in their order."""
        who = self._who(caller)
        find = self._parts.finder.find
        return await to_thread.run_sync(lambda: find(queries, limit=limit, skill=skill, caller=who, among=among))

    async def forget(self) -> bool:
        """Forget what the router learned from the calls of all callers; false if there was nothing.

        Raises:
            StateUnusable: the file can't be deleted.
        """
        file = self._parts.learned
        try:
            return await to_thread.run_sync(file.clear)
        except OSError as error:
            raise StateUnusable(
                f"can't delete {file.path}: {error.strerror or error}", hint=f"delete it yourself: rm {file.path}"
            ) from error

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        backend: str | None = None,
        on_progress: Callable[[ProgressReport], None] | None = None,
        caller: Caller | None = None,
        patience_s: float | None = None,
        shows_links: bool = False,
    ) -> Result:
        """Run one call in a fresh guest. If it is cancelled, its guest has ended before this method returns.

        Args:
            tool: `skill.name` or `skill__name`.
            arguments: JSON values; `silo.File` objects where the tool takes a file.
            backend: the name of the backend for this one call. A backend below the configured floor must be named here.
            on_progress: called on the event loop for each report of the skill; must not block.
            caller: default: the caller of this runtime.
            patience_s: how long to wait for a person, in seconds, before `ApprovalPending`; None: until the question
                expires. The same call, made again, finds the answer.
            shows_links: the calling program shows the link in `ApprovalPending` to the user, so silo opens no browser.

        Raises:
            SiloError: a subclass for each way a call can fail; see `docs/reference/errors.md`.
        """
        if not isinstance(arguments, Mapping | None):
            raise ArgumentsInvalid(
                f"the arguments of {tool} are a {type(arguments).__name__}, not a mapping",
                hint='give them by name: {"claims": {"sub": "42"}}',
            )
        who = self._who(caller)
        call = Call(secrets.token_hex(8), tool, arguments or {}, who, backend, patience_s, shows_links)
        pipeline = self._opened()
        result = await (pipeline.run(call) if on_progress is None else pipeline.run(call, on_progress))
        if not result.is_error:
            await to_thread.run_sync(self._parts.finder.called, who, tool, call.arguments)
        return result

    async def explain(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, caller: Caller | None = None
    ) -> CallExplanation:
        """Say what would happen to a call: which rules apply, and what a person would be asked.

        Nothing runs and nobody is asked.

        Args:
            tool, arguments: as for `call`; some or all arguments may be left out.
            caller: default: the caller of this runtime.

        Raises:
            SkillUnknown, ToolUnknown: nothing has that name.
            SkillChanged: the skill's files are not what was agreed to.
            ArgumentsInvalid, FileRefused: the arguments are not JSON, or a call may not have one of the files.
        """
        return await explain_call(self._opened(), Call("", tool, arguments or {}, self._who(caller)))

    async def install(
        self,
        source: str,
        *,
        agree: Callable[[InstallPlan], Awaitable[bool]],
        name: str | None = None,
        allow_builds: bool = False,
        allow_unsandboxed_builds: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
        backend: str | None = None,
        provision: bool = False,
    ) -> Skill:
        """Install a built-in skill or a script, in place of an earlier version. Its code runs in a sandbox only.

        New code for a name that holds secrets or approvals (`InstallPlan.grants`) also needs a person who agrees at
        this runtime's channel or on the approval page, whatever `agree` returns. The same code again does not.

        Args:
            source: `jwt`, or the path of a script or of a folder with a `skill.py`.
            agree: shows the plan to a person and says whether they agree.
            name: the namespace, in place of the skill's own.
            allow_builds: build packages without a wheel in a sandbox, after `agree`. If their dependencies are not
                known without that, `agree` is called twice, first with a plan that `is_partial`.
            allow_unsandboxed_builds: the same; where no sandbox works, silo asks a person as well.
            on_step: called with a short sentence at the start of each longer step.
            backend: the name of the backend that runs the script to read its tools.
            provision: ask nobody about `InstallPlan.grants`: code that `install.provision` in `silo.toml` names gets
                them, other code is refused.

        Raises:
            SiloError: as `silo.install.installer.Installer.install`; nothing is installed then.
        """
        from silo.install.installer import InstallRequest

        self._opened()
        request = InstallRequest(
            source,
            Path.cwd(),
            self._parts.caller,
            name=name,
            allow_builds=allow_builds,
            allow_unsandboxed_builds=allow_unsandboxed_builds,
            backend=backend,
            provision=provision,
        )
        installer = self._parts.installer()
        skill = await installer.install(request, agree=agree, on_step=on_step)
        await installer.prune()
        return skill

    async def uninstall(self, namespace: str) -> Skill | None:
        """Remove a skill and everything that was built for it.

        Returns:
            The skill, or None if its record could not be read.

        Raises:
            SkillUnknown: it is not installed.
        """
        self._opened()
        installer = self._parts.installer()
        ids = [tool.id for tool in await self.tools() if tool.skill == namespace]
        skill = await installer.uninstall(namespace, caller=self._parts.caller)
        # A skill that is installed under this name later may do something else.
        await to_thread.run_sync(self._parts.learned.forget_tools, ids)
        await installer.prune()
        return skill

    async def probe(self, *, refresh: bool = False) -> tuple[Probe, ...]:
        """Say for each backend, strongest first, whether it works here.

        Args:
            refresh: probe again, instead of using results that are remembered since the host booted.
        """
        self._opened()
        return await self._parts.runner.probe(refresh=refresh)

    def _who(self, caller: Caller | None) -> Caller:
        own = self._parts.caller
        return own if caller is None else replace(caller, session=caller.session or own.session)

    def _opened(self) -> CallPipeline:
        if not self._is_open:
            raise UsageError("the runtime is not open", hint="use it in a context: async with Runtime() as silo: ...")
        return self._parts.pipeline


def __getattr__(name: str) -> object:
    # `silo.sync` is built on this module; programs import `SyncRuntime` from here.
    if name == "SyncRuntime":
        from silo.sync import SyncRuntime

        return SyncRuntime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
