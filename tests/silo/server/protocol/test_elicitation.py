"""Calls that wait for a person, through the official client in memory: prompts, rounds, states, and attacks on them."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from contextlib import suppress

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp.server.request_state import AESGCMRequestStateCodec
from mcp.types import (
    INVALID_PARAMS,
    ElicitationCapability,
    ElicitResult,
    ErrorData,
    FormElicitationCapability,
    InputRequiredResult,
    UrlElicitationCapability,
)

from silo.server.engine import ServerOptions
from silo.server.protocol.app import build_server
from silo.server.protocol.elicitation import MAX_ROUNDS, Round, StateForeign
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

KEY = bytes(range(32))
HASTY = ServerOptions(version="0", patience_s=0.01, request_state_key=KEY)
PATIENT = ServerOptions(version="0", patience_s=30, request_state_key=KEY)

FORM = ElicitationCapability(form=FormElicitationCapability())
URL = ElicitationCapability(url=UrlElicitationCapability())
EMPTY = ElicitationCapability()
BOTH = ElicitationCapability(form=FormElicitationCapability(), url=UrlElicitationCapability())

NAME, ARGUMENTS = "demo__echo", {"text": "hi"}


class DeclaringClient(Client):
    """The official client, which declares what the test says instead of both modes whenever it has a callback."""

    declares: ElicitationCapability | None = None

    async def _build_session(self, exit_stack):
        session = await super()._build_session(exit_stack)
        build = session._build_capabilities
        session._build_capabilities = lambda version: build(version).model_copy(update={"elicitation": self.declares})
        return session


class User:
    """The user of the client: what they do at a prompt, and what they saw."""

    def __init__(self, engine, *actions: str, answers: bool | None = None, reason: str = "") -> None:
        self.engine, self.actions, self.answers, self.reason = engine, list(actions) or ["accept"], answers, reason
        self.prompts, self.completed, self.progress = [], [], []

    async def on_prompt(self, ctx, params):
        self.prompts.append(params)
        action = self.actions.pop(0) if len(self.actions) > 1 else self.actions[0]
        if self.answers is not None:
            self.engine.asked[-1].answer(self.answers, self.reason)
        return ElicitResult(action=action, content={} if params.mode == "form" else None)

    async def on_message(self, message):
        if message.method == "notifications/elicitation/complete":
            self.completed.append(message.params.elicitation_id)

    async def on_progress(self, progress, total, message):
        self.progress.append((progress, message))


def connect(engine, mode, user=None, declares=BOTH, options=PATIENT) -> Client:
    callbacks = {} if user is None else {"elicitation_callback": user.on_prompt, "message_handler": user.on_message}
    client = DeclaringClient(build_server(engine, options), mode=mode, **callbacks)
    client.declares = declares if user is not None else None
    return client


@pytest.fixture
def asking(engine):
    """The engine, asking a person before `demo.echo` and `demo.hang`."""
    engine.asks = {"demo.echo": ("Run demo.echo",), "demo.hang": ("Run demo.hang",)}
    return engine


def text_of(result) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def is_pending(result, engine) -> bool:
    question = engine.asked[-1]
    approval = result.meta["dev.silo/approval"]
    assert (approval["state"], approval["question"], approval["url"]) == ("pending", question.id, question.link)
    assert question.link in text_of(result)
    return result.is_error and text_of(result).startswith("error [approval-pending]: ")


async def approve_when_asked(engine):
    await engine.waiting.wait()
    engine.asked[-1].answer(True)


# --- who gets the link, and how ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("era", "declares", "shown"),
    [
        ("auto", URL, "url"),
        ("auto", BOTH, "url"),
        ("auto", EMPTY, None),
        ("auto", FORM, None),
        ("auto", None, None),
        ("legacy", URL, "url"),
        ("legacy", BOTH, "url"),
        ("legacy", EMPTY, "form"),
        ("legacy", FORM, "form"),
        ("legacy", None, None),
    ],
)
@pytest.mark.parametrize("through", ["direct", "execute"])
async def test_link_is_shown_as_the_client_can_and_the_call_runs_once_a_person_agreed(
    asking, era, declares, shown, through
):
    user = User(asking, answers=True)
    name, arguments = (
        (NAME, ARGUMENTS) if through == "direct" else ("silo_execute", {"tool": "demo.echo", "arguments": ARGUMENTS})
    )
    async with connect(asking, era, user, declares) as client:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                if shown is None:
                    tasks.start_soon(approve_when_asked, asking)
                result = await client.call_tool(name, arguments, progress_callback=user.on_progress)
    assert text_of(result) == "hi"
    assert not result.is_error
    assert asking.ran == [("demo.echo", ARGUMENTS)]
    (question,) = asking.asked
    if shown is None:
        assert user.prompts == []
        assert asking.waits == [(30, False)]  # silo itself opens the page then
        assert any(question.link in message for _, message in user.progress)
    else:
        (prompt,) = user.prompts
        assert prompt.mode == shown
        assert question.title in prompt.message
        assert (prompt.url if shown == "url" else prompt.message).find(question.link) >= 0
        assert asking.waits == [(0, True), (30, True)]
    assert user.completed == ([question.id] if (era, shown) == ("legacy", "url") else [])


async def test_user_who_leaves_the_client_out_is_never_prompted_by_it(asking, mode):
    user = User(asking)
    options = ServerOptions(version="0", patience_s=0.01, uses_client=False)
    async with connect(asking, mode, user, options=options) as client:
        assert is_pending(await client.call_tool(NAME, ARGUMENTS), asking)
    assert user.prompts == []
    assert asking.waits == [(0.01, False)]


async def test_question_without_a_link_is_waited_for_and_not_prompted(asking, mode):
    asking.link = ""
    user = User(asking)
    async with connect(asking, mode, user, options=HASTY) as client:
        result = await client.call_tool(NAME, ARGUMENTS)
    assert result.meta["dev.silo/error"]["code"] == "approval-pending"
    assert user.prompts == []


async def test_call_that_asks_nobody_is_answered_at_once(asking, mode):
    user = User(asking)
    async with connect(asking, mode, user) as client:
        assert (await client.call_tool("demo__add", {"a": 1, "b": 2})).structured_content == {"result": 3}
    assert (user.prompts, len(asking.calls)) == ([], 1)


@pytest.mark.parametrize("answer", ["error", "exception", "nonsense"])
async def test_client_that_fails_at_its_prompt_is_told_the_link_in_the_result(asking, answer):
    user = User(asking)

    async def on_prompt(ctx, params):
        user.prompts.append(params)
        if answer == "exception":
            raise RuntimeError("no window")
        return (
            ErrorData(code=-1, message="no window") if answer == "error" else ElicitResult.model_construct(action="x")
        )

    user.on_prompt = on_prompt
    async with connect(asking, "legacy", user, options=HASTY) as client:
        assert is_pending(await client.call_tool(NAME, ARGUMENTS), asking)
    assert len(user.prompts) == 1
    assert asking.waits == [(0, True), (0.01, False)]


async def test_prompt_that_nobody_answers_does_not_hold_the_call_for_ever(asking):
    options = ServerOptions(version="0", patience_s=0.01, prompt_s=0.01)
    user = User(asking)

    async def on_prompt(ctx, params):
        await anyio.sleep_forever()

    user.on_prompt = on_prompt
    with anyio.fail_after(PATIENCE_S):
        async with connect(asking, "legacy", user, options=options) as client:
            assert is_pending(await client.call_tool(NAME, ARGUMENTS), asking)
    assert asking.waits == [(0, True), (0.01, False)]


# --- what follows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declares", [BOTH, FORM, None])
async def test_refusal_tells_its_reason_and_not_to_call_again(asking, mode, declares):
    user = User(asking, answers=False, reason="not on a Friday")
    async with connect(asking, mode, user, declares) as client:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:

                async def refuse():
                    await asking.waiting.wait()
                    asking.asked[-1].answer(False, "not on a Friday")

                if declares is None or (mode, declares) == ("auto", FORM):
                    tasks.start_soon(refuse)
                result = await client.call_tool(NAME, ARGUMENTS)
    assert result.is_error
    assert text_of(result).splitlines() == [
        "error [denied]: a person refused demo.echo: not on a Friday",
        "hint: do not call it again unless the user asks for it",
    ]
    assert asking.ran == []


@pytest.mark.parametrize("action", ["decline", "cancel"])
@pytest.mark.parametrize("declares", [BOTH, FORM])
async def test_prompt_that_was_not_followed_is_no_answer_and_comes_once(asking, mode, action, declares):
    if (mode, declares) == ("auto", FORM):
        declares = URL  # no forms in that era
    user = User(asking, action)
    async with connect(asking, mode, user, declares, HASTY) as client:
        result = await client.call_tool(NAME, ARGUMENTS)
        assert is_pending(result, asking)
        assert result.meta["dev.silo/approval"]["prompt"] == action
        assert "nobody has agreed" in text_of(result)
        assert "only if they ask for it" in text_of(result)
        # Whatever the model does now, the user is not prompted again.
        for _ in range(3):
            assert is_pending(await client.call_tool(NAME, ARGUMENTS), asking)
        assert len(user.prompts) == len(asking.asked) == 1
        assert asking.ran == []
        asking.asked[0].answer(True)
        assert text_of(await client.call_tool(NAME, ARGUMENTS)) == "hi"


async def test_answer_on_the_page_counts_though_the_prompt_was_declined(asking, mode):
    user = User(asking, "decline", answers=True)
    async with connect(asking, mode, user) as client:
        assert text_of(await client.call_tool(NAME, ARGUMENTS)) == "hi"


@pytest.mark.parametrize("declares", [BOTH, FORM, None])
async def test_pending_result_says_what_to_do_and_the_same_call_finds_the_answer(asking, mode, declares):
    user = User(asking)
    async with connect(asking, mode, user, declares, HASTY) as client:
        result = await client.call_tool(NAME, ARGUMENTS)
        assert is_pending(result, asking)
        assert f"open {asking.asked[0].link}" in text_of(result)
        assert "When the user says that they have answered, call demo__echo again with the same arguments" in text_of(
            result
        )
        assert "not before, and not with others" in text_of(result)
        asking.asked[0].answer(True)
        assert text_of(await client.call_tool(NAME, ARGUMENTS)) == "hi"
        # One yes, one call.
        assert is_pending(await client.call_tool(NAME, ARGUMENTS), asking)
    assert len(asking.asked) == 2
    assert len(asking.ran) == 1


async def test_pending_result_names_the_tool_that_was_called(asking, mode):
    async with connect(asking, mode, options=HASTY) as client:
        result = await client.call_tool("silo_execute", {"tool": "demo.echo", "arguments": ARGUMENTS})
    assert "call silo_execute again with the same arguments" in text_of(result)


@pytest.mark.parametrize("declares", [BOTH, None])
async def test_call_that_asks_twice_shows_both_links(asking, mode, declares):
    asking.asks["demo.echo"] = ("Run demo.echo", "Type in GITHUB_TOKEN")
    user = User(asking, answers=True)
    async with connect(asking, mode, user, declares, HASTY) as client:
        if declares is None:
            for title in asking.asks["demo.echo"]:
                assert title in text_of(await client.call_tool(NAME, ARGUMENTS))
                asking.asked[-1].answer(True)
        assert text_of(await client.call_tool(NAME, ARGUMENTS)) == "hi"
    assert [question.title for question in asking.asked] == ["Run demo.echo", "Type in GITHUB_TOKEN"]
    if declares is not None:
        assert [prompt.url for prompt in user.prompts] == [question.link for question in asking.asked]
    assert user.completed == (
        [question.id for question in asking.asked] if (mode, declares) == ("legacy", BOTH) else []
    )


async def test_two_calls_at_once_each_follow_their_own_answer(asking, mode):
    both = anyio.Event()
    results = {}
    user = User(asking)

    async def on_prompt(ctx, params):
        user.prompts.append(params)
        if len(user.prompts) == 2:
            both.set()
        await both.wait()
        return ElicitResult(action="accept")

    user.on_prompt = on_prompt
    async with connect(asking, mode, user) as client:

        async def call(text):
            results[text] = await client.call_tool(NAME, {"text": text})

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for text in ("yes", "no"):
                    tasks.start_soon(call, text)
                await both.wait()
                for (_, arguments, _), question in asking.questions.items():
                    question.answer(json.loads(arguments)["text"] == "yes", "the other one")
    assert text_of(results["yes"]) == "yes"
    assert text_of(results["no"]).startswith("error [denied]: ")
    assert asking.ran == [("demo.echo", {"text": "yes"})]


@pytest.mark.parametrize("declares", [BOTH, FORM, None])
@pytest.mark.parametrize("when", ["prompt", "page"])
async def test_cancelled_call_that_waits_starts_no_guest(asking, mode, declares, when):
    user = User(asking)
    waits = anyio.Event()

    async def on_prompt(ctx, params):
        if when == "prompt":
            waits.set()
            await anyio.sleep_forever()
        return ElicitResult(action="accept")

    async def on_progress(progress, total, message):
        if when == "page" or declares is None or (mode, declares) == ("auto", FORM):
            waits.set()

    user.on_prompt = on_prompt
    async with connect(asking, mode, user, declares) as client:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:

                async def call():
                    await client.call_tool(NAME, ARGUMENTS, progress_callback=on_progress)

                tasks.start_soon(call)
                await waits.wait()
                tasks.cancel_scope.cancel()
            # When this returns, the server knows of the cancellation, so the answer to the question comes too late.
            await client.call_tool("demo__add", {"a": 1, "b": 2})
            asking.asked[0].answer(True)
            await client.call_tool("demo__add", {"a": 1, "b": 2})
    assert [tool for tool, _ in asking.ran] == ["demo.add", "demo.add"]


async def test_prompt_of_a_cancelled_call_comes_again(asking):
    user = User(asking)
    open_ = anyio.Event()

    async def on_prompt(ctx, params):
        user.prompts.append(params)
        if len(user.prompts) == 1:
            open_.set()
            await anyio.sleep_forever()
        asking.asked[-1].answer(True)
        return ElicitResult(action="accept")

    user.on_prompt = on_prompt
    async with connect(asking, "legacy", user) as client:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, NAME, ARGUMENTS)
                await open_.wait()
                tasks.cancel_scope.cancel()
            assert text_of(await client.call_tool(NAME, ARGUMENTS)) == "hi"
    assert len(user.prompts) == 2


async def test_progress_grows_over_asking_waiting_and_running(asking, mode, fakes):
    asking.asks["demo.steps"] = ("Run demo.steps",)
    user = User(asking, answers=True)
    async with connect(asking, mode, user, FORM if mode == "legacy" else None) as client:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                if mode == "auto":
                    tasks.start_soon(approve_when_asked, asking)
                await client.call_tool("demo__steps", {}, progress_callback=user.on_progress)
            while len(user.progress) < 5:
                await anyio.lowlevel.checkpoint()
    numbers = [number for number, _ in user.progress]
    assert numbers == sorted(set(numbers))
    assert [message for _, message in user.progress][-4:] == ["starting a microVM", "step 1", "step 2", "step 3"]
    assert asking.asked[0].link in user.progress[0][1]


# --- rounds and their states (2026-07-28) -----------------------------------------------------------------------------


async def raw(client, name=NAME, arguments=ARGUMENTS, *, state=None, action=None):
    """One request of the modern era, without the client's own loop."""
    responses = None if action is None else {"approval": ElicitResult(action=action)}
    return await client.session.call_tool(
        name, arguments, request_state=state, input_responses=responses, allow_input_required=True
    )


