import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.sdk.docstring import parse_docstring

GOOGLE = """Do it.

    More of it.

    Args:
        name (str, optional): the name,
            which goes on.

            And on: here.
        *parts: many
        a, b: two of them

    Returns:
        Nothing.
    """

NUMPY = """Do it.

    More of it.

    Parameters
    ----------
    name : str, optional
        the name,
        which goes on.

        And on: here.
    *parts
        many
    a, b : int
        two of them

    Returns
    -------
    None
    """

SPHINX = """Do it.

    More of it.

    :param str name: the name,
        which goes on.
        And on: here.
    :type name: str
    :param parts: many
    :keyword a: two of them
    :arg b: two of them
    :returns: nothing
    """

EXPECTED = {"name": "the name, which goes on. And on: here.", "parts": "many", "a": "two of them", "b": "two of them"}


@pytest.mark.parametrize(
    ("text", "rest"),
    [(GOOGLE, "Returns:\n    Nothing."), (NUMPY, "Returns\n-------\nNone"), (SPHINX, ":returns: nothing")],
    ids=["google", "numpy", "sphinx"],
)
def test_all_three_styles_say_the_same(text: str, rest: str):
    doc = parse_docstring(text)
    assert doc.parameters == EXPECTED
    assert doc.description == f"Do it.\n\nMore of it.\n\n{rest}"


def test_no_docstring_is_empty():
    assert parse_docstring(None) == parse_docstring("") == parse_docstring("  \n ")


def test_a_word_that_is_no_section_stays():
    text = "See Args: they matter.\n\nParameters\nare fun.\n\nNote:\n    keep: this\n"
    assert parse_docstring(text).description == text.strip()
    assert parse_docstring(text).parameters == {}


def test_prose_after_the_parameters_is_description():
    assert parse_docstring("A.\n\nArgs:\n    x: y\nLast words.").description == "A.\n\nLast words."
    assert parse_docstring("A.\n\nParameters\n---\nx\n    y\n\nLast words.").description == "A.\n\nLast words."


@settings(deadline=None)
@given(st.text())
def test_parsing_never_fails(text: str):
    parse_docstring(text)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["Args:", "    a: b", "  x", "Parameters", "----", "a : int", ":param a: b", "", "word"]))
)
def test_parsing_never_fails_on_pieces_of_sections(lines: list[str]):
    doc = parse_docstring("\n".join(lines))
    assert all("\n" not in text for text in doc.parameters.values())
