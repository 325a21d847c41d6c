"""`examples/quick_call.py`."""

import asyncio

import pytest

from silo import File
from silo.model import Isolation, Logs, Result


@pytest.fixture(scope="module")
def example(load_script):
    return load_script("examples/quick_call.py")


class RecordedSyncRuntime:
    """Answers one call from a record, without `async`."""

    def __init__(self, answer: Result) -> None:
        self.answer = answer
        self.calls = []

    def call(self, tool, arguments):
        self.calls.append((tool, arguments))
        return self.answer


def answer(text, data, *, is_error=False) -> Result:
    return Result(text, data, True, (), is_error, Logs(), Isolation.MICROVM, {}, {"total": 0.1})


def test_the_token_is_returned_and_the_isolation_shown(example, runtime, capsys):
    assert asyncio.run(example.sign(runtime, "42")) == "h.p.s"
    assert runtime.calls == [("jwt.sign", {"claims": {"sub": "42"}})]
    assert capsys.readouterr().out.splitlines() == [
        "found: jwt.sign, jwt.verify, image.convert",
        "ran in: microvm, kernel 6.1.0, 0.005 s",
    ]


def test_a_table_goes_in_as_a_file(example, tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("a\n1\n")
    runtime = RecordedSyncRuntime(answer("", {"rows": [{"a": 1}]}))
    assert example.first_rows(runtime, path, limit=3) == [{"a": 1}]
    ((tool, arguments),) = runtime.calls
    assert tool == "table.query"
    assert arguments == {"data": File(b"a\n1\n", "text/csv", "sales.csv"), "sql": "FROM data", "limit": 3}


def test_a_failure_of_the_tool_ends_the_program_with_its_text(example, tmp_path):
    path = tmp_path / "empty.csv"
    path.touch()
    with pytest.raises(SystemExit, match="The file is empty"):
        example.first_rows(RecordedSyncRuntime(answer("The file is empty.", None, is_error=True)), path)
