"""The order of a call's steps, and that there is no way around any of them."""

import base64
import contextlib
import threading
import traceback
from dataclasses import replace

import anyio
import pytest
from silo_interaction import Answer, NoAnswer, NobodyToAsk
from silo_vault import VaultLocked as TheirVaultLocked

from silo.approvals.consent import Grant
from silo.approvals.questions import call_key
from silo.audit.log import read, verify
from silo.calls.files import InputRules
from silo.calls.pipeline import MAX_ROUNDS
from silo.errors import (
    ApprovalRequired,
    ApprovalTimeout,
    ArgumentsInvalid,
    AuditBroken,
    CallDenied,
    CanaryTripped,
    FileRefused,
    Interrupted,
    ResultInvalid,
    SandboxTimeout,
    SandboxUnavailable,
    SecretMissing,
    SiloError,
    SkillCrashed,
    SkillRaised,
    SkillUnknown,
    ToolUnknown,
    VaultLocked,
)
from silo.model import Call, Caller, File, Isolation, ProgressReport
from silo.remedies import CallAgain
from silo.sandbox.skill.base import Captured, GuestReply
from silo.sandbox.skill.failures import FAILURES
from silo.schema.canonical import HashedArguments, file_digest
from silo.testing import PATIENCE_S
from silo.testing.fakes import FakeRunner, make_skill, make_tool
from silo.wire.messages import Finished, Progress

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t-Value/42"
MICROVM = Isolation.MICROVM
TEXT = {"text": {"type": "string"}}
GUARDED = make_skill(make_tool(properties=TEXT, required=["text"], require_approval=True, secrets=["KEY"]))
PLAIN = make_skill(make_tool(properties=TEXT, required=["text"]))


def answering(outcome, **fields):
    async def behave(request, on_progress):
        return GuestReply(outcome, **fields)

    return behave


def raising(error):
    async def behave(request, on_progress):
        raise error

    return behave


async def test_a_call_passes_its_steps_in_order(bench):
    it = bench(GUARDED, secrets={"KEY": SECRET}, answers=[Answer(True, "said yes")])
    result = await it.call("demo.echo", {"text": "hello"})
    assert it.notes == ["ask Run demo.echo", "get KEY", "open demo", "run echo", "close demo"]
    assert result.data == {"text": "hello"}
    assert result.isolation is Isolation.MICROVM
    assert list(result.timing)[-1] == "total"
    assert result.timing["total"] >= result.timing["run"]


async def test_both_spellings_of_a_tools_name_run_it(bench):
    for name in ("demo.echo", "demo__echo"):
        assert (await bench(PLAIN).call(name, {"text": "x"})).data == {"text": "x"}


@pytest.mark.parametrize(
    ("name", "error", "near"),
    [
        ("demo.ecko", ToolUnknown, "demo.echo"),
        ("echo", ToolUnknown, "demo.echo"),
        ("other.echo", SkillUnknown, "demo.echo"),
        ("DEMO.echo", SkillUnknown, "did you mean 'demo.echo'?"),
        ("dmeo__echo", SkillUnknown, "did you mean 'demo.echo'?"),
        ("nothing.like", SkillUnknown, "silo list"),
        ("", ToolUnknown, ""),
        ("a" * 5000, ToolUnknown, ""),
    ],
)
async def test_an_unknown_name_gets_the_nearest_ones_and_nothing_is_touched(bench, name, error, near):
    it = bench(PLAIN)
    with pytest.raises(error) as caught:
        await it.call(name)
    assert near in caught.value.hint
    assert it.notes == []


async def test_wrong_arguments_ask_nobody_and_unlock_nothing(bench):
    it = bench(GUARDED, secrets={"KEY": SECRET}, answers=[Answer(True, "yes")])
    with pytest.raises(ArgumentsInvalid):
        await it.call("demo.echo", {"text": 5})
    assert it.notes == []