async def test_rounds_end_before_clients_give_up(asking):
    """Clients stop after ten rounds with an exception that no model reads."""
    user = User(asking)
    async with connect(asking, "auto", user, options=HASTY) as client:
        assert is_pending(await client.call_tool(NAME, ARGUMENTS), asking)
    assert asking.waits == [(0, True)] + [(0.01, True)] * 9
    assert len(user.prompts) == 1
    assert asking.ran == []


async def test_state_hides_what_it_holds(asking):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        first = await raw(client)
        assert isinstance(first, InputRequiredResult)
        assert b"demo.echo" not in base64.urlsafe_b64decode(first.request_state.removeprefix("v1.") + "==")


async def test_accepting_again_and_again_runs_nothing(asking):
    """Attack: a client that says yes to everything, with every valid state that it ever got."""
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        states = [(await raw(client)).request_state]
        for _ in range(MAX_ROUNDS - 1):
            states.append((await raw(client, state=states[-1], action="accept")).request_state)
        assert is_pending(await raw(client, state=states[-1], action="accept"), asking)
        for state in states:
            await raw(client, state=state, action="accept")
        await raw(client, action="accept")
        assert asking.ran == []
        asking.asked[0].answer(False, "no")
        for state in states:
            assert text_of(await raw(client, state=state, action="accept")).startswith("error [denied]")
    assert asking.ran == []


