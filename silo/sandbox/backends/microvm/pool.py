"""Rehearsed clones that wait: each has rehearsed a call once, without a secret, and serves exactly one real call.

Under emulation, a clone's first call is slow because QEMU translates new code; a rehearsal does that before anybody
waits. A clone that waits stands still: its skill is held and its processor stopped, so nothing runs before the call. It
takes memory and no processor time.

Only a resident process (the MCP server, a `Runtime` that stays open) keeps clones; `sandbox.warm` in the configuration
says how many.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import anyio
import anyio.abc

from silo.errors import SiloError
from silo.sandbox.backends.microvm.guest import MicrovmGuest
from silo.sandbox.backends.microvm.template import Template, Templates
from silo.sandbox.base import GuestSpec, Program

_REHEARSAL_S = 30.0
_IDLE_S = 900.0
"""How long a clone may wait: a quarter of an hour, because each holds 50 to 100 MiB."""

_QUIET_S = 0.15
"""How long the process must be idle before a clone is started.

If calls follow each other faster, a clone does not help: it would be late for the next call, and slow it down.
"""

_SKILLS = 4
"""For how many skills clones are kept: the most recently called ones."""


@dataclass
class Waiting:
    """A waiting clone, which stands still; its user sets `released` when the call is over, and waits for `gone`."""

    clone: MicrovmGuest
    released: anyio.Event = field(default_factory=anyio.Event)
    gone: anyio.Event = field(default_factory=anyio.Event)


class WarmPool:
    """Waiting clones, by the digest of their template."""

    def __init__(self, templates: Templates, group: anyio.abc.TaskGroup, per_skill: int) -> None:
        self._templates = templates
        self._group = group
        self._per_skill = per_skill
        self._ready: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self._starting: dict[str, int] = {}
        self._changed = anyio.Event()
        self._running = 0
        self._last_end = 0.0

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Mark the time of a call of any skill, so that no clone is started meanwhile."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._last_end = time.monotonic()
            self._tell()

    async def take(self, program: Program, template: Template) -> Waiting | None:
        """Return a clone of the template that is ready and alive, and let it run; or return None."""
        waiting = self._ready.get(template.digest)
        while waiting:
            found = waiting.popleft()
            with contextlib.ExitStack() as unused:
                unused.callback(found.released.set)
                with contextlib.suppress(SiloError):  # it has just died; the next one may live
                    if found.clone.is_connected:
                        found.clone.go_on()
                        await program.wake(found.clone)
                        unused.pop_all()
                        return found
        return None

    def refill(self, spec: GuestSpec, program: Program, template: Template) -> None:
        """Start this template's missing clones in the background; drop those of the least recently used skill."""
        ready = self._ready.setdefault(template.digest, deque())
        self._ready.move_to_end(template.digest)
        while len(self._ready) > _SKILLS:
            _, dropped = self._ready.popitem(last=False)
            for waiting in dropped:
                waiting.released.set()
        missing = self._per_skill - len(ready) - self._starting.get(template.digest, 0)
        for _ in range(missing):
            self._starting[template.digest] = self._starting.get(template.digest, 0) + 1
            self._group.start_soon(self._keep_one, spec, program, template)

    async def settle(self) -> None:
        """Wait until no clone is being started."""
        while any(self._starting.values()):
            await self._changed.wait()

    async def _keep_one(self, spec: GuestSpec, program: Program, template: Template) -> None:
        """Start a clone, rehearse it, offer it, and end it after its call or if it waited too long."""
        is_starting = True
        waiting: Waiting | None = None
        try:
            await self._quiet()
            async with self._templates.clone(spec, program, template) as clone:
                deadline = time.monotonic() + _REHEARSAL_S
                await program.rehearse(clone, deadline=deadline)
                await program.hold(clone, deadline=deadline)
                with anyio.move_on_after(deadline - time.monotonic()) as stopping:
                    await clone.stop()
                if stopping.cancelled_caught:
                    return
                clone.kind = "warm clone"
                waiting = Waiting(clone)
                self._started(template)
                is_starting = False
                ready = self._ready.get(template.digest)
                if ready is None:  # dropped in the meantime
                    return
                ready.append(waiting)
                with anyio.move_on_after(_IDLE_S) as idle:
                    await waiting.released.wait()
                if idle.cancelled_caught and waiting in ready:
                    ready.remove(waiting)
                elif idle.cancelled_caught:  # taken at the last moment: its call ends it
                    await waiting.released.wait()
        except SiloError:
            # Nobody waits for this clone. The next call starts its own clone, and reports the same error.
            return
        finally:
            if is_starting:
                self._started(template)
            if waiting is not None:
                waiting.gone.set()

    async def _quiet(self) -> None:
        """Wait until no call has run for `_QUIET_S`."""
        while True:
            rest = self._last_end + _QUIET_S - time.monotonic()
            if self._running:
                await self._changed.wait()
            elif rest > 0:
                await anyio.sleep(rest)
            else:
                return

    def _started(self, template: Template) -> None:
        self._starting[template.digest] -= 1
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
