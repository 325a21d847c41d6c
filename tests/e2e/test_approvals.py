"""Asking a person, end to end: a real agent's client, the real server, page, browser, terminal and microVMs.

These tests attack the claim that an agent can't approve its own call, even if it has `curl`, its own browser, `silo`
itself, and every link and every word that silo printed. Single requests to the page are tested in
`tests/silo_interaction/page`.
"""

from __future__ import annotations

import os
import pty
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode, urlsplit

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client, types
from playwright.async_api import async_playwright

from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

CHROMIUM = "/usr/bin/chromium"
ASKING = "[approval]\npatience_s = 0.5\ntimeout_s = 600\n"
CODE = re.compile(r"[0-9A-Z]{4}-[0-9A-Z]{4}")


@pytest.fixture
def asking(silo, settings):
    """The filled silo, which soon tells an agent to call again. Earlier questions ended with their server."""
    silo.configure(settings + ASKING)
    silo.run("approvals", "revoke", "--all", status=None)
    return silo


@pytest.fixture
def connect(asking, tmp_path):
    @asynccontextmanager
    async def open_client(mode="auto", *, name=None, **fields):
        program, *arguments = asking.command
        server = StdioServerParameters(
            command=program, args=[*arguments, "mcp", "serve"], env=dict(asking.environ), cwd=tmp_path
        )
        with open(tmp_path / "stderr", "a") as errors, anyio.fail_after(PATIENCE_S):
            # Its own name, because a denial counts for a while for the client that got it.
            who = types.Implementation(name=name or secrets.token_hex(4), version="1")
            async with Client(stdio_client(server, errors), mode=mode, client_info=who, **fields) as client:
                yield client

    return open_client


@asynccontextmanager
async def browser():
    """A browser with its own profile."""
    async with async_playwright() as driver:
        program = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        try:
            yield await (await program.new_context()).new_page()
        finally:
            await program.close()


