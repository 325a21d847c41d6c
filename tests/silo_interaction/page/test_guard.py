"""The pure parts of the guard and of the sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_interaction.page.forms import parse_form
from silo_interaction.page.guard import Refused, check
from silo_interaction.page.sessions import RateLimit, Sessions, normalize_code

AUTHORITY = "127.0.0.1:4711"
HOST = (b"host", AUTHORITY.encode())
FORM = (b"content-type", b"application/x-www-form-urlencoded")
ORIGIN = (b"origin", b"http://127.0.0.1:4711")


@given(st.binary(max_size=40).filter(lambda host: host != AUTHORITY.encode()), st.sampled_from(["GET", "POST", "PUT"]))
def test_any_other_host_is_refused_whatever_else_is_right(host, method):
    refusal = check(method, "/", [(b"host", host), FORM, ORIGIN], AUTHORITY)
    assert refusal is not None
    assert refusal.status == 421


@given(st.text(max_size=40).filter(lambda origin: origin != ORIGIN[1].decode()))
def test_any_other_origin_is_refused(origin):
    sent = [HOST, FORM, (b"origin", origin.encode("latin-1", "replace")), (b"sec-fetch-site", b"same-origin")]
    assert check("POST", "/pair", sent, AUTHORITY) is not None


@pytest.mark.parametrize("name", [b"host", b"origin", b"content-type", b"sec-fetch-site"])
def test_a_header_that_comes_twice_is_refused(name):
    sent = {
        b"host": HOST,
        b"origin": ORIGIN,
        b"content-type": FORM,
        b"sec-fetch-site": (b"sec-fetch-site", b"same-origin"),
    }
    assert check("POST", "/pair", list(sent.values()), AUTHORITY) is None
    refusal = check("POST", "/pair", [*sent.values(), sent[name]], AUTHORITY)
    assert refusal is not None
    assert refusal.status == 400


@given(st.binary(max_size=200))
def test_a_body_is_a_form_with_each_field_once_or_refused(body):
    try:
        fields = parse_form(body)
    except Refused:
        return
    assert fields
    assert all("\ufffd" not in value or b"%EF%BF%BD" in body.upper() for value in fields.values())


@given(st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=8, max_size=8), st.randoms())
def test_a_code_is_read_in_any_case_with_dashes_and_spaces_anywhere(symbols, random):
    typed = "".join(
        random.choice([symbol, symbol.lower()]) + random.choice(["", " ", "-", " - "]) for symbol in symbols
    )
    assert normalize_code(typed[:64]) == f"{symbols[:4]}-{symbols[4:]}"


@pytest.mark.parametrize(
    "typed", ["", "ABCD", "ABCD-EFGHJ", "UUUU-UUUU", "ABCD-EFG!", "٠٠٠٠-٠٠٠٠", "ßBCD-EFG", "A" * 9_999]
)
def test_what_can_not_be_a_code_is_none(typed):
    assert normalize_code(typed) == ""


def test_lookalikes_are_read_as_crockford_says():
    assert normalize_code("oil0-OIL1") == "0110-0111"


def test_a_limit_lets_so_many_through_and_opens_again():
    now = [1000.0]
    limit = RateLimit(3, 60.0, lambda: now[0])
    for _ in range(3):
        assert limit.wait_s == 0
        limit.add()
        now[0] += 10
    assert 0 < limit.wait_s <= 31
    now[0] += limit.wait_s
    assert limit.wait_s == 0


def test_sessions_end_by_time_and_the_seventeenth_ends_the_first():
    now = [1000.0]
    sessions = Sessions(life_s=60.0, now=lambda: now[0])
    opened = [sessions.open() for _ in range(17)]
    assert sessions.find(opened[0].path_secret, [opened[0].cookie_secret]) is None
    assert sessions.find(opened[16].path_secret, ["x", opened[16].cookie_secret]) == opened[16].session
    assert sessions.find(opened[16].path_secret, [opened[15].cookie_secret]) is None
    assert len({one.path_secret for one in opened} | {one.cookie_secret for one in opened}) == 34
    now[0] += 60
    assert not sessions.has_any


def test_a_session_holds_neither_of_its_secrets():
    opened = Sessions(life_s=60.0, now=lambda: 0.0).open()
    assert opened.path_secret not in repr(opened.session)
    assert opened.cookie_secret not in repr(opened.session)


def test_forms_are_worth_nothing_after_a_clear():
    sessions = Sessions(life_s=60.0, now=lambda: 1000.0)
    session, form = sessions.open().session, sessions.pairing_form()
    csrf = sessions.csrf(session)
    assert sessions.is_csrf(session, csrf)
    assert sessions.is_pairing_form(form)
    sessions.clear()
    assert not sessions.is_csrf(session, csrf)
    assert not sessions.is_pairing_form(form)
