"""`Page`: when it listens, what it keeps, and that it leaves nothing behind when it stops."""

import errno
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from silo_interaction import PostedQuestion, Question
from silo_interaction.page import Page
from silo_interaction.page.server import Port

PATIENCE_S = 300.0

LINGER_S = 1.5  # long enough for a test to come back with its next request


@pytest.fixture
def brief(board, clock):
    """A page that stops soon after nothing waits any more."""
    page = Page(board, linger_s=LINGER_S, now=clock)
    yield page
    page.stop()


def port_of(page: Page) -> int:
    return int(page.start().rpartition(":")[2])


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    return True


def test_nothing_listens_before_it_is_started(board):
    before = threading.active_count()
    page = Page(board)
    assert threading.active_count() == before
    assert (page.has_session, page.has_viewer) == (False, False)
    page.stop()


def test_starting_twice_and_at_once_gives_one_address(brief):
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(brief.start())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [thread.name for thread in threading.enumerate()].count("approval-page") >= 1


def test_it_serves_when_start_returns_and_links_are_of_its_address(brief):
    link = brief.link("abc")
    assert link == f"{brief.start()}/q/abc"
    assert httpx.get(link, trust_env=False).status_code == 200


def test_it_listens_on_the_loopback_interface_only(brief):
    port = port_of(brief)
    for address in ("127.0.0.2", "::1"):
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=PATIENCE_S)


def test_stopping_leaves_no_thread_and_no_socket(board):
    gc.collect()
    threads, sockets = set(threading.enumerate()), open_sockets()
    page = Page(board)
    with httpx.Client(base_url=page.start(), trust_env=False) as client:
        client.get("/")
        with socket.create_connection(("127.0.0.1", port_of(page))):
            page.stop()
            page.stop()
    assert set(threading.enumerate()) == threads
    assert open_sockets() == sockets
    assert page.start() != ""  # and it can be used again
    page.stop()
    assert open_sockets() == sockets


def open_sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:  # the descriptor with which the folder was listed
            continue
    return count


def test_it_stops_listening_when_nothing_waits_and_comes_back_on_the_same_port_with_its_sessions(brief, board, until):
    base = brief.start()
    port = port_of(brief)
    with httpx.Client(base_url=base, trust_env=False) as client:
        form = client.get("/").text.split('name="form" value="')[1].split('"')[0]
        answer = client.post("/pair", data={"code": board.new_code(), "form": form}, headers={"Origin": base})
        until(lambda: not is_listening(port))
        assert brief.has_session
        assert brief.start() == base
        assert client.get(answer.headers["location"]).status_code == 200


def test_it_goes_on_to_listen_while_something_waits(brief, board, until):
    posted = board.post(Question("Run it", "somebody"))
    port = port_of(brief)
    pause = threading.Event()
    deadline = time.monotonic() + 2 * LINGER_S
    while time.monotonic() < deadline:
        assert is_listening(port)
        pause.wait(0.05)
    board.put(PostedQuestion(posted.id, posted.question, posted.digest, 0, 0, state="withdrawn"))
    until(lambda: not is_listening(port))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("options", [(), ("SO_REUSEADDR",), ("SO_REUSEPORT",), ("SO_REUSEADDR", "SO_REUSEPORT")])
def test_nobody_else_gets_the_port_neither_while_it_listens_nor_while_it_does_not(host, options):
    """A program that listens where the page was would get its cookies. Like an agent, the test is the same user's."""
    port = Port()
    listening, _ = port.listen()
    use_once(listening, port.number)  # leaves a connection in TIME_WAIT, which can make rebinding fail
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            take(host, port.number, options)
        listening.close()
        port.pause()
        assert not is_listening(port.number)
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            take(host, port.number, options)
        listening, is_same = port.listen()
        assert is_same
        use_once(listening, port.number)
        listening.close()
    finally:
        port.close()
        listening.close()


def use_once(listening: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        listening.accept()[0].close()
        assert client.recv(1) == b""


def take(host: str, port: int, options: tuple[str, ...]) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        for option in options:
            other.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        other.bind((host, port))
        other.listen()


def test_a_port_that_was_lost_is_replaced_by_another_one():
    port = Port()
    listening, _ = port.listen()
    first = port.number
    listening.close()
    port.close()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first))
        other.listen()
        listening, is_same = port.listen()
        assert not is_same
        assert port.number != first
    listening.close()
    port.close()


def test_sessions_end_when_the_port_was_lost(brief, board, until):
    base = brief.start()
    port = port_of(brief)
    with httpx.Client(base_url=base, trust_env=False) as client:
        form = client.get("/").text.split('name="form" value="')[1].split('"')[0]
        client.post("/pair", data={"code": board.new_code(), "form": form}, headers={"Origin": base})
    assert brief.has_session
    until(lambda: not is_listening(port))
    brief._port.close()  # as if the system had taken it away: no other process can
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert brief.start() != base
    assert not brief.has_session


def test_a_program_that_never_stops_its_page_ends_anyway_and_says_nothing():
    script = (
        "from silo_interaction.page import Page\n"
        "class Board:\n"
        "    def waiting(self): return []\n"
        "    def version(self): return ''\n"
        "Page(Board()).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_importing_the_library_does_not_import_what_the_page_is_made_of():
    script = "import sys, silo_interaction, silo_interaction.page as page; page.Page; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == b"False\n"
