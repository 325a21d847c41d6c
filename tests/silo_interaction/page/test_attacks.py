"""Attacks on the page by an agent on the same machine, hostile web pages, and a program that takes the port later."""

import http.cookiejar
import json
import logging
import socket
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from email.message import Message
from urllib.parse import urlencode

import httpx
import pytest
from silo_interaction import Question, WantedSecret
from silo_interaction.page.guard import HEADERS

PATIENCE_S = 300.0

SECRET_WORDS = "delete-everything-of-acme"
QUESTION = Question("Run " + SECRET_WORDS, "an agent", (("tool", SECRET_WORDS),), arguments=(("repo", SECRET_WORDS),))
WANTED = Question("Type in TOKEN", "an agent", wanted=WantedSecret("TOKEN", "a token", "the vault of this machine"))


# --- links ------------------------------------------------------------------------------------------------------------


def test_a_link_shows_an_unpaired_browser_nothing_of_the_question_and_is_not_used_up(board, page, stranger, paired):
    posted = board.post(QUESTION)
    token = board.new_link(posted)
    answer = stranger().get(f"/q/{token}")
    assert answer.status_code == 200
    assert SECRET_WORDS not in answer.text
    assert posted.id not in answer.text
    assert posted.digest not in answer.text
    assert board.bound_to(token) is None
    person = paired()
    assert person.get(f"{person.home}follow/{token}").headers["location"] == f"{person.home}q/{posted.id}"


def test_a_link_that_exists_and_one_that_does_not_look_the_same(board, stranger, read):
    token = board.new_link(board.post(QUESTION))
    browser = stranger()
    answers = [browser.get(f"/q/{one}") for one in (token, token[::-1])]
    pages = [answer.text.replace(token, "T").replace(token[::-1], "T") for answer in answers]
    fields = [read(answer.text).fields["form"] for answer in answers]
    assert pages[0].replace(fields[0], "F") == pages[1].replace(fields[1], "F")
    assert answers[0].status_code == answers[1].status_code


def test_a_link_that_one_session_followed_leads_no_other_session_anywhere(board, paired):
    token = board.new_link(board.post(QUESTION))
    first, second = paired(), paired()
    assert first.get(f"{first.home}follow/{token}").status_code == 303
    answer = second.get(f"{second.home}follow/{token}")
    assert answer.status_code == 410
    assert SECRET_WORDS not in answer.text
    assert first.get(f"{first.home}follow/{token}").status_code == 303


def test_pairing_from_a_link_leads_to_its_question(board, page, stranger, read):
    posted = board.post(QUESTION)
    token = board.new_link(posted)
    browser = stranger()
    assert page.link(token) == f"{browser.base}/q/{token}"
    assert read(browser.get(f"/q/{token}").text).fields["token"] == token
    answer = browser.pair(board.new_code(), token=token)
    assert answer.headers["location"] == f"{browser.home}follow/{token}"


@pytest.mark.parametrize(
    "token", ["//evil.example/", "../../x" * 5, "a" * 16 + "\r\nSet-Cookie: a=b", "a" * 500, "é" * 20]
)
def test_a_link_that_is_none_never_becomes_an_address(board, stranger, token):
    browser = stranger()
    assert browser.pair(board.new_code(), token=token).headers["location"] == browser.home


# --- pairing ----------------------------------------------------------------------------------------------------------


def test_a_code_is_good_for_one_session(board, stranger):
    code = board.new_code()
    assert stranger().pair(code).status_code == 303
    assert stranger().pair(code).status_code == 403


def test_codes_are_read_as_people_type_them(board, stranger):
    code = board.new_code()
    typed = code.lower().replace("1", "l").replace("0", "o").replace("-", " ")
    assert stranger().pair(typed).status_code == 303


def test_after_ten_wrong_codes_even_a_right_one_has_to_wait(board, clock, stranger):
    attacker = stranger()
    for _ in range(10):
        assert attacker.pair("ZZZZ-ZZZZ").status_code == 403
    asked = len(board.redeemed)
    code = board.new_code()
    answer = stranger().pair(code)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 600
    assert len(board.redeemed) == asked
    clock.ahead_s += 601
    assert stranger().pair(code).status_code == 303


def test_a_pairing_form_is_ours_and_young(board, clock, stranger, read):
    browser = stranger()
    code = board.new_code()
    form = read(browser.get("/").text).fields["form"]
    for bad in ("", "x", form[:-1], form[::-1], f"9{form}", "é.é"):
        assert browser.post("/pair", {"code": code, "form": bad}).status_code == 403
    clock.ahead_s += 601
    assert browser.post("/pair", {"code": code, "form": form}).status_code == 403
    assert board.redeemed == []


