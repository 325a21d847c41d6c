"""Reach the desktop: open an address in the user's browser, and show a notification. What either of them says is the caller's.

Both are courtesies. Where there is no desktop they say so by returning false; they never raise, never wait long, never write to this
process's streams, and leave nothing behind. Whether anybody looked is not known.
"""

from __future__ import annotations

import html
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from silo_interaction.visible import visible, visible_lines

_ADDRESS = re.compile(r"http://127\.0\.0\.1:[1-9][0-9]{0,4}/[A-Za-z0-9._~/?&=#-]*")
_MAX_ADDRESS_CHARS = 2000

_ALLOWED_NAMES = frozenset(
    {
        *("HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "BROWSER"),
        *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "ICEAUTHORITY", "SESSION_MANAGER", "DESKTOP_SESSION"),
        *("DBUS_SESSION_BUS_ADDRESS", "GNOME_DESKTOP_SESSION_ID", "MOZ_ENABLE_WAYLAND", "__CF_USER_TEXT_ENCODING"),
    }
)
_ALLOWED_PREFIXES = ("LC_", "XDG_", "KDE_")
"""What a browser needs of the environment. The rest stays here: a server's environment is where tokens are."""

_TIMEOUT_S = 1.0
_MAX_TITLE_CHARS, _MAX_BODY_CHARS = 120, 1000
"""Characters of a notification; more than any desktop shows, and less than would make one slow."""

_CRITICAL = 2
"""`urgency` of the Desktop Notifications Specification 1.3: it stays until it is dismissed, so that a code in it can be typed off."""


def browser_command(
    environ: Mapping[str, str], platform: str, which: Callable[[str, str], str | None] | None = None
) -> list[str] | None:
    """Return the command that opens the user's browser, or None if there is no desktop here to open one on. Starts nothing.

    The address takes the place of `%s` in it, or comes at its end.

    Args:
        environ: the environment; `BROWSER` in it is heeded, as a list of commands separated by colons.
        platform: as `sys.platform`.
        which: finds the absolute path of a program, given its name and PATH.
    """
    find = which or _which
    path = environ.get("PATH", os.defpath)
    if not _has_desktop(environ, platform):
        return None
    if platform == "darwin":
        usual = ["open"]
    elif platform == "linux":
        usual = ["xdg-open", "sensible-browser", "x-www-browser"]
    else:
        return None
    for command in [*environ.get("BROWSER", "").split(os.pathsep), *usual]:
        try:
            program, *rest = shlex.split(command)
        except ValueError:  # empty, or a quotation mark too few
            continue
        found = find(program, path)
        if found is not None:
            return [found, *rest]
    return None


