import asyncio
import functools
import gc
import io
import json
import sys
import threading
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from silo import AgentResponse, File, SecretUnavailable, Skill, report_progress, require_secret
from silo.sdk.errors import InvokeFailed
from silo.sdk.invoke import Outcome, invoke, rehearse, warm
from silo.sdk.skill import find_skill
from silo.wire.messages import FAILURE_CODES

Report = tuple[float, float | None, str | None]


def call(
    skill: Skill,
    tool: str,
    arguments: object = None,
    *,
    secrets: dict[str, str] | None = None,
    places: Sequence[Sequence[str | int]] = (),
    files: Sequence[File] = (),
    reports: list[Report] | None = None,
) -> Outcome:
    document = json.dumps({"arguments": arguments or {}, "secrets": secrets or {}, "files": places}).encode()
    seen = [] if reports is None else reports
    return invoke(skill, tool, io.BytesIO(document), files, lambda *report: seen.append(report))


def failure(skill: Skill, tool: str, arguments: object = None, **options: Any) -> InvokeFailed:
    with pytest.raises(InvokeFailed) as caught:
        call(skill, tool, arguments, **options)
    assert caught.value.code in FAILURE_CODES
    return caught.value


def one(function: Any) -> Skill:
    skill = Skill("s")
    skill.tool(name="work")(function)
    return skill


def test_a_sync_tool_answers():
    def work(a: int, b: int = 2) -> dict[str, int]:
        return {"sum": a + b}

    assert call(one(work), "work", {"a": 1}) == Outcome('{"sum":3}', {"sum": 3}, True, (), False)


def test_an_async_tool_answers():
    async def work(a: int) -> str:
        await asyncio.sleep(0)
        return f"got {a}"

    assert call(one(work), "work", {"a": 1}).text == "got 1"


def test_a_coroutine_behind_a_plain_decorator_is_awaited():
    async def inner() -> str:
        return "awaited"

    @functools.wraps(inner)
    def work() -> Any:
        return inner()

    assert call(one(work), "work").text == "awaited"


def test_a_tool_may_run_a_loop_of_its_own():
    async def inner() -> str:
        return "ran"

    assert call(one(lambda: asyncio.run(inner())), "work").text == "ran"


def test_arguments_arrive_as_the_annotations_say():
    def work(where: Path, document: File, more: list[File], plain: Any) -> str:
        return f"{where.name} {document.text()} {more[1].text()} {plain}"

    arguments = {"where": "a/b", "document": None, "more": [None, None], "plain": {"$file": 0}}
    files = [File(b"text"), File(b"one"), File(b"two")]
    outcome = call(one(work), "work", arguments, places=[["document"], ["more", 0], ["more", 1]], files=files)
    assert outcome.text == "b text two {'$file': 0}"


@pytest.mark.parametrize("places", [[], [["document"], ["document"]], [["x", "y"]], [[]], [["document", 0]], [0], {}])
def test_files_without_a_place_are_a_document_that_can_not_be_read(places: Any):
    def work(document: File | None = None) -> str:
        return "ran"

    assert failure(one(work), "work", {"document": None}, places=places, files=[File(b"x")]).code == "arguments-invalid"


def test_secrets_are_there_during_the_call_and_only_then():
    async def work() -> str:
        return require_secret("TOKEN") + await asyncio.to_thread(require_secret, "TOKEN")

    assert call(one(work), "work", secrets={"TOKEN": "x"}).text == "xx"
    with pytest.raises(SecretUnavailable):
        require_secret("TOKEN")


def test_an_undeclared_secret_has_a_code_of_its_own():
    secret = "".join(reversed("2retnuh"))  # a traceback shows the lines of this file
    found = failure(one(lambda: require_secret("OTHER")), "work", secrets={"TOKEN": secret})
    assert found.code == "secret-undeclared"
    assert "OTHER" in found.message
    assert secret not in found.message + found.traceback


