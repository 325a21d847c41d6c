"""`docs/reference/errors.md` has every code of `silo.errors`, with its class and exit status, and no other."""

from __future__ import annotations

import re

from silo import errors
from silo.wire.messages import FAILURE_CODES

_ENTRY = re.compile(r"^### `(?P<code>[a-z-]+)`\n\n(?P<first>.*?)(?=\n\n|\n-|\Z)", re.MULTILINE | re.DOTALL)


def _classes() -> dict[str, set[type[errors.SiloError]]]:
    found: dict[str, set[type[errors.SiloError]]] = {}
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.SiloError) and value is not errors.SiloError:
            found.setdefault(value.code, set()).add(value)
    return found


def _entries(pages) -> dict[str, str]:
    entries = {found["code"]: found["first"] for found in _ENTRY.finditer(pages["docs/reference/errors.md"])}
    assert entries, "the page's form has changed"
    return entries


def test_every_code_has_an_entry_and_no_entry_is_stale(pages):
    assert set(_entries(pages)) == set(_classes())


def test_each_entry_names_its_classes_and_its_exit_status(pages):
    for code, first in _entries(pages).items():
        for kind in _classes()[code]:
            assert f"`{kind.__name__}`" in first, f"{code} does not name {kind.__name__}"
            assert f"exit status {kind.exit_status}." in first, f"{code} has exit status {kind.exit_status}"


def test_the_wire_page_lists_the_codes_that_a_guest_may_report(pages):
    text = pages["docs/reference/wire.md"]
    missing = [code for code in sorted(FAILURE_CODES) if f"`{code}`" not in text]
    assert missing == []