async def test_a_refused_file_asks_nobody_and_unlocks_nothing(bench, tmp_path):
    tool = make_tool(properties={"data": {"x-silo-file": True}}, require_approval=True, secrets=["KEY"])
    it = bench(make_skill(tool), secrets={"KEY": SECRET}, answers=[Answer(True, "yes")])
    with pytest.raises(FileRefused):
        await it.call("demo.echo", {"data": "file:///etc/passwd"})
    assert it.notes == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(False, "no"), CallDenied),
        (Answer(False, "Ctrl-C", interrupted=True), Interrupted),
        (Answer(True, "both at once", interrupted=True), Interrupted),
        (NoAnswer("nobody answered", hint="h"), ApprovalTimeout),
        (NobodyToAsk("no terminal", hint="h"), ApprovalRequired),
    ],
)
async def test_without_a_yes_the_vault_is_not_opened_and_no_guest_starts(bench, answer, error):
    it = bench(GUARDED, secrets={"KEY": SECRET}, answers=[answer])
    with pytest.raises(error):
        await it.call("demo.echo", {"text": "x"})
    assert it.notes == ["ask Run demo.echo"]


@pytest.mark.parametrize("fields", [{}, {"headless": True}, {"headless": True, "answers": [Answer(True, "yes")]}])
async def test_with_nobody_to_ask_a_guarded_tool_is_refused_at_once(bench, fields):
    it = bench(GUARDED, secrets={"KEY": SECRET}, **fields)
    with pytest.raises(ApprovalRequired, match="SILO_APPROVAL_REQUIRED"):
        await it.call("demo.echo", {"text": "x"})
    assert it.notes == []


async def test_a_header_that_asks_is_obeyed_whatever_the_tool_says(bench):
    with pytest.raises(ApprovalRequired):
        await bench(make_skill(make_tool(), require_approval=True)).call("demo.echo")


async def test_a_person_sees_the_whole_call(bench):
    it = bench(GUARDED, secrets={"KEY": SECRET}, answers=[Answer(True, "yes")])
    long = "x" * 10_000 + "; rm -rf ~"
    await it.call("demo.echo", {"text": long})
    (question,) = it.channel.asked
    shown = "\n".join(f"{label}: {text}" for label, text in (*question.facts, *question.arguments))
    for needed in ("demo.echo", long, "KEY", "microVM", "no network", "builtin:demo"):
        assert needed in shown
    assert "test-client" in question.who
    assert SECRET not in shown


async def test_a_missing_secret_starts_no_guest_and_names_the_command(bench):
    it = bench(make_skill(make_tool(secrets=["KEY", "OTHER"])), secrets={"KEY": SECRET})
    with pytest.raises(SecretMissing) as caught:
        await it.call("demo.echo")
    assert "silo vault add OTHER" in caught.value.hint
    assert not any(note.startswith("open") for note in it.notes)


async def test_a_locked_vault_says_so_in_a_way_that_a_program_can_tell(bench):
    skill = make_skill(make_tool(secrets=["KEY"]))
    locked = TheirVaultLocked("no key opens it", hint="set SILO_MASTER_KEY")
    with pytest.raises(VaultLocked) as caught:
        await bench(skill, vault_fails_with=locked, headless=True).call("demo.echo")
    assert "SILO_AUTH_REQUIRED" in str(caught.value)
    with pytest.raises(VaultLocked) as caught:
        await bench(skill, vault_fails_with=locked).call("demo.echo")
    assert str(caught.value) == "no key opens it"


async def test_a_guest_gets_the_secrets_of_its_tool_and_no_others(bench):
    one, two = make_tool("one", secrets=["A"]), make_tool("two", secrets=["B"])
    it = bench(make_skill(one, two), secrets={"A": "value-a", "B": "value-b", "C": "value-c"})
    await it.call("demo.two")
    assert [dict(request.secrets) for request in it.runner.requests] == [{"B": "value-b"}]
    assert "value-b" not in repr(it.runner.requests)


async def test_without_a_strong_enough_backend_nobody_is_asked(bench):
    it = bench(GUARDED, answers=[Answer(True, "yes")], secrets={"KEY": SECRET})
    it.runner = FakeRunner(works=False, notes=it.notes)
    with pytest.raises(SandboxUnavailable):
        await it.call("demo.echo", {"text": "x"})
    assert it.notes == []


async def test_a_backend_that_was_named_is_the_one_that_is_used(bench):
    it = bench(PLAIN)
    it.runner = FakeRunner(isolation=Isolation.NAMESPACE)
    assert (await it.call("demo.echo", {"text": "x"})).isolation is Isolation.NAMESPACE
    with pytest.raises(SandboxUnavailable):
        await it.call("demo.echo", {"text": "x"}, backend="microvm")