def test_an_undeclared_secret_inside_a_task_group_is_told_as_well():
    async def ask() -> None:
        require_secret("OTHER")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())

    assert failure(one(work), "work").code == "secret-undeclared"


def test_a_tool_may_do_without_a_secret():
    def work() -> str:
        try:
            return require_secret("OTHER")
        except SecretUnavailable:
            return "anonymous"

    assert call(one(work), "work").text == "anonymous"


def test_progress_streams_in_order():
    def work() -> None:
        report_progress(1, 2, "half")
        report_progress(2, 2)

    reports: list[Report] = []
    call(one(work), "work", reports=reports)
    assert reports == [(1, 2, "half"), (2, 2, None)]


def test_a_thread_that_outlives_the_call_has_neither_secrets_nor_progress():
    go, done = threading.Event(), threading.Event()
    found: list[str] = []

    def late() -> None:
        go.wait(10)
        report_progress(1)
        try:
            require_secret("TOKEN")
        except SecretUnavailable:
            found.append("refused")
        done.set()

    def work() -> None:
        threading.Thread(target=late).start()

    reports: list[Report] = []
    call(one(work), "work", secrets={"TOKEN": "x"}, reports=reports)
    go.set()
    assert done.wait(10)
    assert (found, reports) == (["refused"], [])


def test_an_unknown_tool_is_told_with_those_there_are():
    found = failure(one(lambda: None), "wrok")
    assert found.code == "tool-unknown"
    assert "it has work" in found.message