def test_the_cookie_goes_to_its_place_only_and_so_to_no_other_server_of_this_machine(page, board, paired):
    """Cookies ignore ports: with `Path=/` this one would be sent to an agent's server on another port."""
    jar = http.cookiejar.CookieJar()
    answer = paired_answer(page, board)
    header = answer.headers["set-cookie"]
    place = answer.headers["location"]
    for part in ("HttpOnly", "SameSite=strict", f"Path={place}", "Max-Age="):
        assert part in header
    assert "domain" not in header.lower()
    base = page.start()
    jar.extract_cookies(_Urllib(answer), urllib.request.Request(f"{base}/pair"))
    for address, is_sent in (
        (f"{base}{place}", True),
        (f"{base}/", False),
        (f"{base}/q/abc", False),
        (f"{base}/s/other/", False),
        ("http://127.0.0.1:1/", False),
    ):
        request = urllib.request.Request(address)
        jar.add_cookie_header(request)
        assert request.has_header("Cookie") is is_sent, address


def paired_answer(page, board) -> httpx.Response:
    base = page.start()
    with httpx.Client(base_url=base, trust_env=False) as client:
        form = client.get("/").text.split('name="form" value="')[1].split('"')[0]
        return client.post("/pair", data={"code": board.new_code(), "form": form}, headers={"Origin": base})


