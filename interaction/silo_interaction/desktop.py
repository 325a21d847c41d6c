"""Open an address in the user's browser, and show desktop notifications. The caller supplies address and text.

Neither is guaranteed to reach anybody. Without a desktop, both return false. They never raise, never wait long, never
write to this process's streams, and leave nothing behind. They can't tell whether anybody looked.
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
"""The variables that a browser needs. No others are passed on, because a server's environment often holds tokens."""

_TIMEOUT_S = 1.0
_MAX_TITLE_CHARS, _MAX_BODY_CHARS = 120, 1000
"""More than any desktop shows in a notification, and few enough not to slow one down."""

_CRITICAL = 2
"""`urgency` of the Desktop Notifications Specification 1.3: the notification stays until it is dismissed, so that a
person has time to copy a code from it."""


def browser_command(
    environ: Mapping[str, str], platform: str, which: Callable[[str, str], str | None] | None = None
) -> list[str] | None:
    """Return the command that opens the user's browser, or None if there is no desktop here. Starts nothing.

    The address replaces `%s` in the command, or is added at its end.

    Args:
        environ: the environment; its `BROWSER` is read as a list of commands separated by colons.
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
        except ValueError:  # empty, or an unclosed quotation mark
            continue
        found = find(program, path)
        if found is not None:
            return [found, *rest]
    return None


def open_in_browser(url: str, environ: Mapping[str, str]) -> bool:
    """Start the user's browser with an address of this machine, without waiting for it; return whether it was started.

    Args:
        url: `http://127.0.0.1:PORT/...`, of unreserved characters; anything else is refused. Everybody on the machine
            can see it in the list of processes, so knowing it must not be enough to get access to anything.
        environ: the environment; the browser gets only the variables that it needs.
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
        # Some openers run until the browser is closed. Each would stay a zombie if nothing waited for it.
        threading.Thread(target=process.wait, name="browser", daemon=True).start()
    except (OSError, ValueError, RuntimeError):  # ValueError: a NUL in the environment; RuntimeError: no more threads
        return False
    return True


class DesktopNotifier:
    """Shows one notification at a time: a new one replaces the one before. Safe to use from several threads.

    On Linux it uses `org.freedesktop.Notifications` on the session's D-Bus, which needs the package `jeepney` (the
    extra `desktop`); on macOS, `osascript`. Methods block for a second at most.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        app: str = "",
        platform: str = sys.platform,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Connect and start nothing yet.

        Args:
            environ: the environment; it tells where the bus is, and whether there is a desktop.
            app: the name of the program, for the desktop to show; it may be empty.
            platform: as `sys.platform`.
            timeout_s: how long a method may block.
        """
        self._app = app
        self._environ = environ
        self._platform = platform
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._shown_id = 0  # 0: no notification is shown

    def notify(self, title: str, body: str) -> bool:
        """Show this instead of the notification before; return whether the desktop accepted it.

        Args:
            title: one line; cut after 120 characters.
            body: plain text, line breaks included; cut after 1000 characters, so put what matters first.
        """
        title = _truncate(visible(title), _MAX_TITLE_CHARS)
        lines = _truncate("\n".join(visible_lines(body)), _MAX_BODY_CHARS)
        if not _has_desktop(self._environ, self._platform, or_bus=True):
            return False
        if self._platform == "darwin":
            return _run_osascript(title, lines, self._environ, self._timeout_s)
        # The specification lets servers read the body as markup; the title is never markup.
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
        """Remove the notification that is shown, if the desktop supports it."""

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
        """Call a method of the notification service; None if it fails, or doesn't answer in time.

        Each call opens its own connection: it works after the bus was restarted, and nothing stays open in between.
        """
        address = _bus_address(self._environ)
        if address is None:
            return None
        try:
            return _call_bus(address, method, signature, body, deadline)
        # Anything on the bus can have sent the reply, and a library parses it. However this fails, the question that
        # the notification is about must still be asked.
        except Exception:
            return None


def _call_bus(
    address: str, method: str, signature: str, body: tuple[Any, ...], deadline: float
) -> tuple[Any, ...] | None:
    # Local, because jeepney is an optional dependency. Its own connection isn't used, because that waits without a
    # timeout for the bus to answer its greeting.
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
    """Return the address of the session's bus.

    MCP clients start servers with few variables, so without `DBUS_SESSION_BUS_ADDRESS` the usual path is tried.
    """
    if address := environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    path = os.path.join(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus")  # noqa: PTH118 - text
    try:
        is_ours = os.stat(path).st_uid == os.getuid()  # noqa: PTH116 - text
    except (OSError, ValueError):
        return None
    return f"unix:path={_NOT_PLAIN.sub(_percent_encode, path)}" if is_ours else None


_NOT_PLAIN = re.compile(r"[^-0-9A-Za-z_/.\\]")
"""The characters that an address of the D-Bus Specification has to escape."""


def _percent_encode(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in os.fsencode(found.group()))


def _run_osascript(title: str, body: str, environ: Mapping[str, str], timeout_s: float) -> bool:
    program = _which("osascript", environ.get("PATH", os.defpath))
    if program is None:
        return False
    script = f"display notification {_quote_applescript(body)} with title {_quote_applescript(title)}\n"
    try:
        # On standard input, because other users can read a command line, and the text may hold a pairing code.
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
    """Return a string of AppleScript, in which only the backslash and the quotation mark are special."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _has_desktop(environ: Mapping[str, str], platform: str, *, or_bus: bool = False) -> bool:
    """Tell whether the person who uses this process probably sees this machine's desktop."""
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
