from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from silo.errors import UsageError
from silo.server.clients import CLIENTS, client_entry

GOLDEN = Path(__file__).parent / "golden"
SILO = Path("/opt/silo tools/bin/silo")


def render(entry) -> str:
    return (
        f"title: {entry.title}\nfile: {entry.file}\nservers key: {entry.servers_key}\ncommand: {entry.command}\n"
        f"after: {entry.after}\n\n{entry.text}"
    )


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("home", [None, Path("/srv/silo-home")])
@pytest.mark.parametrize("client", CLIENTS)
def test_entry_is_the_one_on_record(client, home, platform):
    name = f"client-{client}-{platform}{'-home' if home else ''}.txt"
    entry = client_entry(client, command=SILO, home=home, platform=platform)
    assert render(entry) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("client", CLIENTS)
def test_entry_starts_this_silo_and_sets_nothing_that_the_user_did_not_set(client):
    entry = client_entry(client, command=SILO)
    server = json.loads(entry.text)[entry.servers_key]["silo"]
    assert server["command"] == str(SILO)
    assert server["args"] == ["mcp", "serve"]
    assert "env" not in server


@pytest.mark.parametrize("client", ["claude-code", "vscode"])
def test_shell_command_survives_quotes_in_a_path(client):
    entry = client_entry(client, command=Path("/o'brien/$HOME/silo"))
    server = json.loads(shlex.split(entry.command)[-1])
    assert server["command"] == "/o'brien/$HOME/silo"


def test_unknown_client_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as caught:
        client_entry("emacs", command=SILO)
    assert "claude-desktop" in caught.value.hint


def test_relative_command_is_refused():
    with pytest.raises(UsageError):
        client_entry("cursor", command=Path("bin/silo"))
