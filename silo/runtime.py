"""silo for agents written in Python, and the composition root: the one place where configuration becomes objects.

    from silo.runtime import Runtime

    async with Runtime() as silo:
        found = await silo.search("sign a token")
        result = await silo.call("jwt.sign", {"claims": {"sub": "42"}})

`SyncRuntime` is the same without `async`. What a call goes through is told in `silo.calls.pipeline`; command line and MCP server are
callers of this module like any other.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from silo.audit.log import AuditLog
from silo.audit.trail import caller_record
from silo.calls.pipeline import CallPipeline
from silo.catalog.store import Damaged, SkillStore
from silo.compose.approvals import build_approvals
from silo.compose.vault import VaultSetup
from silo.config.home import default_home, prepare_home
from silo.config.load import load
from silo.config.schema import Config
from silo.discovery.learned import LearnedFile
from silo.discovery.search import Finder
from silo.errors import ArgumentsInvalid, SiloError, SkillUnknown, StateUnusable, ToolUnknown, UsageError
from silo.model import Call, Caller, Isolation, ProgressReport, Result, Skill, Tool
from silo.policy.visible import Outlook
from silo.router.index import Match
from silo.runners.choose import Sandboxes
from silo.runners.units import ImageStore, SkillUnits
from silo.sandbox.base import KIB, MIB, Backend, Limits, Probe
from silo.sandbox.image import Images
from silo.schema.files import InputRules
from silo.secrets.lease import Secrets

if TYPE_CHECKING:
    from silo_interaction import Channel
    from silo_vault import Vault

    from silo.catalog.plan import InstallPlan
    from silo.install.installer import Installer

T = TypeVar("T")

MASTER_KEY = "SILO_MASTER_KEY"

A_PROGRAM = Caller("library")
"""Who asks, as long as nothing else is said."""


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
            environ: default: the process's. Of it, silo uses its own variables, and uv those that are about package indexes.
            caller: who asks, for the record and for the person who is asked.
            channel: reaches a person where this process runs, in the place of `terminal` in `approval.channels`; None: nobody is there.
            ask_passphrase: asks a person for the vault's recovery passphrase, where it opens with nothing else; returns None if nobody
                is there. Called in a worker thread.
            show_code: shows a code, with which a browser is paired with the approval page, to the person who runs this, and to nobody
                else (an agent that sees it can approve its own calls). Called in a worker thread.
            backends: strongest first, in place of silo's own; for tests and for backends of third parties.
            images: in place of those under `home`; for tests.

        Raises:
            HomeUnsafe: others could change the folder.
            ConfigInvalid: the configuration can't be read, or holds what the schema does not have.
        """
        environ = dict(os.environ if environ is None else environ)
        master_key = environ.pop(MASTER_KEY, None)
        self._environ = environ
        self._home = prepare_home(home if home is not None else default_home(environ))
        self._config = config if config is not None else load(self._home, environ=environ).config
        # One session, one task of an agent: how many questions it took can be counted (`silo audit show --tasks`).
        self._caller = replace(caller, session=caller.session or secrets.token_hex(4))
        self._store = SkillStore(self._home / "skills")
        self._audit = AuditLog(self._home, now=_now, flush=self._config.audit.flush)
        own_images = self._own_images = Images(self._home / "images")
        self._images = images if images is not None else own_images
        resident = caller.kind != "cli"
        if backends is None:
            backends = build_backends(self._home, self._config, own_images, resident=resident)
        self._backends = tuple(backends)
        self._sandboxes = _sandboxes(self._backends, self._config)
        self._units = SkillUnits(self._images, _limits(self._config))
        self._setup = VaultSetup(
            self._home,
            self._config,
            environ=self._environ,
            master_key=master_key,
            ask_passphrase=ask_passphrase,
        )
        self._approvals = build_approvals(
            self._home,
            self._config,
            environ=environ,
            terminal=channel,
            keep=self._keep_secret,
            show_code=show_code,
            record=self.record,
        )
        self._learned = LearnedFile(self._home) if self._config.router.learning else None
        self._finder = Finder(
            self._store,
            self._config.policy.to_rules(),
            self._config.router.to_settings(),
            cache=self._home / "run" / "router.npz",
            learned=self._learned,
        )
        self._pipeline: CallPipeline | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Get backends ready; fast, because they probe and build only when they are first needed."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._approvals.close)
            for backend in self._backends:
                await stack.enter_async_context(backend)
            self._pipeline = self._build_pipeline()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End every guest."""
        self._pipeline = None
        await self._stack.aclose()
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._finder.close)
            await to_thread.run_sync(self._setup.close)

    @property
    def home(self) -> Path:
        """The folder with all state."""
        return self._home

    @property
    def config(self) -> Config:
        """The configuration as it was read."""
        return self._config

    @property
    def vault(self) -> Vault:
        """The vault; made when first asked for, opened when first read. Its methods block."""
        return self._setup.vault

    @property
    def vault_setup(self) -> VaultSetup:
        """The vault with the keys and places that belong to it."""
        return self._setup

    def record(self, event: str, **facts: object) -> None:
        """Add to the audit log something that was done on purpose and is no call, e.g. a change of keys. Blocks.

        Raises:
            AuditBroken: it could not be written.
        """
        self._audit.append(event, {"caller": caller_record(self._caller), **facts})

    def sealing_key(self) -> bytes:
        """Return 32 bytes that stay the same for this state folder, to seal what clients keep for silo between two requests. Blocks.

        Raises:
            StateUnusable: the store can't be opened.
        """
        return self._approvals.sealing_key()

    async def skills(self) -> tuple[Skill, ...]:
        """Return the installed skills, sorted by namespace."""
        return await to_thread.run_sync(self._finder.skills)

    async def damaged(self) -> tuple[Damaged, ...]:
        """Return the skills that `skills` leaves out because their record can't be read, sorted by namespace."""
        return await to_thread.run_sync(self._store.damaged)

    async def tools(self) -> tuple[Tool, ...]:
        """Return the tools of all installed skills, sorted by id."""
        return tuple(sorted((tool for skill in await self.skills() for tool in skill.tools), key=lambda tool: tool.id))

    async def skill(self, namespace: str) -> Skill:
        """Return one installed skill.

        Raises:
            SkillUnknown: there is none of that name; the hint has the nearest names.
            SkillChanged: its files are not what was agreed to.
        """
        return await to_thread.run_sync(self._store.get, namespace)

    async def outlooks(self, caller: Caller | None = None) -> Mapping[str, Outlook]:
        """Return what a caller has to expect of a call, by tool: it runs, asks, is refused, or its arguments decide."""
        return await to_thread.run_sync(self._finder.outlooks, self._who(caller))

    async def usage(self, caller: Caller | None = None) -> Mapping[str, int]:
        """Return how often a caller has called each tool lately; nothing if `router.learning` is off."""
        return await to_thread.run_sync(self._finder.usage, self._who(caller))

    async def search(
        self, query: str, *, limit: int = 5, skill: str | None = None, caller: Caller | None = None
    ) -> tuple[Match, ...]:
        """Return at most `limit` tools that do what the query says and that the caller may use, best first.

        Args:
            query: in a few words; any text has an answer, and only its first 2,000 characters count.
            limit: how many.
            skill: look only among its tools.
            caller: who asks, if not the one that this runtime was made for.

        Raises:
            SkillUnknown: there is no such skill that the caller may know of; the hint has the nearest names.
        """
        return (await self.find([query], limit=limit, skill=skill, caller=caller))[0]

    async def find(
        self, queries: Sequence[str], *, limit: int = 5, skill: str | None = None, caller: Caller | None = None
    ) -> tuple[tuple[Match, ...], ...]:
        """As `search`, for several queries that belong to one task; returns an answer for each, in their order."""
        who = self._who(caller)
        return await to_thread.run_sync(lambda: self._finder.find(queries, limit=limit, skill=skill, caller=who))

    async def forget(self) -> bool:
        """Forget what the calls of all callers have taught the router; false if there was nothing.

        Raises:
            StateUnusable: the disk refused.
        """
        file = LearnedFile(self._home)
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
        backend: Isolation | None = None,
        on_progress: Callable[[ProgressReport], None] | None = None,
        caller: Caller | None = None,
        patience_s: float | None = None,
        shows_links: bool = False,
    ) -> Result:
        """Run one call in a fresh guest. If it is cancelled, its guest is gone before the cancellation leaves this method.

        Args:
            tool: `skill.name` or `skill__name`.
            arguments: JSON values; `silo.File` objects where the tool takes a file.
            backend: the isolation for this one call; a weaker one than the configured floor has to be named here.
            on_progress: called on the event loop for each report of the skill; must not block.
            caller: who asks, if not the one that this runtime was made for.
            patience_s: how long to wait for a person, in seconds, before `ApprovalPending`; None: as long as the question stands.
                The same call, made again, finds the answer.
            shows_links: whoever calls shows the link in `ApprovalPending` to the user, so silo opens no browser.

        Raises:
            SiloError: a subclass for each way in which a call can fail; see `docs/reference/errors.md`.
        """
        if not isinstance(arguments, Mapping | None):
            raise ArgumentsInvalid(
                f"the arguments of {tool} are a {type(arguments).__name__}, not a mapping",
                hint='give them by name: {"claims": {"sub": "42"}}',
            )
        who = self._who(caller)
        call = Call(secrets.token_hex(8), tool, arguments or {}, who, backend, patience_s, shows_links)
        pipeline = self._opened()
        try:
            result = await (pipeline.run(call) if on_progress is None else pipeline.run(call, on_progress))
        except (SkillUnknown, ToolUnknown) as error:
            hint = await to_thread.run_sync(self._finder.nearest, tool, who)
            # The pipeline's own hint may name what this caller is not to see.
            raise type(error)(error.message, hint=hint or _WHERE_TO_LOOK[type(error)]) from error
        if not result.is_error:
            await to_thread.run_sync(self._finder.called, who, tool, call.arguments)
        return result

    async def install(
        self,
        source: str,
        *,
        agree: Callable[[InstallPlan], Awaitable[bool]],
        name: str | None = None,
        allow_builds: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
        backend: Isolation | None = None,
    ) -> Skill:
        """Install a built-in skill or a script, in place of an earlier version. Its code runs in a sandbox only.

        Args:
            source: `jwt`, or the path of a script or of a folder with a `skill.py`.
            agree: shows the plan to a person and says whether they agree.
            name: a namespace of your own choice.
            allow_builds: build packages without a wheel, which runs their code on this machine.
            on_step: told a short sentence at the start of each longer step.
            backend: the isolation in which the script is run to read its tools.

        Raises:
            SiloError: as `silo.install.installer.Installer.install` has it; nothing is installed then.
        """
        from silo.install.installer import Request

        self._opened()
        request = Request(source, Path.cwd(), self._caller, name=name, allow_builds=allow_builds, backend=backend)
        installer = self._installer()
        skill = await installer.install(request, agree=agree, on_step=on_step)
        await installer.prune(self._backends)
        return skill

    async def uninstall(self, namespace: str) -> Skill | None:
        """Remove a skill and all that was built for it; return what it was, or None if its record could not be read.

        Raises:
            SkillUnknown: it is not installed.
        """
        self._opened()
        installer = self._installer()
        ids = [tool.id for tool in await self.tools() if tool.skill == namespace]
        skill = await installer.uninstall(namespace, caller=self._caller)
        # What is installed under this name next need not do the same.
        await to_thread.run_sync(LearnedFile(self._home).forget_tools, ids)
        await installer.prune(self._backends)
        return skill

    async def probe(self, *, refresh: bool = False) -> tuple[Probe, ...]:
        """Say of each backend, strongest first, whether it works here.

        Args:
            refresh: try again instead of remembering what was found since the host booted.
        """
        self._opened()
        found: dict[int, Probe] = {}

        async def ask(place: int, backend: Backend) -> None:
            found[place] = await backend.probe(refresh=refresh)

        async with anyio.create_task_group() as tasks:
            for place, backend in enumerate(self._backends):
                tasks.start_soon(ask, place, backend)
        return tuple(found[place] for place in range(len(self._backends)))

    def _who(self, caller: Caller | None) -> Caller:
        return self._caller if caller is None else replace(caller, session=caller.session or self._caller.session)

    def _opened(self) -> CallPipeline:
        if self._pipeline is None:
            raise UsageError("the runtime is not open", hint="use it in a context: async with Runtime() as silo: ...")
        return self._pipeline

    def _build_pipeline(self) -> CallPipeline:
        config = self._config
        rules = InputRules(config.files.allow_read, config.files.max_mib * MIB, forbidden=(self._home,))
        return CallPipeline(
            skills=self._store,
            rules=rules,
            approvals=self._approvals,
            secrets=Secrets(self._setup.sources(), config.approval.headless),
            backends=self._sandboxes,
            units=self._units,
            audit=self._audit,
            policy=config.policy.to_rules(),
            slots=anyio.CapacityLimiter(config.call.max_concurrent),
        )

    def _keep_secret(self, skill: str, name: str, value: str) -> None:
        """Put a secret that a person typed in, and wants kept, into the vault, for that skill alone. Blocks."""
        from silo_vault import VaultError

        from silo.secrets.lease import from_vault_error

        try:
            self.vault.put(name, value, namespace=skill)
        except VaultError as error:
            raise from_vault_error(error, headless=self._config.approval.headless) from error
        self.record("vault", action="add", name=name, skill=skill, how="typed in when a call wanted it")

    def _installer(self) -> Installer:
        from silo.catalog.builtin import builtin_folder
        from silo.catalog.uv import Uv
        from silo.install.installer import Installer

        return Installer(
            store=self._store,
            images=self._images,
            prune_images=self._own_images.prune,
            units=self._units,
            backends=self._sandboxes,
            uv=Uv(self._environ),
            audit=self._audit,
            builtins=builtin_folder(),
            now=_now,
        )


