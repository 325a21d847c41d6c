"""Random requests that schemathesis generates from the page's routes, with and without a session.

None may break the page, and each response must have the page's headers. `test_attacks` and `test_guard` test known
attacks one by one; this finds the ones that nobody thought of.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckContext, not_a_server_error
from silo_interaction import Question
from silo_interaction.page.app import build_app
from silo_interaction.page.feed import BoardFeed
from silo_interaction.page.guard import HEADERS
from silo_interaction.page.render import Renderer
from silo_interaction.page.sessions import Sessions

PATIENCE_S = 300.0

# A handler answers both GET and HEAD, and FastAPI gives them the same name in its description, which the page never
# serves.
pytestmark = pytest.mark.filterwarnings("ignore:Duplicate Operation ID:UserWarning")

SECRET_WORDS = "delete-everything-of-acme"
QUESTION = Question(SECRET_WORDS, "an agent", arguments=(("repo", SECRET_WORDS),), grace_s=60)

CASES = 10
"""For each route and method; in total they take some seconds."""

HEADERS_READ = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Content-Type", "Cookie")
"""Without Host and Content-Length: with false values the client gets no response, or hangs. `test_attacks` sends those
on a socket."""


def security_headers(ctx: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Every response has every header once."""
    for name, value in HEADERS.items():
        assert response.headers.get(name.lower()) == [value], f"{name}: {response.headers.get(name.lower())}"
    assert "server" not in response.headers


def routes(board) -> dict:
    """The routes as FastAPI describes them: without parameters and forms, which the page reads itself."""
    sessions = Sessions(life_s=1, now=lambda: 0.0)
    renderer = Renderer("silo")
    guarded = build_app(board, sessions, BoardFeed(board), authority="127.0.0.1:1", renderer=renderer, now=lambda: 0.0)
    return guarded.app.openapi()


def described(description: dict) -> dict:
    """Add what the page reads, with any text in it: the parts of addresses, some headers, and forms."""
    text = {"type": "string", "maxLength": 64}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = f"{method} {path}"
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": text} for name in re.findall(r"{(\w+)}", path)
            ] + [{"name": name, "in": "header", "required": False, "schema": text} for name in HEADERS_READ]
            if method == "post":
                fields = (
                    ("form", "code", "token")
                    if path == "/pair"
                    else ("csrf", "digest", "choice", "reason", "value", "keep")
                )
                form = {"type": "object", "properties": dict.fromkeys(fields, text), "required": list(fields[:3])}
                content = {"application/x-www-form-urlencoded": {"schema": form}}
                operation["requestBody"] = {"required": True, "content": content}
    return description


def attack(description: dict, known: dict[str, list[str]], base: str, **sent) -> list[tuple[str, int]]:
    """Send generated requests, always the same ones; return the route and the status of each.

    Args:
        description: the routes.
        known: valid values, by name. They replace most of the random ones, because otherwise no request would get far.
        base: the page's address.
        sent: cookies and headers to send with each request.
    """
    schema = schemathesis.openapi.from_dict(described(description))
    seen: list[tuple[str, int]] = []
    with requests.Session() as session:
        session.trust_env = False

        def send(case: schemathesis.Case, chance: random.Random) -> None:
            for part in (case.path_parameters, case.headers, case.body):
                for name in [name for name in known if isinstance(part, Mapping) and name in part]:
                    if chance.random() < 0.9:
                        part[name] = chance.choice(known[name])
            answer = case.call(base_url=base, session=session, allow_redirects=False, timeout=PATIENCE_S, **sent)
            seen.append((f"{case.method} {case.operation.path}", answer.status_code))
            case.validate_response(answer, checks=[not_a_server_error, security_headers])
            if "cookies" not in sent:
                assert SECRET_WORDS not in answer.text

        for found in schema.get_all_operations():
            cases = found.ok().as_strategy()
            settings(
                max_examples=CASES,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )(given(cases, st.randoms(use_true_random=False))(send))()
    return seen


@pytest.fixture
def posted(board):
    """Several of the same question, so that a decision leaves others."""
    return [board.post(QUESTION) for _ in range(12)]


def test_nothing_that_a_stranger_sends_breaks_the_page_or_shows_anything(board, page, person, posted):
    known = {
        "path_secret": [person.home.split("/")[2]],
        "question_id": [one.id for one in posted],
        "token": [board.new_link(posted[0])],
        "digest": [QUESTION.digest()],
        "choice": ["approve", "grace", "deny"],
        "name": ["page.css", "page.js", "icon.svg"],
        "Origin": [person.base, "null", "http://127.0.0.1:1"],
        "Sec-Fetch-Site": ["same-origin", "none", "same-site", "cross-site"],
        "Sec-Fetch-Mode": ["navigate", "cors"],
        "Sec-Fetch-Dest": ["document", "iframe"],
        "Cookie": ["silo_page=x", "silo_page=", "a; =; silo_page"],
    }
    seen = attack(routes(board), known, page.start())
    assert len({where for where, _ in seen}) >= 15  # routes times methods
    assert board.answers == []
    assert {status for _, status in seen} >= {200, 403, 404}


def test_nothing_that_a_paired_browser_sends_breaks_the_page(board, page, person, posted, read):
    fields = read(person.get(f"{person.home}q/{posted[0].id}").text).fields
    known = {
        "path_secret": [person.home.split("/")[2]],
        "question_id": [one.id for one in posted],
        "token": [board.new_link(one) for one in posted[:3]],
        "form": [read(person.get("/").text).fields["form"]],
        "code": [board.new_code() for _ in range(3)],
        "csrf": [fields["csrf"]],
        "digest": [QUESTION.digest()],
        "choice": ["approve", "grace", "deny"],
        "keep": ["yes"],
        "name": ["page.css", "page.js", "icon.svg"],
    }
    description = routes(board)
    del description["paths"]["/s/{path_secret}/events"]["get"]  # never ends; `test_attacks` reads it
    del description["paths"]["/s/{path_secret}/leave"]  # would end the session
    cookies = {cookie.name: cookie.value for cookie in person.client.cookies.jar}
    headers = {"Origin": page.start(), "Sec-Fetch-Site": "same-origin"}
    seen = attack(description, known, page.start(), cookies=cookies, headers=headers)
    reached = {
        "GET /s/{path_secret}/": 200,
        "GET /s/{path_secret}/q/{question_id}": 200,
        "GET /s/{path_secret}/follow/{token}": 303,
    }
    reached |= {"POST /pair": 303, "POST /s/{path_secret}/q/{question_id}": 303, "HEAD /s/{path_secret}/events": 200}
    assert set(seen) >= set(reached.items())
    assert board.answers
