import copy
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import SecretInvalid
from silo_vault.secret import MAX_VALUE_BYTES, Secret, check_name, check_text, check_value

VALUE = "hunter2-hunter2"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "%s".__mod__, lambda secret: f"{secret!r:>40}", ascii])
def test_no_way_of_printing_a_secret_shows_its_value(show):
    shown = show(Secret("TOKEN", VALUE))
    assert VALUE not in shown
    assert "TOKEN" in shown


def test_a_secret_is_revealed_when_asked_to():
    assert Secret("TOKEN", VALUE).reveal() == VALUE


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, vars])
def test_a_secret_cannot_be_pickled_copied_or_taken_apart(leak):
    with pytest.raises(TypeError) as caught:
        leak(Secret("TOKEN", VALUE))
    assert VALUE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["A", "GITHUB_TOKEN", "A1", "A_", "A" * 128])
def test_a_name_like_an_environment_variable_is_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a", "1A", "_A", "A-B", "A B", "A.B", "A" * 129, "A\n", "Ä", "A\0", "ghp_0123456789"]
)
def test_any_other_name_is_refused_and_not_quoted(name):
    """A value that was pasted in place of the name must not get into a log."""
    with pytest.raises(SecretInvalid) as caught:
        check_name(name)
    assert "ghp_" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "value",
    ["", b"", "x" * (MAX_VALUE_BYTES + 1), "é" * (MAX_VALUE_BYTES // 2 + 1), b"x" * (MAX_VALUE_BYTES + 1), "\ud800"],
)
def test_a_value_that_breaks_a_rule_is_refused(value):
    for check in (check_value, check_text):
        with pytest.raises(SecretInvalid):
            check("TOKEN", value)


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\0", b"a\0b", "a\0b", "\udc80", "x\udcff"])
def test_what_is_not_text_is_a_binary_value_and_no_text(value):
    assert Secret("TOKEN", check_value("TOKEN", value).decode(errors="surrogateescape")).is_binary
    with pytest.raises(SecretInvalid) as caught:
        check_text("TOKEN", value)
    assert "--from-file" in caught.value.hint


@given(st.binary(min_size=1))
def test_any_bytes_are_kept_as_they_are(value):
    secret = Secret("TOKEN", check_value("TOKEN", value).decode(errors="surrogateescape"))
    assert secret.reveal_bytes() == value
    assert check_value("TOKEN", secret.reveal()) == value
    try:
        is_text = b"\0" not in value and bool(value.decode())
    except UnicodeError:
        is_text = False
    assert secret.is_binary is not is_text


def test_a_value_that_is_too_long_is_told_what_to_do_instead():
    with pytest.raises(SecretInvalid, match="5,000,000 bytes; 1,048,576 are allowed") as caught:
        check_value("TOKEN", b"x" * 5_000_000)
    assert "give the file to the tool" in caught.value.hint


def test_a_refused_value_is_not_in_the_traceback():
    with pytest.raises(SecretInvalid) as caught:
        check_text("TOKEN", b"sk-live-0123456789\xff")
    assert "sk-live" not in "".join(traceback.format_exception(caught.value, limit=0))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_other_value_is_kept_as_it_is(value):
    assert check_value("TOKEN", value).decode() == value
    assert check_value("TOKEN", value.encode()).decode() == value