class _Urllib:
    """A response as `http.cookiejar` expects it."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    def info(self):
        message = Message()
        for value in self._answer.headers.get_list("set-cookie"):
            message["Set-Cookie"] = value
        return message


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_neither_the_place_nor_the_cookie_opens_anything_alone(board, person, stranger, paired):
    board.post(QUESTION)
    cookie = next(iter(person.client.cookies.jar)).value
    other = paired()
    thief = stranger()
    for home, value in (
        (person.home, "x"),
        (person.home, ""),
        ("/s/AAAAAAAAAAAAAAAAAAAAAA/", cookie),
        (other.home, cookie),
    ):
        answer = thief.client.get(home, headers={"Cookie": f"silo_page={value}"})
        assert answer.status_code == 404
        assert SECRET_WORDS not in answer.text
    assert thief.client.get(person.home, headers={"Cookie": f"silo_page={cookie}"}).status_code == 200


def test_what_exists_and_what_does_not_look_the_same_without_a_session(board, person, stranger, read):
    posted = board.post(QUESTION)
    token = board.new_link(posted)
    thief = stranger()
    pages = set()
    for home in (person.home, "/s/AAAAAAAAAAAAAAAAAAAAAA/"):
        for path in ("", f"q/{posted.id}", "q/0000000000000000", "events"):
            answer = thief.get(home + path)
            assert answer.status_code == 404
            text = answer.text.replace(home.split("/")[2], "P")
            pages.add(text.replace(read(answer.text).fields["form"], "F"))
    assert len(pages) == 1
    for one in (token, token[::-1]):
        assert thief.get(f"{person.home}follow/{one}").status_code == 404
    assert board.bound_to(token) is None


def test_another_servers_cookie_of_the_same_name_neither_opens_nor_blocks_the_page(person):
    cookie = next(iter(person.client.cookies.jar)).value
    for header in (f"silo_page=evil; silo_page={cookie}", f"silo_page={cookie}; silo_page=evil"):
        assert person.client.get(person.home, headers={"Cookie": header}).status_code == 200


def test_a_session_ends_by_time_and_by_signing_out(board, clock, paired, page):
    person, other = paired(), paired()
    csrf = {"csrf": read_csrf(person)}
    assert person.post(f"{person.home}leave", csrf).status_code == 200
    assert person.get(person.home).status_code == 404
    assert other.get(other.home).status_code == 200
    clock.ahead_s += 12 * 3600 + 1
    assert other.get(other.home).status_code == 404
    assert not page.has_session


def read_csrf(browser) -> str:
    return browser.get(browser.home).text.split('name="csrf" value="')[1].split('"')[0]


def test_no_session_outlives_the_page(board, page, person):
    jar = person.client.cookies
    page.stop()
    assert not page.has_session
    base = page.start()
    with httpx.Client(base_url=base, cookies=jar, trust_env=False) as client:
        assert client.get(person.home).status_code == 404


# --- forged requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("csrf", ["", "x", "é"])
def test_a_decision_without_the_forms_token_decides_nothing(board, person, csrf):
    posted = board.post(QUESTION)
    assert person.decide(posted, "approve", csrf=csrf).status_code == 403
    assert board.answers == []


def test_the_forms_token_of_another_session_decides_nothing(board, paired):
    posted = board.post(QUESTION)
    person, other = paired(), paired()
    assert person.decide(posted, "approve", csrf=read_csrf(other)).status_code == 403
    assert board.answers == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"origin": "", "sec_fetch_site": ""},
        {"sec_fetch_dest": "iframe"},
        {"content_type": "text/plain"},
        {"content_type": "application/json"},
        {"content_type": "multipart/form-data; boundary=x"},
    ],
)
def test_a_form_that_another_page_sent_decides_nothing(board, person, headers):
    posted = board.post(QUESTION)
    assert person.decide(posted, "approve", headers).status_code in {403, 415}
    assert board.answers == []


@pytest.mark.parametrize("left", [{"origin": ""}, {"sec_fetch_site": ""}])
def test_one_sign_of_where_a_form_comes_from_is_enough(board, person, left):
    assert person.decide(board.post(QUESTION), "approve", left).status_code == 303


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_page_leads_into_the_paired_part_not_even_one_of_another_port(board, person, site):
    board.post(QUESTION)
    answer = person.get(person.home, sec_fetch_site=site)
    assert answer.status_code == 403
    assert SECRET_WORDS not in answer.text


def test_a_link_may_come_from_anywhere_but_only_as_a_page_of_its_own(stranger):
    browser = stranger()
    assert browser.get("/q/abc", sec_fetch_site="cross-site").status_code == 200
    assert browser.get("/q/abc", sec_fetch_site="cross-site", sec_fetch_dest="iframe").status_code == 403
    assert browser.get("/q/abc", sec_fetch_site="cross-site", sec_fetch_mode="cors").status_code == 403


@pytest.mark.parametrize("frame", ["iframe", "frame", "embed", "object"])
def test_nothing_opens_inside_another_page(person, frame):
    assert person.get(person.home, sec_fetch_site="same-origin", sec_fetch_dest=frame).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "127.1:{port}"]
)
def test_a_name_that_points_here_opens_nothing(board, person, host):
    """DNS rebinding: the browser would take the page for one of that host."""
    board.post(QUESTION)
    port = person.base.rpartition(":")[2]
    answer = person.get(person.home, host=host.format(port=port))
    assert answer.status_code == 421
    assert SECRET_WORDS not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_other_methods_are_refused(person, method):
    assert person.client.request(method, person.home).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/static/../app.py", "/static/", "/metrics"])
def test_nothing_is_served_that_nobody_meant_to(person, path):
    assert person.get(path).status_code == 404


def test_every_answer_carries_the_headers(board, person, stranger):
    posted = board.post(QUESTION)
    answers = [
        person.get(person.home),
        person.get(f"{person.home}q/{posted.id}"),
        person.get(f"{person.home}q/nothing"),
        person.get("/static/page.css"),
        person.get("/nothing"),
        person.get(person.home, host="evil.example"),
        person.get(person.home, sec_fetch_site="cross-site"),
        person.client.put(person.home),
        person.decide(posted, "nonsense"),
        person.decide(posted, "approve"),
        stranger().get("/"),
        stranger().pair("wrong"),
    ]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value], (answer.status_code, name)
        assert "server" not in answer.headers
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]


def test_no_page_has_anything_inline(board, person, read):
    posted = board.post(replace(QUESTION, danger="d", changes=("c",), grace_s=300, group="g"))
    for path in (person.home, f"{person.home}q/{posted.id}", "/", f"{person.home}q/x"):
        page = read(person.get(path).text)
        assert page.tags.count("script") == 1
        assert "style" not in page.tags
        assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]


# --- decisions --------------------------------------------------------------------------------------------------------


def test_a_decision_sent_twice_counts_once(board, person):
    posted = board.post(QUESTION)
    form = person.filled(posted, "approve")
    assert person.post(f"{person.home}q/{posted.id}", form).status_code == 303
    for choice in ("approve", "deny"):
        answer = person.post(f"{person.home}q/{posted.id}", form | {"choice": choice})
        assert answer.status_code == 410
        assert "was approved once" in answer.text
    assert len(board.answers) == 1


def test_what_was_swapped_after_it_was_shown_is_not_decided(board, person):
    posted = board.post(QUESTION)
    form = person.filled(posted, "approve")
    swapped = replace(QUESTION, title="Run something-else")
    board.put(replace(posted, question=swapped, digest=swapped.digest()))
    answer = person.post(f"{person.home}q/{posted.id}", form)
    assert answer.status_code == 409
    assert "Run something-else" in answer.text
    assert board.answers == []


@pytest.mark.parametrize("choice", ["approve", "grace"])
def test_a_yes_that_comes_sooner_than_anybody_reads_decides_nothing(board, person, clock, choice):
    """A second click, or a key that is held down, when the next question has come up under it."""
    posted = board.post(replace(QUESTION, grace_s=60))
    clock.stopped_at = time.time()
    form = person.filled(posted, choice)
    signed = form["shown"].rpartition(".")[2]
    for ahead_s, shown in ((-0.2, form["shown"]), (-60, form["shown"]), (0, ""), (0, "x"), (0, f"1.2.{signed}")):
        clock.ahead_s += ahead_s
        answer = person.post(f"{person.home}q/{posted.id}", form | {"shown": shown})
        clock.ahead_s -= ahead_s
        assert answer.status_code == 409
        assert "too quick" in answer.text
    assert board.answers == []
    assert person.post(f"{person.home}q/{posted.id}", form).status_code == 303


def test_a_no_may_be_quick(board, person):
    posted = board.post(QUESTION)
    hidden = person.open(posted).fields
    form = {"csrf": hidden["csrf"], "digest": hidden["digest"], "choice": "deny"}
    assert person.post(f"{person.home}q/{posted.id}", form).status_code == 303


def test_the_time_of_a_form_is_of_one_session(board, paired):
    person, other = paired(), paired()
    posted = board.post(QUESTION)
    form = person.filled(posted, "approve") | {"shown": other.filled(posted, "approve")["shown"]}
    assert person.post(f"{person.home}q/{posted.id}", form).status_code == 409
    assert board.answers == []


def test_a_sentence_in_the_field_for_the_code_keeps_nobody_from_pairing(board, stranger):
    """The window may have come up under somebody who was typing elsewhere."""
    browser = stranger()
    for text in ("Dear Sir or Madam,", "I am writing to you about", "yes", "a" * 200, "", "0000-000U", "é" * 8) * 3:
        answer = browser.pair(text)
        assert answer.status_code == 403
        assert "This is no code" in answer.text
    assert board.redeemed == []
    assert browser.pair(board.new_code()).status_code == 303


def test_the_digest_of_another_question_decides_nothing(board, person):
    one, other = board.post(QUESTION), board.post(replace(QUESTION, title="harmless"))
    assert person.decide(one, "approve", digest=other.digest).status_code == 409
    assert person.decide(one, "approve", digest="").status_code == 409
    assert board.answers == []


@pytest.mark.parametrize("choice", ["", "yes", "APPROVE", "approve ", "grace", "give"])
def test_a_choice_that_the_question_does_not_offer_decides_nothing(board, person, choice):
    assert person.decide(board.post(QUESTION), choice, value="x").status_code == 400
    assert board.answers == []


@pytest.mark.parametrize("choice", ["approve", "grace"])
def test_a_wanted_secret_can_not_be_approved_without_one(board, person, choice):
    assert person.decide(board.post(WANTED), choice).status_code == 400
    assert person.decide(board.post(WANTED), "give", value="").status_code == 400
    assert board.answers == []


def raw(person, body: bytes, posted, **headers: str) -> httpx.Response:
    sent = {"Origin": person.base, "Content-Type": "application/x-www-form-urlencoded"} | headers
    return person.client.post(f"{person.home}q/{posted.id}", content=body, headers=sent)


@pytest.mark.parametrize(
    "tail", [b"&choice=approve", b"&csrf=x", b"&x=%ff", b"&x=\xff", b"&a=1" * 20, b"&digest=", b"&value=%ed%a0%80"]
)
def test_an_odd_form_decides_nothing(board, person, tail):
    posted = board.post(QUESTION)
    body = urlencode(person.filled(posted, "approve")).encode()
    assert raw(person, body + tail, posted).status_code == 400
    assert raw(person, b"", posted).status_code == 400
    assert board.answers == []
    assert raw(person, body, posted).status_code == 303


def test_a_form_that_is_too_large_is_not_read(board, person):
    posted = board.post(WANTED)
    hidden = person.open(posted).fields
    form = {"csrf": hidden["csrf"], "digest": hidden["digest"], "choice": "give"}
    assert person.post(f"{person.home}q/{posted.id}", form | {"value": "v" * 70_000}).status_code == 413
    chunks = (b"a" * 1000 for _ in range(100))  # sent without a Content-Length
    headers = {"Origin": person.base, "Content-Type": "application/x-www-form-urlencoded"}
    address = f"{person.home}q/{posted.id}"
    assert person.client.post(address, content=chunks, headers=headers).status_code == 413
    assert board.answers == []
    assert person.post(f"{person.home}q/{posted.id}", form | {"value": "v" * 60_000}).status_code == 303


# --- secrets that are typed in ----------------------------------------------------------------------------------------


def test_a_typed_secret_is_in_no_answer_and_in_no_log(board, person, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "s3cret-" * 9
    posted, other = board.post(WANTED), board.post(WANTED)
    answers = [
        person.decide(posted, "give", value=secret, digest="0" * 64),
        person.decide(posted, "nonsense", value=secret),
        person.decide(posted, "deny", value=secret, reason="x" * 501),
        person.decide(posted, "give", {"origin": "null"}, value=secret),
        person.decide(posted, "give", value=secret, keep="yes"),
        person.get(f"{person.home}q/{posted.id}"),
        person.decide(other, "deny", value=secret),
        person.get(person.home),
    ]
    assert [answer.status_code for answer in answers] == [409, 400, 400, 403, 303, 410, 303, 200]
    for answer in answers:
        assert secret not in answer.text
        assert secret not in str(answer.headers)
    assert secret not in caplog.text
    (_, given, _), (_, denied, _) = board.answers
    assert (given.value, given.keep) == (secret, True)
    assert (denied.value, denied.approved) == (None, False)


def test_a_board_that_breaks_on_a_secret_gives_it_to_nobody(board, person, caplog, until):
    posted = board.post(WANTED)
    board.is_broken = True
    answer = person.decide(posted, "give", value="s3cret-value")
    assert answer.status_code == 500
    assert "s3cret-value" not in answer.text
    until(lambda: "ValueError" in caplog.text)
    assert "s3cret-value" not in caplog.text
    assert person.home.split("/")[2] not in caplog.text


# --- load -------------------------------------------------------------------------------------------------------------


def test_failing_requests_in_great_number_hold_up_none_that_succeeds(board, person, stranger):
    thief = stranger()
    statuses = {thief.get(f"/s/guess-{number}/").status_code for number in range(130)}
    assert statuses == {404, 429}
    assert person.get(person.home).status_code == 200
    assert person.decide(board.post(QUESTION), "approve").status_code == 303


def test_there_are_no_more_than_eight_streams(page, board, person, until):
    streams = [person.client.stream("GET", f"{person.home}events") for _ in range(8)]
    opened = [stream.__enter__() for stream in streams]
    try:
        assert {answer.status_code for answer in opened} == {200}
        until(lambda: page.has_viewer)
        assert person.client.get(f"{person.home}events").status_code == 503
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
    until(lambda: not page.has_viewer)


def test_connections_that_send_nothing_do_not_keep_the_page_from_stopping(page, person):
    port = int(page.start().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as silent, socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"POST /pair HTTP/1.1\r\nHost: ")
        page.stop()
        for connection in (silent, half):
            connection.settimeout(PATIENCE_S)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def test_there_are_no_more_than_sixty_four_connections(page, stranger, until):
    port = int(page.start().rpartition(":")[2])
    many = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(80)]
    try:
        with pytest.raises(httpx.HTTPError):
            stranger().get("/")
    finally:
        for connection in many:
            connection.close()
    until(lambda: is_served(stranger()))


def is_served(browser) -> bool:
    try:
        return browser.get("/").status_code == 200
    except httpx.HTTPError:
        return False


def test_what_is_no_http_gets_no_answer(page):
    port = int(page.start().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"\x16\x03\x01\x00\xf0hello\r\n\r\n")
        assert connection.recv(100) == b""


# --- the stream -------------------------------------------------------------------------------------------------------


def test_an_open_page_learns_what_happens_on_the_board(page, board, person):
    first = board.post(QUESTION)
    with person.client.stream("GET", f"{person.home}events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lists = (
            json.loads(text.removeprefix("data: "))["waiting"]
            for text in answer.iter_lines()
            if text.startswith("data")
        )
        assert first.id in next(lists, [])
        second = board.post(QUESTION)
        seen = next(ids for ids in lists if second.id in ids)
        assert set(seen) == {first.id, second.id}


def test_a_stream_needs_a_session(page, person, stranger):
    assert stranger().get(f"{person.home}events").status_code == 404