async def test_if_the_record_can_not_be_written_the_call_does_not_run(bench, tmp_path):
    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET})
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(AuditBroken):
        await it.call("demo.echo")
    assert it.notes == []


async def test_what_a_skill_prints_and_returns_comes_back_without_the_secret(bench):
    async def leak(request, on_progress):
        value = request.secrets["KEY"]
        on_progress(Progress(1, message=f"using {value}"))
        return GuestReply(
            Finished(text=f"the key is {value}", data={value: [value, {"deep": value}]}, has_data=True),
            files=(File(f"<{value}>".encode(), "text/plain", "a.txt"),),
            stdout=Captured(f"out {value}".encode(), 100),
            stderr=Captured(value.encode()[:9], 900),
            facts={"python": value},
        )

    reports: list[ProgressReport] = []
    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, behaviour=leak)
    result = await it.call("demo.echo", on_progress=reports.append)
    assert SECRET not in repr(result)
    assert SECRET.encode() not in result.files[0].data
    assert result.logs.stderr == ""  # the beginning of the value, cut off by the limit
    assert result.text == "the key is [redacted:KEY]"
    assert result.truncated
    assert [report.message for report in reports] == ["using [redacted:KEY]"]


async def test_an_error_with_a_secret_comes_back_without_it_and_without_its_cause(bench):
    async def raises(request, on_progress):
        value = request.secrets["KEY"]
        raise SkillCrashed(f"died of {value}", hint=value, stdout=value, stderr=value, traceback=value) from ValueError(
            value
        )

    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, behaviour=raises)
    with pytest.raises(SkillCrashed) as caught:
        await it.call("demo.echo")
    error = caught.value
    for text in (error.message, error.hint, error.stdout, error.stderr, error.traceback):
        assert "[redacted:KEY]" in text
        assert SECRET not in text
    assert error.__cause__ is None
    assert error.__suppress_context__


async def test_what_a_guest_printed_until_it_was_ended_does_not_end_with_half_a_secret(bench):
    async def raises(request, on_progress):
        raise SkillCrashed("died", hint="h", stdout=f"a line\nkey={SECRET[:9]}", stderr=f"{SECRET}\n{SECRET[:3]}")

    with pytest.raises(SkillCrashed) as caught:
        await bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, behaviour=raises).call("demo.echo")
    assert caught.value.stdout == "a line\nkey="
    assert caught.value.stderr == f"[redacted:KEY]\n{SECRET[:3]}"


async def test_an_unexpected_error_that_quotes_a_secret_loses_it_and_others_stay_as_they_are(bench):
    """The server's log shows its text, and those of its causes."""

    async def raises(request, on_progress):
        try:
            raise KeyError(request.secrets["KEY"])
        except KeyError as error:
            raise ZeroDivisionError("a bug") from error

    skill = make_skill(make_tool(secrets=["KEY"]))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug") as caught:
        await bench(skill, secrets={"KEY": SECRET}, behaviour=raises).call("demo.echo")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "[redacted:KEY]" in str(caught.value)
    with pytest.raises(ZeroDivisionError):
        await bench(skill, secrets={"KEY": SECRET}, behaviour=raising(ZeroDivisionError("a bug"))).call("demo.echo")


@pytest.mark.parametrize("how", ["answer", "error"])
async def test_secrets_are_removed_outside_of_the_event_loop(bench, how):
    seen = []

    class Facts(dict):
        def items(self):
            seen.append(threading.get_ident())
            return super().items()

    class Noted(SkillCrashed):
        traceback = property(lambda self: seen.append(threading.get_ident()) or "", lambda self, text: None)

    async def behave(request, on_progress):
        if how == "error":
            raise Noted("died", hint="h")
        return GuestReply(Finished("done"), facts=Facts(kernel="fake"))

    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, behaviour=behave)
    with contextlib.suppress(Noted):
        await it.call("demo.echo")
    assert seen
    assert threading.get_ident() not in seen


async def test_removing_secrets_counts_towards_the_time_of_the_call(bench, monkeypatch):
    monkeypatch.setattr("silo.calls.pipeline.MIN_REDACT_S", -1.0)  # else it would take two seconds of real work
    large = answering(Finished("x" * 200_000))
    it = bench(
        make_skill(replace(make_tool(secrets=["KEY"]), timeout_s=1e-9)), secrets={"KEY": SECRET}, behaviour=large
    )
    with pytest.raises(SandboxTimeout, match="removing secrets"):
        await it.call("demo.echo")
    assert list(read(it.folder))[-1].body["outcome"] == "timeout"
    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, behaviour=large)
    assert (await it.call("demo.echo")).text == "x" * 200_000


