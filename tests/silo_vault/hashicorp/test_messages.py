import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import KeyUnreachable
from silo_vault.hashicorp.messages import ServerAnswer, ServerRequest

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def answer(body: bytes, **options) -> ServerAnswer:
    return ServerAnswer.parse("https://vault", 200, body, retry_after=options.get("retry_after"))


@given(st.dictionaries(st.text(max_size=8), values, max_size=5))
def test_an_object_comes_back_as_it_was(body):
    assert answer(json.dumps(body).encode()).body == body


@given(st.binary())
def test_any_bytes_are_an_object_or_nothing(body):
    assert answer(body).body is None or isinstance(answer(body).body, dict)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": "\xff"}',
        b'{"a":' * 100_000,
        b'{"a": ' + b"1" * 10_000 + b"}",
    ],
)
def test_what_is_not_one_plain_object_says_nothing(body):
    assert answer(body).body is None
    with pytest.raises(KeyUnreachable, match="not HashiCorp Vault's"):
        answer(body).take(str, "a")


def test_a_value_of_another_type_is_not_taken():
    found = answer(b'{"data": {"ttl": true, "path": "secret/"}, "list": []}')
    assert found.take(str, "data", "path") == "secret/"
    for names in (("data", "ttl"), ("data", "none"), ("data", "path", "deeper"), ("list", "path")):
        with pytest.raises(KeyUnreachable):
            found.take(int, *names)


@given(st.text(min_size=6, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_what_was_sent_is_not_shown_even_if_the_server_says_it_back(token, before, after):
    request = ServerRequest("POST", "x", token, {"secret_id": "also-" + token})
    found = answer(json.dumps({"errors": [before + token + after]}).encode())
    assert found.error_text(request.hidden) == ""


@given(st.text())
def test_what_the_server_says_is_one_short_line(text):
    said = answer(json.dumps({"errors": [text]}).encode()).error_text(())
    assert said == "" or (said.startswith(": ") and said.isprintable() and len(said) <= 162)


@pytest.mark.parametrize("errors", [None, "text", [1, None], {"a": "b"}])
def test_errors_of_any_shape_are_read_without_failing(errors):
    found = answer(json.dumps({"errors": errors}).encode())
    assert not found.says("sealed")
    assert found.error_text(()) == ""


@pytest.mark.parametrize(("header", "wait_s"), [(None, 0), ("7", 7), ("soon", 0), ("-1", 0), ("99999", 0)])
def test_a_wait_is_taken_from_the_server_in_seconds_only(header, wait_s):
    assert answer(b"{}", retry_after=header).retry_after_s == wait_s
