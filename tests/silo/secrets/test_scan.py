"""The search in large texts finds exactly what the search in small ones does, which `test_finding.py` tests."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.errors import SandboxTimeout
from silo.sdk import finding, forms
from silo.sdk.finding import Finder, Markers
from silo.sdk.forms import Forms
from silo.secrets import scan
from silo.secrets.redaction import Redactor
from silo.testing.leaks import FORMS, written

PIECES = [
    *(b"%", b"25", b"41", b"\\", b"\\\\", b"u00", b"x", b"&", b"#", b";", b"amp;", b"#x41;", b"#65;", b"#039;", b"lt"),
    *(b"0x", b"0", b"x4", b"n", b"e4", b"%C3%A4", b"\\ud83d", b"\\u0416", b"\\u20ac", b" ", b"zz", b"A", b"\1", b"\2"),
]
ESCAPES = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join) | st.binary(max_size=60)

VALUES = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    | st.sampled_from(["aaaa", "aaaaaaaaaa", "abababababab", "1234", "12345678", "--ab12cd34ef--", "s3cr3t-Value"])
    | st.just("-----BEGIN X-----\nabcd\nefghijklmnop\n-----END X-----"),
    min_size=1,
    max_size=4,
)
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def no_tick():
    pass


@given(ESCAPES)
@settings(deadline=None)
def test_escapes_are_decoded_alike(data):
    assert scan.decoded(data, no_tick) == forms.decoded(data)


@pytest.mark.parametrize(
    ("few_candidates", "segment", "few_needles"),
    [
        pytest.param(32, 128 * 1024, 64, id="as it is"),
        pytest.param(0, 128 * 1024, 256, id="all are compared as arrays"),
        pytest.param(0, 16, 256, id="in small segments"),
        pytest.param(32, 16, 0, id="in small segments, one by one; a table of needles"),
    ],
)
@given(VALUES, st.data())
@SLOW
def test_both_searches_find_the_same(few_candidates, segment, few_needles, values, data):
    prepared = Forms.of(values)
    if not prepared:
        return
    pieces = st.sampled_from([*prepared.written, *(value.encode() for value in values), *PIECES]) | st.binary(
        max_size=4
    )
    text = b"".join(data.draw(st.lists(pieces, max_size=8)))
    with pytest.MonkeyPatch.context() as patch:  # the sizes decide which way is taken, and not what is found
        patch.setattr(scan, "_FEW_CANDIDATES", few_candidates)
        patch.setattr(scan, "SEGMENT", segment)
        patch.setattr(finding, "FEW", few_needles)
        spans, owners = Finder(prepared).spans(text)
        found = scan.Scanner(prepared).spans(text, no_tick)
    assert found.listed() == spans
    assert found.seen == owners
    names = [f"N{number}" for number in range(len(values))]
    assert scan.replaced_all(text, found, Markers(names)) == finding.replaced(text, spans, Markers(names))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found_across_the_segments_of_a_large_text(form):
    value = 'pä$s/"wörd\\42<&>9'
    shown = written(form, value)
    text = b"".join(b"-" * (scan.SEGMENT - 20 + number) + shown for number in range(0, 40, 4))
    cleaned = Redactor({"N": value}).raw(text)
    assert cleaned.count(b"[redacted:N]") == 10
    assert len(cleaned) < len(text) - 10 * len(shown) + 10 * (len(shown) + 12)


def test_many_short_values_give_the_short_marker_and_no_larger_text():
    text = b"1234 " * 500_000
    cleaned = Redactor({"PIN": "1234"}).raw(text)
    assert b"1234" not in cleaned
    assert len(cleaned) <= len(text)
    assert cleaned.endswith(b"*** *** ")
    assert Redactor({"PIN": "1234"}).raw(b"1234" * 500_000) == b"[redacted:PIN]"


@pytest.mark.parametrize("secret", ["1111", "1" * 40, "s3cr3t-Value-0123456789"])
def test_a_text_full_of_a_secret_comes_back_short(secret):
    assert Redactor({"N": secret}).raw(secret.encode() * (2_000_000 // len(secret))) == b"[redacted:N]"


def test_a_deadline_that_has_passed_ends_the_search_between_segments():
    now = iter(range(1000))
    redactor = Redactor({"N": "s3cr3t-Value"}, clock=lambda: next(now)).until(4)
    with pytest.raises(SandboxTimeout, match="removing secrets"):
        redactor.raw(b"x" * 20 * scan.SEGMENT)
    assert next(now) == 6
    assert redactor.until(10_000).raw(b"x" * 20 * scan.SEGMENT) == b"x" * 20 * scan.SEGMENT
