"""The Python API: what a program that embeds silo relies on."""

import os
import subprocess
import sys
import threading

import anyio
import pytest
from silo_interaction import Answer

from silo.audit.log import read
from silo.config.schema import Config
from silo.errors import (
    ApprovalRequired,
    ArgumentsInvalid,
    CallDenied,
    ConfigUnknownKey,
    HomeUnsafe,
    SandboxUnavailable,
    SecretMissing,
    SkillUnknown,
    ToolUnknown,
    UsageError,
)
from silo.model import Caller, Isolation, ProgressReport
from silo.runtime import Runtime, SyncRuntime
from silo.sandbox.skill.base import GuestReply
from silo.testing import PATIENCE_S
from silo.testing.fakes import FakeBackend, FakeImages, ScriptedChannel, described_tool
from silo.wire.messages import Finished, Progress

pytestmark = pytest.mark.anyio

SCRIPT = '''# /// script
# requires-python = ">=3.11"
# [tool.silo]
# namespace = "demo"
# [tool.silo.secrets.KEY]
# ///
"""A demonstration."""
'''


def described(**changes):
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    tool = described_tool("echo", description="Say a word again.", input_schema=schema)
    tools = [tool, tool | {"name": "guarded", "require_approval": True}, tool | {"name": "keyed", "secrets": ["KEY"]}]
    return {"namespace": "demo", "summary": "", "instructions": None, "tools": tools} | changes


async def agree(plan):
    return True


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def make(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "skill.py").write_text(SCRIPT)
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def make(kind=Runtime, *, backend=None, **fields):
        backend = backend or FakeBackend(described=described())
        fields = {"home": tmp_path / "home", "environ": environ | {"SILO_MASTER_KEY": "ab" * 32}} | fields
        return kind(backends=[backend], images=FakeImages(tmp_path / "home" / "images"), **fields)

    make.source = str(tmp_path / "demo")
    make.environ = environ
    return make


async def test_a_skill_is_installed_found_called_and_removed(make):
    async with make() as silo:
        skill = await silo.install(make.source, agree=agree)
        assert await silo.skills() == (skill,)
        assert [tool.id for tool in await silo.tools()] == ["demo.echo", "demo.guarded", "demo.keyed"]
        assert await silo.skill("demo") == skill
        assert (await silo.search("demo.echo"))[0].tool.id == "demo.echo"
        result = await silo.call("demo.echo", {"text": "hello"})
        assert (result.data, result.isolation) == ({"text": "hello"}, Isolation.MICROVM)
        assert await silo.uninstall("demo") == skill
        assert await silo.search("demo.echo") == ()
        with pytest.raises(SkillUnknown):
            await silo.call("demo.echo")


async def test_a_secret_of_the_vault_reaches_the_call_and_not_the_result(make):
    async def leak(request, on_progress):
        return GuestReply(Finished(text=request.secrets["KEY"]))

    async with make(backend=FakeBackend(leak, described=described())) as silo:
        await silo.install(make.source, agree=agree)
        with pytest.raises(SecretMissing):
            await silo.call("demo.keyed")
        silo.vault.put("KEY", "s3cr3t-Value")
        assert (await silo.call("demo.keyed")).text == "[redacted:KEY]"


async def test_a_guarded_tool_asks_the_channel_and_without_one_is_refused(make):
    async with make() as silo:
        await silo.install(make.source, agree=agree)
        with pytest.raises(ApprovalRequired):
            await silo.call("demo.guarded")
    channel = ScriptedChannel([Answer(True, "yes")])
    async with make(channel=channel, caller=Caller("mcp", "client-1")) as silo:
        await silo.call("demo.guarded")
        assert channel.asked[0].who == "client-1 through MCP"
    async with make(channel=channel, environ=make.environ | {"SILO_HEADLESS": "1"}) as silo:
        with pytest.raises(ApprovalRequired):
            await silo.call("demo.guarded")
    assert len(channel.asked) == 1


async def test_only_so_many_calls_hold_a_guest_at_once(make):
    running, most, release = 0, 0, anyio.Event()

    async def wait(request, on_progress):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            release.set()
        with anyio.fail_after(PATIENCE_S):
            await release.wait()
        running -= 1
        return GuestReply(Finished(text="done"))

    config = Config.model_validate({"call": {"max_concurrent": 2}})
    async with make(backend=FakeBackend(wait, described=described()), config=config) as silo:
        await silo.install(make.source, agree=agree)
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(silo.call, "demo.echo")
    assert most == 2


