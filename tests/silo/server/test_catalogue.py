from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.server.catalogue import Catalogue, CursorInvalid, page, wire_name

namespaces = st.from_regex(r"[a-z](_?[a-z0-9]){0,15}", fullmatch=True)
names = st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)


@given(namespaces, names)
def test_wire_name_fits_every_model_api(namespace, name):
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", wire_name(f"{namespace}.{name}"))


@given(st.sets(st.tuples(namespaces, names), max_size=20))
def test_two_tools_never_share_a_wire_name(ids):
    assert len({wire_name(f"{namespace}.{name}") for namespace, name in ids}) == len(ids)


def test_long_names_that_differ_at_the_end_stay_apart():
    one, other = (wire_name(f"skill.{'x' * 60}{end}") for end in ("one", "two"))
    assert one != other
    assert one.startswith("skill__xxx")


def test_short_name_is_the_plain_one():
    assert wire_name("github.list_issues") == "github__list_issues"


def test_tool_is_found_by_its_cut_name(fakes):
    tool = fakes.make_tool(f"skill.{'x' * 64}")
    catalogue = Catalogue.of((), (tool,))
    assert catalogue.find(wire_name(tool.id)) is tool
    assert catalogue.find(tool.id) is tool
    assert catalogue.find("skill") is None


@given(st.sets(st.text(max_size=20), max_size=40), st.integers(1, 10))
def test_pages_together_are_the_whole_list(keys, size):
    items = sorted(keys)
    seen, cursor = [], None
    for _ in range(len(items) + 1):
        found, cursor = page(items, str, cursor, size)
        assert len(found) <= size
        seen += found
        if cursor is None:
            break
    assert seen == items


@given(st.sets(st.text(max_size=5), min_size=3, max_size=20), st.data())
def test_removal_between_two_pages_skips_nothing_that_stays(keys, data):
    items = sorted(keys)
    first, cursor = page(items, str, None, 2)
    gone = data.draw(st.sampled_from(items))
    left = [item for item in items if item != gone]
    rest, _ = page(left, str, cursor, len(items))
    assert set(first) | set(rest) >= set(left)


@given(st.text(max_size=30))
def test_any_text_as_cursor_is_a_page_or_refused(cursor):
    with contextlib.suppress(CursorInvalid):
        assert page(["a", "b"], str, cursor, 1)[0] in (["a"], ["b"], [])


@pytest.mark.parametrize("cursor", ["", "MQ==", "Mjpi", "MTph\n", "x" * 2000, "\ud800"])
def test_what_is_not_a_cursor_of_ours_is_refused(cursor):
    with pytest.raises(CursorInvalid):
        page(["a", "b"], str, cursor, 1)
