"""Code gets what a name holds only from a person, on a channel that an agent doesn't have, or from `silo.toml`.

The attacker runs `silo install` and a program with `Runtime.install`, as an agent with a shell can: it passes every
flag and answers `agree` with yes. It wants its own script to run under a name that has secrets or approvals.
"""

import json
import os
from contextlib import closing

import pytest
from silo_interaction import Answer, NoAnswer, NobodyToAsk

from silo.approvals.store import Decisions
from silo.audit.log import read
from silo.config.schema import Config
from silo.errors import ApprovalRequired, ApprovalTimeout, CallDenied, Interrupted
from silo.model import Isolation
from silo.runtime import Runtime
from silo.testing.fakes import FakeBackend, FakeImages, ScriptedChannel, described_tool

pytestmark = pytest.mark.anyio

HEADER = '# /// script\n# requires-python = ">=3.11"\n# [tool.silo]\n# namespace = "{name}"\n{secrets}# ///\n# {text}\n'
DECLARED = "# [tool.silo.secrets.KEY]\n"
YES, NO = Answer(True, "yes"), Answer(False, "no")
GUARDED = {"require_approval": True}


def tool(**changes):
    return described_tool("send", **changes)


class Bench:
    """One home, and scripts to install there. `person` has the answers of the person at the terminal."""

    def __init__(self, folder):
        self.folder = folder
        self.person = ScriptedChannel([])
        self.config = {}
        self.backend = FakeBackend()
        self.home = folder / "home"

    def script(self, text, *, name="pay", secrets="", **said):
        """Write a script, and let the sandbox say of the next one that is installed what this one says."""
        path = self.folder / f"{text}.py"
        path.write_text(HEADER.format(name=name, secrets=secrets, text=text))
        self.said = {"namespace": name, "summary": "", "instructions": None, "tools": [tool(**said)]}
        self.backend = FakeBackend(isolation=Isolation.MICROVM, described=self.said)
        return path

    def open(self):
        return Runtime(
            home=self.home,
            config=Config.model_validate(self.config),
            environ={**{key: os.environ[key] for key in ("PATH", "HOME")}, "SILO_MASTER_KEY": "ab" * 32},
            channel=self.person,
            backends=[self.backend],
            images=FakeImages(self.folder / "images"),
        )

    async def install(self, path, **fields):
        async with self.open() as silo:
            return await silo.install(str(path), agree=agree, **fields)

    async def uninstall(self, name="pay"):
        async with self.open() as silo:
            await silo.uninstall(name)

    def keep(self, namespace, name="KEY"):
        self.open().vault.put(name, "the value of the secret", namespace=namespace)

    def installed(self):
        return {path.parent.name: str(path.readlink()) for path in self.home.glob("skills/*/current")}

    async def is_refused(self, path, **fields):
        """The attack fails without a person, and with one who says no; the installed skill stays as it was."""
        before = self.installed()
        self.person.answers = []
        with pytest.raises(ApprovalRequired) as caught:
            await self.install(path, **fields)
        assert "install.provision" in caught.value.hint
        self.person.answers = [NO]
        with pytest.raises(CallDenied):
            await self.install(path, **fields)
        assert self.installed() == before
        return self.person.asked[-1]

    async def is_agreed(self, path, **fields):
        self.person.answers = [YES]
        skill = await self.install(path, **fields)
        assert self.person.answers == []
        assert skill.agreed.startswith("question ")
        return skill


async def agree(plan):
    return True


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def shown(question):
    return dict(question.facts)["gets what its name holds"]


async def test_a_secret_of_the_name_needs_a_person(bench):
    await bench.install(bench.script("mine", secrets=DECLARED))
    bench.keep("pay")
    asked = await bench.is_refused(bench.script("theirs", secrets=DECLARED))
    assert shown(asked) == "the secret KEY of pay, in the vault"
    assert asked.who.startswith("an unnamed client through the Python library")
    await bench.is_agreed(bench.folder / "theirs.py")


async def test_another_name_for_a_script_is_no_way_around(bench):
    await bench.install(bench.script("mine", secrets=DECLARED))
    bench.keep("pay")
    await bench.is_refused(bench.script("theirs", name="free", secrets=DECLARED), name="pay")
    free = await bench.install(bench.folder / "theirs.py")
    assert (free.namespace, free.agreed) == ("free", "")


