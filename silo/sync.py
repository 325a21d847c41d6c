"""`SyncRuntime`: `silo.runtime.Runtime` without `async`, for scripts.

    from silo.sync import SyncRuntime

    with SyncRuntime() as silo:
        result = silo.call("jwt.sign", {"claims": {"sub": "42"}})

Its methods are derived from those of `Runtime`, so they have the same parameters. Only `install` differs: `agree` is an
ordinary function.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal
from silo_vault import Vault

from silo.compose.vault import VaultSetup
from silo.config.schema import Config
from silo.errors import UsageError
from silo.model import Caller, Skill
from silo.runners.units import ImageStore
from silo.runtime import A_PROGRAM, Runtime
from silo.sandbox.base import Backend

if TYPE_CHECKING:
    from silo_interaction import Channel

    from silo.catalog.plan import InstallPlan

P = ParamSpec("P")
T = TypeVar("T")


def _waiting_for(
    method: Callable[Concatenate[Runtime, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncRuntime, P], T]:
    """Return a method that does the same and waits for it."""

    @functools.wraps(method)
    def wait(self: SyncRuntime, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(lambda: method(self._runtime, *args, **kwargs))

    return wait


class SyncRuntime:
    """`Runtime` without `async`: an event loop runs in a thread of its own while the context is open.

    Methods have the same names, arguments and errors; `agree` is an ordinary function. Ctrl-C cancels the call that is
    waited for, and ends its guest. Progress is reported on the loop's thread.
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
        """As `Runtime`."""
        self._runtime = Runtime(
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
        """End every guest and the loop."""
        self._portal = None
        self._stack.close()

    @property
    def home(self) -> Path:
        """As `Runtime.home`."""
        return self._runtime.home

    @property
    def config(self) -> Config:
        """As `Runtime.config`."""
        return self._runtime.config

    @property
    def vault(self) -> Vault:
        """As `Runtime.vault`."""
        return self._runtime.vault

    @property
    def vault_setup(self) -> VaultSetup:
        """As `Runtime.vault_setup`."""
        return self._runtime.vault_setup

    def record(self, event: str, **facts: object) -> None:
        """As `Runtime.record`."""
        self._runtime.record(event, **facts)

    def sealing_key(self) -> bytes:
        """As `Runtime.sealing_key`."""
        return self._runtime.sealing_key()

    skills = _waiting_for(Runtime.skills)
    damaged = _waiting_for(Runtime.damaged)
    tools = _waiting_for(Runtime.tools)
    skill = _waiting_for(Runtime.skill)
    resolve = _waiting_for(Runtime.resolve)
    visible = _waiting_for(Runtime.visible)
    expected_verdicts = _waiting_for(Runtime.expected_verdicts)
    outlooks = _waiting_for(Runtime.outlooks)
    usage = _waiting_for(Runtime.usage)
    search = _waiting_for(Runtime.search)
    find = _waiting_for(Runtime.find)
    forget = _waiting_for(Runtime.forget)
    call = _waiting_for(Runtime.call)
    explain = _waiting_for(Runtime.explain)
    uninstall = _waiting_for(Runtime.uninstall)
    probe = _waiting_for(Runtime.probe)

    def install(
        self,
        source: str,
        *,
        agree: Callable[[InstallPlan], bool],
        name: str | None = None,
        allow_builds: bool = False,
        allow_unsandboxed_builds: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
        backend: str | None = None,
        provision: bool = False,
    ) -> Skill:
        """As `Runtime.install`; `agree` is called in a worker thread, so it may wait for a person."""

        async def ask(plan: InstallPlan) -> bool:
            return await to_thread.run_sync(agree, plan)

        return self._wait(
            lambda: self._runtime.install(
                source,
                agree=ask,
                name=name,
                allow_builds=allow_builds,
                allow_unsandboxed_builds=allow_unsandboxed_builds,
                on_step=on_step,
                backend=backend,
                provision=provision,
            )
        )

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
            # Ctrl-C interrupts this wait, not the loop's thread: the task must be cancelled, so that it ends its guest.
            future.cancel()
            over.wait(_CANCEL_S)
            raise


_CANCEL_S = 5.0
"""A cancelled call ends in well under a second; if it takes longer, something is broken."""
