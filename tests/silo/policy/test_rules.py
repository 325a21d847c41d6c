"""Which patterns over tools are valid: one that can't match is a mistake, because it restricts nothing."""

import pytest

from silo.policy.rules import check_path, tool_glob


@pytest.mark.parametrize("pattern", ["*", "github.*", "github.delete_repo", "*.delete_*", "git*", "jwt.sig?", "a.b__c"])
def test_patterns_over_tools(pattern):
    assert tool_glob(pattern).text == pattern


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("github", "write 'github.*'"),
        ("github__delete", "write 'github.delete'"),
        ("a.b.c", "one dot"),
        ("GitHub.*", "isn't a pattern for tools"),
        ("github.[ab]", "isn't a pattern for tools"),
        ("github.* ", "isn't a pattern for tools"),
        ("", "isn't a pattern for tools"),
        ("g" * 201, "isn't a pattern for tools"),
    ],
)
def test_a_pattern_that_no_tool_can_match_is_refused(pattern, says):
    with pytest.raises(ValueError, match=r"pattern|matches no tool") as caught:
        tool_glob(pattern)
    assert says in str(caught.value)


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_a_path_has_no_empty_parts(path):
    with pytest.raises(ValueError, match="isn't a path"):
        check_path(path)


def test_a_path_is_in_the_form_in_which_python_has_names():
    assert check_path("cafe\u0301.x") == "café.x"
