"""`silo demo`: what silo is for, end to end, with the real parts and none of the user's data. It checks what it claims.

A temporary state folder gets a secret and two skills with the commands that a user would type. An MCP client starts
`silo mcp serve`, searches, and calls. Meanwhile every process is searched for the secret, and afterwards every file.
"""

from __future__ import annotations

import base64
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from silo.cli.context import run_until_signal
from silo.errors import SandboxBroken, SiloError
from silo.remedies import command
from silo.server.trial import Agent, ToolAnswer, connect

Say = Callable[[str], None]

_TABLE = """city,country,visitors
Vienna,AT,17
Graz,AT,4
Lyon,FR,9
Paris,FR,44
Porto,PT,12
"""
_SQL = "SELECT country, sum(visitors) AS visitors FROM data GROUP BY country ORDER BY visitors DESC"
_LOOK_EVERY_S = 0.1

_PATIENCE_S = 5.0
"""A command that is told to end does so within a second; it is killed after this time."""

_BREATH_S = 3.0
"""An agent thinks for seconds between calls, which is long enough to prepare the next guest."""


@dataclass
class Findings:
    """Where the secret was looked for, and where it was found."""

    looks: int = 0
    processes: set[int] = field(default_factory=set)
    files: int = 0
    found: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Report:
    """The result of the demo, for `--json`."""

    protocol: str
    tools: tuple[str, ...]
    answers: Mapping[str, Any]
    host_kernel: str
    guest_kernel: str
    isolation: str
    timing_s: Mapping[str, float]
    secret: Findings
    total_s: float