def at_terminal(silo, *arguments, keys=b""):
    """Run a command in its own terminal, as a person would, and return its exit status and its output."""
    ours, theirs = pty.openpty()
    # Its own session, whose controlling terminal this becomes.
    start = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", start, *silo.command, *arguments],
        env=dict(silo.environ),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.1)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the last process with the terminal is gone
                break
            if not data:
                break
            shown += data
            if keys and b"[y/N" in shown:
                os.write(ours, keys)
                keys = b""
        return process.wait(timeout=PATIENCE_S), shown.decode(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def pairing_code(silo):
    status, shown = at_terminal(silo, "approvals", "pair")
    assert status == 0, shown
    return CODE.search(shown)[0]


async def paired(page, silo, link):
    await page.goto(link)
    await page.get_by_label("Code").fill(await anyio.to_thread.run_sync(pairing_code, silo))
    await page.get_by_role("button", name="Pair").click()


def waiting_in(silo):
    """Return the questions that wait, without those that an earlier test has decided."""
    return [entry for entry in silo.run("approvals", "list", "--json").json["questions"] if entry["state"] == "waiting"]


def code_of(result):
    return result.meta["dev.silo/error"]["code"] if result.is_error else "ok"


def link_of(result):
    assert code_of(result) == "approval-pending", result
    url = result.meta["dev.silo/approval"]["url"]
    assert url in result.content[0].text
    return url


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_person_pairs_a_browser_and_approves_what_an_agent_called(connect, asking, mode):
    async with connect(mode) as agent, browser() as page:
        link = link_of(await agent.call_tool("tricky__dangerous"))
        await paired(page, asking, link)
        await page.get_by_role("heading", name="Run tricky.dangerous").wait_for()
        assert "microVM" in await page.inner_text("main")
        await page.get_by_role("button", name="Approve once").click()
        await page.get_by_text("Nothing is waiting").wait_for()
        ran = await agent.call_tool("tricky__dangerous")
        assert (code_of(ran), ran.content[0].text) == ("ok", "done")
        assert ran.meta["dev.silo/isolation"] == "microvm"
        again = await agent.call_tool("tricky__dangerous")
        assert code_of(again) == "approval-pending", "one yes, one call"
        # The next question needs no pairing: the link alone leads this browser to it, and no other one.
        await page.goto(link_of(again))
        await page.get_by_role("heading", name="Run tricky.dangerous").wait_for()
        await page.get_by_text("Deny, and say why").click()
        await page.get_by_label("Why not?").fill("once is enough")
        await page.get_by_role("button", name="Deny with this reason").click()
        await page.get_by_text("Nothing is waiting").wait_for()
        refused = await agent.call_tool("tricky__dangerous")
        assert code_of(refused) == "denied"
        assert "once is enough" in refused.content[0].text


async def test_a_secret_that_is_typed_into_the_page_reaches_the_call_and_nothing_else(connect, asking, list_files):
    value = "typed-in-by-a-person-0815"
    async with connect() as agent, browser() as page:
        link = link_of(await agent.call_tool("tricky__wants_more"))
        await paired(page, asking, link)
        await page.get_by_label("ABSENT_KEY").fill(value)
        await page.get_by_role("button", name="Hand it over").click()
        await page.get_by_text("Nothing is waiting").wait_for()
        ran = await agent.call_tool("tricky__wants_more")
        assert code_of(ran) == "ok"
        assert value not in str(ran), "the skill returned it, and it was redacted"
        assert code_of(await agent.call_tool("tricky__wants_more")) == "approval-pending", "it was for one call"
    assert value.encode() not in b"".join((asking.home / name).read_bytes() for name in ("state.db", "audit.jsonl"))
    assert "ABSENT_KEY" not in asking.run("vault", "list").out


async def test_a_person_over_ssh_approves_with_the_command_line(connect, asking):
    async with connect() as agent:
        assert code_of(await agent.call_tool("tricky__dangerous")) == "approval-pending"
        (waiting,) = waiting_in(asking)
        status, shown = await anyio.to_thread.run_sync(
            lambda: at_terminal(asking, "approvals", "approve", waiting["id"], keys=b"y\n")
        )
        assert status == 0, shown
        assert "tricky.dangerous" in shown
        assert code_of(await agent.call_tool("tricky__dangerous")) == "ok"


# --- the agent tries to approve its own call --------------------------------------------------------------------------


def curl(authority, method, path, *, body=None, **headers):
    """One request as an agent would send it, with any headers that it likes."""
    connection = HTTPConnection(authority, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace"), dict(response.getheaders())
    finally:
        connection.close()


async def test_an_agent_with_every_link_curl_and_a_browser_of_its_own_approves_nothing(connect, asking):
    told = []

    async def note(progress, total, message):
        told.append(message or "")

    async with connect(name="attacker") as agent:
        first = await agent.call_tool("tricky__dangerous", progress_callback=note)
        second = await agent.call_tool("tricky__dangerous")
        links = {link_of(first), link_of(second), *re.findall(r"http://\S+", " ".join(told))}
        (question,) = waiting_in(asking)
        authority = urlsplit(link_of(first)).netloc
        same = {"Origin": f"http://{authority}", "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate"}
        form_type = {"Content_Type": "application/x-www-form-urlencoded"}

        def attack():
            seen = []
            for link in links:
                token = urlsplit(link).path.rpartition("/")[2]
                seen.append(curl(authority, "GET", f"/q/{token}")[1])
                form = re.search(r'name="form" value="([^"]*)"', seen[-1])[1]
                for place in ("", "x", token, question["id"], "..", "%2e%2e"):
                    for end in ("", f"q/{question['id']}", f"follow/{token}", "events"):
                        status, text, _ = curl(authority, "GET", f"/s/{place}/{end}", Cookie="silo_page=x", **same)
                        assert status in (404, 429)
                        seen.append(text)
                    for choice in ("approve", "grace", "give"):
                        body = urlencode({"choice": choice, "digest": "0" * 64, "csrf": form})
                        status, text, _ = curl(
                            authority, "POST", f"/s/{place}/q/{question['id']}", body=body, **form_type, **same
                        )
                        assert status in (403, 404, 429)
                        seen.append(text)
            wrong = [
                curl(
                    authority,
                    "POST",
                    "/pair",
                    body=urlencode({"form": form, "code": f"0000-{number:04}"}),
                    **form_type,
                    **same,
                )[0]
                for number in range(30)
            ]
            assert 303 not in wrong
            assert wrong[-1] == 429
            assert not any("tricky" in text or "dangerous" in text for text in seen), "a link alone shows nothing"

        await anyio.to_thread.run_sync(attack)
        async with browser() as page:
            for link in links:
                await page.goto(link)
                assert "dangerous" not in await page.content()
                assert await page.get_by_role("button", name=re.compile("[Aa]pprove")).count() == 0
        # silo itself, through pipes, as an agent's shell tool runs it.
        for arguments, status in (
            (("approvals", "approve", question["id"]), 3),
            (("approvals", "pair"), 3),
            (("approvals", "approve", question["id"], "--yes"), 2),
        ):
            done = asking.run(*arguments, stdin="y\ny\n", status=None)
            assert done.status == status, (arguments, done)
            assert not CODE.search(done.out + done.err)
        # And over MCP: again and again, through the other tool, with what looks like an answer.
        for _ in range(5):
            assert code_of(await agent.call_tool("tricky__dangerous")) == "approval-pending"
        through = {"tool": "tricky.dangerous", "arguments": {}}
        assert code_of(await agent.call_tool("silo_execute", through)) == "approval-pending"
        lie = await agent.call_tool("tricky__dangerous", {"approved": True})
        assert code_of(lie) == "arguments-invalid"
        assert [entry["id"] for entry in waiting_in(asking)] == [question["id"]]
    records = asking.run("audit", "show", "-n", "50", "--json").json["records"]
    mine = [record for record in records if record.get("caller", {}).get("client") == "attacker 1"]
    assert {record["event"] for record in mine} == {"refused"}, "no call of it ever began"
    assert {record["outcome"] for record in mine} == {"approval-pending", "arguments-invalid"}


async def test_a_guest_does_not_reach_the_page(connect):
    async with connect() as agent:
        link = link_of(await agent.call_tool("tricky__dangerous"))
        inside = await agent.call_tool("tricky__visit", {"url": link})
        assert inside.content[0].text.startswith("failed")
        status, _, _ = await anyio.to_thread.run_sync(lambda: curl(urlsplit(link).netloc, "GET", urlsplit(link).path))
        assert status == 200, "the page was there all the time"


async def test_a_client_that_accepts_every_prompt_approves_nothing(connect, asking):
    async def accept(context, params):
        return types.ElicitResult(action="accept", content={} if params.mode == "form" else None)

    for mode in ("auto", "legacy"):
        async with connect(mode, elicitation_callback=accept) as agent:
            assert code_of(await agent.call_tool("tricky__dangerous")) == "approval-pending"


# --- silo stops while it asks -----------------------------------------------------------------------------------------


@contextmanager
def _listening(port):
    """Another process's server on a port; here it is the test's own."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        yield sock


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_question_of_a_silo_that_was_stopped_can_never_be_answered_with_yes(connect, asking, processes, how):
    async with connect() as agent:
        link = link_of(await agent.call_tool("tricky__dangerous"))
        (question,) = waiting_in(asking)
        os.kill(processes.server_of(os.getpid()), how)
        port = urlsplit(link).port

        def is_free():
            try:
                with _listening(port):
                    return True
            except OSError:
                return False

        with anyio.fail_after(PATIENCE_S):
            while not is_free():
                await anyio.sleep(0.05)
    with _listening(port):  # a process that takes the port gets no new link and no approval
        status, shown = at_terminal(asking, "approvals", "approve", question["id"], keys=b"y\n")
        assert status != 0, shown
        async with connect() as agent:
            new = link_of(await agent.call_tool("tricky__dangerous"))
            assert urlsplit(new).port != port
            assert code_of(await agent.call_tool("tricky__dangerous")) == "approval-pending"


async def test_a_yes_is_for_the_connection_that_asked_and_counts_once(connect, asking):
    async with connect(name="one-agent") as agent, browser() as page:
        link = link_of(await agent.call_tool("tricky__dangerous"))
        await paired(page, asking, link)
        await page.get_by_role("button", name="Approve once").click()
        await page.get_by_text("Nothing is waiting").wait_for()
        async with connect(name="one-agent") as another:
            assert code_of(await another.call_tool("tricky__dangerous")) == "approval-pending"
        assert code_of(await agent.call_tool("tricky__dangerous")) == "ok"
        assert code_of(await agent.call_tool("tricky__dangerous")) == "approval-pending"


def test_headless_refuses_at_once_what_needs_a_person(asking):
    done = asking.run("run", "tricky.dangerous", "--headless", status=3)
    assert "SILO_APPROVAL_REQUIRED" in done.err
    assert "[approval-required]" in done.err
    done = asking.run("run", "tricky.wants_more", environ={"SILO_HEADLESS": "1"}, status=4)
    assert "SILO_AUTH_REQUIRED" in done.err


def test_without_a_terminal_and_a_screen_there_is_nobody_to_ask(asking):
    done = asking.run("run", "tricky.dangerous", status=3)
    assert "[approval-required]" in done.err