async def test_an_error_of_a_call_without_secrets_keeps_its_cause(bench):
    cause = ValueError("why")

    async def raises(request, on_progress):
        raise SkillCrashed("died", hint="h") from cause

    with pytest.raises(SkillCrashed) as caught:
        await bench(PLAIN, behaviour=raises).call("demo.echo", {"text": "x"})
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in FAILURES.values()}, key=lambda kind: kind.code))
async def test_each_failure_of_a_skill_comes_out_redacted(bench, kind):
    failed = kind(f"bad {SECRET}", hint="h", stderr=f"printed {SECRET}", traceback=f"Traceback {SECRET}")
    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, behaviour=raising(failed))
    with pytest.raises(kind) as caught:
        await it.call("demo.echo")
    assert type(caught.value) is kind
    assert caught.value.hint
    assert "[redacted:KEY]" in str(caught.value)
    assert SECRET not in str(vars(caught.value))
    assert caught.value.stderr == "printed [redacted:KEY]"


async def test_a_result_of_another_shape_than_promised_is_refused(bench):
    promised = {"type": "object", "properties": {"rows": {"type": "array"}}, "required": ["rows"]}
    skill = make_skill(make_tool(output_schema=promised))
    good = Finished(text="", data={"rows": []}, has_data=True)
    assert (await bench(skill, behaviour=answering(good)).call("demo.echo")).data == {"rows": []}
    for bad in (Finished(text="x"), Finished(text="", data={"rows": 1}, has_data=True)):
        with pytest.raises(ResultInvalid):
            await bench(skill, behaviour=answering(bad)).call("demo.echo")
    reported = Finished(text="no such table", is_error=True)
    assert (await bench(skill, behaviour=answering(reported)).call("demo.echo")).is_error


@pytest.mark.parametrize(
    ("outcome", "named"),
    [
        (Finished(text="abc"), "result: 'abc' is not of type 'integer'"),
        (Finished(text="3", data=3.5, has_data=True), "result: 3.5 is not of type 'integer'"),
        (Finished(text=""), "result: None is not of type 'integer'"),
    ],
)
async def test_a_broken_promise_names_what_was_returned(bench, outcome, named):
    skill = make_skill(make_tool(output_schema={"type": "integer"}))
    with pytest.raises(ResultInvalid) as caught:
        await bench(skill, behaviour=answering(outcome)).call("demo.echo")
    assert caught.value.message == named


@pytest.mark.parametrize("has_data", [True, False])
async def test_a_broken_promise_quotes_no_part_of_a_secret(bench, has_data):
    """A long value is cut in the message, wherever a secret is in it."""
    skill = make_skill(make_tool(output_schema={"type": "integer"}, secrets=["KEY"]))
    for shift in range(len(SECRET)):
        text = "." * (140 + shift) + SECRET + "." * 300 + SECRET + "." * (120 + shift)
        outcome = Finished(text=text, data=text, has_data=has_data)
        with pytest.raises(ResultInvalid) as caught:
            await bench(skill, secrets={"KEY": SECRET}, behaviour=answering(outcome)).call("demo.echo")
        assert "is not of type 'integer'" in caught.value.message
        assert not any(part in caught.value.message for part in (SECRET[:4], SECRET[-4:]))


async def test_a_cancelled_call_leaves_no_guest_and_one_record(bench, tmp_path):
    started = anyio.Event()

    async def hang(request, on_progress):
        started.set()
        await anyio.sleep_forever()

    it = bench(PLAIN, behaviour=hang)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.call, "demo.echo", {"text": "x"})
        with anyio.fail_after(PATIENCE_S):
            await started.wait()
        assert it.runner.running == 1
        tasks.cancel_scope.cancel()
    assert it.runner.running == 0
    assert [(record.event, record.body.get("outcome")) for record in read(tmp_path)] == [
        ("call", None),
        ("end", "interrupted"),
    ]


