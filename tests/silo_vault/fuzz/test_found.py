"""Single inputs that once broke a rule, or are close to breaking one. The name of each file says what is odd about it.

The findings of the fuzzers go into `found/`. Each is the golden file `v1-raw-key.vault` with one change.
"""

import sys
from pathlib import Path

import pytest

FOUND = sorted(Path(__file__).with_name("found").iterdir())
GOLDEN = sorted(Path(__file__).parent.with_name("golden").glob("*.vault"))
ACCEPTED = {
    "both-names-empty",
    "escape-of-a-lone-surrogate",
    "header-of-64-kib",
    "integer-of-19-digits",
    "keys-differ-in-case-only",
    "nul-in-an-unknown-kind",
    "order-by-code-point-not-utf-16",
}
"""These are odd but well-formed. A stricter parser would refuse or lose what a newer program wrote."""
EITHER = {"brackets-985-deep", "integer-of-4000-digits", "number-with-a-fraction"}
"""The parser may accept or refuse these; no rule depends on it."""


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_a_file_that_was_found_keeps_the_rules(check, check_memory, file):
    document = check(file.read_bytes())
    if file.stem not in EITHER:
        assert (document is not None) == (file.stem in ACCEPTED)
    check_memory(file.read_bytes())


def test_each_file_that_is_named_above_is_there():
    assert {file.stem for file in FOUND} >= ACCEPTED | EITHER


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_no_depth_of_nesting_breaks_the_rules(check, oracle, opening):
    """Past bug: Python's JSON reader accepted a depth at which its writer raised a RecursionError."""
    good = next(file for file in GOLDEN if file.stem == "v1-raw-key").read_bytes()
    header = good[14 : 14 + int.from_bytes(good[10:14], "big")].decode()
    closing, inner = ("]", "") if opening == "[" else ("}", "0")
    limit = sys.getrecursionlimit()
    for depth in [*range(1, 30), *range(limit - 200, limit + 10)]:
        value = f'{{"a":{opening * depth}{inner}{closing * depth},"kind":"new"}},'
        check(oracle.framed(header.replace('"wraps":[', f'"wraps":[{value}').encode()))