async def test_to_uninstall_and_install_is_no_way_around(bench):
    await bench.install(bench.script("mine", secrets=DECLARED))
    bench.keep("pay")
    await bench.uninstall()
    await bench.is_refused(bench.script("theirs"))


async def test_a_secret_that_waits_for_a_skill_needs_a_person(bench):
    bench.keep("pay")
    await bench.is_refused(bench.script("theirs"))
    await bench.is_agreed(bench.script("mine", secrets=DECLARED))


async def test_a_script_that_came_and_went_before_the_secret_did_is_not_known(bench):
    """The attacker installs its script while the name holds nothing, and again when the secret waits there."""
    script = bench.script("theirs", secrets=DECLARED)
    await bench.install(script)
    await bench.uninstall()
    bench.keep("pay")
    await bench.is_refused(script)


async def test_a_secret_of_all_skills_needs_a_person_if_the_script_declares_it(bench):
    bench.keep("")
    asked = await bench.is_refused(bench.script("theirs", secrets=DECLARED))
    assert shown(asked) == "the secret KEY of all skills, in the vault"
    assert (await bench.install(bench.script("plain"))).agreed == ""


@pytest.mark.parametrize(
    ("secrets", "held"),
    [
        ({"sources": {"KEY": "silo://other/KEY"}}, "the secret KEY, from silo://other/KEY"),
        ({"sources": {"pay.KEY": "vault://kv/app#key"}}, "the secret KEY, from vault://kv/app#key"),
        ({"hashicorp_path": "kv/silo"}, "the secret KEY, if it is in HashiCorp Vault"),
        ({"keyring": True}, "the secret KEY, if it is in the keyring"),
    ],
)
async def test_a_secret_elsewhere_needs_a_person_if_the_script_declares_it(bench, secrets, held):
    bench.config = {"secrets": secrets}
    asked = await bench.is_refused(bench.script("theirs", secrets=DECLARED))
    assert shown(asked) == held
    assert (await bench.install(bench.script("plain"))).agreed == ""


async def test_a_tool_that_needs_approval_can_not_be_replaced_by_one_that_does_not(bench):
    await bench.install(bench.script("mine", **GUARDED))
    asked = await bench.is_refused(bench.script("theirs"))
    assert shown(asked) == "pay.send needs approval"
    await bench.uninstall()
    asked = await bench.is_refused(bench.script("theirs"))
    assert shown(asked) == "pay.send needed approval"
    await bench.is_agreed(bench.script("theirs"))
    await bench.install(bench.script("next"))  # it is forgotten: the person agreed to code without


async def test_an_uninstall_between_does_not_forget_what_the_name_held(bench):
    await bench.install(bench.script("mine", **GUARDED))
    await bench.uninstall()
    await bench.is_refused(bench.script("theirs"))
    (bench.home / "skills/.removed/pay").write_bytes(b"\xff")
    asked = await bench.is_refused(bench.script("theirs"))
    assert "unknown" in shown(asked)


async def test_rules_of_the_user_that_name_the_skill_are_grants(bench):
    bench.config = {"policy": {"rules": [{"verdict": "allow", "tool": "pa*.send"}, {"verdict": "allow", "tool": "*"}]}}
    asked = await bench.is_refused(bench.script("theirs"))
    assert shown(asked) == "silo.toml rule 1 allows pa*.send"
    await bench.install(bench.script("other", name="other"))
    bench.config = {"policy": {"rules": [{"verdict": "ask", "tool": "*.send"}]}}
    asked = await bench.is_refused(bench.script("theirs", name="other"))
    assert shown(asked) == "other.send needs approval"


async def test_an_approval_that_still_counts_is_a_grant(bench):
    await bench.install(bench.script("mine"))
    bench.config = {"policy": {"rules": [{"verdict": "ask", "tool": "pay.send"}]}}
    bench.person.answers = [Answer(True, "yes", grace=True)]
    async with bench.open() as silo:
        await silo.call("pay.send")
    bench.config = {}
    asked = await bench.is_refused(bench.script("theirs"))
    assert shown(asked) == "an approval of pay.send still counts"


async def test_a_damaged_record_holds_what_nobody_knows(bench):
    mine = bench.script("mine")
    await bench.install(mine)
    (bench.home / "skills/pay/current/manifest.json").write_text("{")
    asked = await bench.is_refused(bench.script("theirs"))
    assert "unknown" in shown(asked)
    await bench.install(mine)  # the same code repairs it


