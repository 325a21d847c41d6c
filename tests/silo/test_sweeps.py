"""How often the folder of skills is listed. It may hold thousands of skills, and searches and lists wait for it."""

import sys
from dataclasses import replace

import pytest
from mcp import Client

from silo.config.schema import Config
from silo.model import Caller
from silo.runtime import Runtime
from silo.server.engine import ServerOptions
from silo.server.protocol.app import build_server
from silo.testing.fakes import FakeBackend, FakeImages, make_skill, make_tool

pytestmark = pytest.mark.anyio

JWT = make_skill(
    make_tool("sign", skill="jwt", description="Sign a JSON Web Token."),
    make_tool("verify", skill="jwt", description="Verify a JSON Web Token."),
    namespace="jwt",
)
_listings = []
_folders = set()


def _hook(event, arguments):
    if event in ("os.scandir", "os.listdir") and _folders and str(arguments[0]) in _folders:
        _listings.append(str(arguments[0]))


# CPython reports every listing of a folder to it. A hook can't be taken away, so it watches no folder by default.
sys.addaudithook(_hook)


@pytest.fixture
def swept(tmp_path):
    """Return a function that returns how often the folder was listed since its last call."""
    _folders.add(str(tmp_path / "skills"))

    def swept():
        count = len(_listings)
        _listings.clear()
        return count

    swept()
    yield swept
    _folders.clear()


@pytest.fixture
def make(tmp_path):
    def make(**fields):
        return Runtime(
            home=tmp_path,
            config=Config(),
            environ={},
            backends=[FakeBackend()],
            images=FakeImages(tmp_path / "images"),
            **fields,
        )

    return make


async def test_a_search_of_a_program_sweeps_it_once_also_if_it_changed(make, put_skills_async, swept):
    silo = make()
    await put_skills_async(JWT)
    swept()
    assert await silo.search("sign a token")
    assert swept() == 1
    assert await silo.search("verify a token")
    assert swept() == 1
    await put_skills_async(replace(JWT, namespace="other", tools=(make_tool(skill="other"),)))
    swept()
    await silo.find(["sign a token", "verify a token"])
    assert swept() == 1


async def test_a_search_among_what_was_looked_at_before_does_not_sweep_it(make, put_skills_async, swept):
    silo = make()
    await put_skills_async(JWT)
    visible = await silo.visible()
    swept()
    assert await silo.search("sign a token", among=visible)
    assert swept() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "sign a token"},
        {"queries": ["sign a token", "verify a token"]},
        {"query": "jwt.sign"},
        {"skill": "jwt"},
        {"query": "sign", "skill": "jwt"},
    ],
)
async def test_a_search_of_an_agent_sweeps_it_once(make, put_skills_async, swept, arguments):
    await put_skills_async(JWT)
    server_options = ServerOptions("0", poll_s=3600)
    async with make(caller=Caller("mcp")) as silo, Client(build_server(silo, server_options)) as agent:
        swept()
        await agent.list_tools()  # the client does this anyway before its first call
        assert swept() == 1
        for _ in range(2):
            found = await agent.call_tool("silo_search", arguments)
            assert not found.is_error
            assert swept() == 1