async def test_state_of_a_call_that_ran_does_not_run_it_again(asking):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        state = (await raw(client)).request_state
        asking.asked[0].answer(True)
        assert text_of(await raw(client, state=state, action="accept")) == "hi"
        again = await raw(client, state=state, action="accept")
        assert list(again.input_requests) == ["approval"]
        assert again.input_requests["approval"].params.url == asking.asked[1].link
    assert len(asking.ran) == 1


async def test_accepted_prompt_without_a_state_is_prompted_like_any_first_request(asking):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        first = await raw(client, action="accept")
    assert list(first.input_requests) == ["approval"]
    assert asking.waits == [(0, True)]


async def test_round_whose_prompt_was_not_answered_counts_as_closed(asking):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        result = await raw(client, state=(await raw(client)).request_state)
    assert is_pending(result, asking)
    assert result.meta["dev.silo/approval"]["prompt"] == "cancel"


def sealed(state: str, key: bytes = KEY, name: str = NAME, arguments=ARGUMENTS, **changes) -> str:
    """Seal a state as the library's middleware does; `changes` are for its own claims."""
    from mcp.server.request_state import _request_identity

    target, digest = _request_identity("tools/call", {"name": name, "arguments": arguments})
    now = time.time()
    claims = {"v": 1, "iat": now, "exp": now + 60, "m": "tools/call", "t": target, "a": digest, "s": state}
    return AESGCMRequestStateCodec([key]).seal(json.dumps({**claims, "aud": "silo", **changes}).encode())


