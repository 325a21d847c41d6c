"""The desktop: a fake browser, and a real D-Bus with a fake notification service."""

import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_interaction.desktop import DesktopNotifier, browser_command, open_in_browser

SERVICE = Path(__file__).with_name("notification_service.py")
URL = "http://127.0.0.1:40123/a/xYz_-~.9?b=1&c=2#d"
PATIENCE_S = 300.0
BOUND_S = 60.0
"""How long a method may take on a busy machine; its own bound is a second, and what it would wait for never comes."""


# --- which browser ----------------------------------------------------------------------------------------------------


def _which(*programs):
    return lambda name, path: f"/usr/bin/{name}" if name in programs else None


DESKTOP = {"DISPLAY": ":0", "PATH": "/usr/bin"}
REMOTE = {"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22", "PATH": "/usr/bin"}


@pytest.mark.parametrize(
    ("environ", "platform", "programs", "command"),
    [
        (DESKTOP, "linux", ["xdg-open", "sensible-browser"], ["/usr/bin/xdg-open"]),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", ["xdg-open"], ["/usr/bin/xdg-open"]),
        (DESKTOP, "linux", ["x-www-browser", "sensible-browser"], ["/usr/bin/sensible-browser"]),
        (DESKTOP, "linux", ["x-www-browser"], ["/usr/bin/x-www-browser"]),
        (DESKTOP, "linux", [], None),
        (DESKTOP | {"BROWSER": "firefox"}, "linux", ["firefox", "xdg-open"], ["/usr/bin/firefox"]),
        (
            DESKTOP | {"BROWSER": "gone:firefox -P 'a b' %s"},
            "linux",
            ["firefox"],
            ["/usr/bin/firefox", "-P", "a b", "%s"],
        ),
        (DESKTOP | {"BROWSER": "gone"}, "linux", ["xdg-open"], ["/usr/bin/xdg-open"]),
        (DESKTOP | {"BROWSER": "it's:"}, "linux", ["xdg-open"], ["/usr/bin/xdg-open"]),
        ({"DISPLAY": ""}, "linux", ["xdg-open"], None),
        ({"BROWSER": "firefox"}, "linux", ["firefox", "xdg-open"], None),
        (REMOTE, "linux", ["xdg-open"], None),
        (REMOTE | DESKTOP, "linux", ["xdg-open"], ["/usr/bin/xdg-open"]),
        ({}, "darwin", ["open"], ["/usr/bin/open"]),
        ({"SSH_TTY": "/dev/ttys001"}, "darwin", ["open"], None),
        (DESKTOP, "win32", ["xdg-open", "open"], None),
    ],
)
def test_a_browser_is_opened_where_there_is_one_and_somebody_to_see_it(environ, platform, programs, command):
    assert browser_command(environ, platform, _which(*programs)) == command


@given(st.dictionaries(st.sampled_from(["BROWSER", "PATH", "SSH_TTY", "HOME"]), st.text(max_size=20)))
def test_without_a_display_nothing_in_the_environment_opens_a_browser(environ):
    assert browser_command(environ, "linux", lambda name, path: f"/usr/bin/{name}") is None


# --- a browser that is started ----------------------------------------------------------------------------------------

BROWSER = """#!{python} -IS
import json, os, sys
facts = {{"argv": sys.argv[1:], "environ": dict(os.environ), "session": os.getsid(0) == os.getpid(), "pid": os.getpid(),
         "cwd": os.getcwd(), "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
         "streams": [os.readlink(f"/proc/self/fd/{{n}}") for n in (0, 1, 2)]}}
print("on stdout"), print("on stderr", file=sys.stderr)
with open({report!r}, "w") as report:
    report.write(json.dumps(facts) + "\\n")
{then}
"""


class Browser:
    """A program called `xdg-open`, in a folder of its own, that reports how it was started."""

    def __init__(self, folder: Path, then: str = "") -> None:
        self.folder = folder
        self._pipe = folder / "report"
        os.mkfifo(self._pipe)
        self._descriptor = os.open(self._pipe, os.O_RDWR)
        _program(folder / "xdg-open", BROWSER.format(python=sys.executable, report=str(self._pipe), then=then))
        self.environ = {"DISPLAY": ":0", "PATH": str(folder), "HOME": "/home/somebody"}

    def report(self) -> dict:
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([self._descriptor], [], [], PATIENCE_S)[0], "no browser was started"
            text += os.read(self._descriptor, 65536)
        return json.loads(text)

    def was_started(self) -> bool:
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def close(self) -> None:
        os.close(self._descriptor)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _wait_for_reapers() -> None:
    for thread in threading.enumerate():
        if thread.name == "browser":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def browser(tmp_path) -> Iterator[Browser]:
    browser = Browser(tmp_path)
    yield browser
    browser.close()


