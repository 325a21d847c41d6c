import asyncio
import threading

import pytest

from silo import SecretUnavailable, report_progress, require_secret, require_secret_bytes
from silo.sdk.context import open_call

Report = tuple[float, float | None, str | None]


def test_a_declared_secret_is_returned():
    with open_call(secrets={"TOKEN": "hunter2"}):
        assert require_secret("TOKEN") == "hunter2"


def test_an_undeclared_secret_is_refused_and_the_line_to_add_named():
    with open_call(secrets={"TOKEN": "hunter2"}), pytest.raises(SecretUnavailable) as caught:
        require_secret("OTHER")
    assert "[tool.silo.secrets.OTHER]" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_outside_of_a_call_there_are_no_secrets():
    with pytest.raises(SecretUnavailable, match="not at import and not in a warmup"):
        require_secret("TOKEN")


def test_after_the_call_its_secrets_are_gone():
    with open_call(secrets={"TOKEN": "hunter2"}):
        pass
    with pytest.raises(SecretUnavailable, match="only while a tool runs"):
        require_secret("TOKEN")


def test_a_secret_is_asked_for_by_name():
    with open_call(secrets={}), pytest.raises(TypeError, match="name of a secret"):
        require_secret(1)  # type: ignore[arg-type]


def test_secrets_reach_threads_of_both_kinds():
    found: list[str] = []
    with open_call(secrets={"TOKEN": "hunter2"}):
        thread = threading.Thread(target=lambda: found.append(require_secret("TOKEN")))
        thread.start()
        thread.join()
        found.append(asyncio.run(asyncio.to_thread(require_secret, "TOKEN")))
    assert found == ["hunter2", "hunter2"]


def test_a_second_call_in_one_process_is_refused_and_leaves_the_first_alone():
    with open_call(secrets={"A": "1"}):
        with pytest.raises(RuntimeError, match="already running"), open_call(secrets={"A": "2"}):
            pass
        assert require_secret("A") == "1"


def test_progress_is_passed_on():
    seen: list[Report] = []
    with open_call(secrets={}, emit=lambda *report: seen.append(report)):
        report_progress(1)
        report_progress(2, 10, "two")
        report_progress(0.5, total=1.0)
    assert seen == [(1, None, None), (2, 10, "two"), (0.5, 1.0, None)]


def test_progress_outside_of_a_call_does_nothing():
    report_progress(1, 2, "nobody listens")


def test_no_progress_follows_the_end_of_a_call():
    seen: list[Report] = []
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(10)
        report_progress(1)
        done.set()

    thread = threading.Thread(target=late)
    with open_call(secrets={}, emit=lambda *report: seen.append(report)):
        thread.start()
    go.set()
    assert done.wait(10)
    thread.join()
    assert seen == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 2**60])
def test_progress_is_a_number_that_json_and_the_other_side_know(number: float):
    with pytest.raises(ValueError, match="finite"):
        report_progress(number)
    with pytest.raises(ValueError, match="finite"):
        report_progress(0, number)


@pytest.mark.parametrize("number", ["1", True, None, 1j])
def test_progress_is_a_number(number: object):
    if number is None:
        report_progress(0, number)
        return
    with pytest.raises(TypeError, match="is a number"):
        report_progress(number)  # type: ignore[arg-type]


def test_a_message_is_cut_and_made_printable_for_the_wire():
    seen: list[Report] = []
    with open_call(secrets={}, emit=lambda *report: seen.append(report)):
        report_progress(1, None, "\ud800" + "x" * 2000)
    message = seen[0][2]
    assert message is not None
    assert len(message) == 1000
    message.encode()


def test_a_binary_secret_comes_as_bytes_and_never_as_text():
    with open_call(secrets={"STORE": "\udcff\0k", "TOKEN": "grüße"}):
        assert require_secret_bytes("STORE") == b"\xff\0k"
        assert require_secret_bytes("TOKEN") == "grüße".encode()
        with pytest.raises(SecretUnavailable, match="is binary; call require_secret_bytes"):
            require_secret("STORE")
        with pytest.raises(SecretUnavailable, match="not declared"):
            require_secret_bytes("OTHER")
    with pytest.raises(SecretUnavailable, match="outside of a tool"):
        require_secret_bytes("STORE")