class SyncRuntime:
    """`Runtime` without `async`, for scripts: an event loop runs in a thread of its own while the context is open.

    Methods have the same names, arguments and errors; `agree` is an ordinary function. Ctrl-C cancels the call that is waited for,
    guest included. Progress is reported on the loop's thread.
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        config: Config | None = None,
        environ: Mapping[str, str] | None = None,
        caller: Caller = A_PROGRAM,
        channel: Channel | None = None,
        show_code: Callable[[str], None] | None = None,
        backends: Sequence[Backend] | None = None,
        images: ImageStore | None = None,
    ) -> None:
        """As `Runtime`."""
        self._runtime = Runtime(
            home=home,
            config=config,
            environ=environ,
            caller=caller,
            channel=channel,
            show_code=show_code,
            backends=backends,
            images=images,
        )
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start the loop and open the runtime."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(self._runtime))
            self._portal = portal
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """End every guest, and the loop."""
        self._portal = None
        self._stack.close()

    @property
    def home(self) -> Path:
        """The folder with all state."""
        return self._runtime.home

    @property
    def config(self) -> Config:
        """The configuration as it was read."""
        return self._runtime.config

    @property
    def vault(self) -> Vault:
        """The vault."""
        return self._runtime.vault

    def skills(self) -> tuple[Skill, ...]:
        """As `Runtime.skills`."""
        return self._wait(self._runtime.skills)

    def tools(self) -> tuple[Tool, ...]:
        """As `Runtime.tools`."""
        return self._wait(self._runtime.tools)

    def skill(self, namespace: str) -> Skill:
        """As `Runtime.skill`."""
        return self._wait(lambda: self._runtime.skill(namespace))

    def search(
        self, query: str, *, limit: int = 5, skill: str | None = None, caller: Caller | None = None
    ) -> tuple[Match, ...]:
        """As `Runtime.search`."""
        return self._wait(lambda: self._runtime.search(query, limit=limit, skill=skill, caller=caller))

    def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        backend: Isolation | None = None,
        on_progress: Callable[[ProgressReport], None] | None = None,
        caller: Caller | None = None,
        patience_s: float | None = None,
        shows_links: bool = False,
    ) -> Result:
        """As `Runtime.call`."""
        return self._wait(
            lambda: self._runtime.call(
                tool,
                arguments,
                backend=backend,
                on_progress=on_progress,
                caller=caller,
                patience_s=patience_s,
                shows_links=shows_links,
            )
        )

    def install(
        self,
        source: str,
        *,
        agree: Callable[[InstallPlan], bool],
        name: str | None = None,
        allow_builds: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
        backend: Isolation | None = None,
    ) -> Skill:
        """As `Runtime.install`; `agree` is called in a worker thread, so it may wait for a person."""

        async def ask(plan: InstallPlan) -> bool:
            return await to_thread.run_sync(agree, plan)

        return self._wait(
            lambda: self._runtime.install(
                source, agree=ask, name=name, allow_builds=allow_builds, on_step=on_step, backend=backend
            )
        )

    def uninstall(self, namespace: str) -> Skill | None:
        """As `Runtime.uninstall`."""
        return self._wait(lambda: self._runtime.uninstall(namespace))

    def probe(self, *, refresh: bool = False) -> tuple[Probe, ...]:
        """As `Runtime.probe`."""
        return self._wait(lambda: self._runtime.probe(refresh=refresh))

    def _wait(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._portal is None:
            raise UsageError("the runtime is not open", hint="use it in a context: with SyncRuntime() as silo: ...")
        over = threading.Event()

        async def run() -> T:
            try:
                return await start()
            finally:
                over.set()

        future: Future[T] = self._portal.start_task_soon(run)
        try:
            return future.result()
        except KeyboardInterrupt:
            # Ctrl-C interrupts the waiting, not the loop's thread: the task has to be told, and to have ended its guest.
            future.cancel()
            over.wait(_CANCEL_S)
            raise


_WHERE_TO_LOOK: Mapping[type[SiloError], str] = {
    SkillUnknown: "`silo list` shows what is; `silo install` adds one",
    ToolUnknown: "`silo list` shows the installed skills and their tools",
}

_CANCEL_S = 5.0
"""A cancelled call is over in well under a second; who waits longer waits for something broken."""


def build_backends(home: Path, config: Config, images: Images, *, resident: bool) -> tuple[Backend, ...]:
    """Return silo's backends, strongest first; the type checker proves that each fits the protocol.

    Args:
        home: where they keep what they prepare.
        config: how many guests to keep warm.
        images: the images that units are made of.
        resident: whether this process lives long enough for warm guests to be of use.
    """
    from silo.sandbox.backends.microvm.backend import MicrovmBackend
    from silo.sandbox.backends.namespace.backend import NamespaceBackend

    warm = config.sandbox.warm if resident else 0
    return (
        MicrovmBackend(home=home, images=images, kernel_folder=kernel_folder(home, config), warm=warm),
        NamespaceBackend(),
    )


def kernel_folder(home: Path, config: Config) -> Path:
    """Where guest kernels lie."""
    return config.sandbox.kernel or home / "kernel"


def _sandboxes(backends: tuple[Backend, ...], config: Config) -> Sandboxes:
    named = None if config.sandbox.backend == "auto" else Isolation(config.sandbox.backend)
    return Sandboxes(backends, backend=named, floor=config.sandbox.min_isolation)


def _limits(config: Config) -> Limits:
    return Limits(
        log_bytes=config.call.log_kib * KIB,
        result_bytes=config.call.result_kib * KIB,
        files_bytes=config.call.files_mib * MIB,
    )


def _now() -> datetime:
    return datetime.now(UTC)