def test_a_browser_gets_the_address_as_one_argument_and_nothing_else_of_this_process(browser, capfd):
    secret = {"SILO_MASTER_KEY": "s", "GITHUB_TOKEN": "t", "XDG_RUNTIME_DIR": "/run/user/7", "LC_ALL": "C.UTF-8"}
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        assert open_in_browser(URL, browser.environ | secret)
        report = browser.report()
    finally:
        os.close(read)
        os.close(write)
    assert report["argv"] == [URL]
    assert {name for name in report["environ"] if name not in {"__CF_USER_TEXT_ENCODING", "LC_CTYPE"}} == {
        *("DISPLAY", "PATH", "HOME", "XDG_RUNTIME_DIR", "LC_ALL")
    }
    assert report["streams"] == ["/dev/null"] * 3
    assert write not in report["descriptors"]
    assert report["session"]
    assert report["cwd"] == "/"
    _wait_for_reapers()
    assert capfd.readouterr() == ("", "")
    assert not Path(f"/proc/{report['pid']}").exists(), "a zombie is left"


def test_nobody_waits_for_a_browser_that_stays_open(tmp_path):
    browser = Browser(tmp_path, then="import signal; signal.pause()")
    try:
        began = time.monotonic()
        assert open_in_browser(URL, browser.environ)
        assert time.monotonic() - began < BOUND_S
        pid = browser.report()["pid"]
        os.kill(pid, signal.SIGKILL)
        _wait_for_reapers()
        assert not Path(f"/proc/{pid}").exists()
    finally:
        browser.close()


def test_an_address_takes_its_place_in_the_users_own_command(browser):
    _program(browser.folder / "mine", (browser.folder / "xdg-open").read_text())
    assert open_in_browser(URL, browser.environ | {"BROWSER": "mine --new '--url=%s' last"})
    assert browser.report()["argv"] == ["--new", f"--url={URL}", "last"]
    _wait_for_reapers()


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://127.0.0.1/", "http://127.0.0.1:80", "http://127.0.0.1:0/", "http://127.0.0.1:123456/"),
        *("https://127.0.0.1:80/", "http://localhost:80/", "http://127.0.0.1:80@evil.example/", "http://evil.example/"),
        *(
            "file:///etc/passwd",
            "--version",
            "-http://127.0.0.1:80/",
            " http://127.0.0.1:80/",
            "http://127.0.0.1:80/\n",
        ),
        *("http://127.0.0.1:80/$(id)", "http://127.0.0.1:80/;id", "http://127.0.0.1:80/a b", "http://127.0.0.1:80/%s"),
        *("http://127.0.0.1:80/\u202e", "http://127.0.0.1:80/\0", "http://127.0.0.1:\u0661/", "http://127.0.0.1:80/'"),
        "http://127.0.0.1:80/" + "a" * 2000,
    ],
)
def test_nothing_but_an_address_of_this_machine_is_opened(browser, url):
    assert open_in_browser(url, browser.environ) is False
    assert not browser.was_started()


def test_a_browser_that_cannot_be_started_is_no_error(tmp_path):
    (tmp_path / "xdg-open").write_bytes(b"\0 neither a script nor a program")
    (tmp_path / "xdg-open").chmod(0o755)
    assert open_in_browser(URL, {"DISPLAY": ":0", "PATH": str(tmp_path)}) is False


def test_no_program_is_taken_from_the_folder_that_happens_to_be_current(browser, monkeypatch):
    monkeypatch.chdir(browser.folder)
    assert open_in_browser(URL, browser.environ | {"PATH": "."}) is False
    assert open_in_browser(URL, browser.environ | {"PATH": ""}) is False


# --- notifications on a real bus --------------------------------------------------------------------------------------

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@contextmanager
def _running(command, **options):
    """Run a program that prints a line when it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)
    try:
        assert select.select([process.stdout], [], [], PATIENCE_S)[0], "it does not start"
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder with its own bus at `bus`, which starts no services. Its path needs escaping in an address."""
    folder = Path(tempfile.mkdtemp(prefix="bus, 100% "))  # the path of a socket must be short
    path = str(folder / "bus")
    escaped = path.replace("%", "%25").replace(" ", "%20").replace(",", "%2c")
    (folder / "bus.conf").write_text(BUS.format(path=escaped))
    with _running(["dbus-daemon", f"--config-file={folder / 'bus.conf'}", "--nofork", "--print-address"]):
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def environ(runtime: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(runtime)}


class Service:
    def __init__(self, record: Path) -> None:
        self._record = record

    def got(self) -> list[dict]:
        return [json.loads(line) for line in self._record.read_text().splitlines()]