def round_of(tool="demo.echo", arguments=ARGUMENTS) -> str:
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
    return Round("q0", 1, True, tool, digest, "another connection").encode()


async def test_state_of_another_connection_starts_over_and_finds_no_answer_of_that_one(asking):
    """The key of the seal outlives a connection: a state can come back over the client's next one, or another's."""
    async with (
        connect(asking, "auto", User(asking), options=HASTY) as one,
        connect(asking, "auto", User(asking), options=HASTY) as other,
    ):
        first = await raw(one)
        asking.asked[0].answer(True)
        for action in ("accept", None):
            replayed = await raw(other, state=first.request_state, action=action)
            assert isinstance(replayed, InputRequiredResult)
        assert asking.ran == []
        assert [question.approved for question in asking.asked] == [True, None]
        assert text_of(await raw(one, state=first.request_state, action="accept")) == "hi"


async def test_each_connection_is_a_session_of_its_own_and_stays_one(asking, mode):
    for _ in range(2):
        async with connect(asking, mode) as client:
            for _ in range(2):
                await client.call_tool("demo__add", {"a": 1, "b": 2})
    sessions = [caller.session for _, _, caller in asking.calls]
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3]
    assert all(len(session) == 16 for session in sessions)


async def test_sealed_state_of_the_tests_is_one_that_the_server_takes(asking):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        assert isinstance(await raw(client, state=sealed(round_of()), action="accept"), InputRequiredResult)