class Demo:
    """One run of the demo.

    Args:
        environ: the user's environment; the commands that the demo runs get it without silo's variables.
        kernel: the folder of the user's guest kernels.
        keep: do not delete the state folder.
        say: called with each line for a person.
    """

    def __init__(self, environ: Mapping[str, str], kernel: Path, *, keep: bool, say: Say) -> None:
        self._keep = keep
        self._say = say
        self._secret = secrets.token_hex(32)
        self._environ = {name: value for name, value in environ.items() if not name.startswith("SILO_")}
        self._environ |= {"SILO_KERNEL": str(kernel), "SILO_MASTER_KEY": secrets.token_hex(32)}
        self._home = Path()

    def run(self) -> Report:
        """Do all of it.

        Raises:
            SiloError: a step failed, or the secret was found where it must not be.
            EndedBySignal: a signal ended it; its commands have ended, and its folder is gone.
        """
        return run_until_signal(self._play)

    async def _play(self) -> Report:
        started = time.monotonic()
        # Made here, where a signal ends the work and not the process, so that it is always deleted.
        self._home = Path(tempfile.mkdtemp(prefix="silo-demo-"))
        self._environ["SILO_HOME"] = str(self._home / "state")
        try:
            self._say(f"A throw-away silo in {self._home}" + ("" if self._keep else ", deleted at the end"))
            await self._silo("install", "jwt", "--yes")
            await self._silo("install", "table", "--yes")
            # Afterwards: `--yes` installs nothing that would get a secret.
            await self._silo("vault", "add", "JWT_KEY", stdin=self._secret)
            findings = Findings()
            stop = threading.Event()
            looking = threading.Thread(target=self._look_at_processes, args=(findings, stop))
            looking.start()
            try:
                report = await self._as_agent()
            finally:
                stop.set()
                looking.join()
            self._look_at_files(findings)
            self._say("\nWhere was the secret in clear text?")
            self._say(
                f"  processes: {len(findings.processes)} looked at {findings.looks} times (arguments and environment)"
            )
            self._say(f"  files:     {findings.files} of this run (vault, logs, audit record, images, templates)")
            if findings.found:
                raise SandboxBroken(
                    f"the secret was found in {', '.join(sorted(findings.found))}",
                    hint="this breaks a promise of silo: please report it (SECURITY.md)",
                )
            self._say("  found in:  none of them")
            total = time.monotonic() - started
            self._say(f"\nDone in {total:.0f} s. Next: docs/tutorials/first-skill.md")
            return Report(**report, secret=findings, total_s=round(total, 1))
        finally:
            if self._keep:
                self._say(f"Kept: {self._home}")
            else:
                shutil.rmtree(self._home, ignore_errors=True)

    async def _silo(self, *arguments: str, stdin: str | None = None) -> None:
        """Run a command as a user would; it writes to the same place as the demo."""
        shown = shlex.join(("silo", *arguments))
        self._say(f"\n$ {shown}" + ("   (the value comes on stdin)" if stdin is not None else ""))
        process = await anyio.open_process(
            [*_command(), *arguments],
            env=self._environ,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=sys.stderr.fileno() if sys.stderr.isatty() else None,
            stderr=None,
        )
        try:
            if stdin is not None and process.stdin is not None:
                with suppress(anyio.BrokenResourceError):  # it has ended, and its status says how
                    await process.stdin.send(stdin.encode())
                await process.stdin.aclose()
            status = await process.wait()
        except BaseException:  # a signal for us alone: the command has to be told, and to have cleaned up before we do
            with anyio.CancelScope(shield=True):
                with suppress(ProcessLookupError):  # Ctrl-C reaches both, and it may be faster
                    process.terminate()
                with anyio.move_on_after(_PATIENCE_S):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if status != 0:
            raise _Failed(status, shown)

    async def _as_agent(self) -> dict[str, Any]:
        """Act as an agent: connect, list the tools, search, call."""
        self._say("\n$ silo mcp serve   (started by the official MCP client, as its child process)")
        started = time.monotonic()
        with open(self._home / "server.log", "w") as log:  # noqa: ASYNC230 - made before anything is waited for
            async with connect([*_command(), "mcp", "serve"], self._environ, errors=log) as agent:
                tools = await agent.tools()
                self._say(
                    f"  MCP {agent.protocol}, {len(tools)} tools after {time.monotonic() - started:.2f} s: "
                    + ", ".join(tools)
                )
                answers, protocol = await self._calls(agent), agent.protocol
        meta = answers["query"].meta
        guest = meta.get("dev.silo/guest", {})
        isolation = str(meta.get("dev.silo/isolation", ""))
        self._say(f"\n  kernel of this host:  {platform.release()}")
        self._say(f"  kernel of the guest:  {guest.get('kernel')}   ({isolation}: {guest.get('backend')})")
        timing = {name: float(value) for name, value in meta.get("dev.silo/timing", {}).items()}
        self._say(
            "  the last call:        " + ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in timing.items())
        )
        return {
            "protocol": protocol,
            "tools": tools,
            "answers": {
                name: answer.data if answer.data is not None else answer.text for name, answer in answers.items()
            },
            "host_kernel": platform.release(),
            "guest_kernel": str(guest.get("kernel", "")),
            "isolation": isolation,
            "timing_s": timing,
        }

    async def _calls(self, agent: Agent) -> dict[str, ToolAnswer]:
        claims = {"sub": "ada", "role": "reader"}
        found = await self._show(agent, "silo_search", {"query": "sign a token", "limit": 1})
        signed = await self._show(agent, "silo_execute", {"tool": "jwt.sign", "arguments": {"claims": claims}})
        token = signed.data["token"] if isinstance(signed.data, dict) else ""
        checked = await self._show(agent, "jwt__verify", {"token": token})
        data = base64.b64encode(_TABLE.encode()).decode()
        await self._show(agent, "table__query", {"data": data, "sql": _SQL})
        self._say("\n  Once more; by now a prepared clone of the guest may be waiting:")
        await anyio.sleep(_BREATH_S)
        queried = await self._show(agent, "table__query", {"data": data, "sql": _SQL})
        return {"search": found, "sign": signed, "verify": checked, "query": queried}

    async def _show(self, agent: Agent, tool: str, arguments: dict[str, Any]) -> ToolAnswer:
        started = time.monotonic()
        answer = await agent.call(tool, arguments)
        took = (time.monotonic() - started) * 1000
        self._say(f"\n  → {tool} {_short(arguments)}")
        self._say(f"  ← {_short(answer.text)}   ({took:.0f} ms)")
        if answer.is_error:
            raise SandboxBroken(
                f"{tool} failed: {answer.text[:300]}", hint=command("silo doctor", "{} says whether the sandbox works")
            )
        return answer

    def _look_at_processes(self, findings: Findings, stop: threading.Event) -> None:
        """Read the arguments and environment of every readable process, again and again, while calls run."""
        wanted = self._secret.encode()
        while not stop.is_set():
            findings.looks += 1
            for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
                for part in ("cmdline", "environ"):
                    try:
                        content = Path(f"/proc/{pid}/{part}").read_bytes()
                    except OSError:  # the process has ended, or its user is another one
                        continue
                    findings.processes.add(pid)
                    if wanted in content:
                        findings.found.add(f"/proc/{pid}/{part}")
            stop.wait(_LOOK_EVERY_S)

    def _look_at_files(self, findings: Findings) -> None:
        wanted = self._secret.encode()
        for path in sorted(self._home.rglob("*")):
            if path.is_file() and not path.is_symlink():
                findings.files += 1
                if _contains(path, wanted):
                    findings.found.add(str(path))


class _Failed(SiloError):
    """A command of the demo failed, and printed why."""

    code = "demo-failed"

    def __init__(self, status: int, command: str) -> None:
        super().__init__(f"`{command}` failed", hint="its own message above says what to do")
        self.exit_status = status  # type: ignore[misc]


def _command() -> list[str]:
    """Return the command that starts this silo."""
    return [sys.executable, "-m", "silo"]


def _contains(path: Path, wanted: bytes) -> bool:
    """Whether a file contains the bytes. It is read in overlapping pieces, because it may be large."""
    overlap = b""
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            if wanted in overlap + piece:
                return True
            overlap = piece[-len(wanted) :]
    return False


def _short(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 110 else text[:109] + "…"