@contextmanager
def _service(runtime: Path, manner: str = "answer") -> Iterator[Service]:
    record = runtime / "record"
    environ = os.environ | {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={_escape(runtime / 'bus')}"}
    with _running([sys.executable, str(SERVICE), str(record), manner], env=environ):
        yield Service(record)


def _escape(path: Path) -> str:
    return str(path).replace("%", "%25").replace(" ", "%20").replace(",", "%2c")


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_notification_is_shown_as_plain_text_and_stays(runtime, environ):
    with _service(runtime) as service:
        assert DesktopNotifier(environ, app="silo").notify("Run jwt.sign?", "Code: AB12\n<b>bold</b> & \x1b[2J\u202e")
        [shown] = service.got()
    name, replaces, icon, title, body, actions, hints, timeout = shown["body"]
    assert (name, replaces, icon, title, actions, timeout) == ("silo", 0, "", "Run jwt.sign?", [], -1)
    assert body == "Code: AB12\n&lt;b&gt;bold&lt;/b&gt; &amp; &lt;U+001B&gt;[2J&lt;U+202E&gt;"
    assert hints == {"urgency": ["y", 2]}


def test_hostile_and_endless_text_reaches_the_desktop_in_a_form_that_can_do_nothing(runtime, environ):
    with _service(runtime) as service:
        notifier = DesktopNotifier(environ)
        assert notifier.notify("a\nb\0\ud800", "\0\ud800")
        assert notifier.notify("t" * 10_000, "<" * 1_000_000)
        first, second = service.got()
    assert first["body"][3:5] == ["a<U+000A>b<U+0000><U+D800>", "&lt;U+0000&gt;&lt;U+D800&gt;"]
    assert len(second["body"][3]) == 120
    assert second["body"][4] == "&lt;" * 999 + "…"


def test_further_notifications_take_the_place_of_the_first_until_it_is_closed(runtime, environ):
    with _service(runtime) as service:
        notifier = DesktopNotifier(environ)
        for title in ("one", "two", "three"):
            assert notifier.notify(title, "")
        notifier.close()
        notifier.close()
        assert notifier.notify("four", "")
        got = service.got()
    assert [(one["method"], one["body"][1] if len(one["body"]) > 1 else one["body"]) for one in got] == [
        ("Notify", 0),
        ("Notify", 41),
        ("Notify", 41),
        ("CloseNotification", [41]),
        ("Notify", 0),
    ]


def test_threads_that_notify_at_once_share_one_notification(runtime, environ):
    with _service(runtime) as service:
        notifier = DesktopNotifier(environ)
        threads = [threading.Thread(target=notifier.notify, args=(str(n), "")) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(one["body"][1] for one in service.got()) == [0] + [41] * 7


def test_the_address_of_the_bus_in_the_environment_comes_first(runtime):
    with _service(runtime):
        address = f"unix:path={_escape(runtime / 'bus')}"
        elsewhere = {"DBUS_SESSION_BUS_ADDRESS": address, "XDG_RUNTIME_DIR": "/nonexistent"}
        assert DesktopNotifier(elsewhere).notify("t", "b")
        assert not DesktopNotifier({"XDG_RUNTIME_DIR": "/nonexistent"}).notify("t", "b")


def test_a_service_that_does_not_answer_holds_nobody_up(runtime, environ):
    with _service(runtime, "silence"):
        began = time.monotonic()
        assert DesktopNotifier(environ).notify("t", "b") is False
        assert 0.9 < time.monotonic() - began < BOUND_S


@pytest.mark.parametrize("manner", ["error", "garbage"])
def test_a_service_that_refuses_or_answers_nonsense_shows_nothing(runtime, environ, manner):
    with _service(runtime, manner):
        notifier = DesktopNotifier(environ)
        assert notifier.notify("t", "b") is False
        notifier.close()


def test_a_bus_without_a_notification_service_shows_nothing(environ):
    assert DesktopNotifier(environ).notify("t", "b") is False


@pytest.mark.parametrize(
    "address",
    [
        *("nonsense", ":", "unix:", "unix:path", "unix:path=", "unix:path=/nonexistent/bus", "unix:path=/dev/null"),
        *(
            "tcp:host=127.0.0.1,port=1",
            "autolaunch:",
            "unix:path=" + "a" * 200,
            "unix:path=%00",
            ";;",
            "unix:abstract=\0",
        ),
    ],
)
def test_where_there_is_no_bus_nothing_is_shown(address):
    assert DesktopNotifier({"DBUS_SESSION_BUS_ADDRESS": address}).notify("t", "b") is False


def test_an_empty_environment_shows_nothing_and_no_error(tmp_path):
    assert DesktopNotifier({"XDG_RUNTIME_DIR": str(tmp_path)}).notify("t", "b") is False
    DesktopNotifier({"XDG_RUNTIME_DIR": str(tmp_path)}).close()


def test_a_person_who_is_logged_in_from_elsewhere_is_not_notified_here(runtime, environ):
    with _service(runtime) as service:
        assert DesktopNotifier(environ | REMOTE).notify("t", "b") is False
        assert DesktopNotifier(environ | REMOTE | DESKTOP).notify("t", "b") is True
        assert len(service.got()) == 1


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([], id="says nothing"),
        pytest.param([b"OK 0123456789abcdef0123456789abcdef\r\n"], id="lets in and says nothing more"),
        pytest.param([b"REJECTED EXTERNAL\r\n"] * 3, id="lets nobody in"),
        pytest.param([b"OK 0123456789abcdef0123456789abcdef\r\n", b"\xff" * 4096], id="sends garbage"),
        pytest.param(
            [b"OK 0123456789abcdef0123456789abcdef\r\n", b"l" + b"\xff" * 63], id="announces an endless message"
        ),
        pytest.param([None], id="hangs up"),
    ],
)
def test_a_bus_that_misbehaves_holds_nobody_up(tmp_path_factory, replies):
    folder = Path(tempfile.mkdtemp())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "bus"))
        listener.listen()
        listener.settimeout(PATIENCE_S)

        def misbehave() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the other side may hang up at any time
                connection.settimeout(PATIENCE_S)
                for reply in replies:
                    if reply is None or not connection.recv(4096):
                        return
                    connection.sendall(reply)
                while connection.recv(4096):
                    pass

        bus = threading.Thread(target=misbehave)
        bus.start()
        began = time.monotonic()
        assert DesktopNotifier({"XDG_RUNTIME_DIR": str(folder)}).notify("t", "b") is False
        assert time.monotonic() - began < BOUND_S
        bus.join(PATIENCE_S)
        assert not bus.is_alive()
    shutil.rmtree(folder)