async def test_progress_of_the_skill_is_reported(make):
    async def work(request, on_progress):
        on_progress(Progress(1, 2, "half"))
        return GuestReply(Finished(text=""))

    reports = []
    async with make(backend=FakeBackend(work, described=described())) as silo:
        await silo.install(make.source, agree=agree)
        await silo.call("demo.echo", on_progress=reports.append)
    assert reports == [ProgressReport(1, 2, "half")]


async def test_the_floor_is_kept_unless_the_call_names_a_backend(make):
    backend = FakeBackend(isolation=Isolation.NAMESPACE, described=described())
    async with make(backend=backend) as silo:
        with pytest.raises(SandboxUnavailable):
            await silo.install(make.source, agree=agree)
        await silo.install(make.source, agree=agree, backend=Isolation.NAMESPACE)
        with pytest.raises(SandboxUnavailable):
            await silo.call("demo.echo")
        assert (await silo.call("demo.echo", backend=Isolation.NAMESPACE)).isolation is Isolation.NAMESPACE


async def test_a_probe_names_every_backend(make):
    async with make(backend=FakeBackend(works=False)) as silo:
        (probe,) = await silo.probe()
    assert (probe.isolation, probe.works) == (Isolation.MICROVM, False)


async def test_outside_of_its_context_nothing_runs(make):
    silo = make()
    for start in (lambda: silo.call("demo.echo"), lambda: silo.install(make.source, agree=agree), silo.probe):
        with pytest.raises(UsageError, match="not open"):
            await start()


async def test_leaving_the_context_closes_the_backends(make):
    notes = []
    async with make(backend=FakeBackend(notes=notes)):
        assert notes == []
    assert notes == ["close backend"]


async def test_an_unsafe_home_or_a_misspelt_setting_stops_it_at_once(make, tmp_path):
    with pytest.raises(ConfigUnknownKey):
        make(environ={"SILO_HEADLES": "1"})
    (tmp_path / "home").chmod(0o777)
    with pytest.raises(HomeUnsafe):
        make()


async def test_what_a_progress_callback_raises_comes_out_as_it_is(make):
    class Mine(Exception):
        pass

    def complain(report):
        raise Mine("stop")

    async def report(request, on_progress):
        on_progress(Progress(1, message="half"))
        await anyio.sleep_forever()

    backend = FakeBackend(report, described=described())
    async with make(backend=backend) as silo:
        await silo.install(make.source, agree=agree)
        with pytest.raises(Mine):
            await silo.call("demo.echo", {"text": "x"}, on_progress=complain)
    assert backend.running == 0


async def test_arguments_that_are_no_mapping_are_refused(make):
    async with make() as silo:
        await silo.install(make.source, agree=agree)
        for arguments in ([1], "text", 5):
            with pytest.raises(ArgumentsInvalid, match="not a mapping"):
                await silo.call("demo.echo", arguments)


def test_the_same_without_async(make):
    asked = []
    with make(SyncRuntime) as silo:
        skill = silo.install(make.source, agree=lambda plan: asked.append(plan) or True)
        assert silo.skills() == (skill,)
        assert silo.skill("demo") == skill
        assert len(silo.tools()) == 3
        assert silo.search("demo.echo", limit=1)[0].tool.id == "demo.echo"
        assert silo.call("demo__echo", {"text": "x"}).data == {"text": "x"}
        assert silo.probe()[0].works
        silo.vault.put("KEY", "value")
        assert silo.uninstall("demo") == skill
    assert len(asked) == 1
    with pytest.raises(UsageError):
        silo.skills()


def test_ctrl_c_ends_the_guest_before_it_leaves_the_call(make):
    import signal

    async def hang(request, on_progress):
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

    backend = FakeBackend(hang, described=described())
    with make(SyncRuntime, backend=backend) as silo:
        silo.install(make.source, agree=lambda plan: True)
        with pytest.raises(KeyboardInterrupt):
            silo.call("demo.echo")
        assert backend.running == 0
        outcomes = [record.body.get("outcome") for record in read(silo.home)]
    assert outcomes[-1] == "interrupted"
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(5.0)  # anyio tells its idle workers to end when the loop does, and does not wait for them
        assert not thread.is_alive()


def test_importing_the_runtime_loads_nothing_heavy():
    code = "import silo.runtime, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"cryptography", "keyring", "jsonschema", "mcp", "typer", "rich", "tomlkit", "uv", "trio"}


def rules(*rules):
    return Config.model_validate({"policy": {"rules": rules}})