async def test_files_reach_the_guest_as_bytes_and_the_person_by_name(bench, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_bytes(b"x,y\n")
    tool = make_tool(properties={"data": {"x-silo-file": True}}, require_approval=True)
    it = bench(make_skill(tool), answers=[Answer(True, "yes")], rules=InputRules((folder,)))
    await it.call("demo.echo", {"data": {"uri": f"file://{folder}/a.csv"}})
    (request,) = it.runner.requests
    assert request.arguments == {"data": File(b"x,y\n", "text/csv", "a.csv")}
    ((name, shown),) = it.channel.asked[0].arguments
    assert (name, shown.partition(", SHA-256")[0]) == ("data", "file a.csv, text/csv, 4 bytes")


async def test_every_outcome_is_recorded_without_values(bench, tmp_path):
    it = bench(GUARDED, secrets={"KEY": SECRET}, answers=[Answer(True, "yes"), Answer(False, "no")])
    argument = "argument-value"
    await it.call("demo.echo", {"text": argument})
    with pytest.raises(CallDenied):
        await it.call("demo.echo", {"text": argument})
    it.behaviour, it.runner, it.answers = raising(SkillRaised("x", hint="h")), None, [Answer(True, "yes")]
    with pytest.raises(SkillRaised):
        await it.call("demo.echo", {"text": argument + " again"})
    with pytest.raises(ToolUnknown):
        await it.call("nothing")
    records = [(record.event, record.body.get("outcome")) for record in read(tmp_path)]
    assert records == [
        ("call", None),
        ("end", "ok"),
        ("refused", "denied"),
        ("call", None),
        ("end", "skill-exception"),
        ("refused", "tool-unknown"),
    ]
    stored = (tmp_path / "audit.jsonl").read_text()
    assert argument not in stored
    assert SECRET not in stored
    assert '"secrets":["KEY"]' in stored


async def test_a_bug_of_ours_is_recorded_and_not_swallowed(bench, tmp_path):
    async def bug(request, on_progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench(PLAIN, behaviour=bug).call("demo.echo", {"text": "x"})
    assert [record.body.get("outcome") for record in read(tmp_path)] == [None, "internal-error"]


# --- decoys -----------------------------------------------------------------------------------------------------------

DECOY = "AKIA-decoy/0123456789+abc"


def leaking(**fields):
    """Behaviours that each reveal the decoy in one way."""

    async def progress(request, on_progress):
        on_progress(Progress(1, message=f"using {DECOY}"))
        await anyio.sleep_forever()

    return {
        "text": answering(Finished(text=f"it is {DECOY}")),
        "data": answering(Finished(text="", data={"deep": [DECOY]}, has_data=True)),
        "key": answering(Finished(text="", data={DECOY: 1}, has_data=True)),
        "base64": answering(Finished(text=base64.b64encode(f"x{DECOY}".encode()).decode())),
        "file": answering(Finished(text=""), files=(File(b"\x00" + DECOY.encode(), "", "x"),)),
        "stdout": answering(Finished(text="ok"), stdout=Captured(DECOY.encode(), len(DECOY))),
        "failure": raising(SkillRaised(f"ValueError: {DECOY}", hint="h")),
        "progress": progress,
    }


@pytest.mark.parametrize("way", sorted(leaking()))
@pytest.mark.parametrize("secrets", [{}, {"KEY": SECRET}])
async def test_a_decoy_that_comes_out_ends_the_call_and_raises_an_alert(bench, way, secrets):
    skill = make_skill(make_tool(secrets=list(secrets)))
    it = bench(skill, behaviour=leaking()[way], canaries={"PROD_KEY": DECOY}, secrets=secrets)
    with pytest.raises(CanaryTripped, match="PROD_KEY") as caught:
        await it.call("demo.echo")
    assert DECOY not in f"{caught.value!r} {caught.value.hint} {caught.value.stdout} {caught.value.traceback}"
    assert it.notes[-1] == "close demo"
    records = [(record.event, record.body.get("outcome")) for record in read(it.folder)]
    assert records == [("call", None), ("alert", None), ("end", "canary-tripped")]
    assert DECOY not in (it.folder / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    "wrap", [str, lambda text: f"token={text}", lambda text: text[::-1], lambda text: text.encode().hex()]
)
async def test_a_decoy_that_is_passed_in_reaches_no_guest(bench, wrap):
    it = bench(PLAIN, canaries={"PROD_KEY": DECOY})
    with pytest.raises(CanaryTripped):
        await it.call("demo.echo", {"text": wrap(DECOY)})
    assert "open demo" not in it.notes


async def test_no_call_is_given_a_decoy(bench):
    it = bench(make_skill(make_tool(secrets=["PROD_KEY"])), canaries={"PROD_KEY": DECOY})
    with pytest.raises(SecretMissing):
        await it.call("demo.echo")


async def test_a_mapping_that_leads_nowhere_is_named(bench):
    it = bench(make_skill(make_tool(secrets=["KEY"])), secrets={"KEY": SECRET}, mapped={"demo.KEY": "silo://OTHER"})
    with pytest.raises(SecretMissing, match="mapped to silo://OTHER") as caught:
        await it.call("demo.echo")
    assert "secrets.sources" in caught.value.hint


# --- going back to the person -----------------------------------------------------------------------------------------


class AlwaysTooLate:
    """Approvals in which another call has always used the yes up."""

    def __init__(self):
        self.obtained = 0

    async def obtain(self, proposal, decision):
        self.obtained += 1
        return Grant(decision, "key")

    async def use(self, grant):
        return False


async def test_a_call_goes_back_to_the_person_only_so_often(bench):
    it = bench(GUARDED, secrets={"KEY": SECRET})
    approvals = AlwaysTooLate()
    with pytest.raises(CallDenied, match="another call like it was faster") as caught:
        await replace(it.pipeline(), approvals=approvals).run(
            Call("c", "demo.echo", {"text": "x"}, Caller("mcp", "test-client"))
        )
    assert isinstance(caught.value.remedy, CallAgain)
    assert approvals.obtained == MAX_ROUNDS
    assert "open demo" not in it.notes


async def test_no_slot_is_held_while_a_person_is_asked(bench):
    class Slots:
        held = 0

        async def __aenter__(self):
            self.held += 1

        async def __aexit__(self, *exc):
            self.held -= 1

    slots = Slots()
    held = []

    class Channel:
        async def ask(self, question, *, timeout_s):
            held.append((question.title, slots.held))
            return Answer(True, "yes", value=SECRET if question.wanted else None)

    it = bench(GUARDED, behaviour=answering(Finished(text="done")))
    it.channel = Channel()
    pipeline = replace(it.pipeline(), slots=slots)
    await pipeline.run(Call("c", "demo.echo", {"text": "x"}, Caller("mcp", "test-client")))
    assert held[0] == ("Run demo.echo", 0)
    assert held[1] == ("Type in KEY for demo", 0)
    assert slots.held == 0
    assert len(it.runner.requests) == 1


# --- one value --------------------------------------------------------------------------------------------------------

A_FILE = {"x-silo-file": True}
EITHER = {"anyOf": [A_FILE, {"type": "object"}]}
ANY = make_skill(make_tool(properties={"data": A_FILE, "note": {}, "either": EITHER}, require_approval=True))
FILE = File(b"x,y\n", "text/csv", "a.csv")


@pytest.mark.parametrize(
    "note", [{"$file": 0}, {"$file": -9}, {"$file": file_digest(FILE)}, {"$object": {"$file": 0}}, [{"$file": 0}]]
)
async def test_an_object_that_looks_like_a_file_is_shown_recorded_and_sent_as_what_it_is(bench, note):
    """Past fault: beside a real file, `{"$file": 0}` was shown as that file, and the tool got the object."""
    it = bench(ANY, answers=[Answer(True, "yes")])
    await it.call("demo.echo", {"data": FILE, "note": note})
    (request,) = it.runner.requests
    assert request.arguments == {"data": FILE, "note": note}
    assert request.document()[0]["arguments"] == {"data": None, "note": note}
    assert request.document()[0]["files"] == [["data"]]
    shown = dict(it.channel.asked[0].arguments)
    assert shown["note"] == note
    assert shown["data"].startswith("file a.csv")
    recorded = [record.body["arguments"]["sha256"] for record in read(it.folder)]
    assert recorded == [HashedArguments(request.arguments).sha256] * 2


async def test_a_yes_for_a_file_counts_for_no_object_that_looks_like_one(bench):
    """The other way round as well: their names and types are the same, and so would have been the key."""
    token = {"$file": file_digest(FILE)}
    it = bench(ANY, answers=[Answer(True, "yes")], behaviour=raising(SkillRaised("x", hint="h")))
    for arguments in ({"data": FILE, "either": token}, {"either": FILE, "note": token}, {"note": token}):
        it.answers = [Answer(False, "no")]
        with pytest.raises(CallDenied, match="a person refused"):
            await it.call("demo.echo", arguments)
    assert it.runner.requests == []
    keys = {
        call_key(Call("c", "demo.echo", arguments, Caller("mcp")), HashedArguments(arguments), ANY, *ANY.tools, MICROVM)
        for arguments in ({"a": FILE, "b": token}, {"a": token, "b": FILE}, {"a": FILE, "b": FILE})
    }
    assert len(keys) == 3


@pytest.mark.parametrize("value", [{"$file": 0}, {"$file": -9}, {"$file": True}, {"$file": "x"}, {"uri": 5}, {}, [], 1])
async def test_what_is_no_file_where_the_tool_takes_one_is_an_error_about_that_argument(bench, value):
    it = bench(ANY, answers=[Answer(True, "yes")])
    with pytest.raises(ArgumentsInvalid, match=r"arguments\.data"):
        await it.call("demo.echo", {"data": value, "either": FILE})
    assert it.notes == []


async def test_what_a_program_changes_meanwhile_is_neither_shown_nor_sent(bench):
    arguments = {"note": {"list": [1]}}

    class Changing:
        async def ask(self, question, *, timeout_s):
            arguments["note"]["list"].append("more")
            arguments["data"] = FILE
            assert question.arguments == (("note", {"list": [1]}),)
            return Answer(True, "yes")

    it = bench(ANY)
    it.channel = Changing()
    await it.pipeline().run(Call("c", "demo.echo", arguments, Caller("library")))
    assert it.runner.requests[0].arguments == {"note": {"list": [1]}}


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0.0, -0.0), ("1", 1), (None, "null"), ([], {})])
async def test_values_that_python_or_a_reader_may_take_for_each_other_have_different_keys(one, other):
    first, second = (HashedArguments({"note": [value]}).sha256 for value in (one, other))
    assert first != second