FOREIGN = {
    "empty": "",
    "plain": round_of(),
    "prefix": "v1.AAAA",
    "another key": sealed(round_of(), bytes(32)),
    "truncated": sealed(round_of())[:-4],
    "stale": sealed(round_of(), exp=time.time() - 1),
    "another audience": sealed(round_of(), aud="other"),
    "another method": sealed(round_of(), m="prompts/get"),
    "another tool's seal": sealed(round_of(), name="demo__hang"),
    "another call's seal": sealed(round_of(), arguments={"text": "bye"}),
    # Past the seal of the library, which is marked as provisional there.
    "another tool": sealed(round_of("demo.hang")),
    "other arguments": sealed(round_of(arguments={"text": "bye"})),
    "no round": sealed("{}"),
    "no JSON": sealed("q0"),
    "a list": sealed("[]"),
    "wrong types": sealed(
        '{"question": 1, "number": "1", "prompts": 1, "tool": "demo.echo", "digest": "", "session": ""}'
    ),
}


@pytest.mark.parametrize("state", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("action", ["accept", None])
async def test_state_that_is_not_ours_for_this_call_is_refused_and_decides_nothing(asking, mode, state, action):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        first = await raw(client)
        asking.asked[0].answer(True)  # even an approved call takes no such state
        with pytest.raises(MCPError) as caught:
            await raw(client, state=state, action=action)
        assert (caught.value.code, caught.value.message) == (INVALID_PARAMS, "Invalid or expired requestState")
        assert (len(asking.calls), asking.ran) == (1, [])
        assert text_of(await raw(client, state=first.request_state, action="accept")) == "hi"


async def test_state_is_refused_for_the_same_tool_under_another_name(asking):
    async with connect(asking, "auto", User(asking), options=HASTY) as client:
        state = (await raw(client)).request_state
        with pytest.raises(MCPError):
            await raw(client, "silo_execute", {"tool": "demo.echo", "arguments": ARGUMENTS}, state=state)


@pytest.mark.parametrize(("key", "taken"), [(KEY, True), (None, False)])
async def test_state_outlives_the_server_with_its_key_only(asking, key, taken):
    options = ServerOptions(version="0", patience_s=0.01, request_state_key=key)
    async with connect(asking, "auto", User(asking), options=options) as client:
        state = (await raw(client)).request_state
    asking.asked[0].answer(True)
    async with connect(asking, "auto", User(asking), options=options) as client:
        if taken:
            # It is read, and the call starts over: another run of the server is another session.
            assert isinstance(await raw(client, state=state, action="accept"), InputRequiredResult)
            assert asking.ran == []
        else:
            with pytest.raises(MCPError):
                await raw(client, state=state, action="accept")


def test_options_do_not_show_their_key():
    assert KEY.hex() not in repr(PATIENT)
    assert repr(KEY) not in repr(PATIENT)


@given(
    st.builds(Round, st.text(), st.integers(), st.booleans(), st.text(), st.text(), st.text()),
)
def test_round_comes_back_as_it_went_out(before):
    assert Round.parse(before.encode()) == before


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_text_that_is_no_round_is_foreign_and_nothing_worse(text):
    with pytest.raises(StateForeign):
        Round.parse(text)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["demo__echo", "demo.echo", "silo_execute"]),
        st.sampled_from(["a", "b"]),
        st.integers(-1, 5),
        st.sampled_from([None, "accept", "decline", "cancel"]),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_no_sequence_of_requests_runs_a_call_that_nobody_agreed_to(fakes, moves):
    """Attack: any names, arguments, old states and prompt answers, in any order."""
    engine = fakes.demo_engine()
    engine.asks = {"demo.echo": ("Run demo.echo",)}
    options = ServerOptions(version="0", patience_s=0, request_state_key=KEY)

    async def play():
        states = []
        async with connect(engine, "auto", User(engine), options=options) as client:
            for name, text, old, action in moves:
                arguments = {"text": text}
                if name == "silo_execute":
                    arguments = {"tool": "demo.echo", "arguments": arguments}
                state = states[old % len(states)] if old >= 0 and states else None
                with suppress(MCPError):  # a state of another call
                    answer = await raw(client, name, arguments, state=state, action=action)
                    if isinstance(answer, InputRequiredResult):
                        states.append(answer.request_state)

    anyio.run(play)
    assert engine.ran == []