def open_in_browser(url: str, environ: Mapping[str, str]) -> bool:
    """Start the user's browser with an address of this machine, and don't wait for it; return whether something was started.

    Args:
        url: `http://127.0.0.1:PORT/...`, of unreserved characters; anything else is refused. Everybody on the machine can see it in
            the list of processes, so it must not be worth anything to whoever only knows it.
        environ: the environment; a browser gets only what it needs of it.
    """
    command = browser_command(environ, sys.platform)
    if command is None or len(url) > _MAX_ADDRESS_CHARS or _ADDRESS.fullmatch(url) is None:
        return False
    with_url = [part.replace("%s", url) for part in command]
    try:
        process = subprocess.Popen(
            with_url if with_url != command else [*command, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_filter_environ(environ),
            cwd="/",
            start_new_session=True,  # neither Ctrl-C here nor the end of this process ends it
        )
        # Some openers run until the browser is closed; without anybody who waits, each would stay a zombie.
        threading.Thread(target=process.wait, name="browser", daemon=True).start()
    except (OSError, ValueError, RuntimeError):  # ValueError: a NUL in the environment; RuntimeError: no more threads
        return False
    return True


class DesktopNotifier:
    """Shows one notification at a time: a further one takes the place of the one before. Safe to use from several threads.

    On Linux through `org.freedesktop.Notifications` on the session's D-Bus, which takes the package `jeepney` (the extra `desktop`);
    on macOS through `osascript`. Methods block for a second at most.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        app: str = "",
        platform: str = sys.platform,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Nothing is connected or started yet.

        Args:
            environ: the environment; where the bus is, and whether there is a desktop.
            app: the name of the program, for the desktop to show; it may be empty.
            platform: as `sys.platform`.
            timeout_s: how long a method may block.
        """
        self._app = app
        self._environ = environ
        self._platform = platform
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._shown_id = 0  # the id of the notification that is shown; 0: none

    def notify(self, title: str, body: str) -> bool:
        """Show this, in place of what was shown before; return whether the desktop took it.

        Args:
            title: one line; cut after 120 characters.
            body: plain text, line breaks included; cut after 1000 characters, so what matters comes first.
        """
        title = _truncate(visible(title), _MAX_TITLE_CHARS)
        lines = _truncate("\n".join(visible_lines(body)), _MAX_BODY_CHARS)
        if not _has_desktop(self._environ, self._platform, or_bus=True):
            return False
        if self._platform == "darwin":
            return _run_osascript(title, lines, self._environ, self._timeout_s)
        # Servers may take the body for markup (the specification leaves it to them); the title never is.
        text = html.escape(lines, quote=False)
        hints = {"urgency": ("y", _CRITICAL)}

        def show(deadline: float) -> bool:
            content: tuple[Any, ...] = (self._app, self._shown_id, "", title, text, [], hints, -1)
            reply = self._call_service("Notify", "susssasa{sv}i", content, deadline)
            if reply is None or not (len(reply) == 1 and type(reply[0]) is int):
                return False
            self._shown_id = reply[0]
            return True

        return self._with_lock(show)

    def close(self) -> None:
        """Take away what is shown, as far as the desktop does this."""

        def withdraw(deadline: float) -> bool:
            if not self._shown_id:
                return False
            shown, self._shown_id = self._shown_id, 0
            return self._call_service("CloseNotification", "u", (shown,), deadline) is not None

        self._with_lock(withdraw)

    def _with_lock(self, work: Callable[[float], bool]) -> bool:
        deadline = time.monotonic() + self._timeout_s
        if not self._lock.acquire(timeout=self._timeout_s):
            return False
        try:
            return work(deadline)
        finally:
            self._lock.release()

    def _call_service(
        self, method: str, signature: str, body: tuple[Any, ...], deadline: float
    ) -> tuple[Any, ...] | None:
        """Call a method of the notification service; None if there is no answer in time, or an error.

        Each call has a connection of its own: a bus that restarts is found again, and a process that shows nothing holds nothing.
        """
        address = _bus_address(self._environ)
        if address is None:
            return None
        try:
            return _call_bus(address, method, signature, body, deadline)
        # What comes is parsed by a library, and sent by whoever sits on the bus. None of it may stop the question that this tells of.
        except Exception:
            return None


def _call_bus(
    address: str, method: str, signature: str, body: tuple[Any, ...], deadline: float
) -> tuple[Any, ...] | None:
    # Not jeepney's own connection: that waits for the bus to answer its greeting, and has no bound for it.
    from jeepney import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
        DBusAddress,
        HeaderFields,
        MessageType,
        Parser,
        message_bus,
        new_method_call,
    )
    from jeepney.bus import get_bus  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from jeepney.io.blocking import prep_socket  # type: ignore[import-untyped, import-not-found, unused-ignore]

    service = "org.freedesktop.Notifications"
    notifications = DBusAddress("/org/freedesktop/Notifications", bus_name=service, interface=service)
    greeting, call = 1, 2  # serial numbers
    parser = Parser()
    connection: socket.socket
    with prep_socket(get_bus(address), timeout=_remaining_s(deadline)) as connection:
        connection.settimeout(_remaining_s(deadline))
        connection.sendall(message_bus.Hello().serialise(serial=greeting))
        connection.sendall(new_method_call(notifications, method, signature, body).serialise(serial=call))
        while True:
            connection.settimeout(_remaining_s(deadline))
            data = connection.recv(4096)
            if not data:
                return None
            for message in parser.feed(data):
                if message.header.fields.get(HeaderFields.reply_serial) == call:
                    return tuple(message.body) if message.header.message_type is MessageType.method_return else None


def _remaining_s(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _bus_address(environ: Mapping[str, str]) -> str | None:
    """Return where the session's bus is. MCP clients start servers with a few variables only, so this is more than looking one up."""
    if address := environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    path = os.path.join(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus")  # noqa: PTH118 - text
    try:
        is_ours = os.stat(path).st_uid == os.getuid()  # noqa: PTH116 - text
    except (OSError, ValueError):
        return None
    return f"unix:path={_NOT_PLAIN.sub(_percent_encode, path)}" if is_ours else None


_NOT_PLAIN = re.compile(r"[^-0-9A-Za-z_/.\\]")


def _percent_encode(found: re.Match[str]) -> str:
    """Escape a character as the D-Bus Specification has it for addresses."""
    return "".join(f"%{byte:02x}" for byte in os.fsencode(found.group()))


def _run_osascript(title: str, body: str, environ: Mapping[str, str], timeout_s: float) -> bool:
    program = _which("osascript", environ.get("PATH", os.defpath))
    if program is None:
        return False
    script = f"display notification {_quote_applescript(body)} with title {_quote_applescript(title)}\n"
    try:
        # On standard input, because everybody can read a command line, and there may be a code in it.
        done = subprocess.run(
            [program, "-"],
            input=script.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_filter_environ(environ),
            cwd="/",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _quote_applescript(text: str) -> str:
    """Return a string of AppleScript, in which only the backslash and the quotation mark mean something."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _has_desktop(environ: Mapping[str, str], platform: str, *, or_bus: bool = False) -> bool:
    """Tell whether the person who works with this process can be expected to look at this machine's desktop."""
    has_display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    is_remote = bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"))
    if platform == "darwin":
        return not is_remote
    return has_display or (or_bus and not is_remote)


def _truncate(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _filter_environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environ.items() if name in _ALLOWED_NAMES or name.startswith(_ALLOWED_PREFIXES)
    }


def _which(program: str, path: str) -> str | None:
    found = shutil.which(program, path=path)
    return found if found is not None and os.path.isabs(found) else None  # noqa: PTH117 - text
