from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.policy.visible import with_expected
from silo.server.protocol.listing import CursorInvalid, Listing, page, wire_name

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


def listing_of(fakes, *tools, **expected):
    skills = [
        fakes.make_skill(name, *(t for t in tools if t.skill == name)) for name in sorted({t.skill for t in tools})
    ]
    verdicts = {tool.id: expected.get(tool.id.replace(".", "_"), "runs") for tool in tools}
    return Listing(with_expected(skills, verdicts))


def test_tool_is_found_by_its_cut_name(fakes):
    tool = fakes.make_tool(f"skill.{'x' * 64}")
    listing = listing_of(fakes, tool)
    assert listing.find(wire_name(tool.id)) is tool
    assert listing.find(tool.id) is tool
    assert listing.find("skill") is None


def test_denied_tool_is_neither_listed_nor_shown_and_still_found_by_its_name(fakes):
    read, write, own = (fakes.make_tool(name) for name in ("file.read", "file.write", "shell.run"))
    listing = listing_of(fakes, read, write, own, file_write="denied", shell_run="denied")
    assert listing.tools == (read,)
    assert [(skill.namespace, skill.tools) for skill in listing.skills] == [("file", (read,))]
    assert listing.show("file.write") is listing.show("shell__run") is None
    assert listing.find("file.write") is write
    assert listing.find("shell__run") is own
    assert listing.listed("direct", 0, cost=lambda tool: 1, usage={}) == (read,)


def listed(listing, budget, usage=None, expose="auto"):
    return [
        tool.id for tool in listing.listed(expose, budget, cost=lambda tool: len(tool.description), usage=usage or {})
    ]


def test_all_tools_are_listed_as_long_as_they_fit_and_then_those_that_were_used_most(fakes):
    tools = [fakes.make_tool(f"a.t{n}", description="x" * 10) for n in range(9)]
    listing = listing_of(fakes, *tools)
    assert len(listed(listing, 90)) == 9
    assert listed(listing, 89) == []
    usage = {"a.t3": 5, "a.t1": 7, "a.t2": 7, "a.t8": 100, "a.t5": 2, "gone.tool": 9}
    assert listed(listing, 89, usage) == ["a.t1", "a.t2", "a.t3", "a.t8"]
    assert listed(listing, 30, usage) == ["a.t1", "a.t2", "a.t8"]
    assert listed(listing, 0, usage) == []
    assert listed(listing, 30, usage, expose="router") == []


def test_a_tool_that_costs_too_much_leaves_its_place_to_the_next(fakes):
    tools = [fakes.make_tool("a.big", description="x" * 90), fakes.make_tool("a.small", description="x" * 10)]
    listing = listing_of(fakes, *tools)
    assert listed(listing, 50, {"a.big": 9, "a.small": 5}) == ["a.small"]


@given(st.dictionaries(st.sampled_from([f"a.t{n}" for n in range(9)]), st.integers(0, 20)), st.integers(0, 100))
def test_what_is_listed_fits_the_budget_and_depends_on_nothing_but_usage(fakes, usage, budget):
    listing = listing_of(fakes, *(fakes.make_tool(f"a.t{n}", description="x" * (n + 1)) for n in range(9)))
    found = listed(listing, budget, usage)
    assert sum(int(name[-1]) + 1 for name in found) <= budget
    assert found == sorted(found) == listed(listing, budget, dict(reversed(usage.items())))


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
