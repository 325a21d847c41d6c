"""What the commands of one process share: the environment, the runtime, and how they end on a signal.

Only this module of the command line starts an event loop. `silo mcp serve` has its own, in
`silo.server.transports.stdio`.

`silo --version` loads this module, so slow modules are imported where they are used: `silo.runtime` (0.36 s of CPU
time on a slow machine), `silo.config.load` (pydantic, 0.21 s) and `asyncio` (0.03 s).
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from silo_vault import Vault, VaultError

from silo.cli.render import Steps
from silo.cli.terminal import terminal_name
from silo.cli.values import type_once
from silo.config.home import default_home, prepare_home
from silo.errors import Interrupted
from silo.model import Caller
from silo.secrets.lease import from_vault_error

if TYPE_CHECKING:
    from silo_interaction import Channel

    from silo.compose.vault import VaultSetup
    from silo.config.load import Loaded
    from silo.model import Skill
    from silo.runners.units import ImageStore
    from silo.runtime import Runtime
    from silo.sandbox.base import Backend

T = TypeVar("T")

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(BaseException):
    """A signal other than Ctrl-C ended the command; everything that it started has ended. Has the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


@dataclass(frozen=True)
class CommandContext:
    """What one command works with: its environment, and with it the home folder, the runtime and the vault.

    Attributes:
        environ: the environment. It has the vault's key, which was removed from the process's own environment.
        backends: in place of silo's own; for tests.
        images: in place of those under the home folder; for tests.
    """

    environ: Mapping[str, str]
    backends: Sequence[Backend] | None = None
    images: ImageStore | None = None

    def open_runtime(
        self,
        *,
        channel: Channel | None = None,
        caller: Caller | None = None,
        ask_passphrase: Callable[[], str | None] | None = None,
        show_code: Callable[[str], None] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Runtime:
        """Return a runtime that is not entered yet.

        Args:
            channel, caller, ask_passphrase, show_code: as for `Runtime`.
            overrides: settings that flags change, by dotted key, e.g. `{"approval.headless": True}`.

        Raises:
            HomeUnsafe, ConfigInvalid: as `Runtime`.
        """
        from silo.runtime import Runtime

        return Runtime(
            environ=self.environ,
            config=self.load_config(overrides).config if overrides else None,
            caller=caller or Caller("cli", _user(), terminal=terminal_name()),
            channel=channel,
            ask_passphrase=ask_passphrase,
            show_code=show_code,
            backends=self.backends,
            images=self.images,
        )

    def run(
        self,
        work: Callable[[Runtime], Awaitable[T]],
        *,
        channel: Channel | None = None,
        show_code: Callable[[str], None] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> T:
        """Open a runtime, do the work, and close it again, on an event loop.

        Raises:
            Interrupted: Ctrl-C; the work was cancelled, and its guests are gone.
            EndedBySignal: SIGTERM or SIGHUP; the same.
            SiloError: what the work raises.
        """
        runtime = self.open_runtime(channel=channel, show_code=show_code, overrides=overrides)

        async def main() -> T:
            async with runtime:
                return await work(runtime)

        return run_until_signal(main)

    def skills(self) -> tuple[Skill, ...]:
        """Return the installed skills, without starting anything that could run one."""
        return anyio.run(self.open_runtime().skills)

    @contextmanager
    def vault(self, steps: Steps | None = None) -> Iterator[Vault]:
        """Yield the vault, and turn its errors into silo's. It is opened at the first read.

        Args:
            steps: as for `vault_setup`.

        Raises:
            VaultLocked, VaultUnusable, VaultBusy, SecretMissing, UsageError: as `silo.secrets.lease.from_vault_error`.
        """
        with self.vault_setup(steps) as setup:
            yield setup.vault

    @contextmanager
    def vault_setup(self, steps: Steps | None = None) -> Iterator[VaultSetup]:
        """As `vault`, with the keys and places that belong to it.

        Args:
            steps: says that the vault is being opened. That may take seconds: a server is slow, a passphrase is
                stretched. A command that prompts passes its own steps, and pauses them during the prompt.
        """
        typed: list[str] = []

        def ask() -> str | None:
            # Once for the whole command, which may need it to open the vault, to seal a key, and to check that.
            if not typed and not runtime.config.approval.headless:
                with shown.paused():
                    typed.extend(filter(None, [type_once("recovery passphrase of the vault")]))
            return typed[0] if typed else None

        with Steps() if steps is None else nullcontext(steps) as shown:
            runtime = self.open_runtime(ask_passphrase=ask)
            shown.step("opening the vault")
            try:
                yield runtime.vault_setup
            except VaultError as error:
                raise from_vault_error(error, headless=runtime.config.approval.headless) from error
            finally:
                typed.clear()
                runtime.vault_setup.close()

    def record(self, event: str, **facts: object) -> None:
        """Add an event to the audit log.

        Raises:
            AuditBroken: the log could not be written.
        """
        self.open_runtime().record(event, **facts)

    def home(self) -> Path:
        """Return the checked home folder.

        Raises:
            HomeUnsafe: others could change it.
        """
        return prepare_home(default_home(self.environ))

    def load_config(self, overrides: Mapping[str, Any] | None = None) -> Loaded:
        """Read the configuration with the origin of each value.

        Args:
            overrides: settings that flags change, by dotted key.

        Raises:
            HomeUnsafe, ConfigInvalid: as `silo.config.load.load`.
        """
        from silo.config.load import load

        environ = {name: value for name, value in self.environ.items() if name != "SILO_MASTER_KEY"}
        return load(self.home(), environ=environ, overrides=overrides)


def interrupted() -> Interrupted:
    """Return the error for Ctrl-C."""
    return Interrupted("interrupted", hint="everything that the command started has ended; run it again to start over")


def run_until_signal(work: Callable[[], Awaitable[T]]) -> T:
    """Do the work on a new event loop. A signal that would end the process cancels the work, so that it can clean up.

    Raises:
        Interrupted: Ctrl-C; the work was cancelled.
        EndedBySignal: SIGTERM or SIGHUP; the same.
    """
    ended_by: list[int] = []

    async def main() -> T:
        with _cancelled_by_signals(ended_by):
            return await work()

    try:
        return anyio.run(main)
    except KeyboardInterrupt:
        raise interrupted() from None
    except BaseException:
        if ended_by:
            raise EndedBySignal(ended_by[0]) from None
        raise


@contextmanager
def _cancelled_by_signals(ended_by: list[int]) -> Iterator[None]:
    """Cancel the current task on SIGTERM and SIGHUP, unless they are ignored (`nohup`). asyncio handles Ctrl-C.

    Only the first signal counts. The end of a login session sends several, and a second one would interrupt the
    cleaning up, because asyncio's own cancellation ignores shields.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        if not ended_by:
            ended_by.append(number)
            task.cancel()

    mine = [number for number in _ENDING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in mine:
            loop.remove_signal_handler(number)


def _user() -> str:
    """Return the name of the user who runs this, for the audit log and for questions."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