# --- the record -------------------------------------------------------------------------------------------------------


async def test_the_record_of_a_call_names_the_question_that_allowed_it(bench):
    it = bench(GUARDED, secrets={"KEY": SECRET}, answers=[Answer(True, "yes", grace=True)])
    for _ in range(2):
        await it.call("demo.echo", {"text": "x"})
    found = [record.body["decision"].get("question") for record in read(it.folder)]
    assert len(found) == 4
    assert len(set(found)) == 1, "the second call runs within the grace of the first one's question"
    assert it.decisions.get(found[0]).question.title == "Run demo.echo"


async def test_the_record_of_a_call_that_nobody_was_asked_about_names_no_question(bench):
    it = bench(PLAIN)
    await it.call("demo.echo", {"text": "x"})
    assert all("question" not in record.body["decision"] for record in read(it.folder))


@pytest.mark.parametrize(
    "arguments",
    [
        {("\U0001f600" * 200 + str(i)): 1 for i in range(64)},
        {("\ud800" * 200 + str(i)): 1 for i in range(64)},
        {"x" * 1_000_000: 1},
        {f"n{i}": i for i in range(50_000)},
        {1: 2, None: 3, "text": object()},
        {"text": float("nan")},
    ],
    ids=["emoji", "surrogates", "long", "many", "odd", "nan"],
)
async def test_every_call_leaves_a_record_whatever_it_holds(bench, arguments):
    it = bench(PLAIN)
    call = Call("c", "demo.echo" + "\ud800" * 300, arguments, Caller("mcp", "\U0001f600" * 300))
    for one in (call, replace(call, tool="demo.echo")):
        with pytest.raises(SiloError):
            await it.pipeline().run(one)
    assert [record.event for record in read(it.folder)] == ["refused", "refused"]
    verify(it.folder)


async def test_if_the_last_record_can_not_be_written_the_result_is_held_back(bench):
    async def fill_the_disk(request, on_progress):
        (it.folder / "audit.jsonl").unlink()
        (it.folder / "audit.jsonl").mkdir()
        return GuestReply(Finished(text="done"))

    it = bench(PLAIN, behaviour=fill_the_disk)
    with pytest.raises(AuditBroken):
        await it.call("demo.echo", {"text": "x"})