def test_a_bus_of_another_user_is_not_spoken_to(tmp_path):
    """Only the guessed path is checked; the user chose the one in the environment."""
    if os.getuid() != 0:
        pytest.skip("only root can give a file to another user")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        listener.setblocking(False)
        os.chown(tmp_path / "bus", 12345, -1)
        assert DesktopNotifier({"XDG_RUNTIME_DIR": str(tmp_path)}).notify("t", "b") is False
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_without_jeepney_nothing_is_shown_and_the_rest_works(runtime, environ):
    code = (
        "import sys; sys.modules['jeepney'] = None\n"
        "from silo_interaction.desktop import DesktopNotifier\n"
        f"print(DesktopNotifier({environ!r}).notify('t', 'b'))"
    )
    with _service(runtime):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
    assert (done.stdout, done.stderr) == ("False\n", "")


# --- notifications on macOS, as far as they can be tried elsewhere ----------------------------------------------------


@pytest.fixture
def macos(tmp_path) -> dict[str, str]:
    """An environment with an `osascript` that records its command line, input and environment."""
    _program(
        tmp_path / "osascript",
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/argv\n'
        f"/bin/cat >{tmp_path}/script\n/usr/bin/env >{tmp_path}/environ\n",
    )
    assert stat.S_IMODE((tmp_path / "osascript").stat().st_mode) == 0o755
    return {"PATH": str(tmp_path), "TOKEN": "secret"}


def test_on_macos_the_text_is_in_a_script_on_standard_input_and_on_no_command_line(macos, tmp_path):
    notifier = DesktopNotifier(macos, platform="darwin")
    assert notifier.notify('Say "hi"\\', 'Code: AB12\n" & (do shell script "id") & "\\\r')
    notifier.close()
    assert (tmp_path / "argv").read_text() == "-\n"
    assert (tmp_path / "script").read_text() == (
        'display notification "Code: AB12\\n\\" & (do shell script \\"id\\") & \\"\\\\<U+000D>"'
        ' with title "Say \\"hi\\"\\\\"\n'
    )
    assert "secret" not in (tmp_path / "environ").read_text()


def test_on_macos_a_script_that_hangs_or_fails_shows_nothing(tmp_path):
    environ = {"PATH": str(tmp_path)}
    assert DesktopNotifier(environ, platform="darwin").notify("t", "b") is False
    _program(tmp_path / "osascript", "#!/bin/sh\nexit 1\n")
    assert DesktopNotifier(environ, platform="darwin").notify("t", "b") is False
    _program(tmp_path / "osascript", f"#!{sys.executable} -IS\nimport signal\nsignal.pause()\n")
    began = time.monotonic()
    assert DesktopNotifier(environ, platform="darwin").notify("t", "b") is False
    assert time.monotonic() - began < BOUND_S
    assert DesktopNotifier(environ | {"SSH_TTY": "/dev/ttys001"}, platform="darwin").notify("t", "b") is False