async def test_a_changed_script_on_disk_is_not_the_same_code(bench):
    """Whoever changes the installed script can't have it accepted as the one that is installed."""
    await bench.install(bench.script("mine", secrets=DECLARED))
    bench.keep("pay")
    theirs = bench.script("theirs", secrets=DECLARED)
    (bench.home / "skills/pay/current/skill.py").write_bytes(theirs.read_bytes())
    await bench.is_refused(theirs)


async def test_the_same_code_needs_nobody(bench):
    mine = bench.script("mine", secrets=DECLARED, **GUARDED)
    await bench.install(mine)
    bench.keep("pay")
    bench.person.answers = []
    assert (await bench.install(mine)).agreed == ""
    assert bench.person.asked == []


async def test_what_the_name_gets_while_the_script_is_built_ends_the_install(bench):
    """The attacker begins early, and lets its build take until the secret is there."""

    class Slow(FakeBackend):
        async def describe(self, spec):
            bench.keep("pay")
            return await super().describe(spec)

    script = bench.script("theirs", secrets=DECLARED)
    bench.backend = Slow(isolation=Isolation.MICROVM, described=bench.said)
    with pytest.raises(CallDenied, match="its name got the secret KEY of pay"):
        await bench.install(script)
    assert bench.installed() == {}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NO, CallDenied),
        (Answer(False, "gone", interrupted=True), Interrupted),
        (NoAnswer("nobody answered", hint="h"), ApprovalTimeout),
        (NobodyToAsk("nobody is there", hint="h"), ApprovalRequired),
    ],
)
async def test_whatever_is_no_yes_installs_nothing_and_leaves_no_question(bench, answer, error):
    bench.keep("pay")
    bench.person.answers = [answer]
    with pytest.raises(error):
        await bench.install(bench.script("theirs"))
    assert bench.installed() == {}
    with closing(Decisions(bench.home)) as decisions:
        assert [one.posted.state for one in decisions.all(standing=False)] != ["waiting"]


async def test_headless_asks_nobody(bench):
    bench.keep("pay")
    bench.config = {"approval": {"headless": True}}
    bench.person.answers = [YES]
    with pytest.raises(ApprovalRequired, match="SILO_APPROVAL_REQUIRED"):
        await bench.install(bench.script("theirs"))
    assert bench.person.asked == []


# --- provisioning -----------------------------------------------------------------------------------------------------


async def test_silo_toml_can_name_code_that_needs_nobody(bench):
    bench.keep("pay")
    script = bench.script("mine", secrets=DECLARED)
    with pytest.raises(ApprovalRequired) as caught:
        await bench.install(script, provision=True)
    line = caught.value.hint.split("add ")[1].split(" to [install.provision]")[0]
    name, _, digest = line.replace('"', "").partition(" = ")
    bench.config = {"install": {"provision": {name: digest}}}
    with pytest.raises(ApprovalRequired):  # the flag belongs to it
        await bench.install(script)
    skill = await bench.install(script, provision=True)
    assert (skill.digest, skill.agreed) == (digest, "silo.toml")
    assert len(bench.person.asked) == 1
    manifest = bench.home / "skills/pay/current/manifest.json"
    assert json.loads(manifest.read_text())["agreed"] == "silo.toml"
    body = [record.body for record in read(bench.home) if record.event == "install"][-1]
    assert (body["agreed"], body["grants"], body["outcome"]) == (
        "silo.toml",
        ["the secret KEY of pay, in the vault"],
        "ok",
    )
    with pytest.raises(ApprovalRequired, match=r"silo\.toml doesn't name this code"):
        await bench.install(bench.script("theirs", secrets=DECLARED), provision=True)
    bench.keep("rich")
    with pytest.raises(ApprovalRequired, match=r"silo\.toml doesn't name this code"):
        await bench.install(script, name="rich", provision=True)


async def test_a_question_that_was_agreed_to_is_recorded(bench):
    bench.keep("pay")
    skill = await bench.is_agreed(bench.script("mine", secrets=DECLARED))
    body = [record.body for record in read(bench.home) if record.event == "install"][-1]
    assert body["agreed"] == skill.agreed
    async with bench.open() as silo:
        assert (await silo.skill("pay")).agreed == skill.agreed