async def test_what_the_rules_deny_is_not_found_not_hinted_at_and_refused_with_the_reason_whatever_the_arguments(make):
    config = rules({"verdict": "deny", "tool": "demo.echo", "callers": ["mcp"], "reason": "not for agents"})
    async with make(config=config, caller=Caller("mcp", "client-1")) as silo:
        await silo.install(make.source, agree=agree)
        assert (
            await silo.expected_verdicts()
            == await silo.outlooks()
            == {"demo.echo": "denied", "demo.guarded": "asks", "demo.keyed": "runs"}
        )
        for query in ("demo.echo", "say a word again"):
            assert "demo.echo" not in [match.tool.id for match in await silo.search(query)]
        for arguments in ({"text": "hi"}, {"text": 5, "nonsense": {}}):
            with pytest.raises(CallDenied, match="not for agents"):
                await silo.call("demo.echo", arguments)
        for name in ("demo.ecco", "demo.echoo", "edmo.echo", "say a word again"):
            with pytest.raises((SkillUnknown, ToolUnknown)) as caught:
                await silo.call(name)
            assert "demo.echo" not in caught.value.hint
        outcomes = [record.body.get("outcome") for record in read(silo.home)]
        assert outcomes.count("denied") == 2
    async with make(config=config, caller=Caller("library")) as silo:
        assert (await silo.search("demo.echo"))[0].tool.id == "demo.echo"
        assert (await silo.call("demo.echo", {"text": "hi"})).data == {"text": "hi"}


async def test_only_calls_that_succeed_teach_and_only_whoever_made_them(make):
    async def act(request, on_progress):
        if request.tool == "guarded":
            return GuestReply(Finished(text="no", is_error=True))
        return GuestReply(Finished(text="yes"))

    backend = FakeBackend(act, described=described())
    agent, other = Caller("mcp", "one", "s1"), Caller("mcp", "two", "s2")
    async with make(backend=backend, channel=ScriptedChannel([Answer(True, "yes")]), caller=agent) as silo:
        await silo.install(make.source, agree=agree)
        for tool, request in (
            ("guarded", "parrot please repeat"),
            ("keyed", "open the cupboard"),
            ("echo", "shout it out loud"),
        ):
            await silo.search(request, limit=3)
            try:
                await silo.call(f"demo__{tool}", {"text": "hello"})
            except SecretMissing:
                assert tool == "keyed"
    learned = (silo.home / "learned.json").read_text()
    assert "shout it out loud" in learned
    assert "parrot" not in learned, "the tool reported a failure"
    assert "cupboard" not in learned, "the call was refused"
    async with make(backend=backend) as silo:
        assert await silo.usage(agent) == {"demo.echo": 1}
        assert await silo.usage(other) == {}
        (first, *_) = await silo.search("shout it", caller=agent)
        assert (first.tool.id, first.why) == ("demo.echo", ("examples: shout",))
        assert not any("examples" in why for match in await silo.search("shout it", caller=other) for why in match.why)
        assert await silo.uninstall("demo")
    assert "demo.echo" not in (silo.home / "learned.json").read_text()


async def test_with_learning_off_nothing_is_written_and_nothing_that_was_is_used(make):
    agent = Caller("mcp", "one", "s1")
    off = Config.model_validate({"router": {"learning": False}})
    written = []
    for config in (Config(), off):
        async with make(config=config, caller=agent) as silo:
            await silo.install(make.source, agree=agree)
            await silo.search("shout it out loud", limit=3)
            await silo.call("demo.echo", {"text": "hello"})
        written.append((silo.home / "learned.json").read_bytes())
    assert written[0] == written[1]
    async with make(config=off, caller=agent) as silo:
        assert await silo.usage() == {}
        assert not any("examples" in why for match in await silo.search("shout it") for why in match.why)
        assert await silo.forget()
        assert not await silo.forget()


async def test_a_name_that_is_a_description_is_answered_with_the_tool(make):
    async with make() as silo:
        await silo.install(make.source, agree=agree)
        with pytest.raises(ToolUnknown) as caught:
            await silo.call("say a word again")
        assert "'demo.echo'" in caught.value.hint


async def test_examples_in_the_header_are_shown_before_the_install_and_used_after_it(make, tmp_path):
    header, _, rest = SCRIPT.partition('# ///\n"""')
    (tmp_path / "demo" / "skill.py").write_text(
        f'{header}# [tool.silo.tools.echo]\n# examples = ["parrot what I say"]\n# ///\n"""{rest}'
    )
    plans = []
    async with make() as silo:
        await silo.install(make.source, agree=lambda plan: remember(plans, plan))
        assert (await silo.search("parrot"))[0].why == ("examples: parrot",)
    assert plans[0].header.examples == {"echo": ("parrot what I say",)}


async def remember(plans, plan):
    plans.append(plan)
    return True