def test_wrong_arguments_name_their_place_and_do_not_run_the_tool():
    ran = []

    def work(items: list[int]) -> None:
        ran.append(items)

    found = failure(one(work), "work", {"items": [1, "x"]})
    assert (found.code, found.message) == ("arguments-invalid", "arguments.items[1] must be an integer, not a string")
    assert not ran


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{", b'{"arguments": []}', b'{"secrets": {}}', b"\xff", b"[" * 100_000]
)
def test_a_document_that_is_none_is_refused_without_being_quoted(document: bytes):
    with pytest.raises(InvokeFailed, match="STDIN must hold") as caught:
        invoke(one(lambda: None), "work", io.BytesIO(document), (), lambda *_: None)
    assert caught.value.code == "arguments-invalid"


SCRIPT = '''"""A script that fails in many ways."""
import sys
from silo import Skill

skill = Skill("failing")

class Custom(Exception):
    pass

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def deeper(kind):
    if kind == "cause":
        try:
            {}["x"]
        except KeyError as error:
            raise Custom("from a key") from error
    if kind == "unprintable":
        raise Unprintable()
    if kind == "surrogate":
        raise Custom("\\ud800")
    if kind == "long":
        raise Custom("x" * 5000 + "\\n" + "y" * 50000)
    if kind == "recursion":
        return deeper(kind)
    raise Custom("plain")

@skill.tool()
def fail(kind: str) -> None:
    deeper(kind)

@skill.tool()
async def afail(kind: str) -> None:
    deeper(kind)

@skill.tool()
def leave(code: int) -> None:
    sys.exit(code)

@skill.tool()
async def aleave(code: int) -> None:
    sys.exit(code)

@skill.tool()
def interrupt() -> None:
    raise KeyboardInterrupt
'''


@pytest.mark.parametrize("tool", ["fail", "afail"])
def test_a_traceback_starts_at_the_first_frame_of_the_skill(load, tool: str):
    found = failure(find_skill(load(SCRIPT)), tool, {"kind": "cause"})
    assert found.code == "skill-exception"
    assert found.message.endswith("Custom: from a key")
    assert f"in {tool}\n" in found.traceback
    assert "KeyError: 'x'" in found.traceback
    for ours in ("invoke.py", "asyncio", "run_tool"):
        assert ours not in found.traceback


@pytest.mark.parametrize(
    ("kind", "text"),
    [("unprintable", "str() failed"), ("surrogate", "\\ud800"), ("long", "xxx"), ("recursion", "RecursionError")],
)
def test_an_awkward_exception_is_reported_in_bounds(load, kind: str, text: str):
    found = failure(find_skill(load(SCRIPT)), "fail", {"kind": kind})
    assert found.code == "skill-exception"
    assert text in found.message
    assert "\n" not in found.message
    assert len(found.message) <= 1000
    assert len(found.traceback) <= 16_001
    (found.message + found.traceback).encode()


@pytest.mark.parametrize("tool", ["leave", "aleave"])
@pytest.mark.parametrize("code", [0, 3])
def test_leaving_the_process_is_reported_as_that(load, tool: str, code: int):
    found = failure(find_skill(load(SCRIPT)), tool, {"code": code})
    assert found.code == "skill-exited"
    assert str(code) in found.message


def test_an_interrupt_is_reported_as_leaving(load):
    assert failure(find_skill(load(SCRIPT)), "interrupt").code == "skill-exited"


class Witness(dict[str, object]):
    """A result that can be watched; a plain dict has no weak references."""


def test_a_failure_holds_no_frame_of_the_tool():
    """The traceback's frames hold the secrets in the tool's variables."""
    seen: list[weakref.ref[Witness]] = []

    def work() -> None:
        local = Witness(secret=require_secret("TOKEN"))
        seen.append(weakref.ref(local))
        raise ValueError("fails")

    found = failure(one(work), "work", secrets={"TOKEN": "hunter2"})
    gc.collect()
    assert seen[0]() is None
    assert found.__cause__ is None
    assert found.__context__ is None


def test_a_result_that_is_not_json_names_its_place():
    found = failure(one(lambda: {"rows": [1, 2, {"at": float("nan")}]}), "work")
    assert (found.code, found.message) == (
        "result-invalid",
        "result.rows[2].at is nan, which JSON can't hold; return None",
    )


def test_a_coroutine_inside_of_a_result_is_told_to_be_awaited():
    async def inner() -> None: ...

    held = inner()
    found = failure(one(lambda: {"a": held}), "work")
    held.close()
    assert "await it" in found.message


def test_a_reported_error_is_an_outcome():
    outcome = call(one(lambda: AgentResponse(status="error", error_message="no such repo")), "work")
    assert outcome == Outcome("no such repo", None, False, (), True)


def test_a_file_is_an_outcome():
    assert call(one(lambda: File(b"x", "image/png", "a.png")), "work").files == (File(b"x", "image/png", "a.png"),)


def test_prints_do_not_spoil_the_result(capsys: pytest.CaptureFixture[str]):
    def work() -> int:
        print('{"type": "finished"}')
        print("log", file=sys.stderr)
        return 1

    assert call(one(work), "work").data == 1
    assert capsys.readouterr() == ('{"type": "finished"}\n', "log\n")


def test_an_annotation_that_cannot_be_used_is_reported_by_the_call_as_well():
    def work(x: complex) -> None: ...

    assert failure(one(work), "work", {"x": 1}).code == "skill-metadata-invalid"


def test_warmups_run_in_order_sync_and_async():
    skill = one(lambda: None)
    ran = []

    @skill.warmup()
    def first() -> None:
        ran.append("first")

    @skill.warmup
    async def second() -> None:
        await asyncio.sleep(0)
        ran.append("second")

    warm(skill)
    assert ran == ["first", "second"]


def test_a_warmup_that_fails_is_reported_as_a_failed_import():
    skill = one(lambda: None)

    @skill.warmup()
    def broken() -> None:
        raise ValueError("cold")

    for prepare in (warm, rehearse):
        with pytest.raises(InvokeFailed, match="ValueError: cold") as caught:
            prepare(skill)
        assert caught.value.code == "skill-import-error"
        assert "in broken" in caught.value.traceback


def test_a_warmup_has_no_secrets():
    skill = one(lambda: None)
    skill.warmup()(lambda: require_secret("TOKEN"))  # type: ignore[arg-type,return-value]
    with pytest.raises(InvokeFailed, match="not in a warmup") as caught:
        warm(skill)
    assert caught.value.code == "skill-import-error"


def test_a_rehearsal_runs_the_warmups_and_no_tool_and_leaves_no_trace(capfd: pytest.CaptureFixture[str]):
    ran = []

    async def work() -> None:
        ran.append("work")

    skill = one(work)

    @skill.warmup()
    def prepare() -> None:
        ran.append("warmup")

    before = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rehearse(skill)
        rehearse(skill)
    assert ran == ["warmup", "warmup"]
    assert list(skill.tools) == ["work"]
    assert threading.active_count() == before
    assert capfd.readouterr() == ("", "")
    with pytest.raises(SecretUnavailable, match="outside of a tool"):
        require_secret("TOKEN")


def test_a_rehearsal_really_runs_the_path_of_a_call():
    """Once rehearsed, a call of an async tool imports nothing more."""

    async def work(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"rows": rows}

    skill = one(work)
    rehearse(skill)
    before = set(sys.modules)
    call(skill, "work", {"rows": [{"a": 1}]})
    assert set(sys.modules) == before


SECRET = "k3y-s3cr3t/0123456789-ABCD"


def parts_of(secret: str, text: str) -> list[str]:
    return [secret[i : i + 4] for i in range(len(secret) - 3) if secret[i : i + 4] in text]


@pytest.mark.parametrize("offset", range(-len(SECRET), 1, 5))
@pytest.mark.parametrize("how", ["message", "bytes", "exit", "progress", "key", "deep key", "undeclared", "group"])
def test_a_text_that_is_cut_holds_no_part_of_a_secret(how: str, offset: int):
    """The host can't recognise half a secret, so nothing may be cut in the middle of one."""
    reports: list[Report] = []

    def work() -> Any:
        value = require_secret("KEY")
        if how == "message":
            raise ValueError(" " * 500 + "x" * (1000 - len("ValueError: ") + offset) + value + "y" * 50)
        if how == "bytes":
            raise ValueError("x" * (1000 - len("ValueError: ") + 4 * offset) + repr(value.encode("utf-16")) + "y" * 50)
        if how == "exit":
            sys.exit("x" * (1000 - len("the skill ended its process: SystemExit: ") + offset) + value)
        if how == "progress":
            report_progress(1, 2, "x" * (1000 + offset) + value)
            return None
        if how == "key":
            return {("x" * (78 + offset) + value + "\ud800"): 1}
        if how == "deep key":
            return {"x" * (78 + offset) + value + "!": {"a": object()}}
        if how == "undeclared":
            raise SecretUnavailable("x" * (1000 + offset) + value)
        raise ExceptionGroup("x" * (900 + offset) + value, [ValueError(value * 10_000)])

    if how == "progress":
        call(one(work), "work", secrets={"KEY": SECRET}, reports=reports)
        texts = [(message or "", 1000) for _, _, message in reports]
    else:
        found = failure(one(work), "work", secrets={"KEY": SECRET})
        texts = [(found.message, 1000), (found.traceback, 16_000)]
    assert texts
    for text, limit in texts:
        assert len(text) <= limit
        # What is short enough comes whole, and the host redacts it.
        assert parts_of(SECRET, text.replace(SECRET, "").replace(repr(SECRET.encode("utf-16")), "")) == []


@pytest.mark.parametrize("offset", range(0, len(SECRET), 3))
def test_the_beginning_of_a_traceback_that_is_cut_holds_no_part_of_a_secret(offset: int):
    def work() -> None:
        raise ValueError(require_secret("KEY") + "\n" + "x" * (16_000 - len("…\n") - offset))

    found = failure(one(work), "work", secrets={"KEY": SECRET})
    assert found.traceback.startswith("…")
    assert len(found.traceback) <= 16_000
    assert parts_of(SECRET, found.traceback) == []
